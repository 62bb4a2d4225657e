"""What a KV cube says of itself in its payload. Imports no torch: listing cubes costs nothing of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from mnemic.cube.errors import InvalidOption
from mnemic.cube.model import Kind, MemCube

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
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True, ensure_ascii=False).encode()

    @classmethod
    def of(cls, cube: MemCube) -> Self:
        """Raises InvalidOption unless the cube is a KV."""
        advice = "`mnemic kv list` shows those that are; `mnemic kv build` makes one from texts"
        if cube.kind is not Kind.activation:
            raise InvalidOption(f"cube {cube.id} is {cube.kind.name}, not a KV memory; {advice}")
        try:
            told = json.loads(cube.payload)
            if told.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            return cls(**told)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidOption(f"cube {cube.id} is not a KV memory ({error}); {advice}") from error


def is_kv(cube: MemCube) -> bool:
    """Whether a cube is a KV memory, by its description."""
    try:
        Description.of(cube)
    except InvalidOption:
        return False
    return True
