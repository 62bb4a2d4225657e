"""Cache policies by name: the one table where a string names code."""

from __future__ import annotations

import importlib
from typing import Any, Final

from mnemic.cube.errors import InvalidOption

POLICIES: Final[dict[str, str]] = {
    "full": "mnemic.activation.full:FullCache",
    "streaming": "mnemic.activation.streaming:StreamingLLM",
    "h2o": "mnemic.activation.h2o:H2O",
    "tova": "mnemic.activation.tova:TOVA",
    "snapkv": "mnemic.activation.snapkv:SnapKV",
    "random": "mnemic.activation.random_eviction:RandomEviction",
    "lazy": "mnemic.activation.lazy:LazyEviction",
    "taskkv": "mnemic.activation.taskkv:TaskKV",
    "kvzip": "mnemic.activation.kvzip:KVzip",
}


def policy_class(name: str) -> Any:
    """The class that `name` stands for. Raises InvalidOption that lists what there is."""
    if name not in POLICIES:
        raise InvalidOption(f"policy {name!r:.80} is unknown. There are: {', '.join(POLICIES)}")
    module, _, attribute = POLICIES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
