"""mnemic: a memory operating system for AI.

    import mnemic
    mem = mnemic.open("ana.db")
    mem.add("I moved to Porto in March.", user="ana")
    mem.context("Where does Ana live?", user="ana").text

Public names are imported when first used, so that `import mnemic` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "ANY",
    "AsyncMemory",
    "ContextOptions",
    "Hit",
    "MemCube",
    "Memory",
    "MnemicError",
    "Weights",
    "__version__",
    "open",
]

if TYPE_CHECKING:
    from mnemic.asynchronous import AsyncMemory
    from mnemic.cube.errors import MnemicError
    from mnemic.cube.model import ANY, MemCube
    from mnemic.memory import Memory, open
    from mnemic.plaintext.compose.policy import ContextOptions
    from mnemic.plaintext.recall.rank import Weights
    from mnemic.plaintext.recall.search import Hit

_HOMES = {
    "ANY": "mnemic.cube.model",
    "AsyncMemory": "mnemic.asynchronous",
    "ContextOptions": "mnemic.plaintext.compose.policy",
    "Hit": "mnemic.plaintext.recall.search",
    "MemCube": "mnemic.cube.model",
    "Memory": "mnemic.memory",
    "MnemicError": "mnemic.cube.errors",
    "Weights": "mnemic.plaintext.recall.rank",
    "open": "mnemic.memory",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"mnemic has no attribute {name!r}; its public names: {', '.join(__all__)}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
