"""What is mounted on a model right now, so that whatever is computed with it can say under what.

Knows no mount: `mnemic.runtime.mount` enters things here, and KV cubes write down what they find.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from enum import IntEnum
from typing import Any
from weakref import WeakKeyDictionary


class Point(IntEnum):
    """Where a memory enters the computation; mounts are installed in this order."""

    WEIGHT = 0
    PREFIX = 1
    HEAD = 2
    BLOCK = 3
    LOGITS = 4


_mounted: WeakKeyDictionary[Any, tuple[str, ...]] = WeakKeyDictionary()


def mounted(model: Any) -> tuple[str, ...]:
    """Ids of what changes this model's computation (weights, heads, blocks), in the order of mounting."""
    return _mounted.get(model, ())


def set_mounted(model: Any, ids: Sequence[str]) -> None:
    """For `mnemic.runtime.mount` alone."""
    _mounted[model] = tuple(ids)


def stack_hash(base: str, ids: Sequence[str]) -> str:
    """H(base weights, what is mounted on them, in order): 64 hex digits."""
    text = "\n".join([base, *ids])
    return hashlib.sha256(text.encode()).hexdigest()
