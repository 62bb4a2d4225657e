"""A memory of next tokens beside a model: their distributions mixed at every step, by two hooks.

p(w) = lambda · p_memory(w) + (1 - lambda) · p_model(w), in log space (kNN-LM eq. 3; MLP Memory §8).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from mnemic.cube.errors import IncompatibleMemory, InvalidOption
from mnemic.models.fingerprint import Fingerprint, fingerprint
from mnemic.models.local import LocalModel
from mnemic.models.stack import Point
from mnemic.parametric.bare import Applicable
from mnemic.parametric.cube import check_fingerprint
from mnemic.parametric.mlp import CompiledMemory
from mnemic.parametric.nearest import CHUNK, Neighbours
from mnemic.parametric.tap import Tap, tapped, vocabulary_of

LAMBDAS: Final = (0.0, 0.05, 0.1, 0.25, 0.4, 0.5, 0.75, 0.9)
Memory = Neighbours | CompiledMemory
_ids: Final[set[str]] = set()  # of all that were made here: those may be mounted below one another


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blend(Applicable):
    """A memory mounted at the logits with weight `lam`; what comes out are log-probabilities. A `Mountable`.

    Where the memory has nothing to say (see `Search.reach`) the model speaks alone. With lam = 0 the model's
    logits pass through to the bit.
    """

    memory: Memory
    fingerprint: Fingerprint
    lam: float = 0.25
    id: str = "blend"

    def __post_init__(self) -> None:
        if not 0 <= self.lam <= 1:
            raise InvalidOption(f"lam={self.lam!r:.80} must be between 0 and 1")
        _ids.add(self.id)

    @property
    def point(self) -> Point:
        return Point.LOGITS

    @property
    def nbytes(self) -> int:
        return self.memory.nbytes

    def check(self, local: LocalModel, stack: tuple[str, ...]) -> None:
        """Raises IncompatibleMemory unless it was made with this model, its outputs are as wide, and nothing
        below changes the states it listens to: it was made from those of the model alone.
        """
        check_fingerprint(f"memory {self.id}", self.fingerprint, fingerprint(local), local.name)
        if (found := vocabulary_of(local)) != self.memory.vocabulary:
            raise IncompatibleMemory(
                f"memory {self.id} knows {self.memory.vocabulary:,} tokens, {local.name} has {found:,}",
                part="tokenizer",
                expected=str(self.memory.vocabulary),
                found=str(found),
            )
        if self.id in stack:
            raise InvalidOption(f"memory {self.id} is mounted already")
        if below := [one for one in stack if one not in _ids]:
            raise IncompatibleMemory(
                f"memory {self.id} was made from what the model alone has in mind, and {', '.join(below)} "
                "changes that: its neighbours would be others. Mount one of them",
                part="stack",
                expected="",
                found=" ".join(below),
            )

    def install(self, local: LocalModel, undo: ExitStack) -> None:
        tap = Tap()
        undo.callback(local.model.get_submodule(self.memory.path).register_forward_pre_hook(tap).remove)

        def blend(_module: nn.Module, _args: Any, options: dict[str, Any], out: Any) -> Any:
            if options.get("labels") is not None:
                raise InvalidOption("labels= gives a loss without the memory; compute it from the logits")
            seen = tap.take()
            if self.lam == 0:
                return out
            logits = out.logits
            kept = options.get("logits_to_keep", 0)
            seen = seen[:, kept] if isinstance(kept, Tensor) else seen[:, seen.shape[1] - logits.shape[1] :]
            out.logits = self.mixed(logits, seen)
            return out

        undo.callback(local.model.register_forward_hook(blend, with_kwargs=True).remove)

    def mixed(self, logits: Tensor, states: Tensor) -> Tensor:
        """logits [rows, tokens, vocabulary], states [rows, tokens, width]: log-probabilities like logits."""
        told, share = self.memory.say(states.flatten(0, 1))
        lam = (self.lam * share).view(*logits.shape[:-1], 1)
        return _mix(logits.float().log_softmax(-1), told.view(logits.shape), lam).to(logits.dtype)

    def explain(self, local: LocalModel, prompt: str, *, count: int = 8) -> Explained:
        """Why it says what it says after `prompt`: neighbours, or that a compiled memory cannot tell."""
        with torch.no_grad(), tapped(local, [self.memory.path]) as (tap,):
            local.model(torch.tensor([local.encode(prompt)]), use_cache=False, logits_to_keep=1)
            state = tap.take()[0, -1].float()
        told = self.memory.log_probs(state[None])[0].topk(count)
        likeliest = tuple(
            (local.tokenizer.decode([int(token)]), math.exp(float(value)))
            for value, token in zip(told.values, told.indices, strict=True)
        )
        if isinstance(self.memory, CompiledMemory):
            return Explained(likeliest, (), self.memory.explain(state)[1])
        store = self.memory.store
        found = tuple(
            Evidence(
                text=local.tokenizer.decode(store.context(one.place)),
                token=local.tokenizer.decode([one.token]),
                weight=one.weight,
                source=int(store.texts[one.place]),
            )
            for one in self.memory.explain(state, count)
        )
        return Explained(likeliest, found, "")


@dataclass(frozen=True, slots=True)
class Evidence:
    """A neighbour: what had been read, the token that came next, its share, and which text it is from."""

    text: str
    token: str
    weight: float
    source: int


@dataclass(frozen=True, slots=True)
class Explained:
    """likeliest: (token, probability) by the memory alone; remark: why there is no evidence, if so."""

    likeliest: tuple[tuple[str, float], ...]
    evidence: tuple[Evidence, ...]
    remark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Perplexity of a text by lambda; 0 is the model alone."""

    tokens: int
    perplexities: tuple[tuple[float, float], ...]

    @property
    def best(self) -> float:
        return min(self.perplexities, key=lambda one: one[1])[0]

    def at(self, lam: float) -> float:
        return dict(self.perplexities)[lam]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Heard:
    """A text as a model reads it: what passes each tapped module [n, width], the true tokens [n], and their
    log-probabilities by the model alone [n].
    """

    states: Mapping[str, Tensor]
    gold: Tensor
    alone: Tensor


