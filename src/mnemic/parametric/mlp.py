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
from mnemic.parametric.reach import Reach, learn_reach
from mnemic.parametric.tap import vocabulary_of

NO_PROVENANCE: Final = "no provenance available: the weights of a compiled memory name no source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compile:
    """How a memory network is built and trained.

    blocks, widen: blocks of RMSNorm and a gated feed-forward part, its inner width as a multiple of the
    model's. mix: weight `a` of the divergence from the retriever's distribution against the likelihood of the
    true token (paper: 0.4). epochs, batch (positions), learning_rate: AdamW, linear decay after a short
    warm-up. least: steps at least, so that few keys get more epochs. precision: of the products in training.
    own_head: the output starts as the model's own (ours: it converges in far fewer steps), else at random as
    in the paper. own_words: it says only tokens that its texts hold, as its teacher does (ours: SmolLM2's
    output is two thirds of the work, and of 49,152 tokens two hundred facts hold 550), else all of the
    vocabulary as in the paper.
    """

    blocks: int = 4
    widen: float = 4.0
    mix: float = 0.4
    epochs: int = 3
    least: int = 1
    batch: int = 256
    learning_rate: float = 5e-4
    precision: str = "float32"
    own_head: bool = True
    own_words: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        require_count(blocks=self.blocks, epochs=self.epochs, least=self.least, batch=self.batch)
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
    """[n, width] to logits [n, words]; no position sees another.

    words: the token ids that it can say, ascending, int32. reach: where it speaks; None: everywhere.
    """

    words: Tensor

    def __init__(
        self, width: int, inner: int, blocks: int, words: Tensor, *, reach: Reach | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("words", words)
        self.reach = reach
        self.blocks = nn.ModuleList(Block(width, inner) for _ in range(blocks))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = nn.Linear(width, len(words), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CompiledMemory:
    """A trained memory network. path: the module it listens to; vocabulary: of the model, whose padding and
    whatever else is not among the network's words is never said. tau divides its logits.
    """

    network: MemoryNetwork
    path: str
    vocabulary: int
    tau: float = 1.0
    form: str = "mlp"

    @property
    def nbytes(self) -> int:
        return sum(one.numel() * one.element_size() for one in self.network.state_dict().values())

    def log_probs(self, states: Tensor) -> Tensor:
        """(n, width) to (n, vocabulary) float32. O(n · parameters), whatever was compiled."""
        return self.say(states)[0]

    def say(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """`log_probs`, and for each state how much it has to say: (n,), 1 within reach, else 0."""
        network, states = self.network, states.float()
        with torch.no_grad():
            told = (network(states) / self.tau).log_softmax(-1)
            share = torch.ones(len(states)) if network.reach is None else network.reach(states)
        said = told.new_full((len(states), self.vocabulary), -torch.inf)
        said[:, network.words.long()] = told
        return said, share

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
    others: states [n, width] that have nothing to do with the memory; with them it learns where to be silent
    (see `reach`).
    Raises ModelError when the loss is no number.
    """
    width, inner = store.inputs.shape[1], round(options.widen * store.inputs.shape[1])
    dtype = PRECISIONS[options.precision]
    words = store.values.unique() if options.own_words else torch.arange(len(local.tokenizer)).int()
    gold = torch.searchsorted(words, store.values)
    told = Targets(tokens=torch.searchsorted(words, told.tokens), shares=told.shares)
    reach = None if others is None else learn_reach(store.inputs, others, seed=options.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = MemoryNetwork(width, inner, options.blocks, words, reach=reach)
        if options.own_head:
            with torch.no_grad():
                network.head.weight.copy_(local.model.get_output_embeddings().weight[words.long()].float())
        an_epoch = -(-len(store) // options.batch)
        epochs = max(options.epochs, -(-options.least // an_epoch))
        steps = epochs * an_epoch
        trained = list(network.parameters())
        optimiser = torch.optim.AdamW(trained, lr=options.learning_rate, weight_decay=0.0)
        warm = max(1, steps // 20)
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
        )
        step = 0
        for _ in range(epochs):
            for rows in torch.randperm(len(store)).split(options.batch):
                with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
                    logits = network(store.inputs[rows])
                loss = memory_loss(logits.float(), told, rows, gold[rows], options.mix)
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
    return CompiledMemory(network=network.eval(), path=store.input_path, vocabulary=vocabulary_of(local))


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


def network_of(tensors: dict[str, Tensor], vocabulary: int) -> MemoryNetwork:
    """The network whose state these are. Raises ValueError when they are not a whole one's, KeyError."""
    blocks = {int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")}
    if not blocks or blocks != set(range(len(blocks))):
        raise ValueError("blocks are missing")
    inner, width = tensors["blocks.0.gate.weight"].shape
    words = tensors["words"]
    if not len(words) or not 0 <= int(words[0]) <= int(words[-1]) < vocabulary or (words.diff() <= 0).any():
        raise ValueError("its words are not tokens of this vocabulary, each once")
    reach = Reach(tensors["reach.centres"], tensors["reach.radius"]) if "reach.radius" in tensors else None
    with torch.device("meta"):
        network = MemoryNetwork(width, inner, len(blocks), words, reach=reach)
    try:
        network.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(str(error)[:200]) from error
    network.requires_grad_(False)
    return network.eval()
