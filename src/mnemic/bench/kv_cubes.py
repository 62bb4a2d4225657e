"""`mnemic bench kv-cubes`: E1 and E2 of MemOS and what the other forms of KV cost, as one report."""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mnemic.bench import kv_forms, kv_moves, kv_speed
from mnemic.bench.locomo import Dialogue, digest
from mnemic.bench.markdown import table
from mnemic.bench.parts import Parts
from mnemic.models.fingerprint import fingerprint, library_version
from mnemic.models.local import LocalModel

MEMORIES = kv_speed.MEMORIES
Step = Callable[[str, str], None]


def settings(data: Path, dialogue: str, model: LocalModel, queries: int = kv_moves.QUERIES) -> dict[str, Any]:
    """What results rest on: those of other data or another model are not mixed with them."""
    made = fingerprint(model).as_dict()
    return {"data": digest(data), "dialogue": dialogue, "queries": queries, **made}


def run(
    dialogue: Dialogue,
    model: LocalModel,
    *,
    seeds: Sequence[int],
    parts: Parts,
    memories: Sequence[int] = MEMORIES,
    queries: int = kv_moves.QUERIES,
    step: Step = lambda *_: None,
) -> dict[str, Any]:
    """All of it; some ten minutes on two idle cores with five seeds."""
    with tempfile.TemporaryDirectory(prefix="mnemic-kv-") as name:
        folder = Path(name)
        speed = [
            parts.keep(f"speed {size}", partial(kv_speed.run, dialogue, model, folder, size, step=step))
            for size in memories
        ]
        forms = parts.keep("forms", lambda: kv_forms.run(dialogue, model, step=step))
        moves = [
            parts.keep(
                f"moves {seed}",
                partial(kv_moves.run, model, folder, seed=seed, queries=queries, step=step),
            )
            for seed in seeds
        ]
    speed, moves = [one for one in speed if one], [one for one in moves if one]
    return {
        "dialogue": dialogue.id,
        "seeds": list(seeds)[: len(moves)],
        "queries": queries,
        "model": f"{model.name}, {model.dtype}, {torch.get_num_threads()} threads",
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}",
        "libraries": library_version(),
        "speed": speed,
        "forms": forms,
        "moves": moves,
        "demands": {
            "E1": kv_speed.demands(speed) if speed else [],
            "E2": kv_moves.demands(moves) if moves else [],
        },
    }


def markdown(found: dict[str, Any], command: str) -> str:
    """The report, its demands first."""
    speed, forms = found["speed"], found["forms"]
    parts = [
        "# KV memory",
        f"`{command}`",
        f"{found['model']}; {found['machine']}; "
        f"{found['libraries']}. Texts are turns of LoCoMo's {found['dialogue']}; seeds {found['seeds']}.",
        "## Demanded and measured",
        table(
            ["", "what", "demanded", "measured", "met"],
            [
                [
                    name,
                    one["what"],
                    one["demanded"],
                    _shown(one["measured"]),
                    "yes" if one["met"] else "**no**",
                ]
                for name, checks in found["demands"].items()
                for one in checks
            ],
        ),
        "## Time to the first token",
        "Direct: the whole prompt is read. KV: the vault is asked whether the memory is current, its KV is "
        "cloned, the query is read. Seconds: median of 3 after a warm-up, taken in turn; in brackets the "
        "ratio of each round, lowest to highest.",
        table(
            ["memory", "query", "direct s", "KV s", "sooner", "largest logit difference", "32 tokens"],
            [
                [
                    f"{one['memory_tokens']:,}",
                    str(one["query_tokens"]),
                    f"{statistics.median(one['direct_s']):.3f}",
                    f"{statistics.median(one['kv_s']):.3f}",
                    f"{one['ratio']:.1f} ({min(one['ratios']):.1f} to {max(one['ratios']):.1f})",
                    f"{one['max_logit']:.1e}",
                    "the same" if one["same_tokens"] else "**differ**",
                ]
                for memory in speed
                for one in memory["cells"]
            ],
        ),
        "Building it once, and mounting it in a new process (reading and checking the file):",
        table(
            ["tokens", "build s", "mount s", "MB on disk", "unchanged after 5 uses"],
            [
                [
                    f"{one['tokens']:,}",
                    f"{one['build_s']:.2f}",
                    f"{one['mount_s']:.2f}",
                    f"{one['file_bytes'] / 1e6:.1f}",
                    "yes" if one["unchanged_after_uses"] else "**no**",
                ]
                for one in speed
            ],
        ),
    ]
    if forms:
        parts += [
            "## Fewer bits",
            f"KV of {forms['tokens'][0]} tokens; errors on the {forms['probe_tokens']} tokens of a question "
            "after it: the largest difference of a logit, mean KL in nats, how often the likeliest next "
            "token is the same, and the error of keys and values themselves (root mean square, relative).",
            table(
                ["storage", "MB", "logit", "KL", "same token", "KV"],
                [
                    [name, f"{one['bytes'] / 1e6:.1f}", *kv_forms.rows([one])[0]]
                    for name, one in forms["storages"].items()
                ],
            ),
            "## Several as one",
            f"KV of {' + '.join(map(str, forms['tokens']))} tokens, each read alone, against all read as one "
            "text. `selective` computes that share of the later memories' tokens anew; `selective 100%` is "
            "the method's own limit and has to be exact.",
            table(
                ["composition", "s", "logit", "KL", "same token", "KV"],
                [
                    [one["how"], f"{one['seconds']:.2f}", *kv_forms.rows([one])[0]]
                    for one in forms["compositions"]
                ],
            ),
        ]
    if found["moves"]:
        parts += [
            "## Conversion moves cost, not truth",
            _moves_said(found["queries"]),
            _moves_table(found["moves"]),
        ]
    return "\n\n".join(parts) + "\n"


def _moves_said(queries: int) -> str:
    return (
        f"{len(kv_moves.NAMES)} facts, {queries} queries with Zipf({kv_moves.EXPONENT}), "
        f"room for {kv_moves.CAPACITY} KV; the {kv_moves.UPDATED} most used facts change half-way. An answer "
        f"is right when the code ranks first among {kv_moves.CANDIDATES} by log-probability. The last row "
        "serves KV without asking the vault: a control that has to fail. Mean over seeds, in brackets lowest "
        "to highest."
    )


def _moves_table(runs: Sequence[dict[str, Any]]) -> str:
    def cell(name: str, field: str, form: str) -> str:
        values = [one[name][field] for one in runs]
        return f"{statistics.mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"

    return table(
        ["scheduler", "memory tokens read", "peak bytes", "accuracy", "answers from KV", "stale answers"],
        [
            [
                name,
                cell(name, "memory_tokens", ",.0f"),
                cell(name, "peak_bytes", ",.0f"),
                cell(name, "accuracy", ".3f"),
                cell(name, "answers_from_kv", ".0f"),
                cell(name, "stale_answers", ".0f"),
            ]
            for name in kv_moves.SCHEDULERS
        ],
    )


def _shown(measured: Any) -> str:
    if measured is None:
        return "all"
    if isinstance(measured, list):
        return ", ".join(_shown(one) for one in measured)
    if isinstance(measured, bool):
        return "all" if measured else "not all"
    return f"{measured:.2g}" if isinstance(measured, float) and measured < 1 else f"{measured:.3g}"
