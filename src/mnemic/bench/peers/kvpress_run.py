"""kvpress on the same items, in an environment of its own: it pins transformers < 5.3. Knows no mnemic.

    python kvpress_run.py MODEL_FOLDER items.json OUT_FOLDER --budget 0.5 --press SnapKVPress

Writes OUT/kvpress.jsonl, a row for each item, press and budget, and OUT/full.safetensors with the full
cache's logits, by which the two environments must agree before anything is compared. A press that does not
run is named in OUT/broken.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import kvpress
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

PRESSES = (
    "SnapKVPress", "TOVAPress", "ExpectedAttentionPress", "KnormPress", "StreamingLLMPress", "PyramidKVPress",
    "KeyDiffPress", "LagKVPress", "RandomPress", "CURPress", "LeverageScorePress", "NonCausalAttnPress",
    "CompactorPress", "ObservedAttentionPress", "QFilterPress", "CAKEPress",
)  # fmt: skip
WRAPPED = ("AdaKVPress", "CriticalKVPress", "CriticalAdaKVPress")  # around SnapKV
WINDOW = 32


def make(name: str, share: float) -> Any:
    if name in WRAPPED:
        return getattr(kvpress, name)(make("SnapKVPress", share))
    options = {"window_size": WINDOW} if name in ("SnapKVPress", "PyramidKVPress") else {}
    return getattr(kvpress, name)(compression_ratio=1.0 - share, **options)


def prefill(model: Any, ids: Tensor, press: Any) -> Any:
    cache = DynamicCache(config=model.config)
    if press is None:
        model.model(input_ids=ids, past_key_values=cache)
    else:
        with press(model):
            model.model(input_ids=ids, past_key_values=cache)
    return cache


def answer_logits(model: Any, answer: Tensor, cache: Any, start: int) -> Tensor:
    """(A - 1, vocabulary), at the positions that follow the whole prompt."""
    ids = answer[:, :-1]
    places = torch.arange(start, start + ids.shape[1])[None]
    logits: Tensor = model(input_ids=ids, past_key_values=cache, position_ids=places).logits[0].float()
    return logits


def row(item: dict[str, Any], press: str, share: float, logits: Tensor, truth: Tensor, cache: Any) -> Any:
    found, wanted, target = logits.log_softmax(-1), truth.log_softmax(-1), torch.tensor(item["answer"][1:])
    kept = (tensor for layer in cache.layers for tensor in (layer.keys, layer.values))
    return {
        "family": item["family"],
        "name": item["name"],
        "policy": press,
        "budget": share,
        "nll": float(F.nll_loss(found, target)),
        "kl": float(F.kl_div(found, wanted, log_target=True, reduction="none").sum(-1).mean()),
        "agree": float((found.argmax(-1) == wanted.argmax(-1)).float().mean()),
        "correct": float((found.argmax(-1) == target).float().mean()),
        "bytes": sum(tensor.untyped_storage().nbytes() for tensor in kept),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Run kvpress on mnemic's items.")
    parser.add_argument("model")
    parser.add_argument("items", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--budget", type=float, action="append")
    parser.add_argument("--press", action="append")
    parser.add_argument("--logits", type=int, default=4, help="items whose full-cache logits are written")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    options = {"dtype": torch.float32, "attn_implementation": "sdpa"}
    model = AutoModelForCausalLM.from_pretrained(given.model, **options).eval()
    path, broken = given.out / "kvpress.jsonl", {}
    lines = path.read_text().splitlines() if path.exists() else []
    done = {(r["name"], r["policy"], r["budget"]) for r in map(json.loads, lines)}
    kept: dict[str, Tensor] = {}
    torch.set_grad_enabled(False)
    for item in json.loads(given.items.read_text()):
        if item["decode"]:
            continue
        prompt, answer = torch.tensor([item["prompt"]]), torch.tensor([item["answer"]])
        truth = answer_logits(model, answer, prefill(model, prompt, None), prompt.shape[1])
        if len(kept) < given.logits:
            kept[item["name"]] = truth
            save_file(kept, given.out / "full.safetensors")
        for share in given.budget or (0.5, 0.25):
            for name in given.press or (*PRESSES, *WRAPPED):
                if name in broken or (item["name"], name, share) in done:
                    continue
                try:
                    cache = prefill(model, prompt, make(name, share))
                    logits = answer_logits(model, answer, cache, prompt.shape[1])
                except Exception as error:  # noqa: BLE001  # whatever a press raises is its result
                    broken[name] = f"{type(error).__name__}: {error}"[:200]
                    (given.out / "broken.json").write_text(json.dumps(broken, indent=1))
                    continue
                with path.open("a") as file:
                    file.write(json.dumps(row(item, name, share, logits, truth, cache)) + "\n")
        print(item["name"], file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