def hear(
    local: LocalModel, text: str, paths: Sequence[str], *, tokens: int | None = None, block: int = 256
) -> Heard:
    """Read a text once, for as many memories and lambdas as are to be compared on it. O(tokens) forward.

    tokens: at most so many are read. Raises InvalidOption for a text of fewer than two.
    """
    ids = local.encode(text)[:tokens]
    if len(ids) < 2:
        raise InvalidOption("the text is too short to measure: give it some sentences")
    states: dict[str, list[Tensor]] = {path: [] for path in paths}
    golds, alone = [], []
    with torch.no_grad(), tapped(local, list(states)) as taps:
        for start in range(0, len(ids) - 1, block - 1):
            piece = torch.tensor([ids[start : start + block]])
            said = local.model(piece, use_cache=False).logits[0, :-1].float().log_softmax(-1)
            golds.append(piece[0, 1:])
            alone.append(said.gather(1, golds[-1][:, None])[:, 0])
            for path, tap in zip(states, taps, strict=True):
                states[path].append(tap.take()[0, :-1].float())
    return Heard(
        states={path: torch.cat(parts) for path, parts in states.items()},
        gold=torch.cat(golds),
        alone=torch.cat(alone),
    )


def curve(
    local: LocalModel,
    memory: Memory,
    text: str | Heard,
    *,
    lambdas: Sequence[float] = LAMBDAS,
    tokens: int | None = None,
) -> Curve:
    """Perplexity of `text` at every lambda, 0 always among them: one forward, unless it was heard before, and
    one search a token.

    Tune lambda on text that is not what you report on.
    """
    asked = sorted({0.0, *lambdas})
    if any(not 0 <= one <= 1 for one in asked):
        raise InvalidOption(f"lambdas={lambdas!r:.80} must be between 0 and 1")
    heard = hear(local, text, [memory.path], tokens=tokens) if isinstance(text, str) else text
    said, shares = [], []
    for states, gold in zip(heard.states[memory.path].split(CHUNK), heard.gold.split(CHUNK), strict=True):
        told, share = memory.say(states)
        said.append(told.gather(1, gold[:, None])[:, 0])
        shares.append(share)
    alone, told, share = heard.alone.double(), torch.cat(said).double(), torch.cat(shares).double()
    found = [(lam, math.exp(-float(_mix(alone, told, lam * share).mean()))) for lam in asked]
    return Curve(tokens=len(heard.gold), perplexities=tuple(found))


def _mix(alone: Tensor, told: Tensor, lam: Tensor) -> Tensor:
    """Log-probabilities of the model and of the memory, mixed; lam from 0 to 1, like the last of them or
    broadcast over them.
    """
    return torch.logaddexp(alone + torch.log1p(-lam), told + lam.log())
