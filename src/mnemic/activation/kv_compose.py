"""Several KV memories as one: rebuilt (exact), or turned to their new positions (approximate, and labelled
so).

Each memory was read from position 0 and never saw the others. Turning its keys by the offset at which it now
stands puts its positions right (RoPE is a rotation, and rotations add up); what is still missing is attention
from one memory to those before it. "selective" computes that for the tokens that need it most (CacheBlend,
Yao et al. 2024, §4: those whose keys and values deviate most in the second layer, where the first difference
shows).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from transformers import DynamicCache

from mnemic.activation.kv import EXACT, KV, SYSTEM, check_supported, compare, prefill
from mnemic.cube.errors import IncompatibleMemory, InvalidOption, PromptMismatch, UnsupportedModel
from mnemic.models.hf import cache_keyword
from mnemic.models.local import LocalModel

COMPOSITIONS: Final = ("exact", "rotated", "selective")
TURN_TOLERANCE: Final = 1e-3  # of the keys' own size, in float32; 2e-2 in half precision


def compose(
    local: LocalModel,
    memories: Sequence[KV],
    *,
    how: str = "exact",
    ratio: float = 0.15,
    probe: Sequence[int] = (),
) -> KV:
    """One KV for these memories, one after another.

    how: "exact": read again as one text, a prefill of all tokens. "rotated": O(bytes), no forward but for a
    check of the first layer's keys. "selective": rotated, then `ratio` of the later memories' tokens are
    computed anew: two layers over all tokens and the rest over the chosen ones.
    probe: tokens that follow; where given, the error against the exact composition is measured on them and
    kept with the result, which costs the very prefill that "rotated" saves.

    Raises InvalidOption, IncompatibleMemory when they are of different models or mounts, PromptMismatch when
    their ids do not make up those of the whole, UnsupportedModel when positions are not rotations.
    """
    if how not in COMPOSITIONS:
        raise InvalidOption(f"how={how!r:.80} must be one of {', '.join(COMPOSITIONS)}")
    if not 0 < ratio <= 1:
        raise InvalidOption(f"ratio={ratio!r:.80} must be above 0 and at most 1")
    if not memories:
        raise InvalidOption("there is nothing to compose: name at least one KV memory")
    check_supported(local, windows=how == "exact" or len(memories) == 1)
    first = memories[0]
    if len(memories) == 1:
        return first
    for other in memories[1:]:
        if parts := first.fingerprint.differing(other.fingerprint):
            raise IncompatibleMemory(
                f"these KV memories were made by different models: their {', '.join(parts)} differ",
                part=parts[0],
            )
        if other.stack != first.stack or other.form != first.form:
            part = "form" if other.form != first.form else "stack"
            raise IncompatibleMemory(
                f"these KV memories differ in their {part} and cannot stand in one prompt", part=part
            )
    pieces = _without_repeated_start(local, memories)
    ids = [token for one, _ in pieces for token in one.ids.tolist()]
    _check_whole(local, ids, first.form)
    local.check_room(len(ids))
    if how == "exact":
        return prefill(local, ids, form=first.form)
    made = _rotated(local, pieces, ids)
    if how == "selective":
        made = _with_some_anew(local, made, ids, first.tokens, ratio)
    labels = sorted({one.label for one in memories} - {EXACT})
    label = "rotated" if how == "rotated" else f"selective {ratio:.0%}"
    made = made.labelled(", ".join([label, *labels]))
    if probe:
        made = made.labelled(made.label, compare(local, prefill(local, ids, form=first.form), made, probe))
    return made


def _without_repeated_start(local: LocalModel, memories: Sequence[KV]) -> list[tuple[KV, int]]:
    """The memories, each with the position of its first token when it was read.

    A template that begins a conversation with a start token began each memory with it; in the middle it does
    not stand.
    """
    out = [(memories[0], 0)]
    once = memories[0].form == SYSTEM and _template_begins_with_start(local)
    for one in memories[1:]:
        if once and one.tokens > 1 and int(one.ids[0]) == local.tokenizer.bos_token_id:
            keys, values = (tuple(layer[:, :, 1:] for layer in side) for side in (one.keys, one.values))
            out.append((replace(one, ids=one.ids[1:], keys=keys, values=values), 1))
        else:
            out.append((one, 0))
    return out


def _template_begins_with_start(local: LocalModel) -> bool:
    """Whether the start token is written once a conversation, and not once a message (as in ChatML)."""
    word = local.tokenizer.bos_token
    told = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    text = local.render(told, answer=False)
    return bool(word) and text.startswith(word) and text.count(word) == 1


def _check_whole(local: LocalModel, ids: list[int], form: str) -> None:
    """The ids one after another are those of the texts one after another."""
    text = local.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if local.encode(text, control=True) != ids:
        raise PromptMismatch(
            f"these KV memories cannot stand one after another: where they meet, {local.name} cuts "
            "the text into other tokens. End each at a boundary, such as a message's end (form='system')"
        )
    if form == SYSTEM:
        one, two = ({"role": "system", "content": content} for content in "ab")
        alone = local.render([two], answer=False)
        if _template_begins_with_start(local):
            alone = alone.removeprefix(local.tokenizer.bos_token)
        if local.render([one, two], answer=False) != local.render([one], answer=False) + alone:
            raise PromptMismatch(
                f"the chat template of {local.name} does not write two system messages one after another; "
                "make one KV memory of all the cubes"
            )


# --- positions


def _rotated(local: LocalModel, pieces: Sequence[tuple[KV, int]], ids: list[int]) -> KV:
    place, turned = 0, []
    for one, began in pieces:
        turned.append([turn(local, layer, place - began) for layer in one.keys])
        place += one.tokens
    values = zip(*(one.values for one, _ in pieces), strict=True)
    made = replace(
        pieces[0][0],
        ids=torch.tensor(ids, dtype=torch.int32),
        keys=tuple(torch.cat(layer, dim=2) for layer in zip(*turned, strict=True)),
        values=tuple(torch.cat(layer, dim=2) for layer in values),
        error=None,
    )
    wanted = _first_layers(local, ids, 1)[0][0]
    off = float((made.keys[0].float() - wanted.float()).abs().max() / wanted.float().abs().max())
    if off > (TURN_TOLERANCE if wanted.dtype == torch.float32 else 2e-2) + _rounding(pieces):
        raise UnsupportedModel(
            f"{local.name} does not turn keys by position as Llama does (the first layer's keys are off by "
            f"{off:.2g} of their size); its KV memories can only be composed exactly (how='exact')"
        )
    return made


def _rounding(pieces: Sequence[tuple[KV, int]]) -> float:
    """What storage in few bits may put the first layer's keys off by."""
    return 0.2 if any(one.label != EXACT for one, _ in pieces) else 0.0


