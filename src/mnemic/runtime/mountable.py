"""What can be mounted on a model: a protocol, satisfied without importing it. Knows no kind of memory."""

from __future__ import annotations

from contextlib import ExitStack
from enum import IntEnum
from typing import Protocol, runtime_checkable

from mnemic.models.local import LocalModel


class Point(IntEnum):
    """Where a memory enters the computation; mounts are installed in this order."""

    WEIGHT = 0
    PREFIX = 1
    HEAD = 2
    BLOCK = 3
    LOGITS = 4


@runtime_checkable
class Mountable(Protocol):
    """A memory that changes what a model computes.

    id: names it in `stack`; two that compute differently have different ids. `check` raises
    IncompatibleMemory before anything is touched; stack: the ids that will be mounted below it. `install`
    makes its changes (hooks, never an in-place write to a parameter) and registers the undoing of each in
    `undo`.
    """

    @property
    def id(self) -> str: ...
    @property
    def point(self) -> Point: ...
    def check(self, local: LocalModel, stack: tuple[str, ...]) -> None: ...
    def install(self, local: LocalModel, undo: ExitStack) -> None: ...
