"""One space (tenant, user) in memory: every live cube as a row of numpy arrays, in the order of the log.

Derived from the vault's change log and rebuildable from it: the arrays always equal those of a new index fed
with the live rows. Statistics (token frequencies, mean vector, mean length) are those of the first 2^k rows,
2^k <= size, and so do not depend on how the rows arrived. A reader who may see only some rows gets `within`:
an index of those alone, so that no number of theirs rests on what they may not see. Knows nothing of
questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mnemic.index.arrays import Growing
from mnemic.index.lexical import EMPTY, HEADER
from mnemic.index.pooling import FloatArray, centre, normalise, pool, space_mean, token_weights
from mnemic.index.postings import Postings
from mnemic.index.sessions import Sessions
from mnemic.vault.log import LogRow

FAR: Final = np.iinfo(np.int64)
NEWS: Final = 100  # rows: a word that none of so many rows before has said is new
PARTS: Final = 32  # indexes of parts that are kept at most
DICT_BYTES: Final = 200  # what a row costs in `_row_of`: key, number, slot
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
IndexRow = LogRow


class _Column:
    """A column of numbers, (size,) int64, one per live row."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, index: ScopeIndex, owner: type | None = None) -> IntArray:
        return index._numbers[self._name].view


class ScopeIndex:
    """Rows of one space. Of each, `lexical` is made by `mnemic.index.lexical`; `dense` holds uint16 token ids
    (static embedder) or a float16 vector, b"" for a text without either, None while it is pending.

    table: (vocabulary, dim) token vectors of a static embedder; None for embedders that hand over vectors.
    dim: of the vectors; 0 without an embedder.
    Adds cost O(new rows) amortised; what is derived is brought up to date at the next read of it. An update
    or a delete costs one O(size) pass at the next read.
    """

    def __init__(self, *, table: NDArray[Any] | None, dim: int) -> None:
        self._table, self._dim = table, dim
        self._row_of: dict[bytes, int] = {}
        self._numbers = {name: Growing(np.int64) for name in _NUMBERS}
        self._heads = Growing(np.uint32, HEADER)
        self._text_hash = Growing(np.uint64)
        self._terms, self._term_frequency = Growing(np.uint32), Growing(np.uint8)
        self._term_row = Growing(np.int32)
        self._postings = Postings()
        self._tokens = Growing(np.uint16)
        self._token_lengths = Growing(np.int64)
        self._given = Growing(np.float16, 0 if table is not None else dim)
        self._pending: set[int] = set()
        self._vectors = Growing(np.float32, dim)
        self._pooled_with = 0  # how many first rows the vectors' statistics come from; 0: none are pooled yet
        self._news = Growing(np.float32)
        self._speakers: dict[int, int] = {}
        self._sessions: Sessions | None = None
        self._parts: list[tuple[IntArray, ScopeIndex]] = []  # rows and their index, the last used last

    @property
    def size(self) -> int:
        """Live rows."""
        return len(self.seq)

    @property
    def memory_bytes(self) -> int:
        """Bytes held, indexes of parts included, the shared token table not."""
        grown: tuple[Growing[Any], ...] = (
            *self._numbers.values(),
            *(self._heads, self._text_hash, self._terms, self._term_frequency, self._term_row, self._news),
            *(self._tokens, self._token_lengths, self._given, self._vectors),
        )
        sessions = self._sessions.nbytes if self._sessions else 0
        parts = sum(rows.nbytes + part.memory_bytes for rows, part in self._parts)
        arrays = sum(one.nbytes for one in grown) + self._postings.nbytes
        return arrays + sessions + parts + DICT_BYTES * len(self._row_of)

    # -- writing ------------------------------------------------------------------------------------------

    def apply(self, rows: Sequence[IndexRow]) -> None:
        """Take in changes, in seq order. A cube's last recorded row replaces others; `deleted` removes it.

        A merge appends versions that were recorded before some that are here; the space's epoch rises then,
        so that all of its rows come at once.
        """
        last = {row.cube: row for row in sorted(rows, key=_recorded)}
        if gone := [self._row_of[cube] for cube in last if cube in self._row_of]:
            self._remove(gone)
        new = [row for row in last.values() if not row.deleted]
        new.sort(key=lambda row: row.seq)
        if new:
            self._append(new)

    def cubes(self) -> list[bytes]:
        """(size,) the cube of each row. Of an index, not of one of its parts."""
        return list(self._row_of)

    def row_of(self, cube: bytes) -> int | None:
        """The row of a cube, if it is live. Of an index, not of one of its parts."""
        return self._row_of.get(cube)

    def pending(self) -> set[int]:
        """The seqs whose dense feature is still to come."""
        return set(self._pending)

    def fill_dense(self, features: Mapping[int, bytes]) -> None:
        """Add dense features that were pending, by seq. O(size)."""
        late = {seq: data for seq, data in features.items() if seq in self._pending}
        if not late:
            return
        where = np.searchsorted(self.seq, np.array(sorted(late), np.int64))
        data = [late[seq] for seq in sorted(late)]
        if self._table is None:
            _, self._given.view[where] = self._dense_of(data)
        else:
            new, lengths = self._dense_of(data)
            counts = self._token_lengths.view.copy()
            counts[where] = lengths
            mine = np.zeros(self.size, np.bool_)
            mine[where] = True
            flat = np.empty(int(counts.sum()), np.uint16)
            spread = np.repeat(mine, counts)
            flat[spread], flat[~spread] = new, self._tokens.view
            self._tokens.clear()
            self._tokens.append(flat)
            self._token_lengths.view[:] = counts
        self._pending -= late.keys()
        self._pooled_with = 0
        self._parts.clear()

    def _append(self, rows: Sequence[IndexRow]) -> None:
        columns = list(zip(*rows, strict=True))
        self._row_of.update(zip(columns[1], range(self.size, self.size + len(rows)), strict=True))
        *_, lexical, made = columns
        self._append_words([one or EMPTY for one in lexical])
        if None in made:
            self._pending.update(row.seq for row in rows if row.dense is None)
        tokens, dense = self._dense_of([one or b"" for one in made])
        if self._table is not None:
            self._tokens.append(tokens)
            self._token_lengths.append(dense)
        else:
            self._given.append(dense)
        for name, (position, missing) in _NUMBERS.items():
            values = columns[position]
            if missing is not None:
                values = tuple(missing if value is None else value for value in values)
            self._numbers[name].append(np.array(values, np.int64))
        self._sessions = None

    def _append_words(self, features: list[bytes]) -> None:
        """Cut the joined features into heads and terms."""
        flat = np.frombuffer(b"".join(features), np.uint32)
        lengths = np.fromiter(map(len, features), np.int64, len(features)) // 4
        places = ((np.cumsum(lengths) - lengths)[:, None] + np.arange(HEADER)).ravel()
        is_term = np.ones(len(flat), np.bool_)
        is_term[places] = False
        terms = flat[is_term]
        self._add_words(
            flat[places].reshape(-1, HEADER), terms >> np.uint32(4), terms & np.uint32(15), lengths - HEADER
        )

    def _add_words(
        self, heads: NDArray[np.uint32], terms: NDArray[Any], frequency: NDArray[Any], counts: IntArray
    ) -> None:
        first = len(self._heads.view)
        self._heads.append(heads)
        self._text_hash.append(_pair(heads[:, 1], heads[:, 0]))
        self._terms.append(terms)
        self._term_frequency.append(frequency)
        self._term_row.append(np.repeat(np.arange(first, first + len(heads)), counts))
        self._speakers |= {
            pair >> 32: pair & 0xFFFFFFFF for pair in set(_pair(heads[:, 2], heads[:, 3]).tolist()) if pair
        }

    def _dense_of(self, data: list[bytes]) -> tuple[NDArray[np.uint16], NDArray[Any]]:
        """Joined token ids and their numbers; or nothing and (rows, dim) float16 vectors."""
        if self._table is not None:
            lengths = np.fromiter(map(len, data), np.int64, len(data)) // 2
            return np.frombuffer(b"".join(data), np.uint16), lengths
        flat = np.frombuffer(b"".join(one or bytes(2 * self._dim) for one in data), np.float16)
        return np.empty(0, np.uint16), flat.reshape(len(data), self._dim)

    def _remove(self, gone: list[int]) -> None:
        """A new start from the rows that stay. O(size)."""
        keep = np.ones(self.size, np.bool_)
        keep[gone] = False
        kept = self._taken(np.flatnonzero(keep))
        cubes = [cube for cube, stays in zip(self._row_of, keep.tolist(), strict=True) if stays]
        kept._row_of = {cube: row for row, cube in enumerate(cubes)}
        self.__dict__.update(kept.__dict__)

    # -- parts ----------------------------------------------------------------------------------------------

    def within(self, mask: BoolArray) -> ScopeIndex:
        """An index of the rows where `mask` is true, in their order; itself where that is all of them.

        Equal to a new index fed with those rows only. Read it, never write to it. The last used are kept, as
        many as hold no more rows than this one, and grow with it: O(rows new in it); O(rows in it) for a mask
        that is new.
        """
        if mask.all():
            return self
        rows = np.flatnonzero(mask)
        grown = [one for one in self._parts if np.array_equal(one[0], rows[: len(one[0])])]
        if grown:
            known, part = max(grown, key=lambda one: len(one[0]))
            self._parts = [one for one in self._parts if one[1] is not part]
            part._take(self, rows[len(known) :])
        else:
            part = self._taken(rows)
        self._parts.append((rows, part))
        while len(self._parts) > PARTS or (len(self._parts) > 1 and self._rows_in_parts() > self.size):
            del self._parts[0]
        return part

    def part(self, rows: IntArray) -> ScopeIndex:
        """An index of these rows (ascending) alone, made anew and not kept: O(rows in it)."""
        return self._taken(rows)

    def _rows_in_parts(self) -> int:
        return sum(len(rows) for rows, _ in self._parts)

    def _taken(self, rows: IntArray) -> ScopeIndex:
        part = ScopeIndex(table=self._table, dim=self._dim)
        part._take(self, rows)
        counted = part.counted
        if counted and self._pooled_with == counted and np.array_equal(rows[:counted], np.arange(counted)):
            part._pooled_with, part._mean, part._weights = counted, self._mean, self._weights
            part._vectors.append(self._vectors.view[rows[rows < len(self._vectors.view)]])
        return part

    def _take(self, whole: ScopeIndex, rows: IntArray) -> None:
        """Append rows of another index."""
        if not len(rows):
            return
        counts = whole.term_counts.astype(np.int64)
        terms = _places(counts, rows)
        self._add_words(
            whole._heads.view[rows],
            whole._terms.view[terms],
            whole._term_frequency.view[terms],
            counts[rows],
        )
        if self._table is not None:
            lengths = whole._token_lengths.view
            self._tokens.append(whole._tokens.view[_places(lengths, rows)])
            self._token_lengths.append(lengths[rows])
        else:
            self._given.append(whole._given.view[rows])
        for name, column in self._numbers.items():
            column.append(whole._numbers[name].view[rows])
        if whole._pending:
            self._pending |= whole._pending.intersection(whole.seq[rows].tolist())
        self._sessions = None

    # -- columns, one number per row ------------------------------------------------------------------------

    seq = _Column()
    scope = _Column()
    kind = _Column()
    origin = _Column()
    at = _Column()
    recorded_at = _Column()
    valid_from = _Column()
    valid_to = _Column()
    expires_at = _Column()

    @property
    def text_hash(self) -> NDArray[np.uint64]:
        """(size,) equal for texts of the same words, 0 for no text."""
        return self._text_hash.view

    @property
    def speaker(self) -> NDArray[np.uint32]:
        """(size,) hash of the speaker's whole name; 0 for nobody."""
        return self._heads.view[:, 2]

    @property
    def first_name(self) -> NDArray[np.uint32]:
        """(size,) hash of the first word of the speaker's name."""
        return self._heads.view[:, 3]

    @property
    def term_counts(self) -> NDArray[np.uint32]:
        """(size,) distinct terms."""
        return self._heads.view[:, 4] & np.uint32(0xFFFF)

    @property
    def lengths(self) -> NDArray[np.uint32]:
        """(size,) words."""
        return self._heads.view[:, 4] >> np.uint32(16)

    @property
    def flags(self) -> NDArray[np.uint32]:
        """(size,) bits of `mnemic.index.lexical`."""
        return self._heads.view[:, 5]

    @property
    def time_marks(self) -> NDArray[np.uint32]:
        """(size,) expressions of time."""
        return self._heads.view[:, 6] & np.uint32(0xFF)

    @property
    def name_marks(self) -> NDArray[np.uint32]:
        """(size,) capitalised words inside a sentence."""
        return self._heads.view[:, 6] >> np.uint32(8) & np.uint32(0xFF)

    # -- derived, brought up to date when read -----------------------------------------------------------

    @property
    def counted(self) -> int:
        """How many first rows the statistics come from: the largest power of two up to `size`."""
        return 1 << self.size.bit_length() - 1 if self.size else 0

    @property
    def term(self) -> NDArray[np.uint32]:
        """(terms,) hashes of the distinct terms of all rows, one row after the other."""
        return self._terms.view

    @property
    def term_row(self) -> NDArray[np.int32]:
        """(terms,) the row of each term."""
        return self._term_row.view

    @property
    def term_frequency(self) -> NDArray[np.uint8]:
        """(terms,) how often each stands in its row, at most 15."""
        return self._term_frequency.view

    def places_of(self, term: int) -> IntArray:
        """Where a term stands in `term`, ascending: once for each row that has it."""
        return self._postings.places(self.term, term)

    @property
    def mean_length(self) -> float:
        """Words per row, at least 1."""
        return max(1.0, float(self.lengths[: self.counted].mean())) if self.size else 1.0

    @property
    def speakers(self) -> Mapping[int, int]:
        """The whole-name hash of each speaker, with its first name's."""
        return self._speakers

    @property
    def sessions(self) -> Sessions:
        """Which rows were said one after the other. O(size log size) after a change."""
        if self._sessions is None:
            self._sessions = Sessions(self.scope, self.at)
        return self._sessions

    @property
    def news(self) -> FloatArray:
        """(size,) how many of a row's terms none of the `NEWS` rows before it has. O(new rows)."""
        done = len(self._news.view)
        if done < self.size:
            first = int(np.searchsorted(self.term_row, max(0, done - NEWS)))
            said = np.sort(_pair(self.term[first:], self.term_row[first:]))  # by term, then row
            new = np.ones(len(said), np.bool_)
            new[1:] = np.diff(said) > NEWS  # far more where the term is another
            rows = (said[new] & np.uint64(0xFFFFFFFF)).astype(np.int64) - done
            self._news.append(np.bincount(rows[rows >= 0], minlength=self.size - done))
        return self._news.view

    @property
    def vectors(self) -> FloatArray:
        """(size, dim) centred unit vectors; zero where the dense feature is pending or the text is empty."""
        counted = self.counted
        if self._pooled_with != counted:
            self._vectors.clear()
            self._vectors.reserve(self.size)
            self._pooled_with = counted
            self._weights = (
                None
                if self._table is None
                else token_weights(
                    self._tokens.view[: int(self._token_lengths.view[:counted].sum())], len(self._table)
                )
            )
            first = self._raw(0, counted)
            self._mean = space_mean(first)
            self._vectors.append(centre(first, self._mean))
        done = len(self._vectors.view)
        if done < self.size:
            self._vectors.append(centre(self._raw(done, self.size), self._mean))
        return self._vectors.view

    def embed_question(
        self, tokens: NDArray[np.uint16] | None, vector: FloatArray | None
    ) -> FloatArray | None:
        """(dim,) a question as a row of `vectors`; None when its embedding is missing or empty. O(dim)."""
        if not self.size:
            return None
        self.vectors  # noqa: B018  (brings the statistics up to date)
        if self._table is not None and tokens is not None and self._weights is not None:
            raw = pool(tokens, np.array([len(tokens)], np.int64), self._table, self._weights)
        elif self._table is None and vector is not None:
            raw = normalise(np.array(vector, np.float32)[None])
        else:
            return None
        found = centre(raw, self._mean)[0]
        return found if found.any() else None

    def _raw(self, start: int, stop: int) -> FloatArray:
        """Unit vectors of some rows, before the mean is removed."""
        if self._table is None:
            return normalise(self._given.view[start:stop].astype(np.float32))
        lengths = self._token_lengths.view
        first = int(lengths[:start].sum())
        tokens = self._tokens.view[first : first + int(lengths[start:stop].sum())]
        assert self._weights is not None  # noqa: S101  (set with _pooled_with)
        return pool(tokens, lengths[start:stop], self._table, self._weights)


def _recorded(row: IndexRow) -> tuple[int, bytes]:
    return row.recorded_at, row.version


def _pair(high: NDArray[Any], low: NDArray[Any]) -> NDArray[np.uint64]:
    """Two 32-bit numbers as one of 64."""
    return high.astype(np.uint64) << np.uint64(32) | low.astype(np.uint64)


def _places(counts: IntArray, rows: IntArray) -> IntArray:
    """Where the things of some rows stand in a flat array that holds `counts` of them for each row."""
    starts = np.cumsum(counts) - counts
    mine = counts[rows]
    ends = np.cumsum(mine)
    return np.repeat(starts[rows] - (ends - mine), mine) + np.arange(int(ends[-1]) if len(ends) else 0)


# Column name -> (position in LogRow, what stands for None)
_NUMBERS: Final[dict[str, tuple[int, int | None]]] = {
    "seq": (0, None),
    "scope": (3, None),
    "kind": (4, None),
    "origin": (5, None),
    "at": (7, None),
    "recorded_at": (8, None),
    "valid_from": (9, int(FAR.min)),
    "valid_to": (10, int(FAR.max)),
    "expires_at": (11, int(FAR.max)),
}
