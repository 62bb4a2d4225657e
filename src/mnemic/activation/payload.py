"""What activation cubes say of themselves: JSON in the payload, so that none need be opened to be refused."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from mnemic.cube.errors import InvalidOption
from mnemic.cube.model import Kind, MemCube

D = TypeVar("D")


def said(format: str, description: dict[str, Any]) -> bytes:
    """A description as a payload."""
    return json.dumps({"format": format, **description}, sort_keys=True, ensure_ascii=False).encode()


def read(cube: MemCube, kind: type[D], format: str, *, what: str, advice: str) -> D:
    """The description in a cube's payload. Raises InvalidOption unless it is `what`, of this format."""
    if cube.kind is not Kind.activation:
        raise InvalidOption(f"cube {cube.id} is {cube.kind.name}, not {what}; {advice}")
    try:
        told = json.loads(cube.payload)
        if told.pop("format") != format:
            raise ValueError(f"its format is not {format}")
        return kind(**told)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidOption(f"cube {cube.id} is not {what} ({error}); {advice}") from error
