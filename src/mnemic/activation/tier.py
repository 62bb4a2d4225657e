"""Colder places for what a policy evicts: demoted instead of dropped, with the policy's state, to be
recalled.

`Int8Tier` keeps evicted tokens in memory at a quarter of float32's size, and they still take part in
attention, approximately. `DiskTier` keeps them exactly, in files, out of attention, until
`PolicyCache.recall` brings them back.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mnemic.activation.attention import Part, attend_definition

Tokens = dict[str, Tensor]
"""row (n,) int64; k (n, D); v (n, Dv); pos (n,) int32; and the policy's state, (n,) each, by name."""


class TierLayer(Protocol):
    """One layer's demoted tokens."""

    def put(self, row: Tensor, k: Tensor, v: Tensor, pos: Tensor, state: Mapping[str, Tensor]) -> None: ...

    def attend(self, q: Tensor, scale: float) -> Part | None:
        """q (R, m, D) -> a part for every row, or None where nothing here attends."""
        ...

    def take(self, pos: Tensor | None) -> Tokens:
        """Remove and return the tokens at these positions (None: all)."""
        ...

    def select(self, wanted: Tensor) -> None:
        """Row r becomes a copy of row wanted[r]."""
        ...

    def held_tokens(self) -> int: ...

    def tensors(self) -> list[Tensor]: ...


class Tier(Protocol):
    def open(self, rows: int, layer_idx: int) -> TierLayer: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Tier:
    """Demoted keys and values in memory as int8, one scale for each token and head; they still attend.

    Size: D + Dv + 8 bytes a token and head, against 4 · (D + Dv) in float32. Error: each number is off by at
    most half a step of its token's largest number / 127.
    """

    def open(self, rows: int, layer_idx: int) -> TierLayer:  # noqa: ARG002
        return _Int8Layer(rows)


class _Int8Layer:
    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.held: Tokens | None = None

    def put(self, row: Tensor, k: Tensor, v: Tensor, pos: Tensor, state: Mapping[str, Tensor]) -> None:
        (k8, k_scale), (v8, v_scale) = _quantised(k), _quantised(v)
        new = {"row": row, "k": k8, "k_scale": k_scale, "v": v8, "v_scale": v_scale, "pos": pos, **state}
        held = self.held
        self.dtype = k.dtype
        self.held = new if held is None else {name: torch.cat([held[name], new[name]]) for name in new}

    def attend(self, q: Tensor, scale: float) -> Part | None:
        held = self.held
        if held is None or not len(held["row"]):
            return None
        order = held["row"].argsort(dim=0, stable=True)
        counts = torch.bincount(held["row"], minlength=self.rows)
        row = held["row"][order]
        place = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[row]
        k, v = (self._read(held, name)[order] for name in ("k", "v"))
        room = (self.rows, int(counts.max()))
        wide_k, wide_v = (each.new_zeros(*room, each.shape[1]) for each in (k, v))
        wide_k[row, place], wide_v[row, place] = k, v
        bias = torch.full(room, -torch.inf, device=k.device)
        bias[row, place] = 0.0
        out, peak, total = attend_definition(q, wide_k, wide_v, bias[:, None], scale)
        return out.to(q.dtype), peak, total

    def take(self, pos: Tensor | None) -> Tokens:
        if self.held is None:
            return {}
        hit = (
            torch.ones_like(self.held["pos"], dtype=torch.bool)
            if pos is None
            else _among(self.held["pos"], pos)
        )
        taken = {name: tensor[hit] for name, tensor in self.held.items()}
        self.held = {name: tensor[~hit] for name, tensor in self.held.items()}
        k, v = (self._read(taken, name).to(self.dtype) for name in ("k", "v"))
        plain = {name: tensor for name, tensor in taken.items() if not name.endswith("_scale")}
        return plain | {"k": k, "v": v}

    def select(self, wanted: Tensor) -> None:
        if self.held is not None:
            new_row, token = (wanted[:, None] == self.held["row"]).nonzero(as_tuple=True)
            self.held = {name: tensor[token] for name, tensor in self.held.items()} | {"row": new_row}
        self.rows = len(wanted)

    def held_tokens(self) -> int:
        return 0 if self.held is None else len(self.held["row"])

    def tensors(self) -> list[Tensor]:
        return [] if self.held is None else list(self.held.values())

    @staticmethod
    def _read(held: Tokens, name: str) -> Tensor:
        return held[name].float() * held[f"{name}_scale"][:, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskTier:
    """Demoted keys and values exactly, in safetensors files below `folder`; they do not attend until
    recalled.

    The files live as long as the cache and its clones. folder: default the system's temporary folder.
    """

    folder: str | None = None

    def open(self, rows: int, layer_idx: int) -> TierLayer:  # noqa: ARG002
        return _DiskLayer(tempfile.TemporaryDirectory(prefix=f"mnemic-layer-{layer_idx}-", dir=self.folder))


class _DiskLayer:
    """`files`: for each file, which of its tokens are still demoted, and the row each belongs to now."""

    def __init__(self, place: tempfile.TemporaryDirectory[str]) -> None:
        self.place = place
        self.files: list[tuple[Path, Tensor, Tensor]] = []

    def put(self, row: Tensor, k: Tensor, v: Tensor, pos: Tensor, state: Mapping[str, Tensor]) -> None:
        if len(row):
            path = Path(self.place.name, f"{len(list(Path(self.place.name).iterdir())):06d}.safetensors")
            save_file(
                {name: t.contiguous() for name, t in {"k": k, "v": v, "pos": pos, **state}.items()}, path
            )
            self.files.append((path, torch.arange(len(row)), row.clone()))

    def attend(self, q: Tensor, scale: float) -> Part | None:  # noqa: ARG002
        return None

    def take(self, pos: Tensor | None) -> Tokens:
        taken: list[Tokens] = []
        left = []
        for path, token, row in self.files:
            held = load_file(path)
            hit = torch.ones_like(token, dtype=torch.bool) if pos is None else _among(held["pos"][token], pos)
            taken.append({name: tensor[token[hit]] for name, tensor in held.items()} | {"row": row[hit]})
            if not bool(hit.all()):
                left.append((path, token[~hit], row[~hit]))
        self.files = left
        return {name: torch.cat([each[name] for each in taken]) for name in taken[0]} if taken else {}

    def select(self, wanted: Tensor) -> None:
        moved = []
        for path, token, row in self.files:
            new_row, at = (wanted[:, None] == row).nonzero(as_tuple=True)
            moved.append((path, token[at], new_row))
        self.files = moved

    def tensors(self) -> list[Tensor]:
        return [tensor for _, token, row in self.files for tensor in (token, row)]

    def held_tokens(self) -> int:
        return sum(len(row) for _, _, row in self.files)

    def __deepcopy__(self, memo: dict[int, object]) -> _DiskLayer:
        """Files are never written twice, so copies share them; the last one to go removes them."""
        other = _DiskLayer(self.place)
        other.files = [(path, token.clone(), row.clone()) for path, token, row in self.files]
        return other


def _quantised(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """(n, D) to int8 and (n,) float32 scales."""
    scale = tensor.float().abs().amax(-1).clamp_min(1e-12) / 127
    return (tensor.float() / scale[:, None]).round().to(torch.int8), scale


def _among(pos: Tensor, wanted: Tensor) -> Tensor:
    return torch.isin(pos, wanted.to(pos.dtype))
