"""Mixture of memories (Du et al. 2025): several memories side by side, each token written to a few of them.

A token that is not sent to a memory neither writes into it nor makes it fade, so memories do not interfere.
The price: what was written to one memory is invisible to a query that is sent to another, unless the shared
memory, which sees every token, holds it too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, normalize, pad, silu, softplus

from mnemic.cube.errors import InvalidInput
from mnemic.layers.conv import begin_conv, causal_conv
from mnemic.layers.gated_delta import reset_decay
from mnemic.layers.heads import GatedOutput, full_precision, join_heads, silence
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.mom_router import Router, imbalance, sent_through, shares, taught
from mnemic.layers.mom_state import MoMOptions, MoMState
from mnemic.layers.recurrences import additive, delta
from mnemic.layers.retention import log_retention

_GATED = ("gla", "gated_delta")
Project = Callable[[Tensor], Tensor]  # tokens through their memory's part of (memories, dim, out): (…, out)


class MixtureOfMemories(MemoryLayer[MoMState]):
    """o = Σ_m g_m q S_m over the chosen memories, plus q S_shared (§3). O(time · (topk + 1)).

    g is the router's softmax over all memories, renormalised over the chosen. q and k are of unit length for
    every update. State: (memories + 1) · heads · key_dim · value_dim; topk + 1 of them are written a token.
    """

    name = "mom"
    Options = MoMOptions
    State = MoMState
    small: ClassVar[tuple[Mapping[str, Any], ...]] = (
        {"heads": 2, "chunk": 4},
        {"update": "linear", "topk": 1, "conv": 0, "gated": False, "key_dim": 3, "value_dim": 5},
        {"update": "delta", "memories": 2, "shared": False, "conv": 2, "qk_silu": True},
        {"update": "gla", "memories": 3, "topk": 2, "slowness": 2.0, "chunk": 4},
        {"update": "retention", "single_kv": True, "heads": 2},
    )
    dials: ClassVar[tuple[Mapping[str, Any], ...]] = ({"key_dim": 8},)

    def __init__(self, options: MoMOptions) -> None:
        super().__init__(options)
        self.options = options
        dim, heads = options.dim, options.heads
        keys, values = heads * options.key_size, heads * options.value_size
        self.router = Router(dim, options.memories, options.topk)
        self.q = nn.Linear(dim, keys, bias=False)
        self.kv = _maps(1 if options.single_kv else options.total, dim, keys + values)
        if "delta" in options.update:
            self.beta = _maps(options.total, dim, heads)
        if options.update in _GATED:
            self.decay = _maps(options.total, dim, keys if options.update == "gla" else heads)
        if options.update == "gated_delta":
            self.rate = nn.Parameter(torch.empty(heads))  # the published A_log
            self.decay_bias = nn.Parameter(torch.empty(heads))  # dt_bias
        if options.conv:
            self.conv = nn.Parameter(torch.empty(options.channels, options.conv))
        self.output: nn.Module = nn.Linear(values, dim, bias=False)
        if options.gated:
            self.output = GatedOutput(dim=dim, heads=heads, value_dim=options.value_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Each map as nn.Linear begins, the convolution and the decay as in the gated delta rule.

        Ours: all memories begin with the same keys and values. Queries are shared, so that otherwise each
        memory has to be found by them on its own, from its share of the tokens: far slower.
        """
        for name, weights in self.named_parameters(recurse=False):
            if name not in ("rate", "decay_bias", "conv"):
                bound = weights.shape[-2] ** -0.5
                nn.init.uniform_(weights, -bound, bound)
        if self.options.conv:
            begin_conv(self.conv)
        with torch.no_grad():
            self.kv.copy_(self.kv[:1].expand_as(self.kv))
        if self.options.update == "gated_delta":
            reset_decay(self.rate, self.decay_bias)

    def init_state(
        self, batch: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> MoMState:
        dtype, device = self._place(dtype, device)
        o = self.options
        matrices = (batch, o.total, o.heads, o.key_size, o.value_size)
        tails = (batch, o.total, max(o.conv - 1, 0), o.channels)
        return MoMState(
            spec=self.spec,
            seen=torch.zeros(batch, dtype=torch.int32, device=device),
            memory=torch.zeros(matrices, dtype=self.accumulator_dtype(dtype), device=device),
            tail=torch.zeros(tails, dtype=dtype, device=device),
            counts=torch.zeros(batch, o.total, dtype=torch.int32, device=device),
        )

    def chunked(
        self, x: Tensor, state: MoMState, valid: Tensor | None, positions: Tensor | None
    ) -> tuple[Tensor, MoMState]:
        routes = self.router(x)
        self._aux = self.options.balance * imbalance(routes, valid)
        read, after = self._write_and_read(x, state, valid, routes.chosen, routes.weights)
        return self._output(read.transpose(1, 2), x), after

    def token(self, x: Tensor, state: MoMState) -> tuple[Tensor, MoMState]:
        """Computes the chosen memories alone; of the others the state is copied."""
        chosen, weights = (t.squeeze(1) for t in self.router(x.unsqueeze(1))[:2])
        strength, added = taught(weights), int(self.options.shared)
        chosen = pad(chosen, (0, added), value=self.options.memories)  # (batch, active)
        weights, strength = (pad(t, (0, added), value=1.0).unsqueeze(-1) for t in (weights, strength))
        at = torch.arange(x.shape[0], device=x.device).unsqueeze(1), chosen

        def project(maps: Tensor) -> Tensor:
            return sent_through(maps, x, chosen)

        q = self.q(x).unsqueeze(1).expand(-1, chosen.shape[1], -1)
        read, memory, tail = self._into(q, project, strength, state.memory[at], state.tail[at])
        after = replace(
            state,
            memory=state.memory.index_put(at, memory),
            tail=state.tail.index_put(at, tail),
            counts=state.counts.index_put(at, state.counts[at] + 1),
        )
        return self._output((weights.unsqueeze(-1) * read).sum(1), x), after

    def definition(self, x: Tensor, state: MoMState) -> tuple[Tensor, MoMState]:
        chosen, weights, _ = self.router(x.unsqueeze(1))
        o, reads = self.options, []
        memory, tail, counts = (list(t.unbind()) for t in (state.memory, state.tail, state.counts))
        for row in range(x.shape[0]):
            pairs = list(zip(chosen[row, 0].tolist(), weights[row, 0], strict=True))
            pairs += [(o.memories, torch.ones_like(weights[row, 0, 0]))] if o.shared else []
            matrices, tails, written = (list(t[row].unbind()) for t in (memory, tail, counts))
            read = torch.zeros(o.heads, o.value_size, dtype=state.memory.dtype, device=x.device)
            for m, weight in pairs:

                def project(maps: Tensor, m: int = m, row: int = row) -> Tensor:
                    return x[row] @ maps[m if maps.shape[0] > 1 else 0]

                one, matrices[m], tails[m] = self._into(
                    self.q(x[row]), project, taught(weight.view(1)), matrices[m], tails[m]
                )
                read = read + weight * one
                written[m] = written[m] + 1
            reads.append(read)
            memory[row], tail[row], counts[row] = (torch.stack(t) for t in (matrices, tails, written))
        after = replace(state, memory=torch.stack(memory), tail=torch.stack(tail), counts=torch.stack(counts))
        return self._output(torch.stack(reads), x), after

    def pinned(
        self, x: Tensor, memory: Tensor, state: MoMState | None = None, *, mask: Tensor | None = None
    ) -> tuple[Tensor, MoMState]:
        """`forward` with each token sent to the memory that int (batch, time) names, not the router's."""
        self._check_memory(memory, x)

        def run(
            packed_x: Tensor, before: MoMState, valid: Tensor | None, where: Tensor
        ) -> tuple[Tensor, MoMState]:
            chosen = where.unsqueeze(-1)
            read, after = self._write_and_read(
                packed_x, before, valid, chosen, torch.ones_like(chosen, dtype=before.memory.dtype)
            )
            return self._output(read.transpose(1, 2), packed_x), after

        return self._run(x, state, mask, run, along=memory.long())

    def write(self, state: MoMState, x: Tensor, memory: Tensor | None = None) -> MoMState:
        """The state after x (batch, time, dim): in the memories of int (batch, time), or the router's."""
        return (self(x, state) if memory is None else self.pinned(x, memory, state))[1]

    def read(self, state: MoMState, q: Tensor, memory: Tensor | None = None) -> Tensor:
        """What the chosen memories hold for each q (batch, time, dim): (batch, time, heads · value_dim).

        Before norm, gate and output map. Each query is read as if it came next; nothing is written.
        """
        self._begin(q, state, None)
        if memory is None:
            chosen, weights, _ = self.router(q)
        else:
            self._check_memory(memory, q)
            chosen = memory.long().unsqueeze(-1)
            weights = torch.ones_like(chosen, dtype=state.memory.dtype)
        if self.options.shared:
            last = torch.full_like(chosen[..., :1], self.options.memories)
            chosen, weights = (
                torch.cat([chosen, last], -1),
                torch.cat([weights, torch.ones_like(weights[..., :1])], -1),
            )
        rows = torch.arange(q.shape[0], device=q.device).view(-1, 1, 1)
        asked = self.q(q).unsqueeze(2).expand(-1, -1, chosen.shape[2], -1)  # (batch, time, chosen, keys)
        if self.options.conv:
            keys = asked.shape[-1]
            tails = state.tail[rows, chosen][..., :keys].to(q.dtype)
            along = torch.cat([tails, asked.unsqueeze(3)], 3)
            asked = silu(torch.einsum("btcwk,kw->btck", along, self.conv[:keys].to(q.dtype)))
        asked = normalize(asked.unflatten(-1, (self.options.heads, -1)).to(state.memory.dtype), dim=-1)
        return torch.einsum("btchk,btchkv,btc->bthv", asked, state.memory[rows, chosen], weights).flatten(-2)

    def idle_parameters(self) -> int:
        """Of the memories that a token is not sent to."""
        o = self.options
        own = [weights for weights in self.parameters() if weights.dim() == 3 and weights.shape[0] == o.total]
        return sum(weights[0].numel() for weights in own) * (o.memories - o.topk)

    def routing(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Which memories each token is sent to and with what weight: (batch, time, topk) each, best first."""
        self._begin(x, None, None)
        chosen, weights, _ = self.router(x)
        return chosen, weights

    def load(self, state: MoMState) -> Tensor:
        """Share of the routed tokens in each memory, (memories,); warns where a memory has less than 1 %."""
        return shares(state.counts[:, : self.options.memories])

    def forget(self, state: MoMState, part: int) -> MoMState:
        """The state with one memory emptied; the others bit by bit as they were."""
        return state.with_memory(part, None)

    def transplant(self, source: MoMState, target: MoMState, part: int) -> MoMState:
        """`target` with one memory taken from `source`: from one session to another."""
        self.spec.require(source.spec)
        return target.with_memory(part, source)

    def _check_memory(self, memory: Tensor, x: Tensor) -> None:
        if memory.shape != x.shape[:2] or memory.is_floating_point():
            raise InvalidInput(
                f"memory names one memory a token: int {tuple(x.shape[:2])}, got {tuple(memory.shape)}"
            )
        if memory.numel() and not 0 <= int(memory.min()) <= int(memory.max()) < self.options.memories:
            raise InvalidInput(f"memory must be 0 to {self.options.memories - 1}")

    def _write_and_read(
        self, x: Tensor, state: MoMState, valid: Tensor | None, chosen: Tensor, weights: Tensor
    ) -> tuple[Tensor, MoMState]:
        """Reads (batch, time, heads, value_dim) mixed over memories, and the state after."""
        o = self.options
        q = self.q(x)
        sent = torch.zeros(*x.shape[:2], o.memories, dtype=torch.bool, device=x.device).scatter(
            2, chosen, True
        )
        if valid is not None:
            sent = sent & valid.unsqueeze(-1)
        counts = sent.sum(1)  # (batch, memories)
        longest = int(counts.max())
        order = (
            sent.int().argsort(dim=1, descending=True, stable=True)[:, :longest].mT
        )  # in time, real ones first
        rows = torch.arange(x.shape[0], device=x.device).view(-1, 1, 1)
        gates = torch.zeros(*x.shape[:2], o.memories, dtype=weights.dtype, device=x.device)
        gates = gates.scatter(2, chosen, weights).mT.gather(2, order)  # 0 for what was not sent
        routed = slice(0, o.memories)
        read, memory, tail = self._update(
            x[rows, order], q[rows, order], counts, state, routed, taught(gates)
        )
        index = order.flatten(1).unsqueeze(-1).expand(-1, -1, read.shape[-1] * read.shape[-2])
        mixed = (read * gates[..., None, None].to(read.dtype)).flatten(1, 2).flatten(-2)
        out = mixed.new_zeros(*x.shape[:2], mixed.shape[-1]).scatter_add(1, index, mixed)
        if o.shared:
            everyone = (
                torch.full_like(counts[:, :1], x.shape[1]) if valid is None else valid.sum(1, keepdim=True)
            )
            last = slice(o.memories, o.total)
            common, shared, its_tail = self._update(x.unsqueeze(1), q.unsqueeze(1), everyone, state, last)
            out = out + common.squeeze(1).flatten(-2)
            memory, tail = torch.cat([memory, shared], 1), torch.cat([tail, its_tail], 1)
            counts = torch.cat([counts, everyone], 1)
        touched = counts > 0
        after = replace(
            state,
            memory=torch.where(touched[..., None, None, None], memory, state.memory),
            tail=torch.where(touched[..., None, None], tail, state.tail),
            counts=state.counts + counts.int(),
        )
        return out.unflatten(-1, (o.heads, -1)), after

    def _update(
        self,
        x: Tensor,
        q: Tensor,
        counts: Tensor,
        state: MoMState,
        which: slice,
        strength: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Some memories, each over its own tokens: x (batch, memories, time, dim), counts (batch, memories).

        Reads (batch, memories, time, heads, value_dim), the matrices and the tails after.
        """
        o, (batch, memories, time, _) = self.options, x.shape

        def project(maps: Tensor) -> Tensor:
            mine = maps.expand(memories, -1, -1) if maps.shape[0] == 1 else maps[which]
            return torch.einsum("bmtd,mde->bmte", x, mine)

        near = torch.cat([q, project(self.kv)], -1).flatten(0, 1)  # every memory a row
        tail = state.tail[:, which].flatten(0, 1)
        valid = torch.arange(time, device=x.device) < counts.flatten().unsqueeze(1)
        if o.conv:
            near, tail = causal_conv(near, self.conv.to(near.dtype), tail, counts.flatten())
        q, k, v = self._heads_of(near.to(state.memory.dtype))
        gates = {name: gate.flatten(0, 1) for name, gate in self._gates(project, state.memory.dtype).items()}
        if strength is not None:
            along = strength.to(v.dtype).flatten(0, 1).unsqueeze(-1)  # (rows, time, 1)
            if "beta" in gates:
                gates["beta"] = gates["beta"] * along
            else:
                v = v * along.unsqueeze(1)
        read, memory = self._rule(q, k, v, gates, valid, state.memory[:, which].flatten(0, 1))
        return (
            read.transpose(1, 2).unflatten(0, (batch, memories)),
            memory.unflatten(0, (batch, memories)),
            tail.unflatten(0, (batch, memories)),
        )

    def _rule(
        self, q: Tensor, k: Tensor, v: Tensor, gates: dict[str, Tensor], valid: Tensor, memory: Tensor
    ) -> tuple[Tensor, Tensor]:
        """q, k, v (rows, heads, time, ·), gates (rows, time, heads[, key_dim])."""
        decay, beta = gates.get("log_decay"), gates.get("beta")
        if self.options.update == "retention":
            decay = log_retention(self.options.heads, v).expand(*v.shape[:1], v.shape[2], -1)
        k, v = silence(valid, k, v)
        if decay is not None:
            (decay,) = silence(valid, decay.transpose(1, 2))
        with full_precision(q.device):
            if beta is None:
                return additive(q, k, v, memory, log_decay=decay, chunk=self._chunk())
            (beta,) = silence(valid, beta.transpose(1, 2))
            return delta(q, k, v, beta, memory, log_decay=decay, chunk=self._chunk())

    def _chunk(self) -> int:
        return min(self.options.chunk, 16) if self.options.update == "gla" else self.options.chunk

    def _into(
        self, q: Tensor, project: Project, strength: Tensor, memory: Tensor, tail: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One token into memories (…, heads, key_dim, value_dim): what it reads, memories and tails after.

        q (…, heads · key_dim); tail (…, conv - 1, channels); strength (…, 1), as `taught` has it.
        """
        o = self.options
        near = torch.cat([q, project(self.kv)], -1)
        if o.conv:
            along = torch.cat([tail, near.unsqueeze(-2).to(tail.dtype)], -2)
            near, tail = (along.to(near.dtype).mT * self.conv).sum(-1), along[..., 1:, :]
        q, k, v = (part.squeeze(-2) for part in self._heads_of(near.to(memory.dtype).unsqueeze(-2)))
        gates = self._gates(project, memory.dtype)
        with full_precision(q.device):
            if o.update == "retention":
                memory = log_retention(o.heads, v).exp().view(-1, 1, 1) * memory
            elif o.update == "gla":
                memory = gates["log_decay"].exp().unsqueeze(-1) * memory
            elif o.update == "gated_delta":
                memory = gates["log_decay"].exp()[..., None, None] * memory
            change = v if "beta" not in gates else v - (k.unsqueeze(-2) @ memory).squeeze(-2)
            change = (gates.get("beta", 1.0) * strength.to(v.dtype)).unsqueeze(-1) * change
            memory = memory + k.unsqueeze(-1) * change.unsqueeze(-2)
            return (q.unsqueeze(-2) @ memory).squeeze(-2), memory, tail

    def _heads_of(self, near: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(…, time, channels) to q, k, v (…, heads, time, ·), q and k of unit length."""
        o = self.options
        keys = o.heads * o.key_size
        q, k, v = (
            part.unflatten(-1, (o.heads, -1)).transpose(-2, -3)
            for part in near.split([keys, keys, o.heads * o.value_size], -1)
        )
        if o.conv and o.qk_silu:
            q, k = silu(q), silu(k)
        return normalize(q, dim=-1), normalize(k, dim=-1), silu(v) if o.conv else v

    def _gates(self, project: Project, precise: torch.dtype) -> dict[str, Tensor]:
        """β and log decay of what `project` maps, if the update has them: (…, heads[, key_dim])."""
        o, found = self.options, {}
        if "delta" in o.update:
            found["beta"] = project(self.beta).to(precise).sigmoid()
        if o.update in _GATED:
            gate = project(self.decay).to(precise)
            if o.update == "gla":
                found["log_decay"] = (logsigmoid(gate) / o.slowness).unflatten(-1, (o.heads, -1))
            else:
                rate, bias = self.rate.to(precise), self.decay_bias.to(precise)
                found["log_decay"] = -rate.exp() * softplus(gate + bias)
        return found

    def _output(self, read: Tensor, x: Tensor) -> Tensor:
        """read (batch, heads, [time,] value_dim) to (batch, [time,] dim)."""
        y: Tensor = self.output(read, x) if self.options.gated else self.output(join_heads(read).to(x.dtype))
        return y


def _maps(count: int, inputs: int, outputs: int) -> nn.Parameter:
    """A linear map a memory: (memories, inputs, outputs)."""
    return nn.Parameter(torch.empty(count, inputs, outputs))
