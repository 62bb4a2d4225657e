"""What can be mounted on a model: a protocol, satisfied without importing it. Knows no kind of memory."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Protocol, runtime_checkable

from mnemic.models.local import LocalModel
from mnemic.models.stack import Point

__all__ = ["Mountable", "Point"]


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
