"""ChatGPT's export: `conversations.json` (or the .zip or folder that holds it, also in numbered parts).

A conversation is a tree: every regenerated answer and edited question is a branch. What counts as said is the
path from `current_node` back to the root, the one the user last saw; other branches are left out. Hidden
messages, reasoning and custom instructions are left out too, and counted in the notes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from mnemic.cube.errors import InvalidInput
from mnemic.plaintext.ingest.files.elements import Element, elements
from mnemic.plaintext.ingest.files.record import as_name, record_id, skip, tell_record
from mnemic.plaintext.ingest.files.source import Source, open_streams
from mnemic.plaintext.ingest.parts import as_json
from mnemic.plaintext.ingest.told import Skipped, Told

MEMBER: Final = re.compile(r"(?:^|/)conversations(?:-\d+)?\.json$")
EXPECTED: Final = "conversations.json of a ChatGPT or Claude export"
_NOT_SAID: Final = {
    "thoughts": "reasoning steps",
    "reasoning_recap": "reasoning steps",
    "user_editable_context": "copies of custom instructions",
    "model_editable_context": "copies of custom instructions",
}


def read(source: Source) -> Iterator[Told | Skipped]:
    for stream in open_streams(source, MEMBER, EXPECTED):
        for element in elements(stream, is_conversation):
            yield from _conversation(source, stream.name, element)


def is_conversation(value: object) -> bool:
    return isinstance(value, Mapping) and "mapping" in value


def _conversation(source: Source, file: str, element: Element) -> Iterator[Told | Skipped]:
    what = f"conversation {element.number}"
    value = element.value
    if element.problem or not is_conversation(value) or not isinstance(value["mapping"], Mapping):
        yield skip(
            file, element.line, element.problem or "is no conversation: it has no 'mapping'", what=what
        )
        return
    title = as_name(value.get("title"))
    session = as_name(value.get("conversation_id") or value.get("id"))
    session = session or record_id("chatgpt", None, value.get("create_time"), title or "")
    at = _time(value.get("create_time"))
    path, problem = _path(value["mapping"], value.get("current_node"))
    if problem:
        yield skip(file, element.line, problem, what=what)
    for position, (node, message) in enumerate(path):
        where = f"{what}, message {position + 1}"
        if not isinstance(message, Mapping):
            yield skip(file, element.line, "is not an object", what=where, id=as_name(node))
            continue
        at = _time(message.get("create_time")) or at
        try:
            told = _message(source, message)
        except InvalidInput as error:
            yield skip(file, element.line, error, what=where, id=as_name(message.get("id")))
            continue
        if told is not None:
            text, role, name, metadata = told
            yield tell_record(
                file, element.line, text, kind="chatgpt", position=position, what=where, role=role, name=name,
                at=at, id=message.get("id") or node, session=session, metadata={"title": title, **metadata},
            )  # fmt: skip


def _path(mapping: Mapping[str, Any], current: object) -> tuple[list[tuple[str, Any]], str]:
    """The messages from the root to `current_node`, and what is wrong with the way there, if anything."""
    node = current if isinstance(current, str) and current in mapping else _last_leaf(mapping)
    path, seen, problem = [], set[str](), ""
    while node is not None:
        if node in seen:
            problem = f"its messages go in a circle at {node!r}; those after it were read"
            break
        held = mapping.get(node)
        if not isinstance(held, Mapping):
            problem = (
                f"message {node!r:.80} is missing; what came before it cannot be found, what follows was read"
            )
            break
        seen.add(node)
        if held.get("message") is not None:
            path.append((node, held["message"]))
        parent = held.get("parent")
        node = parent if isinstance(parent, str) else None
    return path[::-1], problem


def _last_leaf(mapping: Mapping[str, Any]) -> str | None:
    """Where `current_node` is missing: the leaf told last."""
    leaves = {
        node: _time(message.get("create_time")) or 0.0
        if isinstance(message := held.get("message"), Mapping)
        else 0.0
        for node, held in mapping.items()
        if isinstance(held, Mapping) and not held.get("children")
    }
    return max(leaves, key=lambda node: leaves[node], default=None)


def _message(source: Source, message: Mapping[str, Any]) -> tuple[str, str, object, dict[str, Any]] | None:
    """(text, role, name, metadata), or None for what was never said."""
    content, extra = message.get("content"), message.get("metadata")
    extra = extra if isinstance(extra, Mapping) else {}
    author = message.get("author")
    if not isinstance(content, Mapping) or not isinstance(author, Mapping):
        raise InvalidInput("has no author or no content")
    kind = content.get("content_type")
    if kind in _NOT_SAID:
        source.count(_NOT_SAID[kind])
        return None
    parts: list[str] = []
    text = _text(content, parts)
    role = author.get("role")
    if not text.strip() and role in ("system", "tool", "assistant"):
        return None  # the empty root of every conversation, and steps that only the interface showed
    if extra.get("is_visually_hidden_from_conversation"):
        source.count("hidden messages")
        return None
    recipient = message.get("recipient")
    called = recipient if recipient not in (None, "all") else None
    metadata = {"parts": parts, "model": as_name(extra.get("model_slug")), "recipient": as_name(called)}
    return text, role if isinstance(role, str) else "", author.get("name"), metadata


def _text(content: Mapping[str, Any], parts: list[str]) -> str:
    if isinstance(content.get("parts"), list):
        return "\n".join(_part(part, parts) for part in content["parts"])
    for key in ("text", "result", "content"):
        if isinstance(content.get(key), str):
            return str(content[key])
    raise InvalidInput(f"content_type={content.get('content_type')!r:.80} is unknown and holds no text")


def _part(part: object, parts: list[str]) -> str:
    """Text as it is; a picture, recording or file as a placeholder that leaves its address in `parts`."""
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        return ""
    if isinstance(part.get("text"), str):
        return str(part["text"])
    kind = str(part.get("content_type", "file")).split("_")[0]
    kind = {"image": "image", "audio": "audio", "real": "audio", "video": "video"}.get(kind, "file")
    pointer = part.get("asset_pointer")
    parts.append(as_json({"type": kind, "url": pointer if isinstance(pointer, str) else None}))
    return f"[{kind}]"


def _time(value: object) -> float | None:
    return (
        float(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e11
        else None
    )
