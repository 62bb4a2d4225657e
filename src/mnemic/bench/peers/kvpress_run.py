"""kvpress on the same items, in an environment of its own: it pins transformers < 5.3. Knows no mnemic.

    python kvpress_run.py MODEL_FOLDER items.json OUT_FOLDER --budget 0.5 --press SnapKVPress

Writes OUT/kvpress.jsonl, a row for each item, press and budget, and OUT/full.safetensors with the full
cache's logits, by which the two environments must agree before anything is compared. A press that does not
run is named in OUT/broken.json, with what it raised. A second run goes on where the first ended. Nothing is
downloaded: presses that want trained weights of their own are among those that do not run.

A prompt's presses cut it once, before the answer. Where the answer is what grows (item["decode"]), it is
fed token by token under DecodingPress, which cuts every WINDOW steps, to as many tokens as mnemic's policies
hold: the prompt and the budget's share of the answer.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the libraries that read it

import kvpress
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

PRESSES = (
    "SnapKVPress", "TOVAPress", "ExpectedAttentionPress", "KnormPress", "StreamingLLMPress", "PyramidKVPress",
    "KeyDiffPress", "LagKVPress", "RandomPress", "CURPress", "LeverageScorePress", "NonCausalAttnPress",
    "CompactorPress", "ObservedAttentionPress", "CapPress", "KVComposePress", "KVzipPress", "KVgradPress",
    "QFilterPress", "FastKVzipPress", "KVzapPress", "RestoreKVPress", "ExpectedAttentionStatsPress",
    "LUKVPress",
)  # fmt: skip
WRAPPED = (
    "AdaKVPress", "CriticalKVPress", "CriticalAdaKVPress", "ChunkKVPress", "MergingPress", "ChunkPress",
    "BlockPress", "EntropyGatedChunkKVPress",
)  # fmt: skip
DECODED = (
    "SnapKVPress", "TOVAPress", "ExpectedAttentionPress", "KnormPress", "StreamingLLMPress", "KeyDiffPress",
    "LagKVPress", "RandomPress", "CURPress", "AdaKVPress", "CAMPress", "QFilterPress", "PyramidKVPress",
)  # fmt: skip
EAGER = ("ObservedAttentionPress", "KVComposePress")  # need attention weights, which only eager gives
UNEVEN = (
    "PyramidKVPress",
    "KVComposePress",
)  # layers hold unequally many tokens: one mask fits them all for one query only
WINDOW = 32


def make(name: str, share: float) -> Any:
    """WRAPPED are around SnapKV. Options are the defaults, but for the observation window, which is ours."""
    if name in WRAPPED:
        return getattr(kvpress, name)(make("SnapKVPress", share))
    options = {"window_size": WINDOW} if name in ("SnapKVPress", "PyramidKVPress") else {}
    return getattr(kvpress, name)(compression_ratio=1.0 - share, **options)


def decoding(name: str, tokens: int) -> Any:
    """Cut to `tokens` every WINDOW steps, by this press's scores. It sees the states since the last cut
    alone, so that SnapKV's window is half of them; AdaKV and CAM, which merges what it evicts, are around
    SnapKV.
    """
    if name in ("AdaKVPress", "CAMPress"):
        base = kvpress.SnapKVPress(window_size=WINDOW // 2)
    else:
        options = {"window_size": WINDOW // 2} if name in ("SnapKVPress", "PyramidKVPress") else {}
        base = getattr(kvpress, name)(**options)
    base = kvpress.AdaKVPress(base) if name == "AdaKVPress" else base
    press = kvpress.CAMPress if name == "CAMPress" else kvpress.DecodingPress
    return press(base, compression_interval=WINDOW, target_size=tokens)


def decoded(model: Any, item: dict[str, Any], name: str, share: float) -> tuple[Tensor, Any]:
    """(A - 1, vocabulary) and the cache, the answer fed token by token."""
    prompt, answer = torch.tensor([item["prompt"]]), torch.tensor([item["answer"]])
    held = max(int(share * len(item["answer"])), WINDOW + 1)
    cache = DynamicCache(config=model.config)
    with decoding(name, prompt.shape[1] + held)(model):
        model.model(input_ids=prompt, past_key_values=cache)
        return answer_logits(model, answer, cache, prompt.shape[1], step=1), cache


def prefill(model: Any, ids: Tensor, press: Any) -> Any:
    cache = DynamicCache(config=model.config)
    if press is None:
        model.model(input_ids=ids, past_key_values=cache)
    else:
        with press(model):
            model.model(input_ids=ids, past_key_values=cache)
    return cache


def pressed(model: Any, ids: Tensor, name: str, share: float) -> Any:
    """The prompt's cache after this press."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager" if name in EAGER else before)
    try:
        return prefill(model, ids, make(name, share))
    finally:
        model.set_attn_implementation(before)


def answer_logits(model: Any, answer: Tensor, cache: Any, start: int, *, step: int = 1 << 30) -> Tensor:
    """(A - 1, vocabulary), at the positions that follow the whole prompt."""
    ids, found = answer[:, :-1], []
    for at in range(0, ids.shape[1], step):
        part = ids[:, at : at + step]
        places = torch.arange(start + at, start + at + part.shape[1])[None]
        found.append(model(input_ids=part, past_key_values=cache, position_ids=places).logits[0].float())
    return torch.cat(found)


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
    parser.add_argument("--at-most", type=int, default=-1, help="stop after so many items; -1: none is left")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    options = {"dtype": torch.float32, "attn_implementation": "sdpa"}
    model = AutoModelForCausalLM.from_pretrained(given.model, **options).eval()
    shares = given.budget or (0.5, 0.25)
    path, failed, full = (given.out / n for n in ("kvpress.jsonl", "broken.json", "full.safetensors"))
    lines = path.read_text().splitlines() if path.exists() else []
    done = {(r["name"], r["policy"], r["budget"]) for r in map(json.loads, lines)}
    broken: dict[str, str] = json.loads(failed.read_text()) if failed.exists() else {}
    kept: dict[str, Tensor] = load_file(full) if full.exists() else {}
    torch.set_grad_enabled(False)
    fresh = 0
    for item in json.loads(given.items.read_text()):
        names = [f"DecodingPress/{name}" for name in DECODED] if item["decode"] else [*PRESSES, *WRAPPED]
        wanted = [(share, name) for share in shares for name in names if name in (given.press or names)]
        left = [one for one in wanted if one[1] not in broken and (item["name"], one[1], one[0]) not in done]
        if not left:
            continue
        prompt, answer = torch.tensor([item["prompt"]]), torch.tensor([item["answer"]])
        truth = answer_logits(model, answer, prefill(model, prompt, None), prompt.shape[1])
        if len(kept) < given.logits and item["name"] not in kept:
            kept[item["name"]] = truth
            save_file(kept, full)
        for share, name in left:
            if name in broken:
                continue
            step = 1 if name in UNEVEN else 1 << 30
            try:
                if item["decode"]:
                    logits, cache = decoded(model, item, name.removeprefix("DecodingPress/"), share)
                else:
                    cache = pressed(model, prompt, name, share)
                    logits = answer_logits(model, answer, cache, prompt.shape[1], step=step)
            except Exception as error:  # noqa: BLE001  # whatever a press raises is its result
                broken[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                failed.write_text(json.dumps(broken, indent=1) + "\n")
                continue
            with path.open("a") as file:
                file.write(json.dumps(row(item, name, share, logits, truth, cache)) + "\n")
        print(item["name"], file=sys.stderr, flush=True)
        fresh += 1
        if fresh == given.at_most:
            break


if __name__ == "__main__":
    main()
