"""Choosing tokens one by one: greedy or sampled, free or held to a grammar. Knows no text and no template."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

import torch

from mnemic.models.hf import cache_keyword
from mnemic.models.json_grammar import State, begins, is_complete, step

NEAR: Final = 64  # candidates that are looked at before all are sorted
LONGEST_CYCLE: Final = 64  # tokens of a passage whose repetition is noticed
REPEATED: Final = 4  # times that it is said before an answer ends there
CIRCLE: Final = 48  # tokens that the repetitions have to fill: short patterns are often meant


class Gate:
    """Lets through only tokens that keep the answer within a grammar.

    Looks at tokens from the likeliest down, so that the usual cost is a few bytes, not a vocabulary.
    """

    def __init__(self, token_bytes: Sequence[bytes | None], start: State) -> None:
        self._bytes = token_bytes
        self._state = start

    @property
    def complete(self) -> bool:
        """The answer may end here."""
        return is_complete(self._state)

    @property
    def full(self) -> bool:
        """The answer has to end here."""
        return not begins(self._state)

    def first(self, scores: torch.Tensor) -> int | None:
        """The token of the highest score that is let through; None: none is. Moves on by it.

        scores: (vocabulary,).
        """
        near = torch.topk(scores, min(NEAR, scores.shape[-1])).indices.tolist()
        found = self._try(near)
        return found if found is not None else self._try(torch.argsort(scores, descending=True).tolist())

    def _try(self, tokens: Sequence[int]) -> int | None:
        allowed = begins(self._state)
        for token in tokens:
            piece = self._bytes[token] if token < len(self._bytes) else None
            if not piece or piece[0] not in allowed:
                continue
            state: State = self._state
            for byte in piece:
                if not (state := step(state, byte)):
                    break
            if state:
                self._state = state
                return token
        return None


def decode(
    model: Any,
    ids: Sequence[int],
    *,
    max_tokens: int,
    ends: Collection[int],
    temperature: float = 0.0,
    cache: Any = None,
    gate: Gate | None = None,
) -> Iterator[int]:
    """The tokens that follow `ids`, as they are chosen, without the one that ends them.

    cache: a transformers Cache of a beginning of `ids` (at least one token is left to feed), written to.
    A draw at `temperature` is the largest of logits / temperature + Gumbel noise, which with a gate is a draw
    from what the gate lets through. O(tokens fed) forward, then one step a token.
    """
    keyword = cache_keyword(model)
    held = 0 if cache is None else cache.get_seq_length()
    feed = torch.tensor([list(ids[held:])], dtype=torch.long, device=model.device)
    if cache is None:
        from transformers import DynamicCache

        cache = DynamicCache(config=model.config)
    for _ in range(max_tokens):
        with torch.inference_mode():
            logits = model(input_ids=feed, use_cache=True, logits_to_keep=1, **{keyword: cache}).logits[0, -1]
            token = _choose(logits.float(), temperature, ends, gate)
        if token is None or token in ends:
            return
        yield token
        if gate is not None and gate.full:
            return
        feed = torch.tensor([[token]], dtype=torch.long, device=model.device)


def until_caught(tokens: Iterable[int]) -> Iterator[int]:
    """The tokens until one passage of at most 64 has been said four times running, in 48 tokens or more.

    A greedy answer of a small model that is caught in a circle stays in it until it is cut off. O(64) a token
    while tokens repeat.
    """
    said: list[int] = []
    since: dict[int, int] = {}  # period -> how many of the last tokens equal those one period before
    for token in tokens:
        yield token
        said.append(token)
        since = {
            period: since.get(period, 0) + 1
            for period in range(1, min(LONGEST_CYCLE, len(said) - 1) + 1)
            if said[-1 - period] == token
        }
        if any(
            run >= max((REPEATED - 1) * period, CIRCLE - period)
            for period, run in since.items()
            if period > 1
        ):
            return


def _choose(logits: torch.Tensor, temperature: float, ends: Collection[int], gate: Gate | None) -> int | None:
    """A token, or None when the gate has closed."""
    scores = logits
    if temperature:
        noise = -torch.log(-torch.log(torch.rand_like(logits).clamp_(1e-20, 1 - 1e-7)))
        scores = logits / temperature + noise
    if gate is None:
        return int(scores.argmax())
    if gate.complete and int(scores.argmax()) in ends:
        return None
    return gate.first(scores)
