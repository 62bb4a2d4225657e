"""WhatsApp's "Export chat": the text file of Android or iOS, or the .zip that holds it.

A line with a stamp begins a message, lines without one belong to the message before. The order of day and
month is inferred from the whole file. System lines, deleted messages and media without a caption are left out
and counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from mnemic.cube.errors import InvalidFile
from mnemic.plaintext.ingest.files.record import record_id, skip, tell_record
from mnemic.plaintext.ingest.files.source import Source, Stream, open_streams
from mnemic.plaintext.ingest.files.stamp import MARKS, STYLES, Order, infer_order, moment_of, style_of
from mnemic.plaintext.ingest.told import Skipped, Told

MEMBER: Final = re.compile(r"(?:^|/)(?:_chat|[^/]*WhatsApp[^/]*)\.txt$", re.IGNORECASE)
EXPECTED: Final = "_chat.txt or 'WhatsApp Chat with ….txt'"
_SNIFFED_LINES: Final = 50
_MEDIA = re.compile(
    rf"[{MARKS}]*(?:<[^\W\d_]+(?: [^\W\d_]+){{1,3}}>|(?:image|video|audio|sticker|gif|document|photo"
    r"|contact card|video note) omitted|(?:imagem|vídeo|áudio|figurinha|documento) ocultad[ao]"
    r"|(?:imagen|video|audio|sticker|documento) omitid[ao]"
    r"|(?:Bild|Video|Audio|Sticker|Dokument) weggelassen|(?:image|vidéo|audio|sticker|document) absente?)",
    re.IGNORECASE,
)
_ATTACHED = re.compile(
    rf"[{MARKS}]*(?:<[^<>:\n]{{3,20}}: ?(?P<ios>[^<>\n]+)>|(?P<android>\S+\.\w{{2,5}}) \(file attached\))"
)
_DELETED = re.compile(
    rf"[{MARKS}]*(?:This message was deleted|You deleted this message)(?: by admin [^\n]*)?\.?", re.IGNORECASE
)
_EDITED = re.compile(rf"[ {MARKS}]*<This message was edited>\s*\Z")


@dataclass(slots=True)
class _Message:
    line: int
    stamp: re.Match[str]
    rest: list[str] = field(default_factory=list)


def read(source: Source) -> Iterator[Told | Skipped]:
    """Two passes over the file: the dates, then the messages."""
    style, order = _survey(source)
    seen: Counter[tuple[str, ...]] = Counter()
    for stream in open_streams(source, MEMBER, EXPECTED):
        for message in _messages(stream, style):
            yield from _told(source, stream.name, message, order, seen)
        if stream.damage:
            yield skip(stream.name, 1, stream.damage)


def looks_like_chat(head: str) -> bool:
    return style_of(islice(head.split("\n"), _SNIFFED_LINES)) is not None


def _survey(source: Source) -> tuple[str, Order]:
    """The style of the stamps, the order of day and month. Raises InvalidFile when no line has a stamp."""
    survey = Source(path=source.path)
    dates: dict[tuple[str, str, str, str], None] = {}
    style, twelve_hours = None, False
    for stream in open_streams(survey, MEMBER, EXPECTED):
        for line in _lines(stream):
            style = style or style_of([line])
            stamp = STYLES[style].match(line) if style else None
            if stamp:
                dates[(stamp["a"], stamp["mark"], stamp["b"], stamp["c"])] = None
                twelve_hours = twelve_hours or stamp["half"] is not None
    if style is None:
        raise InvalidFile(
            f"{source.path.name} is no WhatsApp chat: no line begins like '03/05/2024, 14:05 - Ana: …' or "
            "'[03/05/2024, 14:05:09] Ana: …'. Use WhatsApp's Export chat, or --format text for a note."
        )
    if source.options.day_first is not None:
        return style, Order(day_first=source.options.day_first)
    order = infer_order(list(dates), twelve_hours=twelve_hours)
    if order.note:
        source.notes.append(order.note)
    return style, order


def _lines(stream: Stream) -> Iterator[str]:
    return (line.decode(errors="surrogateescape") for line in stream.lines())


def _messages(stream: Stream, style: str) -> Iterator[_Message]:
    message: _Message | None = None
    for number, line in enumerate(_lines(stream), start=1):
        stamp = STYLES[style].match(line)
        if stamp:
            if message:
                yield message
            message = _Message(number, stamp, [stamp["rest"]])
        elif message:
            message.rest.append(line)
        elif line.strip(MARKS + " \t"):
            stream.source.count("lines before the first message")
    if message:
        yield message


def _told(
    source: Source, file: str, message: _Message, order: Order, seen: Counter[tuple[str, ...]]
) -> Iterator[Told | Skipped]:
    name, colon, text = "\n".join(message.rest).partition(": ")
    if not colon or "\n" in name:
        name, colon, text = message.rest[0].rstrip(":"), "", ""
        if not message.rest[0].endswith(":") or len(message.rest) == 1:
            source.count("system lines")
            return
        text = "\n".join(message.rest[1:])
    name = name.strip(MARKS + " \u202f~").strip(MARKS)
    said = _said(source, text, ios=message.stamp.re is STYLES["ios"])
    if said is None:
        return
    try:
        at = moment_of(message.stamp, order, source.options.timezone)
    except ValueError as error:
        yield skip(file, message.line, f"its time does not exist ({error})")
        return
    written = message.stamp[0][: message.stamp.start("rest")].strip(MARKS)
    key = (written, name, record_id("whatsapp", None, "", said))
    seen[key] += 1  # a later export of the same chat begins elsewhere: the line number would not do
    yield tell_record(
        file, message.line, said, kind="whatsapp", position=(written, name, seen[key]), name=name, at=at
    )  # fmt: skip


def _said(source: Source, text: str, *, ios: bool) -> str | None:
    """What was said, or None for what is only the app's: media without a caption, deletions, notices."""
    text = _EDITED.sub("", text).removesuffix("\n")
    first, newline, caption = text.partition("\n")
    media = _MEDIA.fullmatch(first)
    if media or _ATTACHED.fullmatch(first):
        if caption.strip():
            return f"{'[media omitted]' if media else _ATTACHED.sub(_file_name, first)}{newline}{caption}"
        source.count("media without a caption")
        return None
    if _DELETED.fullmatch(text):
        source.count("deleted messages")
        return None
    if ios and text.startswith("\u200e"):
        source.count("system lines")
        return None
    if ios:
        text = _ATTACHED.sub(_file_name, text) if "<" in text else text
    return text


def _file_name(found: re.Match[str]) -> str:
    return f"[media: {(found['ios'] or found['android']).strip()}]"
