"""LoCoMo's own layout (Maharana et al. 2024): a JSON list of dialogues.

A picture's caption is text, " [image: …]"; a turn's `query` and `img_url` are not, they were never said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from mnemic.cube.errors import InvalidFile, InvalidOption
from mnemic.plaintext.ingest.files.elements import Element, elements
from mnemic.plaintext.ingest.files.record import as_name, skip, tell_record
from mnemic.plaintext.ingest.files.source import Source, open_streams
from mnemic.plaintext.ingest.told import Skipped, Told

_SESSION = re.compile(r"session_(\d{1,9})")
_MONTHS: Final = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_DATE = re.compile(r"\s*(\d{1,2}):(\d{2})\s*([ap])m\s+on\s+(\d{1,2})\s+(\w+),?\s+(\d{4})\s*", re.IGNORECASE)


def read(source: Source) -> Iterator[Told | Skipped]:
    """Turns of one dialogue. Raises InvalidOption when there are several and `sample` names none of them."""
    for stream in open_streams(source, None, "LoCoMo file"):
        dialogues = []
        for element in elements(stream, is_dialogue):
            if element.problem or not is_dialogue(element.value):
                reason = element.problem or "is no dialogue: it has no 'conversation'"
                yield skip(stream.name, element.line, reason, what=f"dialogue {element.number}")
            else:
                dialogues.append(element)
        if not dialogues:
            raise InvalidFile(
                f"{stream.name} holds no LoCoMo dialogue: expected a list of objects with 'conversation'."
            )
        yield from _turns(source, stream.name, _choose(dialogues, source.options.sample))


def is_dialogue(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("conversation"), Mapping)


def _choose(dialogues: list[Element], sample: str | int | None) -> Element:
    named = {str(element.value.get("sample_id", element.number - 1)): element for element in dialogues}
    if sample is None and len(dialogues) == 1:
        return dialogues[0]
    if str(sample) in named:
        return named[str(sample)]
    if not isinstance(sample, bool) and str(sample).isdecimal() and int(str(sample)) < len(dialogues):
        return dialogues[int(str(sample))]
    asked = "sample is not given" if sample is None else f"sample={sample!r:.80} is not in the file"
    raise InvalidOption(
        f"{asked}; it holds {', '.join(named)}. Choose one; each dialogue is a memory of its own."
    )


def _turns(source: Source, file: str, element: Element) -> Iterator[Told | Skipped]:
    talk: Mapping[str, Any] = element.value["conversation"]
    dialogue = as_name(element.value.get("sample_id")) or f"dialogue {element.number}"
    sessions = sorted((int(found[1]), key) for key in talk if (found := _SESSION.fullmatch(key)))
    for _, session in sessions:
        turns, stamp = talk[session], talk.get(f"{session}_date_time")
        at = _time(stamp)
        if at is None:
            source.notes.append(
                f"{dialogue} {session}: the time {stamp!r:.40} cannot be read; its turns have none"
            )
        if not isinstance(turns, list):
            yield skip(file, element.line, "is not a list of turns", what=f"{dialogue} {session}")
            continue
        for position, turn in enumerate(turns):
            what = f"{dialogue} {session} turn {position + 1}"
            if not isinstance(turn, Mapping):
                yield skip(file, element.line, "is not an object", what=what)
                continue
            yield tell_record(
                file, element.line, _text(turn), kind="locomo", position=position, what=what,
                name=turn.get("speaker"), at=at, id=turn.get("dia_id"), session=session,
                metadata={"sample": dialogue},
            )  # fmt: skip


def _text(turn: Mapping[str, Any]) -> object:
    text, caption = turn.get("text"), turn.get("blip_caption")
    if isinstance(caption, str) and caption.strip():
        return f"{text if isinstance(text, str) else ''} [image: {caption}]"
    return text


def _time(stamp: object) -> datetime | None:
    """ "1:56 pm on 8 May, 2023" as UTC."""
    found = _DATE.fullmatch(stamp) if isinstance(stamp, str) else None
    if not found or found[5].lower() not in _MONTHS:
        return None
    hour = int(found[1]) % 12 + (12 if found[3].lower() == "p" else 0)
    try:
        month = _MONTHS.index(found[5].lower()) + 1
        return datetime(int(found[6]), month, int(found[4]), hour, int(found[2]), tzinfo=UTC)
    except ValueError:
        return None
