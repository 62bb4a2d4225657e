"""Which format a path is in: by its kind, its name, and what it begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mnemic.cube.errors import InvalidFile
from mnemic.plaintext.ingest.files import chatgpt, claude, locomo, notes, whatsapp
from mnemic.plaintext.ingest.files.elements import elements
from mnemic.plaintext.ingest.files.source import Source, is_zip, matching, member_names, open_streams

_LOOKED_AT: Final = 100
_ADVICE: Final = "Say what it is with --format (chatgpt, claude, markdown, text, jsonl, whatsapp, locomo)."


def sniff(path: Path) -> str:
    """The name of the format. Raises InvalidFile when there is nothing there, or nothing that is known."""
    if not path.exists():
        raise InvalidFile(f"{path} does not exist. Check the name; the current folder is {Path.cwd()}.")
    if path.is_dir() or is_zip(path):
        return _container(path)
    suffix = path.suffix.lower()
    if suffix in notes.MARKDOWN:
        return "markdown"
    if suffix in (".jsonl", ".ndjson"):
        return "jsonl"
    head = _head(path)
    if suffix in (".txt", ".text"):
        return "whatsapp" if whatsapp.looks_like_chat(head) else "text"
    if head.lstrip("\ufeff \t\r\n")[:1] in ("[", "{"):
        return _json(path, head)
    if whatsapp.looks_like_chat(head):
        return "whatsapp"
    raise InvalidFile(f"{path.name} is in no known format. {_ADVICE}")


def _container(path: Path) -> str:
    names = member_names(path)
    if matching(names, chatgpt.MEMBER):
        return _json(path, "")
    if matching(names, whatsapp.MEMBER) and not path.is_dir():
        return "whatsapp"
    if path.is_dir():
        return "markdown"
    raise InvalidFile(
        f"{path.name} is a zip archive without {chatgpt.EXPECTED} or a WhatsApp chat. "
        "Unpack it and give the folder."
    )


def _json(path: Path, head: str) -> str:
    kinds = {
        "chatgpt": chatgpt.is_conversation,
        "claude": claude.is_conversation,
        "locomo": locomo.is_dialogue,
    }
    source = Source(path=path)
    for stream in open_streams(source, chatgpt.MEMBER, chatgpt.EXPECTED):
        try:
            found = elements(stream, lambda value: any(fits(value) for fits in kinds.values()))
            for element, _ in zip(found, range(_LOOKED_AT), strict=False):
                for name, fits in kinds.items():
                    if fits(element.value):
                        return name
        except InvalidFile:
            if '"role"' not in head and '"text"' not in head:
                raise
    if head.lstrip("\ufeff \t\r\n").startswith("{") and ('"role"' in head or '"text"' in head):
        return "jsonl"
    raise InvalidFile(
        f"{path.name} is JSON, but no ChatGPT or Claude export (no 'mapping' or 'chat_messages') and "
        "no LoCoMo file. A list of messages is read as JSONL: write one object a line (jq -c '.[]')."
    )


def _head(path: Path) -> str:
    for stream in open_streams(Source(path=path), None, "text"):
        return stream.read(65_536).decode(errors="surrogateescape")
    return ""
