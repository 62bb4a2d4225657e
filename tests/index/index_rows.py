"""Rows for scope indexes: made from texts, and drawn by Hypothesis."""

from __future__ import annotations

from itertools import count

import numpy as np
from hypothesis import strategies as st

from mnemic.index.lexical import lexical_feature
from mnemic.index.scope import ScopeIndex
from mnemic.vault.log import LogRow

VOCABULARY = 40
DIM = 8
TABLE = np.random.default_rng(7).standard_normal((VOCABULARY, DIM)).astype(np.float16)
WORDS = "porto kayak moved paint lisbon job Ana guitar rain three yesterday in Rome".split()  # noqa: SIM905
HOUR = 3_600_000_000

texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
speakers = st.sampled_from([None, "Ana", "Bo Li", "user"])


def tokens_of(text: str) -> bytes:
    """A token for each word: enough of a tokenizer."""
    return np.array([len(word) * 3 + ord(word[0]) % 3 for word in text.split()], np.uint16).tobytes()


def row(
    seq: int,
    text: str,
    *,
    cube: int | None = None,
    scope: int = 1,
    speaker: str | None = "Ana",
    at: int | None = None,
    deleted: bool = False,
    pending: bool = False,
    valid_from: int | None = None,
) -> LogRow:
    number = seq if cube is None else cube
    moment = seq * HOUR if at is None else at
    return LogRow(
        seq=seq,
        cube=number.to_bytes(4, "big"),
        version=b"",
        scope=scope,
        kind=0,
        origin=0,
        deleted=int(deleted),
        at=moment,
        recorded_at=seq,
        valid_from=valid_from,
        valid_to=None,
        expires_at=None,
        lexical=lexical_feature(text, speaker),
        dense=None if pending else tokens_of(text),
    )


def fresh(rows: list[LogRow]) -> ScopeIndex:
    index = ScopeIndex(table=TABLE, dim=DIM)
    index.apply(rows)
    return index


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[list[LogRow], dict[int, bytes]]]:
    """Batches of a log, each with the late dense features that arrive after it."""
    seqs, cubes = count(1), count(1)
    live: list[int] = []
    late: dict[int, bytes] = {}
    batches = []
    for _ in range(draw(st.integers(1, 8))):
        batch = []
        for _ in range(draw(st.integers(0, 7))):
            what = draw(st.sampled_from(["add", "add", "add", "update", "delete"] if live else ["add"]))
            if what == "add":
                cube = next(cubes)
                live.append(cube)
            else:
                cube = draw(st.sampled_from(live))
            if what == "delete":
                live.remove(cube)
            seq, text, pending = next(seqs), draw(texts), draw(st.integers(0, 4)) == 0
            scope, at = draw(st.integers(1, 3)), draw(st.integers(0, 60)) * HOUR
            one = row(
                seq, text, cube=cube, scope=scope, at=at, speaker=draw(speakers),
                deleted=what == "delete", pending=pending,
            )  # fmt: skip
            batch.append(one)
            if pending:
                late[seq] = tokens_of(text)
        arrived = {seq: data for seq, data in late.items() if draw(st.booleans())}
        batches.append((batch, arrived))
    return batches


def live_rows(history: list[tuple[list[LogRow], dict[int, bytes]]]) -> list[LogRow]:
    """The rows that a new index would be given: the last of each cube, with what has arrived since."""
    last: dict[bytes, LogRow] = {}
    for batch, arrived in history:
        last |= {one.cube: one for one in batch}
        last = {
            cube: one._replace(dense=arrived[one.seq]) if one.dense is None and one.seq in arrived else one
            for cube, one in last.items()
        }
    return sorted((one for one in last.values() if not one.deleted), key=lambda one: one.seq)
