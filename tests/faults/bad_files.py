"""Files that are no vaults, vaults that cannot be opened so, and exports that cannot be read."""

from __future__ import annotations

import io
import json
import sqlite3
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from desk import Case, Desk, Odd, fine

import mnemic
from mnemic.cube import errors as e


def place(what: str, error: type[e.MnemicError], says: str, where: Callable[[Desk], Any]) -> Case:
    return Case("open", what, error, says, lambda at: mnemic.open(where(at)).close())


def again(what: str, error: type[e.MnemicError], says: str, **options: Any) -> Case:
    """The vault of the desk, with these options."""
    return Case("open", what, error, says, lambda at: mnemic.open(at.path, **options).close())


def load(what: str, says: str, name: str, content: bytes | str | None, **options: Any) -> Case:
    return Case("load_file", what, e.InvalidFile, says, lambda at: at.load(name, content, **options))


def copy_of(at: Desk, name: str) -> Path:
    (at.folder / name).unlink(missing_ok=True)
    with sqlite3.connect(at.path) as source, sqlite3.connect(at.folder / name) as target:
        source.backup(target)
    return at.folder / name


def newer(at: Desk) -> Path:
    """A copy of the vault, as a later mnemic would leave it."""
    copy = copy_of(at, "newer.db")
    with sqlite3.connect(copy) as target:
        target.execute("UPDATE meta SET value = ? WHERE key = 'format'", (b"99",))
    return copy


def foreign(at: Desk) -> Path:
    with sqlite3.connect(at.folder / "other.db") as other:
        other.execute("CREATE TABLE invoice (number INTEGER)")
    return at.folder / "other.db"


def damaged(at: Desk, part: slice) -> None:
    """Open a copy that has zeros in place of some of its bytes, and read from it."""
    copy = copy_of(at, "damaged.db")
    content = bytearray(copy.read_bytes())
    content[part] = bytes(len(content[part]))
    copy.write_bytes(content)
    with mnemic.open(copy, embedder=at.embedder) as memory:
        memory.search("where?", user="ana")


def closed(at: Desk) -> None:
    memory = mnemic.open(at.path, embedder=at.embedder)
    memory.close()
    memory.add("x", user="ana")


def zipped(members: Mapping[str, str]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return held.getvalue()


LINES = "\n".join(json.dumps({"text": f"note {number}"}) for number in range(10))
CUT_OFF = '[{"mapping": {"a"'
EXPORT = "conversations.json"
MESSAGES = json.dumps([{"role": "user", "content": "x"}])

VAULTS = [
    place("a text file", e.NotAVault, "not a mnemic vault.*another path", lambda at: at.file("a.db", "Dear")),
    place("an SQLite file of another program", e.NotAVault, "invoice.*another", foreign),
    place("a folder", e.NotAVault, "is a folder; name a file", lambda at: at.folder),
    place(
        "a folder that is not there", e.VaultError, "create it first", lambda at: at.folder / "no" / "a.db"
    ),
    place("a vault of a newer version", e.VaultTooNew, "format 99.*Upgrade: pip install", newer),
    place(":memory:", e.InvalidOption, "temporary folder", lambda _: ":memory:"),
    place("mysql://…", e.InvalidOption, "sqlite:///path or postgresql", lambda _: "mysql://host/db"),
    place("what is no path", e.InvalidOption, "must be a path", lambda _: 7),
    Case("open", "a damaged head", e.NotAVault, "not a mnemic vault", lambda at: damaged(at, slice(0, 4096))),
    Case("open", "damaged pages", e.NotAVault, "mnemic doctor", lambda at: damaged(at, slice(4096, None))),
    Case("open", "used after close()", e.VaultClosed, r"closed.*mnemic.open\(", closed),
    again("tenant=''", e.InvalidOption, "tenant=''.*512", tenant=""),
    again("another embedder", e.EmbedderMismatch, "'odd', not.*mnemic reembed .*vault.db", embedder="static"),
    again("an embedder that is not built in", e.EmbedderMismatch, "'odd'.*embedder=….*mnemic reembed"),
    again(
        "other dimensions", e.EmbedderMismatch, "4 dimensions.*8.*mnemic reembed", embedder=Odd(fine, dim=8)
    ),
    again("unknown embedder", e.InvalidOption, "statc.*static", embedder="statc"),
    again("what is no embedder", e.InvalidOption, "has no name, dim", embedder=object()),
    again("index_bytes=-1", e.InvalidOption, "index_bytes must be", embedder=Odd(fine), index_bytes=-1),
]
IMPORTS = [
    load("file that is not there", "does not exist. Check the name", "a.json", None),
    load("empty file", "is empty. Export or save it again", EXPORT, b""),
    load("truncated JSON", "not valid JSON.*Download or export it again", EXPORT, '{"mapping": {"a'),
    load(
        "cut off in its first conversation",
        "download the file again",
        EXPORT,
        '[{"mapping": {"a"',
        format="chatgpt",
    ),
    load("a number at the top", "known format", EXPORT, "17"),
    load("another layout", "no 'mapping' or 'chat_messages'", EXPORT, '[{"invoice": 1}]'),
    load("list of messages as .json", "one object a line", "messages.json", MESSAGES),
    load("HTML page", "known format.*--format", EXPORT, "<html>Log in</html>"),
    load("zip without an export", "zip archive without", "export.zip", zipped({"readme.txt": "x"})),
    load("zip named .json", "zip archive without", EXPORT, zipped({"a.html": "x"})),
    load("damaged zip", "damaged zip archive", "export.zip", b"PK\x03\x04broken"),
    load("picture", "binary file, not text", "note.md", b"\x89PNG\r\n\x1a\n\x00\x00"),
    load("Latin-1", "not UTF-8.*Save it as UTF-8", "note.md", "Olá, João".encode("latin-1")),
    load("UTF-16", "UTF-16. Save it as UTF-8", "note.md", "Olá".encode("utf-16")),
    load("chat that is none", "Export chat", "chat.txt", "Just a note.", format="whatsapp"),
    load("LoCoMo file without dialogues", "no LoCoMo dialogue", "a.json", "[]", format="locomo"),
    Case(
        "load_file", "folder without notes", e.InvalidFile, "no notes: expected", lambda at: at.load_folder()
    ),
    Case(
        "load_file",
        "unknown format",
        e.InvalidOption,
        "chatgtp.*chatgpt, claude",
        lambda at: at.load("a.json", "[]", format="chatgtp"),
    ),
    Case(
        "load_file",
        "option of another format",
        e.InvalidOption,
        "day_first has no meaning for jsonl",
        lambda at: at.load("a.jsonl", LINES, day_first=True),
    ),
    Case(
        "load_file",
        "no user and no agent",
        e.ScopeRequired,
        "user='…'",
        lambda at: at.memory.load_file(at.file("a.jsonl", LINES)),
    ),
]
CASES = [*VAULTS, *IMPORTS]
