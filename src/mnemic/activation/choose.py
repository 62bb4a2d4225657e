"""Who stays: arithmetic that the policies share. Slots are (B, H, S); budgets are tokens a row."""

from __future__ import annotations

import torch
from torch import Tensor

from mnemic.activation.policy import Keep, LayerView


def room(
    layer: LayerView, budget: int | float, *, newest: int, protect_prompt: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Valid slots, those that stay in any case (both (B, H, S) bool), and the budgets (B, H) int64.

    The `newest` slots stay, or as many as the budget holds; what a row still holds of a protected prompt
    stays too, on top of the budget.
    """
    valid, prompt = layer.valid(), layer.prompt_tokens()
    share = isinstance(budget, float)
    tokens = (prompt * budget).long().clamp_min(1) if share else torch.full_like(prompt, int(budget))
    budgets = tokens[:, None].expand(-1, layer.heads)
    stay = (valid.flip(-1).cumsum(-1).flip(-1) <= budgets.clamp_max(newest)[..., None]) & valid
    if protect_prompt:
        held = of_prompt(layer) & valid
        stay, budgets = stay | held, budgets + held.sum(-1)
    return valid, stay, budgets


def of_prompt(layer: LayerView) -> Tensor:
    """(B, H, S) bool: slots of the prompt, its padding included."""
    return layer.positions() < layer.prompt


def oldest(valid: Tensor, count: int) -> Tensor:
    """(B, H, S) bool: the first `count` valid slots of each row."""
    return (valid.cumsum(-1) <= count) & valid


def keep_best(scores: Tensor, protected: Tensor, valid: Tensor, budgets: Tensor) -> Keep | None:
    """All protected slots and the best others within `budgets` (B, H or 1); None if that is everything.

    Ties fall to the newer token. Protected slots stay even where they are more than the budget.
    O(B · H · S log S).
    """
    if bool((valid.sum(-1) <= budgets).all()):
        return None
    ranked = scores.float().masked_fill(~valid, -torch.inf).masked_fill(protected & valid, torch.inf)
    order = ranked.flip(-1).argsort(dim=-1, descending=True, stable=True)
    places = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(-1, order, places)
    chosen = (rank.flip(-1) < budgets[..., None]) & valid | protected & valid
    return None if bool((chosen == valid).all()) else Keep.from_mask(chosen)


def time_to_choose(layer: LayerView, budget: int | float, window: int) -> bool:
    """Whether a multiple of `window` steps was reached in this call (step 0, the prompt's end, is one) and
    some row may be above its budget.
    """
    if isinstance(budget, int) and layer.stored() <= budget:
        return False
    return layer.forced or layer.step == 0 or layer.step // window != (layer.step - layer.new) // window


def share_out(mass: Tensor, total: Tensor, *, floor: Tensor, ceiling: Tensor, bucket: int) -> Tensor:
    """Budgets of the rows of each sequence, in proportion to `mass` (B, H), in multiples of `bucket`.

    Heads whose budgets are equal lie in one segment, so rounding saves time in every step. total: (B,) tokens
    over the rows; floor, ceiling: (B, H), which need be no multiples. What rounding down leaves goes to the
    rows that lost most by it, in whole buckets (or up to the ceiling) while they fit, and the last of it to
    one row; the sum is never above `total`.
    """
    share = floor + (total[:, None] - floor.sum(1, keepdim=True)).clamp_min(0) * mass / mass.sum(
        1, keepdim=True
    ).clamp_min(1e-38)
    share = share.clamp_max(ceiling)
    budgets = torch.where(share >= ceiling, ceiling, share // bucket * bucket).long()
    budgets = budgets.maximum(floor.long()).minimum(ceiling.long())
    for _ in range(mass.shape[1]):
        spare = total - budgets.sum(1)
        step = (ceiling - budgets).clamp_max(bucket)
        want = (share - budgets).masked_fill((step <= 0) | (step > spare[:, None]), -torch.inf)
        row = want.argmax(1, keepdim=True)
        fits = want.gather(1, row) > -torch.inf
        budgets = budgets.scatter_add(1, row, torch.where(fits, step.gather(1, row), 0).to(budgets.dtype))
    left = (total - budgets.sum(1)).clamp_min(0)[:, None]
    row = (share - budgets).masked_fill(budgets + left > ceiling, -torch.inf).argmax(1, keepdim=True)
    return budgets.scatter_add(1, row, left).minimum(ceiling.long())
