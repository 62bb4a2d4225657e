"""Options of a layer: frozen, keyword-only, checked once, at construction, against their annotations."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from mnemic.cube.errors import InvalidOption

_MEANING, _LOW, _HIGH = "meaning", "low", "high"


def option(default: Any, *, meaning: bool = True, low: float | None = None, high: float | None = None) -> Any:
    """A field with bounds, both allowed. `meaning=False`: a state does not depend on it (a compute chunk)."""
    return dataclasses.field(default=default, metadata={_MEANING: meaning, _LOW: low, _HIGH: high})


@dataclass(frozen=True, kw_only=True)
class LayerOptions:
    """What every layer is told: `dim`, the width of its input and output.

    A field annotated `int` must be a whole number of at least 1 (or its own `low`), `float` finite, `bool` a
    bool, `Literal` one of its values. Raises InvalidOption. `tuple` fields and nested LayerOptions check
    themselves.
    """

    dim: int

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> Self:
        """From a mapping of names, as in a configuration file. Raises InvalidOption."""
        names = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(options) - set(names))
        if unknown:
            raise InvalidOption(f"{cls.__name__} has no {', '.join(unknown)}; it has {', '.join(names)}")
        if "dim" not in options:
            raise InvalidOption(f"{cls.__name__} needs dim, the width of its input and output")
        return cls(**options)

    def meaning(self) -> dict[str, Any]:
        """The options on which the meaning of a state depends, as plain JSON values."""
        return {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.metadata.get(_MEANING, True)
        }

    def state_bytes(self, tokens: int, *, batch: int = 1, element_bytes: int = 4) -> int:
        """Bytes of a state after `tokens` tokens, counters included; `element_bytes` of the layer's dtype.

        Equals `LayerState.size_bytes()` to the byte; a test says so.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how large its state is")


def check_fields(options: Any) -> None:
    """Check a dataclass's values against their annotations and bounds. Raises InvalidOption."""
    kinds = typing.get_type_hints(type(options))
    for field in dataclasses.fields(options):
        _check(field, kinds[field.name], getattr(options, field.name))


def require_divisible(**options: int) -> None:
    """Raise InvalidOption unless the first option is a multiple of the second."""
    (name, value), (by, divisor) = options.items()
    if value % divisor:
        raise InvalidOption(f"{name} must be a multiple of {by} = {divisor}, got {value}")


def _plain(value: Any) -> Any:
    return value.meaning() if isinstance(value, LayerOptions) else value


def _check(field: dataclasses.Field[Any], kind: Any, value: Any) -> None:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        if value is None:
            return
        kind = next(one for one in typing.get_args(kind) if one is not types.NoneType)
    low, high = field.metadata.get(_LOW), field.metadata.get(_HIGH)
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            raise InvalidOption(f"{field.name} must be one of {typing.get_args(kind)}, got {value!r:.80}")
    elif kind is bool:
        if not isinstance(value, bool):
            raise InvalidOption(f"{field.name} must be True or False, got {value!r:.80}")
    elif kind is int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidOption(f"{field.name} must be a whole number, got {value!r:.80}")
        _check_range(field.name, value, 1 if low is None else low, high)
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidOption(f"{field.name} must be a finite number, got {value!r:.80}")
        _check_range(field.name, value, low, high)


def _check_range(name: str, value: float, low: float | None, high: float | None) -> None:
    if (low is not None and value < low) or (high is not None and value > high):
        allowed = (
            f"at least {low}" if high is None else f"at most {high}" if low is None else f"{low} to {high}"
        )
        raise InvalidOption(f"{name} must be {allowed}, got {value!r:.80}")
