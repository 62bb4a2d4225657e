"""LoCoMo (Maharana et al. 2024): long two-person dialogues, questions on them, and the evidence for each.

The file is the one its authors publish, a JSON list with one object a dialogue (`conversation`, `qa`,
`sample_id`). It is CC BY-NC 4.0 and never part of this package: the caller names the file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnemic.cube.errors import InvalidFile, InvalidOption
from mnemic.cube.times import to_datetime
from mnemic.plaintext.ingest.files import read
from mnemic.plaintext.ingest.told import Told

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}
ANSWERABLE = (1, 2, 3, 4)
_EVIDENCE = re.compile(r"D\d+:\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One thing said. `id` is unique in its dialogue; `at` is ISO 8601; the file names no zone."""

    id: str
    session: str
    speaker: str
    text: str
    at: str

    @property
    def line(self) -> str:
        """What a system that only takes text is given."""
        return f"{self.speaker}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question, its evidence and its answer: None in category 5, where the right answer is to abstain."""

    id: str
    text: str
    category: int
    evidence: tuple[str, ...]
    answer: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    id: str
    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]
    dropped: tuple[str, ...]  # evidence entries that name no turn of this dialogue, as they stand in the file

    def retrieval_questions(self) -> list[Question]:
        """Categories 1-4 with at least one piece of evidence: those a ranking can be scored on."""
        return [q for q in self.questions if q.category in ANSWERABLE and q.evidence]


def find_file(data: Path) -> Path:
    """The data file itself, or the one `locomo*.json` in a folder. Raises InvalidFile."""
    if data.is_file():
        return data
    advice = (
        "Download locomo10.json from github.com/snap-research/locomo (data/locomo10.json, CC BY-NC 4.0) "
        "and pass its folder or the file itself: --data DIR"
    )
    if not data.is_dir():
        raise InvalidFile(f"there is no file or folder {str(data)!r}. {advice}")
    found = sorted(data.glob("locomo*.json"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InvalidFile(f"expected one locomo*.json in {str(data)!r}, found {names}. {advice}")
    return found[0]


def load(data: Path) -> list[Dialogue]:
    """All dialogues of the file, their turns as `mnemic import` would read them. Raises InvalidFile.

    O(dialogues x file): each dialogue is one reading of the file.
    """
    path = find_file(data)
    try:
        records = json.loads(path.read_bytes())
    except ValueError as error:
        raise InvalidFile(f"{path.name} is not JSON: {error}. Download locomo10.json again.") from error
    if not isinstance(records, list) or not records:
        raise InvalidFile(
            f"{path.name} must hold a JSON list of dialogues; this is {type(records).__name__}."
        )
    return [_dialogue(record, path, number) for number, record in enumerate(records)]


def digest(data: Path) -> str:
    """SHA-256 of the data file, so that a result can be traced to its data."""
    return hashlib.sha256(find_file(data).read_bytes()).hexdigest()


def evidence_ids(entries: Sequence[str]) -> list[str]:
    """Split entries such as 'D8:6; D9:17' on ; , and blanks; keep the first of each."""
    return list(dict.fromkeys(part for entry in entries for part in re.split(r"[;,\s]+", str(entry)) if part))


def _dialogue(record: Any, path: Path, number: int) -> Dialogue:
    try:
        sample = str(record["sample_id"])
        turns = tuple(_turns(path, sample))
        questions, dropped = _questions(record["qa"], sample, {turn.id for turn in turns})
    except (KeyError, TypeError, ValueError, InvalidOption) as error:
        raise InvalidFile(
            f"{path.name}, dialogue {number}, is not in LoCoMo's layout ({type(error).__name__}: {error}). "
            "Expected the keys sample_id, conversation and qa of the authors' locomo10.json."
        ) from error
    return Dialogue(id=sample, turns=turns, questions=questions, dropped=dropped)


def _turns(path: Path, sample: str) -> Iterator[Turn]:
    for told in read(path, format="locomo", sample=sample):
        if isinstance(told, Told):  # a turn without text cannot be told to anyone; evidence in it is dropped
            if told.id is None or told.session is None or told.at is None:
                raise ValueError(f"turn {told.id} of {sample} has no id, session or time")
            at = to_datetime(told.at).replace(tzinfo=None).isoformat()
            yield Turn(id=told.id, session=told.session, speaker=told.name or "", text=told.text, at=at)


def _questions(
    records: Sequence[Mapping[str, Any]], sample: str, known: set[str]
) -> tuple[tuple[Question, ...], tuple[str, ...]]:
    questions, dropped = [], []
    for n, record in enumerate(records):
        category = int(record["category"])
        if category not in CATEGORIES:
            raise ValueError(f"category {category} of question {n} is not 1 to 5")
        named = evidence_ids(record.get("evidence", ()))
        kept = tuple(e for e in named if _EVIDENCE.fullmatch(e) and e in known)
        dropped += [e for e in named if e not in kept]
        answer = None if category == 5 else str(record["answer"])  # category 5 holds only the trap
        questions.append(
            Question(
                id=f"{sample}/{n}", text=record["question"], category=category, evidence=kept, answer=answer
            )
        )
    return tuple(questions), tuple(dropped)
