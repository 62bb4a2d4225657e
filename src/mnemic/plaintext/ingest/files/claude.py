"""Claude's export: `conversations.json` with `chat_messages` (or the .zip or folder that holds it).

Text blocks are the message. Pasted and attached texts (`extracted_content`) are records of their own, of
origin imported. Reasoning and the results of tools are left out and counted in the notes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from mnemic.cube.errors import InvalidInput
from mnemic.cube.model import Origin
from mnemic.plaintext.ingest.files.chatgpt import EXPECTED, MEMBER
from mnemic.plaintext.ingest.files.elements import Element, elements
from mnemic.plaintext.ingest.files.record import as_name, record_id, skip, tell_record
from mnemic.plaintext.ingest.files.source import Source, open_streams
from mnemic.plaintext.ingest.parts import Content
from mnemic.plaintext.ingest.told import Skipped, Told

_ROLES: Final = {"human": "user", "user": "user", "assistant": "assistant", "system": "system"}


def read(source: Source) -> Iterator[Told | Skipped]:
    for stream in open_streams(source, MEMBER, EXPECTED):
        for element in elements(stream, is_conversation):
            yield from _conversation(source, stream.name, element)


def is_conversation(value: object) -> bool:
    return isinstance(value, Mapping) and "chat_messages" in value


def _conversation(source: Source, file: str, element: Element) -> Iterator[Told | Skipped]:
    what, value = f"conversation {element.number}", element.value
    if element.problem or not is_conversation(value) or not isinstance(value["chat_messages"], list):
        yield skip(
            file, element.line, element.problem or "is no conversation: it has no 'chat_messages'", what=what
        )
        return
    title = as_name(value.get("name"))
    session = as_name(value.get("uuid")) or record_id("claude", None, value.get("created_at"), title or "")
    at = value.get("created_at")
    for position, message in enumerate(_path(value)):
        where = f"{what}, message {position + 1}"
        if not isinstance(message, Mapping):
            yield skip(file, element.line, "is not an object", what=where)
            continue
        at = message.get("created_at") or at
        common: dict[str, Any] = {"kind": "claude", "position": position, "at": at, "session": session}
        yield from _message(source, file, element.line, where, message, title, common)


def _path(conversation: Mapping[str, Any]) -> list[Any]:
    """All messages in order; where the file names the leaf the user last saw, only those on the way to it."""
    messages: list[Any] = conversation["chat_messages"]
    known = {m["uuid"]: m for m in messages if isinstance(m, Mapping) and isinstance(m.get("uuid"), str)}
    node = conversation.get("current_leaf_message_uuid")
    if not isinstance(node, str) or node not in known:
        return messages
    path: dict[str, Any] = {}
    while isinstance(node, str) and node in known and node not in path:
        path[node] = known[node]
        node = known[node].get("parent_message_uuid")
    return list(path.values())[::-1]


def _message(
    source: Source,
    file: str,
    line: int,
    what: str,
    message: Mapping[str, Any],
    title: str | None,
    common: dict[str, Any],
) -> Iterator[Told | Skipped]:
    id = as_name(message.get("uuid"))
    try:
        role = _ROLES[str(message.get("sender"))]
        content = _content(source, message)
    except (InvalidInput, KeyError) as error:
        reason = f"sender={message.get('sender')!r:.80} is unknown" if isinstance(error, KeyError) else error
        yield skip(file, line, reason, what=what, id=id)
        return
    attached = [
        item for item in _listed(message, "attachments") if isinstance(item.get("extracted_content"), str)
    ]
    names = [
        as_name(item.get("file_name")) or "file"
        for key in ("files", "files_v2")
        for item in _listed(message, key)
    ]
    metadata = {"title": title, "files": list(dict.fromkeys(names)), "tool_calls": content.calls}
    text = (
        content.text
        if content.text.strip()
        else "\n".join(f"[file: {name}]" for name in metadata["files"] or ())
    )
    if text.strip() or not attached:
        yield tell_record(file, line, text, what=what, role=role, id=id, metadata=metadata, **common)
    for number, item in enumerate(attached):
        if item["extracted_content"].strip():
            named = {"title": title, "file_name": as_name(item.get("file_name"))}
            yield tell_record(
                file, line, item["extracted_content"], what=f"{what}, attachment {number + 1}", role=role,
                id=f"{id}:attachment:{number}" if id else None, origin=Origin.imported, metadata=named,
                **{**common, "position": f"{common['position']}:attachment:{number}"},
            )  # fmt: skip


def _content(source: Source, message: Mapping[str, Any]) -> Content:
    """The text and tool-use blocks; the flat `text` of old exports where there are no blocks with text."""
    found = Content()
    for block in _listed(message, "content"):
        kind = block.get("type")
        if kind == "text" and isinstance(block.get("text"), str):
            found.texts.append(block["text"])
        elif kind == "tool_use":
            found.add_call(
                block.get("name"), block.get("input"), {k: block.get(k) for k in ("id", "name", "input")}
            )
        elif kind == "thinking":
            source.count("reasoning steps")
        elif kind == "tool_result":
            source.count("results of tools")
        elif kind != "token_budget":
            source.count(f"blocks of type {kind!r:.40}")
    if not found.text.strip() and isinstance(message.get("text"), str):
        found.texts.append(message["text"])
    return found


def _listed(message: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    items = message.get(key)
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []
