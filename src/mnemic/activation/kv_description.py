"""What a KV cube says of itself in its payload. Imports no torch: listing cubes costs nothing of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from mnemic.activation.payload import read, said
from mnemic.cube.model import MemCube

FORMAT: Final = "mnemic-kv-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What the payload of a KV cube says: enough to list it and to refuse it without reading its tensors."""

    model: str
    tokens: int
    storage: str
    label: str
    form: str
    fingerprint: dict[str, str]
    stack: str
    made_with: str
    sha256: str
    size: int  # of the file, bytes
    error: dict[str, Any] | None = None
    title: str | None = None

    def payload(self) -> bytes:
        return said(FORMAT, asdict(self))

    @classmethod
    def of(cls, cube: MemCube) -> Self:
        """Raises InvalidOption unless the cube is a KV."""
        advice = "`mnemic kv list` shows those that are; `mnemic kv build` makes one from texts"
        return read(cube, cls, FORMAT, what="a KV memory", advice=advice)