def turn(local: LocalModel, keys: torch.Tensor, positions: int) -> torch.Tensor:
    """[1, heads, tokens, head_dim] as they would be that many positions later: R(p + o) = R(o) R(p)."""
    if not positions:
        return keys
    angles = (positions * _frequencies(local).double()).float()
    cos, sin = (torch.cat([one, one]) for one in (angles.cos(), angles.sin()))
    turned, rest = keys[..., : len(cos)].float(), keys[..., len(cos) :]
    left, right = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat([-right, left], dim=-1) * sin
    return torch.cat([turned.to(keys.dtype), rest], dim=-1)


def _frequencies(local: LocalModel) -> torch.Tensor:
    """(head_dim / 2,) or fewer: radians a position."""
    for module in local.model.modules():
        found = getattr(module, "inv_freq", None)
        if isinstance(found, torch.Tensor):
            return found.detach().cpu()
    raise UnsupportedModel(f"{local.name} has no rotary positions; compose exactly (how='exact')")


# --- selective recomputation


class _EnoughError(Exception):
    """The layers that were asked for are there: the forward may stop."""


class _FirstLayers(DynamicCache):  # type: ignore[misc]
    """Lets a forward go through the first layers only."""

    def __init__(self, wanted: int, config: Any) -> None:
        super().__init__(config=config)
        self.wanted = wanted
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *rest: Any, **more: Any
    ) -> Any:
        self.seen.append((keys, values))
        if layer_idx + 1 == self.wanted:
            raise _EnoughError
        return super().update(keys, values, layer_idx, *rest, **more)


def _first_layers(
    local: LocalModel, ids: Sequence[int], count: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Exact keys and values of the first `count` layers. O(count layers of a prefill)."""
    cache = _FirstLayers(count, local.model.config)
    feed = torch.tensor([list(ids)], dtype=torch.long, device=local.model.device)
    try:
        with torch.no_grad():
            local.model(
                input_ids=feed, use_cache=True, logits_to_keep=1, **{cache_keyword(local.model): cache}
            )
    except _EnoughError:
        pass
    return cache.seen


class _Patched(DynamicCache):  # type: ignore[misc]
    """A full cache in which a forward over some tokens replaces just those."""

    def __init__(self, kv: KV, places: torch.Tensor, config: Any) -> None:
        super().__init__(config=config)
        self.places = places
        self.keys = [one.clone() for one in kv.keys]
        self.values = [one.clone() for one in kv.values]

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        self.keys[layer_idx].index_copy_(2, self.places, keys)
        self.values[layer_idx].index_copy_(2, self.places, values)
        return self.keys[layer_idx], self.values[layer_idx]


def _with_some_anew(local: LocalModel, kv: KV, ids: list[int], settled: int, ratio: float) -> KV:
    """`ratio` of the tokens after the first `settled` ones are computed again, seeing all before them."""
    exact = _first_layers(local, ids, min(2, len(kv.keys)))
    layer = len(exact) - 1
    off = torch.zeros(len(ids))
    for wanted, have in ((exact[layer][0], kv.keys[layer]), (exact[layer][1], kv.values[layer])):
        difference = (wanted.float() - have.float()).pow(2).sum((0, 1, 3))  # (tokens,)
        off += difference / wanted.float().pow(2).mean().clamp_min(1e-12)
    count = math.ceil(ratio * (len(ids) - settled))
    places = (torch.topk(off[settled:], count).indices + settled).sort().values
    cache = _Patched(kv, places, local.model.config)
    later = torch.arange(len(ids))[None, :] > places[:, None]  # (chosen, tokens)
    lowest = torch.finfo(local.model.dtype).min
    mask = torch.zeros(later.shape, dtype=local.model.dtype).masked_fill(later, lowest)[None, None]
    feed = torch.tensor([[ids[place] for place in places.tolist()]], dtype=torch.long)
    with torch.no_grad():
        local.model(
            input_ids=feed,
            position_ids=places[None],
            attention_mask=mask,
            use_cache=True,
            logits_to_keep=1,
            **{cache_keyword(local.model): cache},
        )
    return replace(kv, keys=tuple(cache.keys), values=tuple(cache.values))
