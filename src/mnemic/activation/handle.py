"""What a cache policy gives to the model in place of keys and values: their shape, and nothing else.

The model passes a handle to `scaled_dot_product_attention`, and there the layer it belongs to answers with
its own storage: that is where queries (after RoPE), mask, scale and ragged storage meet, under the stock
model, with no hook and no patch. Everything else that wants to read a handle is refused by name; a kernel
that bypasses the protocol reads NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mnemic.cube.errors import UnsupportedAttention

_SDPA: Final = F.scaled_dot_product_attention
_VIEWS: Final = {torch.Tensor.__getitem__, torch.Tensor.expand, torch.Tensor.reshape}  # what repeat_kv does
_METADATA: Final = {
    *(getattr(torch.Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "requires_grad")),
    torch.Tensor.size,
    torch.Tensor.dim,
    torch.Tensor.stride,
    torch.Tensor.is_floating_point,
}


class Attending(Protocol):
    """What stands behind a handle."""

    def attend(self, query: Tensor, handle_shape: torch.Size, call: Call) -> Tensor: ...


class Call:
    """The arguments of one sdpa call besides query, key and value."""

    __slots__ = ("causal", "dropout", "enable_gqa", "mask", "scale")

    def __init__(
        self,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> None:
        self.mask, self.dropout, self.causal = attn_mask, dropout_p, is_causal
        self.scale, self.enable_gqa = scale, enable_gqa


class KVHandle(torch.Tensor):
    """Stands for the keys or values of one layer: shape [B, H, T, D] with strides of 0 over a single NaN."""

    layer: Attending

    @classmethod
    def of(cls, layer: Attending, shape: Sequence[int], like: Tensor) -> KVHandle:
        handle = like.new_full((1,), torch.nan).expand(shape).as_subclass(cls)
        handle.layer = layer
        return handle

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is _SDPA:
            return _attend(*args, **kwargs)
        if func in _METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func in _VIEWS:
            layer = args[0].layer
            with torch._C.DisableTorchFunctionSubclass():
                view = func(*args, **kwargs)
            if all(stride == 0 for stride, size in zip(view.stride(), view.shape, strict=True) if size > 1):
                handle = view.as_subclass(cls)
                handle.layer = layer
                return handle
        raise UnsupportedAttention(
            f"{getattr(func, '__name__', func)} was called on keys or values that a cache policy holds; only "
            "scaled_dot_product_attention may read them. Load the model with attn_implementation='sdpa'"
        )


def _attend(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if not isinstance(key, KVHandle) or not isinstance(value, KVHandle) or isinstance(query, KVHandle):
        raise UnsupportedAttention(
            "attention mixes what a cache policy holds with other tensors (a prefix, or keys shared between "
            "layers); no policy can serve that"
        )
    return key.layer.attend(query, key.shape, Call(*args, **kwargs))


def require_sdpa(implementation: str) -> None:
    """Raise UnsupportedAttention unless a model's attention is sdpa, the one place where handles are read."""
    if implementation != "sdpa":
        raise UnsupportedAttention(
            f"the model uses attn_implementation={implementation!r}; a cache policy meets attention in "
            "scaled_dot_product_attention alone. Load the model with attn_implementation='sdpa'"
        )
