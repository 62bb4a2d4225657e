"""What a parametric cube says of itself in its payload. Imports no torch: listing cubes costs nothing of
it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from mnemic.cube.errors import InvalidOption
from mnemic.cube.model import Kind, MemCube

FORMAT: Final = "mnemic-parametric-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Enough to list a parametric cube, and to refuse it without reading its tensors.

    form: "lora", "mlp", "exact" or "ivfpq". numbers: how many it has learned or holds. recipe: what it was
    made with; report: how it was tested before it was stored.
    """

    form: str
    model: str
    numbers: int
    fingerprint: dict[str, str]
    made_with: str
    sha256: str
    size: int  # of the file, bytes
    recipe: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    title: str | None = None

    def payload(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True, ensure_ascii=False).encode()

    @classmethod
    def of(cls, cube: MemCube) -> Self:
        """Raises InvalidOption unless the cube is a parametric memory."""
        advice = "`mnemic memory list` shows those that are; `mnemic memory compile` makes one from texts"
        if cube.kind is not Kind.parametric:
            raise InvalidOption(f"cube {cube.id} is {cube.kind.name}, not a parametric memory; {advice}")
        try:
            told = json.loads(cube.payload)
            if told.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            return cls(**told)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidOption(f"cube {cube.id} is not a parametric memory ({error}); {advice}") from error
