"""All of it as one report, a part at a time: a run that was stopped goes on where it was."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from mnemic.bench.markdown import table
from mnemic.bench.parametric import adapters, forms, listening, memories
from mnemic.bench.parts import Parts
from mnemic.cube.errors import InvalidFile
from mnemic.models.fingerprint import library_version
from mnemic.models.local import LocalModel

PARTS: Final = ("adapters", "erasure", "forms", "facts", "layers", "text", "ablation", "cost")
Step = Callable[[str, str], None]


def read_data(folder: Path) -> tuple[str, str]:
    """The corpus and another text: wikitext-2's valid.txt and test.txt. Raises InvalidFile."""
    try:
        return (folder / "valid.txt").read_text("utf-8"), (folder / "test.txt").read_text("utf-8")
    except OSError as error:
        raise InvalidFile(
            f"{folder} holds no valid.txt and test.txt ({error}). Name the folder of a small text corpus, "
            "such "
            "as wikitext-2's"
        ) from error


def run(
    model: LocalModel,
    corpus: str,
    other: str,
    *,
    parts: Parts,
    chosen: Sequence[str],
    seeds: Sequence[int],
    folder: Path,
    facts: int = 200,
    tokens: int = memories.CORPUS,
    step: Step = lambda *_: None,
) -> dict[str, Any]:
    """What of `chosen` is not there yet is measured; all that is there is reported."""

    def keep(part: str, name: str, measure: Callable[[], Any]) -> Any:
        return parts.keep(name, measure) if part in chosen else parts.known(name)

    learned, erased = [], []
    for seed in seeds:
        learned.append(
            keep(
                "adapters",
                f"adapters {seed}",
                partial(adapters.learn, model, folder, other, seed=seed, step=step),
            )
        )
        if learned[-1] and learned[-1]["stored"]:
            erased.append(
                keep(
                    "erasure",
                    f"erasure {seed}",
                    partial(adapters.erase, model, folder, seed=seed, step=step),
                )
            )
    rows = {
        name: keep(
            "forms",
            f"form {name}",
            partial(forms.run, model, folder, other, name, count=facts, seed=seeds[0], step=step),
        )
        for name in forms.FORMS
    }
    keys = folder / f"keys-{tokens}.safetensors"
    ablation = partial(
        memories.ablation,
        model,
        corpus,
        other,
        folder / "keys-ablation.safetensors",
        tokens=min(tokens, 6_400),
        test_tokens=2_048,
        seeds=range(3),
        step=step,
    )
    found = {
        "facts": keep(
            "facts", "facts", partial(memories.facts, model, other, count=facts, seed=seeds[0], step=step)
        ),
        "layers": keep(
            "layers", "layers", partial(listening.run, model, count=facts, seed=seeds[0], step=step)
        ),
        "text": keep(
            "text", "text", partial(memories.text, model, corpus, other, keys, tokens=tokens, step=step)
        ),
        "ablation": keep("ablation", "ablation", ablation),
        "any word": keep("ablation", "any word", partial(ablation, mixes=(0.4,), own_words=False)),
        "cost": keep("cost", "cost", partial(memories.cost, model, sizes=memories.SIZES, step=step)),
    }
    found = {name: one for name, one in found.items() if one}
    learned, erased = [one for one in learned if one], [one for one in erased if one]
    return {
        "model": f"{model.name}, {model.dtype}, {torch.get_num_threads()} threads",
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}",
        "libraries": library_version(),
        "seeds": list(seeds)[: max(1, len(learned))],
        "adapters": learned,
        "erasure": erased,
        "forms": {name: row for name, row in rows.items() if row},
        **found,
        "demands": {
            "MemOS, E3": adapters.demands(learned, erased) if learned else [],
            "MLP Memory": memories.demands(found),
        },
    }


