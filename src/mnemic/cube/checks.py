"""Checks on options and the one way to name an optional part that is missing."""

from __future__ import annotations

import importlib
import math
from types import ModuleType

from mnemic.cube.errors import InvalidOption, MissingExtra


def require_positive(**options: float) -> None:
    """Raise InvalidOption unless every option is a finite number above zero."""
    for name, value in options.items():
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 0 < value < math.inf  # also false of NaN
        ):
            raise InvalidOption(f"{name} must be a number above 0, got {value!r:.80}")


def require_count(*, minimum: int = 1, **options: object) -> None:
    """Raise InvalidOption unless every option is a whole number of at least `minimum`."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise InvalidOption(f"{name} must be a whole number of at least {minimum}, got {value!r:.80}")


def require_extra(module: str, *, extra: str) -> ModuleType:
    """Import an optional module, or raise MissingExtra with the exact pip command."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"{module} is needed here and cannot be imported ({error}). Install it with: pip install "
            f"'mnemic[{extra}]'"
        ) from error
