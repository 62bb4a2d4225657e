"""What a state cube says of itself in its payload. Imports no torch: listing cubes costs nothing of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from mnemic.activation.payload import read, said
from mnemic.cube.model import MemCube

FORMAT: Final = "mnemic-state-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDescription:
    """Enough to list a state of layers and to refuse it without reading its tensors.

    specs: of each layer, as JSON. weights: of the module that made it. seen: tokens a sequence has written;
    tokens: how long the stream is, padding too. token_ids: a digest of what was read, where that was text.
    sha256: of the tensors.
    """

    specs: list[dict[str, Any]]
    stacked: bool  # the states of a stack, not of one layer
    weights: str
    seen: list[int]
    tokens: int
    token_ids: str | None
    made_with: str
    sha256: str
    size: int  # of the file, bytes
    title: str | None = None

    def payload(self) -> bytes:
        return said(FORMAT, asdict(self))

    @classmethod
    def of(cls, cube: MemCube) -> Self:
        """Raises InvalidOption unless the cube is a state of layers."""
        return read(cube, cls, FORMAT, what="a state of layers", advice="`mem.keep_state(…)` makes one")