def markdown(found: dict[str, Any], command: str) -> str:
    """The report, its demands first."""
    parts = [
        "# Learned memories",
        f"`{command}`",
        f"{found['model']}; {found['machine']}; {found['libraries']}; seeds {found['seeds']}.",
        "## Demanded and measured",
        table(
            ["", "what", "demanded", "measured", "met"],
            [
                [
                    name,
                    one["what"],
                    one["demanded"],
                    shown(one["measured"]),
                    "yes" if one["met"] else "**no**",
                ]
                for name, checks in found["demands"].items()
                for one in checks
            ],
        ),
    ]
    if found["forms"]:
        parts += ["## One set of facts in every form", _forms_said(found["forms"]), _forms(found["forms"])]
    if said := found.get("text"):
        parts += ["## Held-out text", _text_said(said), _text(said)]
    if said := found.get("facts"):
        parts += ["## New facts", _facts_said(said), _facts(said)]
    if said := found.get("layers"):
        parts += ["## Where a compiled memory listens", _layers_said(), _layers(said)]
    if said := found.get("ablation"):
        rows = said | {f"{mix}, any token": one for mix, one in found.get("any word", {}).items()}
        parts += ["## The two halves of the loss", _ablation_said(), _ablation(rows)]
    if said := found.get("cost"):
        parts += ["## A growing datastore", _cost_said(), _cost(said)]
    return "\n\n".join(parts) + "\n"


def shown(measured: Any) -> str:
    """A number, or several as lowest to highest; of truths, how many hold."""
    if isinstance(measured, list):
        if measured and all(isinstance(one, bool) for one in measured):
            return f"{sum(measured)} of {len(measured)}"
        low, high = min(measured), max(measured)
        return shown(low) if low == high else f"{shown(low)} to {shown(high)}"
    if isinstance(measured, bool):
        return "yes" if measured else "no"
    return f"{measured:.3g}"


def _forms_said(rows: dict[str, Any]) -> str:
    row = next(iter(rows.values()))
    recipes = "".join(
        f" {name}: at most {one.epochs} epochs of {one.batch} examples a step."
        for name, one in forms.RECIPES.items()
        if name in rows
    )
    return (
        f"{row['facts']} invented facts; {row['asked']} of them, drawn once, are asked in a wording that was "
        "trained on and in one that was not; an answer is right when it ranks first among 20. Perplexity: of "
        f"{forms.UNRELATED_TOKENS:,} tokens of unrelated text while it is mounted, over the model's alone. "
        "Processor seconds: to write it, and to read it for an answer of up to "
        f"{forms.ANSWER_TOKENS} tokens. Bytes are what it holds while mounted. A search puts "
        f"{forms.FOUND} texts into the prompt. After an erasure every form but text is written again from "
        f"what remains, which costs what it cost.{recipes}"
    )


def _forms(rows: dict[str, Any]) -> str:
    alone = rows.get("nothing", {}).get("perplexity")
    heads = ["form", "seen", "unseen", "perplexity", "write s", "read s", "prompt tokens", "bytes"]
    return table(
        [*heads, "provenance", "erasing a fact"],
        [
            [
                name,
                f"{row['seen']:.2f}",
                f"{row['unseen']:.2f}",
                f"{row['perplexity'] / alone:.3f}" if alone and row["perplexity"] else "as it was",
                f"{row['write_s']:.1f}",
                f"{row['read_s']:.2f}",
                f"{row['prompt_tokens']:,.0f}",
                f"{row['bytes']:,}",
                row["provenance"],
                _erasing(name, row),
            ]
            for name, row in rows.items()
        ],
    )


def _erasing(name: str, row: dict[str, Any]) -> str:
    if name == "nothing":
        return "-"
    return f"{row['write_s']:.1f} s" if row["write_s"] else "a row"


def _text_said(said: dict[str, Any]) -> str:
    tried = ", ".join(f"{t:g}: {p:.2f}" for t, p in said["temperatures"])
    return (
        f"{said['keys']:,} keys of the corpus, k = {memories.K}; temperature {said['temperature']:g} of the "
        f"median distance, chosen on what follows the corpus (perplexities {tried}). Compiled in "
        f"{said['compile_s']:.0f} processor seconds. Perplexity by lambda:"
    )


