"""Where a compiled memory speaks: near its own states, and hardly ever elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from language_models import needs_torch

pytestmark = needs_torch


def clouds(count: int, *, seed: int = 0) -> Any:
    """States about twelve places, each with its own."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    places = torch.randn(12, 16, generator=torch.Generator().manual_seed(7))
    return places[torch.arange(count) % 12] + 0.05 * torch.randn(count, 16, generator=draw)


@pytest.mark.parametrize("count", [60, 600])
def test_it_is_its_own_states_and_those_like_them_and_not_others(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer centres than states, or as many: what neither was learned from nor told apart by is known too."""
    import torch

    from mnemic.parametric import reach

    monkeypatch.setattr(reach, "CENTRES", 100)
    draw = torch.Generator().manual_seed(1)
    others, more = torch.randn(2, 2000, 16, generator=draw)
    made = reach.learn_reach(clouds(count), others)
    assert made.centres.shape == (min(count, 100), 16)
    assert made(others).mean() <= reach.PASSED
    assert made(more).mean() <= 3 * reach.PASSED
    assert made(clouds(500, seed=3)).mean() > 0.95
    assert set(made(more).tolist()) <= {0.0, 1.0}
    again = reach.learn_reach(clouds(count), others)
    assert again.centres.equal(made.centres)


def test_centres_move_to_the_middle_of_what_is_near_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from mnemic.parametric import reach

    monkeypatch.setattr(reach, "CENTRES", 40)
    own, others = clouds(2000), torch.randn(500, 16)
    learned = reach.learn_reach(own, others)
    monkeypatch.setattr(reach, "ROUNDS", 0)
    drawn = reach.learn_reach(own, others)
    near = [float(reach._nearest(own, one.centres)[0].mean()) for one in (learned, drawn)]
    assert near[0] < 0.8 * near[1]
    by_hand = torch.cdist(own[:50], learned.centres).pow(2).min(1)
    distances, places = reach._nearest(own[:50], learned.centres)
    assert torch.allclose(distances, by_hand.values, atol=1e-4)
    assert places.equal(by_hand.indices)
