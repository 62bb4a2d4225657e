"""The vocabulary: ids, times, checks, errors and immutable values."""

from __future__ import annotations

import ast
import inspect
import os
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from mnemic.cube import errors, ids
from mnemic.cube.checks import require_count, require_extra, require_positive
from mnemic.cube.errors import InvalidOption, InvalidTime, MissingExtra, MnemicError
from mnemic.cube.ids import id_bytes, id_text, named_id, new_ids
from mnemic.cube.model import Header, Kind, MemCube, Origin, Scope, State, check_scope_field
from mnemic.cube.times import EPOCH, now, to_datetime, to_micros

# --- ids


def test_new_ids_are_uuid7_and_rise() -> None:
    before = time.time_ns() // 1_000_000
    made = [one for count in (1, 1000, 1, 5000) for one in new_ids(count)]
    after = time.time_ns() // 1_000_000
    assert made == sorted(set(made))
    for one in made:
        parsed = uuid.UUID(bytes=one)
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
        assert before <= int.from_bytes(one[:6], "big") <= after + 2
    assert new_ids(0) == []


def test_new_ids_differ_between_threads() -> None:
    made: list[list[bytes]] = [[] for _ in range(8)]

    def make(mine: list[bytes]) -> None:
        for _ in range(200):
            mine.extend(new_ids(5))

    threads = [threading.Thread(target=make, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one for mine in made for one in mine}) == 8 * 1000
    assert all(mine == sorted(mine) for mine in made)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_makes_ids_even_if_the_lock_was_held() -> None:
    reading, writing = os.pipe()
    with ids._lock:
        child = os.fork()
        if child == 0:
            threading.Timer(5, os._exit, (1,)).start()
            os.write(writing, new_ids(1)[0])
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)
    assert len(theirs) == 16
    assert theirs not in new_ids(1)


def test_ids_rise_when_the_clock_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_ids(1)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert new_ids(1) > first


@given(st.binary(min_size=16, max_size=16))
def test_ids_are_read_as_they_are_written(raw: bytes) -> None:
    assert id_bytes(id_text(raw)) == raw
    assert id_text(raw) == str(uuid.UUID(bytes=raw))


@pytest.mark.parametrize("wrong", ["", "x", "1" * 31, "g" * 32, None, 5, b"x" * 16, 1.5, [], "é" * 32])
def test_what_is_no_id_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidOption, match="not a cube id"):
        id_bytes(wrong)  # type: ignore[arg-type]


def test_a_name_gives_one_id() -> None:
    assert named_id(b"a") == named_id(b"a") != named_id(b"b")
    assert uuid.UUID(bytes=named_id(b"a")).version == 5


# --- times

zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(timezones=st.none() | zones))
@example(datetime.min.replace(tzinfo=timezone(timedelta(hours=14))))
@example(datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))))
@example(datetime.min)
@example(datetime.max)
def test_a_time_is_read_exactly_or_refused(moment: datetime) -> None:
    """What is taken can be given back; years at the very edge are refused."""
    for value in (moment, moment.isoformat()):
        try:
            micros = to_micros(value)
        except InvalidTime:
            assert moment.year in (1, 9999)
            continue
        wanted = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        assert to_datetime(micros) == wanted
        assert to_datetime(micros).tzinfo is UTC


@given(st.integers(-(10**9), 10**10) | st.floats(-1e9, 1e10))
def test_an_epoch_is_seconds(value: float) -> None:
    assert abs(to_datetime(to_micros(value)) - (EPOCH + timedelta(seconds=value))) < timedelta(microseconds=2)


