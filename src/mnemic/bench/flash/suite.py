"""All of it as one report, a part at a time: a run that was stopped goes on where it was."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from mnemic.bench.flash import shares as swiglu
from mnemic.bench.flash.ablation import CONFIGURATIONS, Size, ablation
from mnemic.bench.flash.exact import exact
from mnemic.bench.flash.relu import Tiny, tiny
from mnemic.bench.flash.values import values
from mnemic.bench.flash.whole import whole
from mnemic.bench.markdown import table
from mnemic.bench.parametric.suite import shown
from mnemic.bench.parts import Parts
from mnemic.models.local import LocalModel
from mnemic.parametric.flash_cost import io_ms

PARTS: Final = ("exact", "ablation", "shares", "model", "values")
PUBLISHED: Final = (
    (13.4, 6.10, 2196),
    (6.7, 6.10, 1090),
    (0.9, 1.25, 738),
    (0.2, 2.25, 87),
    (0.2, 1.25, 164),
)  # Table 2: GB a token, GB a second, milliseconds
PAPER_RATIO: Final = 13.4 / 0.2  # of the same table: naive loading over all three ideas
Step = Callable[[str, str], None]


def run(
    corpus: str,
    other: str,
    questions: str | None,
    *,
    swiglu_model: Callable[[], LocalModel],
    parts: Parts,
    chosen: Sequence[str],
    folder: Path,
    size: Size | None = None,
    shape: Tiny | None = None,
    step: Step = lambda *_: None,
) -> dict[str, Any]:
    """What of `chosen` is not there yet is measured; all that is there is reported. questions: the text that
    a model with SwiGLU reads; without it that part is left out.
    """

    def keep(part: str, measure: Callable[[], Any]) -> Any:
        return parts.keep(part, measure) if part in chosen else parts.known(part)

    def model() -> dict[str, Any]:
        local = tiny(corpus, folder, shape or Tiny(), step=step)
        return whole(local, corpus, other, folder / "packed", step=step)

    found = {
        "exact": keep("exact", partial(exact, folder)),
        "ablation": keep("ablation", partial(ablation, folder, size or Size(), step=step)),
        "shares": keep("shares", lambda: swiglu.shares(swiglu_model(), questions or "", step=step))
        if questions is not None
        else parts.known("shares"),
        "model": keep("model", model),
        "values": keep("values", partial(values, folder, step=step)),
    }
    found = {name: one for name, one in found.items() if one}
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}",
        "libraries": f"torch {torch.__version__}",
        **found,
        "demands": demands(found),
    }


def demands(found: dict[str, Any]) -> list[dict[str, Any]]:
    """LLM in a flash's acceptance, as far as it was measured; C needs no measurement."""
    out: list[tuple[str, str, Any, bool]] = []
    if said := found.get("exact"):
        out += [
            ("A: sparse and dense outputs differ by", "< 1e-4", said["different"], said["different"] < 1e-4),
            (
                "A: resident rows are the union of the last tokens', at every step",
                "yes",
                said["resident_right"],
                said["resident_right"],
            ),
            ("A: bytes read are those of new neurons", "yes", said["bytes_right"], said["bytes_right"]),
            ("A: the table is allocated once", "yes", said["allocated_once"], said["allocated_once"]),
        ]
    if said := found.get("ablation"):
        naive, alone, window, bundles = (said[name] for name in CONFIGURATIONS)
        bytes_ratio, fresh = naive["mb"] / alone["mb"], window["mb"] / alone["mb"]
        halves, faster = bundles["reads"] / window["reads"], bundles["ms"] / window["ms"]
        falls = naive["ms"] > alone["ms"] > window["ms"] > bundles["ms"]
        out += [
            ("B: bytes of naive loading over a predictor's", ">= 15", bytes_ratio, bytes_ratio >= 15),
            ("B: bytes with a window over those without", "<= 0.6", fresh, fresh <= 0.6),
            ("B: reads of bundles over those of halves", "0.5", halves, abs(halves - 0.5) < 0.02),
            ("B: time falls from naive to predictor, window, bundles", "yes", falls, falls),
            ("B: time of bundles over halves, past the cache", "<= 0.9", faster, faster <= 0.9),
        ]
    errors = [abs(io_ms(gb, speed) / published - 1) for gb, speed, published in PUBLISHED]
    out.append(("C: published rows of Table 2, off by", "<= 0.12", max(errors), max(errors) <= 0.12))
    if rows := found.get("shares"):
        off = max(
            abs(ours / theirs - 1)
            for row in rows
            for ours, theirs in zip(swiglu.row_of(row), swiglu.MEASURED[row["share"]], strict=False)
            if theirs > 0.01
        )
        gap = {row["share"]: row["loss"] - rows[0]["loss"] for row in rows}
        ordered = all(
            row["new 1"] > row["new 2"] > row["new 4"] > row["new 8"]
            and row["resident 2"] < row["resident 4"] < row["resident 8"]
            for row in rows[1:]
        )
        out += [
            ("D: the table of shares, off by", "<= 0.10", off, off <= 0.1),
            ("D: less is new and more resident as the window grows", "yes", ordered, ordered),
            ("D: loss at half of the neurons rises by", "< 0.1", gap[0.5], gap[0.5] < 0.1),
            ("D: loss at a twentieth rises by", "> 1", gap[0.05], gap[0.05] > 1),
        ]
    if said := found.get("model"):
        out += _of_the_model(said)
    if said := found.get("values"):
        times = said["table_bytes"] / said["budget"]
        learned = said["losses_disk"][-1] < said["losses_disk"][0]
        out += [
            ("a table of values over what may be in memory of it", ">= 4", times, times >= 4),
            ("trained on disk, its rows differ from those trained in memory by", "< 1e-5",
             said["rows_differ"], said["rows_differ"] < 1e-5 and learned),
            ("served from disk, the layer's output differs by", "< 1e-5", said["served_differ"],
             said["served_differ"] < 1e-5),
        ]  # fmt: skip
    return [{"what": w, "demanded": d, "measured": m, "met": bool(ok)} for w, d, m, ok in out]