def _text(said: dict[str, Any]) -> str:
    curves = [name for name in said if ", " in name]
    lambdas = [f"{lam:g}" for lam, _ in said[curves[0]]]
    return table(
        ["memory, text", *lambdas, "best gain"],
        [
            [
                name,
                *(f"{found:.2f}" for _, found in said[name]),
                f"{1 - min(found for _, found in said[name][1:]) / said[name][0][1]:+.1%}",
            ]
            for name in curves
        ],
    )


def _facts_said(said: dict[str, Any]) -> str:
    return (
        f"{said['keys']:,} keys; lambda {said['lam']:g}, silent beyond a reach of {memories.REACH:g} median "
        "distances. Share of wordings after which the first token of "
        "the "
        "right name is the likeliest of the whole vocabulary; its median rank in unseen wordings; "
        "perplexity of "
        f"unrelated text over the model's alone. Built in {said['build_s']:.0f}, compiled in "
        f"{said['compile_s']:.0f} processor seconds."
    )


def _facts(said: dict[str, Any]) -> str:
    return table(
        ["", "seen", "unseen", "median rank", "perplexity", "speaks there", "bytes"],
        [
            [
                name,
                f"{said[name]['seen']:.2f}",
                f"{said[name]['unseen']:.2f}",
                f"{said[name]['median_rank']:,.0f}",
                f"{said[name].get('perplexity', 1.0):.3f}",
                f"{said[name].get('spoke', 0.0):.1%}",
                f"{said[name].get('bytes', 0):,}",
            ]
            for name in ("the model alone", "kNN", "MLP")
        ],
    )


def _layers_said() -> str:
    return (
        "As many other facts. Share of unseen wordings after which the first token of the right name is the "
        f"likeliest, at lambda {listening.LAM:g}, speaking everywhere: searched with the states of a layer "
        "as keys, and compiled with them as input (the teacher's keys are the last layer's)."
    )


def _layers(rows: list[dict[str, Any]]) -> str:
    return table(
        ["layer", "depth", "kNN", "MLP", "compile s"],
        [
            [
                f"{row['layer']} of {row['layers']}",
                f"{row['layer'] / row['layers']:.0%}",
                f"{row['kNN']:.2f}",
                f"{row['MLP']:.2f}",
                f"{row['compile_s']:.0f}",
            ]
            for row in rows
        ],
    )


def _ablation_said() -> str:
    return (
        "Interpolated perplexity of another text, lambda chosen on what follows the corpus; one block, one "
        "epoch, at most 6,400 tokens. a = 0 is likelihood alone, a = 1 the retriever alone. Any token: not "
        "only those that these texts hold."
    )


def _ablation(said: dict[str, Any]) -> str:
    return table(
        ["a", "mean", "seeds"],
        [
            [mix, f"{statistics.mean(found):.3f}", ", ".join(f"{one:.3f}" for one in found)]
            for mix, found in said.items()
        ],
    )


def _cost_said() -> str:
    return (
        "Processor milliseconds that a memory adds to one token, median (lowest to highest of seven), keys "
        "at random. Beside them, bytes. The compiled one can say every token: one of fewer is smaller."
    )


def _cost(rows: list[dict[str, Any]]) -> str:
    def cell(row: dict[str, Any], name: str) -> str:
        times = row[name]["ms"]
        spread = f"{statistics.median(times):.1f} ({times[0]:.1f} to {times[-1]:.1f})"
        return f"{spread}; {row[name]['bytes'] / 1e6:.0f} MB"

    return table(
        ["keys", "exact", "ivfpq", "mlp", "building ivfpq"],
        [
            [
                f"{row['keys']:,}",
                *(cell(row, name) for name in ("exact", "ivfpq", "mlp")),
                f"{row['ivfpq_build_s']:.1f} s",
            ]
            for row in rows
        ],
    )  # fmt: skip
