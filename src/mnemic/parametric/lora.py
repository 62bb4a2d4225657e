"""LoRA: what was learned as a low-rank change of some linear maps, added by hooks, never merged.

W' = W + (alpha / rank) · B · A (Hu et al. 2021, §4.1; MemOS §7). Knows no vault and no training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnemic.cube.errors import IncompatibleMemory, InvalidOption
from mnemic.models.fingerprint import Fingerprint, fingerprint
from mnemic.models.local import LocalModel
from mnemic.models.stack import Point
from mnemic.parametric.bare import Applicable
from mnemic.parametric.cube import check_fingerprint

PREFIX: Final = "base_model.model."  # what PEFT puts before a module's path


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoRA(Applicable):
    """Low-rank changes by the path of the linear map: down (A) [rank, in], up (B) [out, rank].

    id: names it where it is mounted; default: by what it holds. fingerprint: of the model that it was trained
    for. Its tensors are never written to. A `Mountable`.
    """

    down: Mapping[str, Tensor]
    up: Mapping[str, Tensor]
    alpha: float
    fingerprint: Fingerprint
    id: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", f"lora:{self._digest()[:16]}")

    @property
    def point(self) -> Point:
        return Point.WEIGHT

    @property
    def rank(self) -> int:
        return int(next(iter(self.down.values())).shape[0])

    @property
    def nbytes(self) -> int:
        """rank · (in + out) · bytes of a number, over the maps."""
        return sum(one.numel() * one.element_size() for one in (*self.down.values(), *self.up.values()))

    def check(self, local: LocalModel, stack: tuple[str, ...]) -> None:
        """Raises IncompatibleMemory unless it was trained for this model. Other adapters may be below it:
        changes add, though each was trained alone.
        """
        check_fingerprint(f"adapter {self.id}", self.fingerprint, fingerprint(local), local.name)
        if self.id in stack:
            raise InvalidOption(f"adapter {self.id} is mounted already; once is what it was trained for")
        modules = dict(local.model.named_modules())
        for name, down in self.down.items():
            module = modules.get(name)
            shape = (self.up[name].shape[0], down.shape[1])
            if not isinstance(module, nn.Linear) or (module.out_features, module.in_features) != shape:
                raise IncompatibleMemory(
                    f"adapter {self.id} changes {name}, a linear map of {shape[1]} to {shape[0]} numbers; "
                    f"{local.name} has {module!r:.80} there",
                    part="config",
                    expected=str(shape),
                    found=f"{module!r:.80}",
                )

    def install(self, local: LocalModel, undo: ExitStack) -> None:
        """One forward hook a map; no parameter is written to."""
        for name in sorted(self.down):
            module = local.model.get_submodule(name)
            down, up = (
                one[name].to(module.weight.device, module.weight.dtype) for one in (self.down, self.up)
            )
            hook = module.register_forward_hook(_adding(down, up, self.alpha / self.rank))
            undo.callback(hook.remove)

    def _digest(self) -> str:
        hashed = hashlib.sha256(repr(self.alpha).encode())
        for name, one in sorted(self.tensors().items()):
            hashed.update(f"{name}\0{tuple(one.shape)}\0".encode())
            hashed.update(one.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return hashed.hexdigest()

    # --- PEFT's names

    def tensors(self) -> dict[str, Tensor]:
        """As PEFT names them in adapter_model.safetensors."""
        out = {f"{PREFIX}{name}.lora_A.weight": one for name, one in self.down.items()}
        return out | {f"{PREFIX}{name}.lora_B.weight": one for name, one in self.up.items()}

    def peft_config(self) -> dict[str, Any]:
        """As PEFT names it in adapter_config.json."""
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": sorted(self.down),
            "inference_mode": True,
        }


def of_tensors(
    tensors: Mapping[str, Tensor], *, alpha: float, fingerprint: Fingerprint, id: str = ""
) -> LoRA:
    """From PEFT's names. Raises ValueError unless every map has both parts, of one rank."""
    down: dict[str, Tensor] = {}
    up: dict[str, Tensor] = {}
    for key, one in tensors.items():
        name, _, part = key.removeprefix(PREFIX).rpartition(".lora_")
        if not key.startswith(PREFIX) or part not in ("A.weight", "B.weight") or one.ndim != 2:
            raise ValueError(f"{key!r:.120} is not a part of an adapter")
        (down if part == "A.weight" else up)[name] = one
    ranks = {one.shape[0] for one in down.values()} | {one.shape[1] for one in up.values()}
    if not down or down.keys() != up.keys() or len(ranks) != 1 or not min(ranks):
        raise ValueError(f"{len(down)} maps down, {len(up)} up, of ranks {sorted(ranks)[:4]}")
    return LoRA(down=down, up=up, alpha=alpha, fingerprint=fingerprint, id=id)


def _adding(down: Tensor, up: Tensor, scale: float) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def add(_module: nn.Module, args: Any, out: Tensor) -> Tensor:
        return out + F.linear(F.linear(args[0], down), up) * scale

    return add


def is_finite(lora: LoRA) -> bool:
    return all(bool(torch.isfinite(one).all()) for one in (*lora.down.values(), *lora.up.values()))
