"""Layer choices on real text, at as many active parameters and as much training time: perplexity and recall.

The MLPs of a choice are as wide as leaves it with the same active parameters as the others; its steps are
as many as its measured time a step allows within the same seconds of processor time.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mnemic.bench.layers.training import mean_and_spread
from mnemic.bench.markdown import table
from mnemic.cube.errors import InvalidOption
from mnemic.layers.state import write_whole
from mnemic.training.loop import build, evaluate, one_step, train
from mnemic.training.optimise import optimisers_of
from mnemic.training.options import CUE, LoopOptions, ModelOptions
from mnemic.training.text import Text

DIM: Final = 64
ACTIVE: Final = 150_000  # parameters that work on one token, every choice
TABLE: Final = {"layer": "ultramem", "keys": 64, "topm": 16, "key_dim": 16, "pre_dim": 8, "value_dim": 24}
WINDOW: Final = 16
_FIRST: Final = {"layer": "base-conv", "gate": 1.0}
_WINDOW: Final = {"layer": "window", "window": WINDOW}
_DELTA: Final = {"layer": "gated-delta"}
_TAYLOR: Final = {"layer": "taylor", "key_dim": 16}
_ATTENTION: Final = {"layer": "attention"}
ARMS: Final[Mapping[str, tuple[Sequence[Any], Any]]] = {
    "attention": ((_ATTENTION, _ATTENTION), None),
    "window 16": ((_WINDOW, _WINDOW), None),
    "gated-delta": ((_DELTA, _DELTA), None),
    "taylor + window 16": ((_TAYLOR, _WINDOW), None),
    "gated-delta + window 16": ((_DELTA, _WINDOW), None),
    "gated-delta + window 16, ultramem beside": ((_DELTA, _WINDOW), TABLE),
    "window 16 + taylor": ((_WINDOW, _TAYLOR), None),
    "window 16 + gated-delta": ((_WINDOW, _DELTA), None),
    "based": (({"layer": "based", "key_dim": 12, "window": WINDOW},) * 2, None),
    "titans-mag": (({"layer": "titans-mag", "depth": 1, "chunk": 16, "window": WINDOW},) * 2, None),
    "mom": (("mom",) * 2, None),
    "linear (baseline)": (("linear",) * 2, None),
    "lstm (baseline)": (("lstm", "lstm"), None),
}
Report = Callable[[str, str], None]
Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all choices share. `seconds` of processor time for the steps; evaluations come on top."""

    seconds: float = 30.0
    active: int = ACTIVE
    batch: int = 8
    rate: float = 1e-2

    def loop(self, steps: int, seed: int) -> LoopOptions:
        return LoopOptions(
            steps=steps, batch=self.batch, rate=self.rate, seed=seed, evaluate_every=max(steps, 1),
            save_every=max(steps // 4, 1),
        )  # fmt: skip


def model_of(arm: str, active: int, vocabulary: int) -> ModelOptions:
    """A convolution and two layers, with MLPs that bring it to `active` parameters. Raises InvalidOption."""
    if arm not in ARMS:
        raise InvalidOption(f"there is no choice {arm!r:.80}. Known: {', '.join(ARMS)}")
    chosen, memory = ARMS[arm]
    layers = (_FIRST, *chosen)
    bare = ModelOptions(layers=layers, dim=DIM, mlp_ratio=0.0, memory=memory)
    left = active - build(bare, vocabulary, 0).parameter_counts()["active"] - len(layers) * DIM
    inner = left // (3 * DIM * len(layers))
    if inner < 1:
        raise InvalidOption(f"{arm} has {active - left:,} active parameters without MLPs: allow more")
    return ModelOptions(layers=layers, dim=DIM, mlp_ratio=inner / DIM, memory=memory)


def step_times(arms: Sequence[str], text: Text, setting: Setting, rounds: int = 8) -> dict[str, float]:
    """Seconds of processor time a training step of each choice takes: the least of `rounds`, by turns.

    By turns and the least, so that what else the machine does meanwhile weighs on none of them more.
    """
    loop = setting.loop(1_000_000, 0)
    made = {arm: build(model_of(arm, setting.active, text.vocabulary), text.vocabulary, 0) for arm in arms}
    optimisers = {arm: optimisers_of(model, loop) for arm, model in made.items()}
    found: dict[str, float] = {}
    for step in range(rounds):
        for arm, model in made.items():
            clock = time.process_time()
            one_step(model, text, optimisers[arm], loop, step)
            found[arm] = min(found.get(arm, math.inf), time.process_time() - clock)
    return found


def perform(arm: str, seed: int, text: Text, setting: Setting, step_s: float, folder: Path) -> Record:
    """Train one choice with one seed; a run that was stopped goes on from its checkpoint in `folder`."""
    model, steps = model_of(arm, setting.active, text.vocabulary), max(round(setting.seconds / step_s), 1)
    made = build(model, text.vocabulary, seed)
    clock = time.process_time()
    trained = train(made, text, setting.loop(steps, seed), folder=folder, settings=model.to_dict())
    found = trained.history[-1] if trained.history else evaluate(made, text)
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    return {
        "settings": settings_of(text, setting), "steps": steps, "step_s": step_s, **made.parameter_counts(),
        "mlp_ratio": model.mlp_ratio, "cpu_s": round(time.process_time() - clock, 1),
        "resumed_at": trained.resumed_at, "state_bytes": made.config.state_bytes(text.options.length),
        **{name: value for name, value in found.items() if name not in ("step", "norm")},
    }  # fmt: skip


def settings_of(text: Text, setting: Setting) -> Record:
    """What a record depends on."""
    return {"text": text.settings(), "seconds": setting.seconds, "active": setting.active,
            "batch": setting.batch, "rate": setting.rate, "dim": DIM}  # fmt: skip


def perform_all(
    arms: Sequence[str],
    seeds: int,
    text: Text,
    setting: Setting,
    path: Path,
    *,
    fresh: bool = False,
    report: Report = lambda *_: None,
) -> dict[str, Record]:
    """Records by "arm/seed", seed by seed, each kept in `path` as soon as it ends.

    Raises InvalidOption when one there was made under other settings, unless `fresh` starts over.
    """
    wanted = json.loads(json.dumps(settings_of(text, setting)))
    kept: dict[str, Record] = {} if fresh else held(path)
    for key, record in kept.items():
        if record["settings"] != wanted:
            raise InvalidOption(
                f"{path.name} holds {key} under other settings; take another --out, or --fresh"
            )
    plan = path.with_name(f"{path.stem.removesuffix('-runs')}-times.json")
    times: dict[str, Any] = {} if fresh else held(plan)
    if times.get("settings") != wanted:
        times = {"settings": wanted}
    if missing := [arm for arm in arms if arm not in times]:
        times |= step_times(missing, text, setting)
        write_whole(plan, (json.dumps(times, indent=1) + "\n").encode())
    for seed in range(seeds):
        for arm in arms:
            key = f"{arm}/{seed}"
            if key not in kept:
                folder = path.with_name(f"{path.stem}-part") / key.replace("/", "-")
                kept[key] = perform(arm, seed, text, setting, times[arm], folder)
                write_whole(path, (json.dumps(kept, indent=1) + "\n").encode())
            report(key, f"perplexity {kept[key]['perplexity']:.1f}, {kept[key]['cpu_s']:.0f} s of CPU")
    return kept


def held(path: Path) -> dict[str, Any]:
    """What a file of this module holds; nothing where there is none."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def markdown(records: Mapping[str, Record], command: str, about: Mapping[str, Any]) -> str:
    """One table, best perplexity first."""
    by_arm = {arm: [r for key, r in records.items() if key.rpartition("/")[0] == arm] for arm in ARMS}
    found = sorted(
        ((arm, rs) for arm, rs in by_arm.items() if rs), key=lambda one: _mean(one[1], "perplexity")
    )
    settings = next(iter(records.values()))["settings"]
    text, machine = settings["text"], about["machine"]
    recalls = _recalls(found[0][1][0], text["length"] // 2)
    heads = ["layers", "perplexity", "bits a byte", *(f"recall {size}" for size in recalls), "first time"]
    heads += ["of hits", "seeds", "active", "all", "state bytes", "steps", "CPU s"]
    rows = []
    for arm, rs in found:
        first = rs[0]
        rows.append([
            arm, _spread(rs, "perplexity", 1), f"{_mean(rs, 'bits_per_byte'):.3f}",
            *(_spread(rs, name, 3) for name in recalls.values()),
            f"{_mean(rs, 'first_time'):.3f}", _hits(rs), str(len(rs)),
            f"{first['active']:,}", f"{first['total']:,}", f"{first['state_bytes']:,}", str(first["steps"]),
            f"{_mean(rs, 'cpu_s'):.0f}",
        ])  # fmt: skip
    said = (
        f"A convolution and two layers, width {settings['dim']}, {settings['active']:,} active parameters "
        f"(MLPs fill up). As many steps as take {settings['seconds']:g} s of processor time, by the least "
        "time of a step measured beforehand, choices by turns; what the runs took in the end, evaluated and "
        f"on a busy machine, is the last column. Batch {settings['batch']} × {text['length']} tokens of a "
        f"vocabulary of {text['vocabulary']:,}, AdamW to "
        f"{settings['rate']:g}, one thread. Held out: {text['evaluated']} sequences of {text['length']}. "
        f"{machine['processor']}, {machine['cores']} cores, torch {about['versions'].get('torch', '?')}."
    )
    recall = (
        f"{_repeats(text)} Recall N: first guesses right where a passage of N held-out tokens is said "
        f"again and again, after {CUE} tokens of the second time; first time: where the same text is said "
        f"first. A passage of {WINDOW} tokens or fewer lies within the windows. Of hits: perplexity at the "
        f"{100 * _mean(list(records.values()), 'hits'):.1f} % of the tokens of ordinary held-out text whose "
        "pair with the one before stood earlier in the sequence and at most twice in the training text "
        "(associative recall hits, Arora et al. 2023). State bytes of a sequence, float32. [least, most] "
        "over seeds."
    )
    return (
        "\n\n".join(["# Layer choices on real text", f"`{command}`", said, recall, table(heads, rows)]) + "\n"
    )


def _recalls(record: Record, half: int) -> dict[int, str]:
    """What a record says of recall, by tokens of the passage."""
    found = {int(name.removeprefix("recall_")): name for name in record if name.startswith("recall_")}
    return {**dict(sorted(found.items())), half: "recall"}


def _repeats(text: Mapping[str, Any]) -> str:
    half, share = text["length"] // 2, f"{100 * text['repeats']:.0f} %"
    if text["passage"] is None:
        return f"{share} of the training sequences say their first half again."
    said = (
        f"{share} of the training sequences say a passage again and again until they end, "
        f"{text['passage']} to {half} tokens, uniform in their logarithm; so no distance is worth learning."
    )
    if text["grow"]:
        said += (
            f" In the first {100 * text['grow']:.0f} % of the steps the longest grows from "
            f"{2 * text['passage']}, and the share falls from all."
        )
    return said


def _mean(records: Sequence[Record], name: str) -> float:
    return float(sum(record[name] for record in records) / len(records))


def _hits(records: Sequence[Record]) -> str:
    """A short held-out text may hold none."""
    found = [record for record in records if "hits_perplexity" in record]
    return f"{_mean(found, 'hits_perplexity'):.0f}" if found else "–"


def _spread(records: Sequence[Record], name: str, digits: int) -> str:
    mean, least, most = mean_and_spread([record[name] for record in records])
    return f"{mean:.{digits}f} [{least:.{digits}f}, {most:.{digits}f}]"
