"""`where` and scopes as row masks, applied before anything is ranked.

`{"field": value | [any of] | {"gte": …, "gt": …, "lte": …, "lt": …, "not": …}}`; all entries must hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnemic.cube.errors import InvalidFilter, InvalidTime
from mnemic.cube.model import Kind, Origin, Scope
from mnemic.cube.reach import Reach
from mnemic.cube.times import TimeLike, to_micros
from mnemic.index.columns import HeaderColumns
from mnemic.index.scope import ScopeIndex

BoolArray = NDArray[np.bool_]
Where = Mapping[str, Any]
Test = Callable[[Any], bool]
Columns = Callable[[], HeaderColumns]

_TIMES = ("at", "recorded_at", "valid")
_CODES = {"kind": Kind, "origin": Origin}
_HEADERS = ("labels", "role", "name")
_FLAGS = ("pinned", "frozen")
_SCOPES = ("session", "agent")
FIELDS = (*_HEADERS, *_CODES, *_FLAGS, *_SCOPES, *_TIMES, "metadata.<key>")
_ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "gte": lambda have, want: have >= want,
    "gt": lambda have, want: have > want,
    "lte": lambda have, want: have <= want,
    "lt": lambda have, want: have < want,
}


@dataclass(frozen=True, slots=True)
class Filter:
    """A checked `where`, and the moments it is asked of. Raises InvalidFilter at construction for an unknown

    field, operator or value. as_of: µs, only what was known then; None for what is known now.
    """

    tests: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = ()
    as_of: int | None = None

    @classmethod
    def of(
        cls, where: Where | None, *, as_of: TimeLike | None = None, valid_at: TimeLike | None = None
    ) -> Filter:
        """valid_at: only what was true then, the same as `{"valid": …}`. Raises InvalidTime."""
        if where is not None and not isinstance(where, Mapping):
            raise InvalidFilter(f"where must be a dict such as {{'labels': 'travel'}}, got {where!r:.80}")
        tests = [(field, _conditions(field, wanted)) for field, wanted in (where or {}).items()]
        if valid_at is not None:
            tests.append(("valid", (("valid", to_micros(valid_at, field="valid_at")),)))
        return cls(tuple(tests), None if as_of is None else to_micros(as_of, field="as_of"))

    @property
    def valid_at(self) -> int | None:
        """The moment of which the facts are asked; None for now."""
        return next((conditions[0][1] for field, conditions in self.tests if field == "valid"), None)

    @property
    def parts(self) -> tuple[bool, bool]:
        """Whether it looks at what was told, and at what was derived: only where it asks for that.

        `origin` or `kind` decide; a filter that names neither speaks of what was told.
        """
        named = {field: conditions for field, conditions in self.tests if field in _CODES}
        if "origin" in named:
            origins = [one for one in Origin if _accepts(named["origin"], int(one))]
            return any(one is not Origin.derived for one in origins), Origin.derived in origins
        return True, "kind" in named and not _accepts(named["kind"], int(Kind.plaintext))

    def mask(
        self, index: ScopeIndex, scopes: Mapping[int, Scope], reach: Reach, columns: Columns
    ) -> BoolArray:
        """(rows,) what is within reach and passes. O(rows), vectorised."""
        seen = np.zeros(max(scopes, default=0) + 1, np.bool_)
        for number, names in scopes.items():
            seen[number] = reach.has(names) and all(
                _accepts(conditions, getattr(names, field))
                for field, conditions in self.tests
                if field in _SCOPES
            )
        mask = seen[index.scope]
        for field, conditions in self.tests:
            if field in _SCOPES:
                continue
            if field == "valid":
                for _, moment in conditions:
                    mask &= (index.valid_from <= moment) & (moment < index.valid_to)
            elif field in _TIMES or field in _CODES:
                column = getattr(index, field)
                for operator, wanted in conditions:
                    mask &= _compare(operator, column, wanted)
            else:
                mask &= _rows_where(columns(), field, conditions)
        return mask


def _conditions(field: str, wanted: Any) -> tuple[tuple[str, Any], ...]:
    known = field in FIELDS[:-1] or (
        isinstance(field, str) and field.startswith("metadata.") and len(field) > 9
    )
    if not known:
        raise InvalidFilter(f"unknown field {field!r:.80} in where; there are {', '.join(FIELDS)}")
    if isinstance(wanted, Mapping):
        if not wanted:
            raise InvalidFilter(f"{field}={{}} in where says nothing; there are {', '.join(_ORDER)} and not")
        out = []
        for operator, value in wanted.items():
            if operator not in _ORDER and operator != "not":
                raise InvalidFilter(
                    f"unknown operator {operator!r:.80} for {field}; there are {', '.join(_ORDER)} and not"
                )
            if field == "valid":
                raise InvalidFilter("'valid' takes one time: the facts that were true then")
            if operator == "not":
                out.append(("not", _values(field, value)))
            else:
                out.append((operator, _value(field, value)))
        return tuple(out)
    values = _values(field, wanted)
    if field != "valid":
        return (("in", values),)
    if len(values) > 1:
        raise InvalidFilter("'valid' takes one time: the facts that were true then")
    return (("valid", values[0]),)


def _values(field: str, value: Any) -> tuple[Any, ...]:
    listed = tuple(value) if isinstance(value, list | tuple | set | frozenset) else (value,)
    if not listed:
        raise InvalidFilter(f"{field} in where names no value; leave it out, or name at least one")
    return tuple(_value(field, one) for one in listed)


def _value(field: str, value: Any) -> Any:
    if field in _TIMES:
        try:
            return to_micros(value, field=field)
        except InvalidTime as error:
            raise InvalidFilter(f"where: {error}") from error
    if field in _CODES:
        names = [member.name for member in _CODES[field]]
        if isinstance(value, _CODES[field]):
            return int(value)
        if value not in names:
            raise InvalidFilter(f"{field}={value!r:.80} in where must be one of {', '.join(names)}")
        return int(_CODES[field][value])
    if field in _FLAGS:
        if not isinstance(value, bool):
            raise InvalidFilter(f"{field}={value!r:.80} in where must be True or False")
        return value or None  # a header says so only where it is
    if value is not None and not isinstance(value, str | int | float | bool):
        raise InvalidFilter(f"{field}={value!r:.80} in where must be text, a number, true, false or None")
    return value


def _rows_where(columns: HeaderColumns, field: str, conditions: Sequence[tuple[str, Any]]) -> BoolArray:
    """(rows,) of several values, such as labels, one has to pass; but "not" holds for all of them."""
    positive = [condition for condition in conditions if condition[0] != "not"]
    out = columns.rows_where(field, partial(_accepts, positive))
    for operator, wanted in conditions:
        if operator == "not":
            out &= ~columns.rows_where(field, partial(_accepts, [("in", wanted)]))
    return out


def _compare(operator: str, column: NDArray[np.int64], wanted: Any) -> Any:
    if operator in ("in", "not"):
        found = np.isin(column, np.array(wanted, np.int64))
        return ~found if operator == "not" else found
    return _ORDER[operator](column, wanted)


def _accepts(conditions: Sequence[tuple[str, Any]], value: Any) -> bool:
    for operator, wanted in conditions:
        if operator == "in":
            held = value in wanted
        elif operator == "not":
            held = value not in wanted
        else:
            comparable = value is not None and isinstance(value, str) == isinstance(wanted, str)
            held = comparable and bool(_ORDER[operator](value, wanted))
        if not held:
            return False
    return True
