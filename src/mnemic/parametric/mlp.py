"""MLP Memory: a datastore's retriever, learned into feed-forward blocks (arXiv 2508.01832).

A state goes in, a distribution over next tokens comes out; what it costs does not depend on how much was
compiled into it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnemic.cube.checks import require_count, require_positive
from mnemic.cube.errors import InvalidOption, ModelError
from mnemic.models.local import LocalModel
from mnemic.parametric.datastore import Datastore
from mnemic.parametric.lora_training import PRECISIONS, Progress, silent
from mnemic.parametric.nearest import CHUNK, Neighbours
from mnemic.parametric.tap import vocabulary_of

NO_PROVENANCE: Final = "no provenance available: the weights of a compiled memory name no source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compile:
    """How a memory network is built and trained.

    blocks, widen: blocks of RMSNorm and a gated feed-forward part, its inner width as a multiple of the
    model's. mix: weight `a` of the divergence from the retriever's distribution against the likelihood of the
    true token (paper: 0.4). epochs, batch (positions), learning_rate: AdamW, linear decay after a short
    warm-up. precision: of the products in training. own_head: the output starts as the model's own (ours: it
    converges in far fewer steps), else at random as in the paper.
    """

    blocks: int = 4
    widen: float = 4.0
    mix: float = 0.4
    epochs: int = 3
    batch: int = 256
    learning_rate: float = 5e-4
    precision: str = "float32"
    own_head: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        require_count(blocks=self.blocks, epochs=self.epochs, batch=self.batch)
        require_count(minimum=0, seed=self.seed)
        require_positive(widen=self.widen, learning_rate=self.learning_rate)
        if not 0 <= self.mix <= 1:
            raise InvalidOption(f"mix={self.mix!r:.80} must be between 0 and 1")
        if self.precision not in PRECISIONS:
            raise InvalidOption(f"precision={self.precision!r:.80} must be one of {', '.join(PRECISIONS)}")


class Block(nn.Module):
    """x + down(silu(gate(n)) · up(n)), n = RMSNorm(x): the feed-forward part of a Llama."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm(x)
        return x + self.down(F.silu(self.gate(n)) * self.up(n))  # type: ignore[no-any-return]


