"""A memory that diverges is an error, which brings the last state that was well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from mnemic.cube.errors import MemoryDivergedError
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.state import LayerState
from mnemic.layers.titans_stream import Diverged

S = TypeVar("S", bound=LayerState)


@contextmanager
def rollback(layer: MemoryLayer[S], x: Tensor, state: S, valid: Tensor | None = None) -> Iterator[None]:
    """Turn `Diverged` into MemoryDivergedError with the state after the last chunk that was well.

    That state is found by reading those tokens again, which costs nothing until it is needed. x, valid: as
    given to `MemoryLayer.chunked`.
    """
    try:
        yield
    except Diverged as found:
        tokens, good = found.tokens, state.detach()
        if tokens:
            with torch.no_grad():
                _, good = layer(
                    x[:, :tokens].detach(), good, mask=None if valid is None else valid[:, :tokens]
                )
        raise MemoryDivergedError(
            f"{layer.name} diverged: {found}, after {tokens} of {x.shape[1]} tokens that were well. `.state` "
            "of this error is the state after those; the state given in is as it was. Smaller steps, a "
            "shorter chunk, more decay or clip=… keep it stable",
            state=good,
            tokens=tokens,
        ) from found