def _of_the_model(said: dict[str, Any]) -> list[tuple[str, str, Any, bool]]:
    ran = [said[mode] for mode in ("all", "learned", "recorded")]
    if failed := [one["failed"] for one in ran if "failed" in one]:
        return [(f"a model on disk ran within its budget ({failed[0][-120:]!r})", "yes", False, False)]
    times, held = said["weights"] / said["budget"], max(one["held"] for one in ran) / said["budget"]
    refused = said["dense"].get("refused", False)
    ratio = said["all"]["bytes_per_token"] / said["recorded"]["bytes_per_token"]
    return [
        ("feed-forward weights over all memory allowed", ">= 4", times, times >= 4),
        ("the same tokens as in memory, by an oracle", "yes", said["same"], said["same"]),
        ("held over the budget, at most", "<= 1", held, held <= 1),
        ("the same process cannot hold the model", "yes", refused, refused),
        ("bytes of naive loading over an oracle's", f"paper {PAPER_RATIO:.0f}", ratio, ratio > 1),
        (
            "loss with learned predictors higher by",
            "reported",
            said["loss_learned"] - said["loss"],
            True,
        ),
    ]


def markdown(found: dict[str, Any], command: str) -> str:
    """The report, its demands first."""
    parts = [
        "# Weights on disk",
        f"`{command}`",
        f"{found['machine']}; {found['libraries']}; seed 0.",
        "## Demanded and measured",
        table(
            ["what", "demanded", "measured", "met"],
            [
                [one["what"], one["demanded"], shown(one["measured"]), "yes" if one["met"] else "**no**"]
                for one in found["demands"]
            ],
        ),
    ]
    if said := found.get("ablation"):
        parts += ["## What each idea saves", _ablation_said(said), _ablation(said)]
    if said := found.get("model"):
        parts += ["## A whole model", _model_said(said), _model(said)]
    if said := found.get("shares"):
        parts += ["## A model with SwiGLU", _shares_said(), _shares(said)]
    if said := found.get("values"):
        parts += ["## A memory layer's table", _values_said(said)]
    return "\n\n".join(parts) + "\n"


