"""Do two environments compute the same model? Otherwise what follows compares libraries, not policies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file

from mnemic.activation.full import FullCache
from mnemic.bench.kv.items import Item
from mnemic.bench.kv.measure import answer_logits, call

TOLERANCE: Final = 1e-3


def agreement(model: Any, items: Sequence[Item], folder: Path) -> tuple[bool, str]:
    """Whether kvpress's full-cache logits in `folder` are ours to 1e-3, and the sentence for the report."""
    path = folder / "full.safetensors"
    if not path.exists():
        return (
            False,
            f"kvpress is left out: {path.name} is not among its results, so nothing shows that both agree.",
        )
    theirs = load_file(path)
    named = {item.name: item for item in items}
    worst, compared = 0.0, 0
    with torch.no_grad():
        for name, logits in theirs.items():
            if name in named:
                cache = FullCache().cache(model)
                call(model, torch.tensor([named[name].prompt]), cache)
                answer = torch.tensor([named[name].answer])
                ours = answer_logits(model, answer, cache, step=answer.shape[1])
                worst, compared = max(worst, float((ours - logits).abs().max())), compared + 1
    if not compared:
        return False, "kvpress is left out: its results are of other items."
    said = f"full-cache logits of both environments differ by at most {worst:.1e} on {compared} items"
    if worst > TOLERANCE:
        return False, f"The comparison with kvpress is void: {said}, above {TOLERANCE}."
    return True, f"kvpress ran in its own environment on the same token ids: {said}."