@pytest.mark.parametrize(
    "wrong",
    [
        "", "soon", "2025-13-01", "24:00", None, True, False, [], {}, b"2025-01-01",
        float("nan"), float("inf"), -float("inf"), 1e300, 10**400, -(10**400), 10**15, "10000-01-01",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidTime, match="when"):
        to_micros(wrong, field="when")  # type: ignore[arg-type]


def test_some_ways_to_write_a_time() -> None:
    wanted = to_micros(datetime(2025, 3, 9, 10, tzinfo=UTC))
    for written in (
        "2025-03-09T10:00Z",
        "2025-03-09T10:00",
        " 2025-03-09 10:00:00+00:00 ",
        "2025-03-09T11:00+01:00",
    ):
        assert to_micros(written) == wanted
    assert to_micros(1741514400) == to_micros(1741514400.0) == wanted
    assert to_micros("2025-03-09") == wanted - 10 * 3600 * 10**6
    assert abs(now() - time.time_ns() // 1000) < 10**6


# --- checks


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf"), True, "1", None, -(10**9)])
def test_a_positive_number(wrong: object) -> None:
    require_positive(a=1, b=0.5, c=10**400)
    with pytest.raises(InvalidOption, match="half_life"):
        require_positive(half_life=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [0, -1, 1.0, True, "1", None])
def test_a_count(wrong: object) -> None:
    require_count(k=1, n=10)
    require_count(minimum=0, k=0)
    with pytest.raises(InvalidOption, match="k must be a whole number of at least 1"):
        require_count(k=wrong)


def test_a_missing_part_is_named_with_its_command() -> None:
    assert require_extra("json", extra="x").dumps([]) == "[]"
    with pytest.raises(MissingExtra, match=r"pip install 'mnemic\[torch\]'"):
        require_extra("no_such_module_here", extra="torch")


@pytest.mark.parametrize("value", [None, "a", "%", " ", "None", "a" * 512, "🙂"])
def test_a_scope_field(value: str | None) -> None:
    assert check_scope_field("user", value) == value


@pytest.mark.parametrize("wrong", ["", "a\x00", "a" * 513, 5, b"a", "\ud800", [], 1.0])
def test_what_is_no_scope_field_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidOption, match="user="):
        check_scope_field("user", wrong)


# --- errors


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = {}
    trail = ["MnemicError"]
    for line in (errors.__doc__ or "").splitlines():
        mark = max(line.find("├── "), line.find("└── "))
        if mark >= 0:
            depth = mark // 4 + 1
            name = line[mark + 4 :].split()[0]
            drawn[name] = trail[depth - 1]
            trail[depth:] = [name]
    real = {
        name: next(base.__name__ for base in one.__bases__ if issubclass(base, MnemicError))
        for name, one in vars(errors).items()
        if inspect.isclass(one) and issubclass(one, MnemicError) and one is not MnemicError
    }
    assert drawn == real


def test_errors_hide_none_of_pythons() -> None:
    import builtins

    tree = ast.parse(inspect.getsource(errors))
    names = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert names
    assert not set(names) & set(dir(builtins))


# --- values


def cube(**fields: object) -> MemCube:
    header = Header(scope=Scope("default", "ana"), origin=Origin.user, at=EPOCH, recorded_at=EPOCH)
    known = {
        "id": "i",
        "version_id": "v",
        "kind": Kind.plaintext,
        "header": header,
        "payload": b"hi \xc3\xa9",
    }
    return MemCube(**{**known, **fields})  # type: ignore[arg-type]


def test_a_cube_is_a_value() -> None:
    one = cube()
    assert one == cube()
    assert (one.text, one.metadata, one.header.state) == ("hi é", {}, State.generated)
    for field in ("id", "payload", "header"):
        with pytest.raises(ValidationError):
            setattr(one, field, "x")
    with pytest.raises(ValidationError):
        cube(unknown=1)
    with pytest.raises(ValidationError):
        one.header.role = "x"  # type: ignore[misc]


def test_a_cube_shows_what_it_is() -> None:
    assert repr(cube()) == "MemCube(i, 'hi é')"
    assert len(repr(cube(payload=b"x" * 1000))) < 120
    assert repr(cube(kind=Kind.activation, payload=b"\xff\xff")) == "MemCube(i, '<2 bytes>')"