def _ablation_said(said: dict[str, Any]) -> str:
    size, cold = said["size"], said["naive"]["cold_by"]
    total = size["layers"] * size["neurons"] * size["width"] * 8 / 1e9
    return (
        f"{size['layers']} layers of {size['neurons']:,} neurons of 2 x {size['width']} float32, "
        f"{total:.1f} GB; "
        f"5 % fire, six in ten of them again at the next token. {size['tokens']} tokens (naive: "
        f"{size['naive_tokens']}), {size['threads']} threads, past the page cache ({cold}). "
        "Wall-clock time of a "
        "token's reading and bookkeeping, without products; counted reads and bytes."
    )  # fmt: skip


def _ablation(said: dict[str, Any]) -> str:
    return table(
        ["", "MB a token", "reads a token", "hits", "ms a token", "GB/s"],
        [
            [
                name,
                f"{row['mb']:,.1f}",
                f"{row['reads']:,.0f}",
                f"{row['hit_rate']:.2f}",
                f"{row['ms']:,.1f}",
                f"{row['gb_per_s']:.2f}",
            ]
            for name, row in ((name, said[name]) for name in CONFIGURATIONS)
        ],
    )


def _model_said(said: dict[str, Any]) -> str:
    return (
        "A Llama with ReLU, trained from scratch on the corpus (`mnemic.bench.flash.relu`); "
        f"{said['fires']:.1%} of its neurons fire. Feed-forward weights {said['weights']:,} bytes, budget "
        f"{said['budget']:,} for everything: embeddings, attention, predictors, KV, rows. Each line "
        "is a process "
        "that may map no more than that and 16 MB for Python and PyTorch on the way; reads past the "
        "page cache. "
        f"Learned predictors (rank {said['rank']}) find {said['recall']:.1%} of what fires in another "
        "text and "
        f"name {said['named']:.1%} of all; loss {said['loss']:.3f} in memory, "
        f"{said['loss_learned']:.3f} with "
        f"them; of the tokens drawn {said['same_learned']:.0%} are the same."
    )  # fmt: skip


def _model(said: dict[str, Any]) -> str:
    names = {"all": "every neuron (naive)", "learned": "learned predictors", "recorded": "an oracle"}
    return table(
        ["neurons", "KB a token", "reads a token", "hits", "ms a token", "held, bytes", "peak growth, bytes"],
        [
            [
                name,
                f"{row['bytes_per_token'] / 1e3:,.0f}",
                f"{row['reads_per_token']:,.0f}",
                f"{row['hit_rate']:.2f}",
                f"{row['ms_per_token']:,.0f}",
                f"{row['held']:,}",
                f"{row['peak_growth']:,}",
            ]
            for name, row in ((name, said[mode]) for mode, name in names.items())
            if "held" in row
        ],
    )


def _shares_said() -> str:
    return (
        f"SmolLM2-135M on {swiglu.TOKENS} tokens of GSM8K: of each layer's neurons those with the largest "
        "|silu(gate) · up| of a token are kept (chosen by an oracle). New neurons a token and "
        "resident ones, by "
        "window, as shares. In brackets what the specification gives."
    )


def _shares(rows: list[dict[str, Any]]) -> str:
    names = ["loss", *(f"new {n}" for n in swiglu.WINDOWS), *(f"resident {n}" for n in swiglu.WINDOWS[1:])]
    out = []
    for row in rows:
        given = swiglu.MEASURED[row["share"]]
        cells = [f"{row['share']:.0%}"]
        for place, value in enumerate(swiglu.row_of(row)):
            cells.append(f"{value:.3f}" + (f" ({given[place]:.3f})" if place < len(given) else ""))
        out.append(cells)
    return table(["kept", *names], out)


def _values_said(said: dict[str, Any]) -> str:
    return (
        f"UltraMemV2's table of {said['table_bytes']:,} bytes with {said['budget']:,} of them in "
        "memory, trained "
        f"for {len(said['losses_disk'])} steps from disk (its moments in a second file): loss "
        f"{said['losses_disk'][0]:.4f} to {said['losses_disk'][-1]:.4f}, in memory "
        f"{said['losses_memory'][-1]:.4f}. A step takes {said['disk_ms']:.0f} processor milliseconds "
        "from disk, "
        f"{said['memory_ms']:.0f} in memory; {said['hit_rate']:.0%} of the rows asked for were resident."
    )  # fmt: skip
