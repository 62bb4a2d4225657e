"""kvpress, in an environment of its own, on the same model, items and budgets.

First of all: do both environments compute the same model? Otherwise what follows compares libraries, not
policies.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file

from mnemic.activation.full import FullCache
from mnemic.bench.kv.items import Item
from mnemic.bench.kv.measure import Row, answer_logits, call
from mnemic.bench.peers import __file__ as _peers
from mnemic.cube.errors import InvalidOption, ModelError

TOLERANCE: Final = 1e-3
SCRIPT: Final = Path(_peers).parent / "kvpress_run.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What kvpress made of the items: rows of the presses that ran on all of them, and why others did not."""

    rows: list[Row]
    broken: dict[str, str]
    notes: list[str]


def run_kvpress(
    python: Path,
    model: Any,
    items: Sequence[Item],
    out: Path,
    budgets: Sequence[float],
    report: Callable[[str], None] = lambda _: None,
    *,
    at_most: int | None = None,
) -> Peer:
    """Run every press by the interpreter `python` of its environment, and check that both agree.

    out: the folder that holds items.json; results go to its `kvpress`, and a second run goes on where the
    first ended. The model is read from the folder it was loaded from. Costs a prefill for every press, budget
    and item. Raises InvalidOption for no such interpreter, ModelError when the program fails.
    """
    if not python.is_file():
        raise InvalidOption(
            f"--kvpress {python} is no Python interpreter; docs/bench.md says how to make one"
        )
    command = [str(python), "-I", str(SCRIPT)]  # -I: neither this environment's paths nor the script's folder
    command += [model.config.name_or_path, str(out / "items.json"), str(out / "kvpress")]
    command += [word for budget in budgets for word in ("--budget", str(budget))]
    command += [] if at_most is None else ["--at-most", str(at_most)]
    said: list[str] = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as program:  # noqa: S603
        for line in program.stderr or ():
            said = [*said[-20:], line.rstrip()]
            if line.strip() in {item.name for item in items}:
                report(f"kvpress {line.strip()}")
    if program.returncode:
        raise ModelError(f"kvpress's run ended with {program.returncode}: {' / '.join(said)[-600:]}")
    return read_kvpress(model, items, out / "kvpress")


def read_kvpress(model: Any, items: Sequence[Item], folder: Path) -> Peer:
    """The results in `folder`, if the full-cache logits in it are this model's; else no rows, and why."""
    agreed, note = agreement(model, items, folder)
    if not agreed:
        return Peer(rows=[], broken={}, notes=[note])
    failed = folder / "broken.json"
    broken: dict[str, str] = json.loads(failed.read_text()) if failed.exists() else {}
    lines = map(json.loads, (folder / "kvpress.jsonl").read_text().splitlines())
    rows = {(row["name"], row["policy"], row["budget"]): row for row in lines}
    notes = [note]
    if broken:
        named = ", ".join(f"{name} ({why.partition(':')[0]})" for name, why in sorted(broken.items()))
        notes.append(f"Presses that do not run here: {named}.")
    ran = [row for row in rows.values() if row["policy"] not in broken]
    return Peer(rows=ran, broken=broken, notes=notes)


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