class MemoryNetwork(nn.Module):
    """[n, width] to logits [n, vocabulary]; no position sees another.

    reach: it also tells states that it was made from, and the like, from others.
    """

    def __init__(self, width: int, inner: int, blocks: int, vocabulary: int, *, reach: bool = False) -> None:
        super().__init__()
        self.reach = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1)) if reach else None
        self.blocks = nn.ModuleList(Block(width, inner) for _ in range(blocks))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompiledMemory:
    """A trained memory network. path: the module it listens to; tokens: how many ids are real, the rest of
    the vocabulary is padding that is never said. tau divides its logits.
    """

    network: MemoryNetwork
    path: str
    tokens: int
    tau: float = 1.0
    form: str = "mlp"

    @property
    def vocabulary(self) -> int:
        return int(self.network.head.weight.shape[0])

    @property
    def nbytes(self) -> int:
        return sum(one.numel() * one.element_size() for one in self.network.parameters())

    def log_probs(self, states: Tensor) -> Tensor:
        """(n, width) to (n, vocabulary) float32. O(n · parameters), whatever was compiled."""
        return self.say(states)[0]

    def say(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """`log_probs`, and for each state how much it has to say: (n,) from 0 to 1."""
        network = self.network
        with torch.no_grad():
            logits = network(states.float()) / self.tau
            share = torch.ones(len(states))
            if network.reach is not None:
                share = network.reach(states.float())[:, 0].sigmoid()
        logits[:, self.tokens :] = -torch.inf
        return logits.log_softmax(-1), share

    def explain(self, state: Tensor, count: int = 8) -> tuple[list[tuple[int, float]], str]:
        """Its likeliest tokens with their probabilities, and that nothing says where they come from."""
        found = self.log_probs(state[None])[0].topk(count)
        return [
            (int(token), math.exp(float(value)))
            for value, token in zip(found.values, found.indices, strict=True)
        ], NO_PROVENANCE


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Targets:
    """What a retriever says at each position: tokens int32 and shares float16, [n, k]."""

    tokens: Tensor
    shares: Tensor

    def dense(self, rows: Tensor, vocabulary: int) -> Tensor:
        """(rows, vocabulary) float32, each row summing to one."""
        out = torch.zeros(len(rows), vocabulary)
        out.scatter_add_(1, self.tokens[rows].long(), self.shares[rows].float())
        return out / out.sum(1, keepdim=True).clamp(min=1e-12)


def targets(memory: Neighbours, *, progress: Progress = silent) -> Targets:
    """The retriever asked with its own keys, each one's own block left out. O(n · a search)."""
    store = memory.store
    tokens, shares = [], []
    for start in range(0, len(store), CHUNK):
        end = min(start + CHUNK, len(store))
        distances, places = memory.find(store.keys[start:end], store.blocks[start:end])
        weights = memory.weigh(distances).nan_to_num(0.0).masked_fill(places < 0, 0.0)
        tokens.append(store.values[places.clamp(min=0)])
        shares.append(weights.half())
        progress("asking the neighbours", end, len(store))
    return Targets(tokens=torch.cat(tokens), shares=torch.cat(shares))


def compile_memory(
    local: LocalModel,
    store: Datastore,
    told: Targets,
    options: Compile,
    *,
    others: Tensor | None = None,
    progress: Progress = silent,
) -> CompiledMemory:
    """Train a memory network to say what the retriever said. O(epochs · keys · parameters).

    Loss of a position: a · KL(retriever || memory) - (1 - a) · log p(true token), the mean over positions.
    others: states [n, width] that have nothing to do with the memory; with them it learns where to be silent.
    Raises ModelError when the loss is no number.
    """
    width, vocabulary = store.inputs.shape[1], vocabulary_of(local)
    dtype = PRECISIONS[options.precision]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        inner = round(options.widen * width)
        network = MemoryNetwork(width, inner, options.blocks, vocabulary, reach=others is not None)
        if network.reach is not None and others is not None:
            _learn_reach(network.reach, store.inputs, others)
            network.reach.requires_grad_(False)
        if options.own_head:
            with torch.no_grad():
                network.head.weight.copy_(local.model.get_output_embeddings().weight.float())
        steps = options.epochs * -(-len(store) // options.batch)
        trained = [one for one in network.parameters() if one.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=options.learning_rate, weight_decay=0.0)
        warm = max(1, steps // 20)
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
        )
        step = 0
        for _ in range(options.epochs):
            for rows in torch.randperm(len(store)).split(options.batch):
                with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
                    logits = network(store.inputs[rows])
                loss = memory_loss(logits.float(), told, rows, store.values[rows].long(), options.mix)
                if not bool(torch.isfinite(loss)):
                    raise ModelError("training went wrong: the loss is no number. Lower learning_rate")
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(trained, 1.0)
                optimiser.step()
                rate.step()
                step += 1
                progress("compiling", step, steps)
    network.requires_grad_(False)
    return CompiledMemory(network=network.eval(), path=store.input_path, tokens=len(local.tokenizer))


def _learn_reach(reach: nn.Module, own: Tensor, others: Tensor, *, steps: int = 300) -> None:
    """Teach it to tell `own` states from `others`, both weighing as much. A linear map: seconds."""
    states = torch.cat([own, others])
    wanted = torch.cat([torch.ones(len(own)), torch.zeros(len(others))])
    weights = torch.where(wanted > 0, 0.5 / len(own), 0.5 / len(others))
    optimiser = torch.optim.AdamW(reach.parameters(), lr=1e-2, weight_decay=1e-2)
    for _ in range(steps):
        said = reach(states)[:, 0]
        loss = F.binary_cross_entropy_with_logits(said, wanted, weight=weights, reduction="sum")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


def memory_loss(logits: Tensor, told: Targets, rows: Tensor, gold: Tensor, mix: float) -> Tensor:
    """Mean over positions; the divergence is summed over the vocabulary, not averaged over it."""
    said = logits.log_softmax(-1)
    loss = logits.new_zeros(())
    if mix < 1:
        loss = loss + (1 - mix) * F.nll_loss(said, gold)
    if mix > 0:
        wanted = told.dense(rows, logits.shape[1])
        loss = loss + mix * F.kl_div(said, wanted, reduction="batchmean")
    return loss


def network_of(tensors: dict[str, Tensor]) -> MemoryNetwork:
    """The network whose state these are. Raises ValueError when they are not a whole one's."""
    blocks = {int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")}
    if not blocks or blocks != set(range(len(blocks))):
        raise ValueError("blocks are missing")
    inner, width = tensors["blocks.0.gate.weight"].shape
    with torch.device("meta"):
        vocabulary, reach = tensors["head.weight"].shape[0], any(one.startswith("reach.") for one in tensors)
        network = MemoryNetwork(width, inner, len(blocks), vocabulary, reach=reach)
    try:
        network.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(str(error)[:200]) from error
    network.requires_grad_(False)
    return network.eval()
