"""A model's modules once more, on the same weights: what trains beside a model cannot touch it."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn


def shared_copy(model: nn.Module) -> Any:
    """New modules that share every weight's memory with `model`. O(modules), no weight is copied.

    Parameters are new objects that need no gradient; ties between them are kept. What is added to the copy
    (hooks, adapters, flags, training mode) is not added to `model`. Do not write into the shared weights.
    """
    memo: dict[int, Any] = {
        id(one): nn.Parameter(one.detach(), requires_grad=False) for one in model.parameters()
    }
    memo |= {id(one): one for one in model.buffers()}
    return copy.deepcopy(model, memo)
