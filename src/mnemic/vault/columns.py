"""Which values of a statement are sealed: its parameters and its results, read from the statement itself.

A column is marked in `tables` by `info={"sealed": row}`: sealed under the key of the space, with the number
in the column `row` ("" for none); None: under the key of the tenant.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import BindParameter
from sqlalchemy.sql.dml import Insert, Update


class In(NamedTuple):
    """A parameter that is sealed, and the parameters that name its space and row."""

    param: str
    column: str
    space: str | None
    row: str | None


class Out(NamedTuple):
    """A column of the result that is opened, and where the numbers of its row and space stand, if they do."""

    position: int
    column: str
    row: int | None
    space: int | None


class Columns(NamedTuple):
    """What of a statement is sealed."""

    ins: tuple[In, ...]
    outs: tuple[Out, ...]


def columns_of(element: Any) -> Columns:
    """The sealed columns that a statement writes and reads."""
    return Columns(tuple(_ins(element)), tuple(_outs(element)))


def _ins(element: Any) -> Iterator[In]:
    if isinstance(element, Insert):
        for one in element.table.c:
            if "sealed" in one.info:
                yield _in(one, one.key)
    elif isinstance(element, Update):
        values: Any = element._values or {}  # by column, by name once compiled
        for key, value in values.items():
            column = element.table.c[getattr(key, "key", key)]
            if "sealed" in column.info and isinstance(value, BindParameter) and value.value is None:
                yield _in(column, value.key)


def _in(column: Any, param: str) -> In:
    row = column.info["sealed"]
    of_space = row is not None
    return In(param, str(column), "space" if of_space else None, row or None)


def _outs(element: Any) -> Iterator[Out]:
    columns = list(getattr(element, "exported_columns", ()))
    originals = [next(iter(column.base_columns)) for column in columns]
    for position, column in enumerate(originals):
        if "sealed" in getattr(column, "info", {}):
            row = column.info["sealed"]
            rows = [i for i, one in enumerate(originals) if row and one is column.table.c.get(row)]
            spaces = [i for i, one in enumerate(originals) if row is not None and one.key == "space"]
            yield Out(position, str(column), rows[0] if rows else None, spaces[0] if spaces else None)
