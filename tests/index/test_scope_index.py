"""An index is a cache: however it was fed, it equals one that was built from the live rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from index_rows import DIM, HOUR, TABLE, fresh, histories, live_rows, row, texts, tokens_of

from mnemic.index.scope import NEWS, ScopeIndex
from mnemic.vault.log import LogRow

COLUMNS = (
    *("seq", "scope", "kind", "origin", "at", "recorded_at", "valid_from", "valid_to", "expires_at"),
    *("text_hash", "speaker", "first_name", "term_counts", "lengths", "flags", "time_marks", "name_marks"),
    *("term", "term_row", "term_frequency", "news", "vectors"),
)
SESSIONS = ("order", "position", "number", "start")


def assert_same(one: ScopeIndex, other: ScopeIndex) -> None:
    """Bit for bit."""
    for name in COLUMNS:
        mine, its = np.asarray(getattr(one, name)), np.asarray(getattr(other, name))
        assert (mine.dtype, mine.shape, mine.tobytes()) == (its.dtype, its.shape, its.tobytes()), name
    for name in SESSIONS:
        assert np.array_equal(getattr(one.sessions, name), getattr(other.sessions, name)), name
    assert (one.speakers, one.mean_length, one.counted) == (other.speakers, other.mean_length, other.counted)
    assert one.pending() == other.pending()
    question = np.frombuffer(tokens_of("porto kayak"), np.uint16)
    mine, its = one.embed_question(question, None), other.embed_question(question, None)
    assert (mine is None) == (its is None)
    assert mine is None or mine.tobytes() == its.tobytes()


@given(histories(), st.data())
def test_batches_updates_deletes_and_late_vectors_leave_what_a_rebuild_makes(
    history: list[tuple[list[LogRow], dict[int, bytes]]], data: st.DataObject
) -> None:
    index = ScopeIndex(table=TABLE, dim=DIM)
    for batch, arrived in history:
        index.apply(batch)
        if data.draw(st.booleans()):  # a search in between makes what is derived
            assert len(index.vectors) == len(index.news) == len(index.sessions.number) == index.size
        index.fill_dense(arrived)
    assert_same(index, fresh(live_rows(history)))


@given(histories(), st.data())
def test_a_part_equals_an_index_that_never_held_the_rest(
    history: list[tuple[list[LogRow], dict[int, bytes]]], data: st.DataObject
) -> None:
    index = ScopeIndex(table=TABLE, dim=DIM)
    allowed = data.draw(st.sets(st.integers(1, 3)))
    for place, (batch, arrived) in enumerate(history, start=1):
        index.apply(batch)
        index.fill_dense(arrived)
        part = index.within(np.isin(index.scope, sorted(allowed)))  # grows with the whole
        seen = [one for one in live_rows(history[:place]) if one.scope in allowed]
        assert_same(part, fresh(seen))


def test_parts_are_kept_while_only_rows_are_added() -> None:
    index = fresh([row(n, f"porto {n}", scope=1 + n % 2) for n in range(1, 9)])
    part = index.within(index.scope == 1)
    index.apply([row(9, "kayak", scope=1), row(10, "kayak", scope=2)])
    assert index.within(index.scope == 1) is part
    assert part.seq.tolist() == [2, 4, 6, 8, 9]
    assert index.within(np.ones(index.size, np.bool_)) is index
    index.apply([row(11, "gone", cube=2, deleted=True)])
    assert index.within(index.scope == 1) is not part


def test_the_parts_that_are_kept_hold_no_more_rows_than_the_whole() -> None:
    index = fresh([row(n, f"porto {n}", scope=1 + n % 4) for n in range(1, 41)])
    quarters = [index.within(index.scope == scope) for scope in (1, 2, 3, 4)]
    assert [index.within(index.scope == scope) for scope in (1, 2, 3, 4)] == quarters
    most = index.within(index.scope != 4)
    assert index.within(index.scope != 4) is most
    assert index.within(index.scope == 4) is quarters[3]  # 30 + 10 rows
    assert index.within(index.scope == 1) is not quarters[0]


def test_statistics_change_only_when_the_size_reaches_a_power_of_two() -> None:
    def said(n: int) -> LogRow:
        return row(n, " ".join(["porto", "kayak", "rain", "job"][: 1 + n % 4]))

    index, seen = ScopeIndex(table=TABLE, dim=DIM), []
    for n in range(1, 33):
        index.apply([said(n)])
        seen.append((index.vectors[0].tobytes(), index.mean_length, index.counted))
    for n in range(2, 33):
        changed = seen[n - 1] != seen[n - 2]
        assert changed == (n & (n - 1) == 0), n


@given(st.lists(texts, max_size=30))
def test_vectors_are_what_their_definition_says(said: list[str]) -> None:
    """A readable form: weights a / (a + f) and the mean from the first 2^k rows, then unit length."""
    rows = [row(n, text) for n, text in enumerate(said, start=1)]
    index = fresh(rows)
    counted = 1 << len(rows).bit_length() - 1 if rows else 0
    ids = [np.frombuffer(one.dense, np.uint16) for one in rows]
    known = np.concatenate([np.empty(0, np.uint16), *ids[:counted]])
    frequency = np.bincount(known, minlength=len(TABLE)) / max(1, len(known))
    weight = 1e-3 / (1e-3 + frequency)
    raw = np.zeros((len(rows), DIM))
    for n, mine in enumerate(ids):
        if len(mine):
            raw[n] = (TABLE[mine].astype(float) * weight[mine, None]).sum(axis=0)
            raw[n] /= np.linalg.norm(raw[n])
    mean = raw[:counted].sum(axis=0) / (counted + 8)
    for n, mine in enumerate(ids):
        if len(mine):
            wanted = (raw[n] - mean) / np.linalg.norm(raw[n] - mean)
            np.testing.assert_allclose(index.vectors[n], wanted, atol=1e-4)
        else:
            assert not index.vectors[n].any()


@pytest.mark.parametrize("period", [NEWS - 1, NEWS, NEWS + 1, NEWS + 20])
def test_news_are_words_that_nobody_said_for_a_while(period: int) -> None:
    rows = [row(n, f"common word{n % period}") for n in range(1, 3 * NEWS)]
    index, naive = fresh(rows), []
    said = [set(f"common word{n % period}".split()) for n in range(1, 3 * NEWS)]
    for n, words in enumerate(said):
        before = set().union(*said[max(0, n - NEWS) : n])
        naive.append(len(words - before))
    assert index.news.tolist() == naive
    assert set(naive[period:]) == {int(period > NEWS)}  # a word that comes back that late is news again


def test_a_cube_without_text_has_no_hash_no_terms_and_no_vector() -> None:
    index = fresh([row(1, ""), row(2, "porto"), row(3, "Porto!"), row(4, "...")])
    assert index.text_hash[0] == 0
    assert index.text_hash[1] == index.text_hash[2] != index.text_hash[3] != 0
    assert index.term_counts.tolist() == [0, 1, 1, 0]
    assert not index.vectors[0].any()


def test_given_vectors_are_kept_centred_and_wait_while_pending() -> None:
    index = ScopeIndex(table=None, dim=2)
    vectors = np.array([[1, 0], [0, 1]], np.float16)
    rows = [row(n, "x")._replace(dense=vectors[n - 1].tobytes()) for n in (1, 2)]
    index.apply([*rows, row(3, "y", pending=True)])
    assert index.pending() == {3}
    assert not index.vectors[2].any()
    index.fill_dense({3: vectors[0].tobytes(), 99: b""})
    assert index.pending() == set()
    assert index.vectors[2].tobytes() == index.vectors[0].tobytes()
    np.testing.assert_allclose(np.linalg.norm(index.vectors, axis=1), 1, atol=1e-6)
    asked = index.embed_question(None, np.array([1, 0], np.float32))
    assert asked is not None
    assert (index.vectors @ asked).argmax() in (0, 2)


def test_an_empty_index_answers_everything() -> None:
    index = ScopeIndex(table=TABLE, dim=DIM)
    assert index.size == index.counted == 0
    assert index.vectors.shape == (0, DIM)
    assert index.news.shape == (0,)
    assert index.mean_length == 1.0
    assert index.embed_question(np.zeros(1, np.uint16), None) is None
    assert len(index.sessions.best(np.empty(0, np.float32))) == 0
    assert_same(index.within(np.empty(0, np.bool_)), index)


def test_neighbours_end_at_sessions_and_at_silence() -> None:
    ats = [0, 1, 2, 20, 0, 1]
    scopes = [1, 2, 1, 1, 2, 2]
    index = fresh([row(n, "x", scope=scopes[n - 1], at=ats[n - 1] * HOUR) for n in range(1, 7)])
    sessions = index.sessions
    assert sessions.order.tolist() == [0, 2, 3, 1, 4, 5]
    assert sessions.number.tolist() == [0, 0, 1, 2, 2, 2]  # 18 hours of silence begin another episode
    by_row = np.arange(1, 7, dtype=np.float32)
    ordered = sessions.ordered(by_row)
    assert sessions.by_row(ordered).tolist() == by_row.tolist()
    assert sessions.by_row(sessions.shifted(ordered, 1)).tolist() == [0, 0, 1, 0, 2, 5]
    assert sessions.by_row(sessions.shifted(ordered, -1)).tolist() == [3, 5, 0, 0, 6, 0]
    assert sessions.by_row(sessions.best(ordered)).tolist() == [3, 6, 3, 4, 6, 6]
    assert np.expm1(sessions.by_row(sessions.depth)).round().tolist() == [0, 0, 1, 0, 1, 2]
    assert not sessions.shifted(ordered, 99).any()


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_memory_is_what_is_held(size: int) -> None:
    index = fresh([row(n, "porto kayak rain") for n in range(1, size + 1)])
    before = index.memory_bytes
    assert before > 0
    assert index.vectors.nbytes == size * DIM * 4
    assert index.memory_bytes == before + index.vectors.nbytes
