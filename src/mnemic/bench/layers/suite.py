"""What is run: experiments of arms on tasks with seeds, each run kept in a file as soon as it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch

from mnemic.bench.kept import write_whole
from mnemic.bench.layers.tasks import MQAR, TASKS, Needle, Task
from mnemic.bench.layers.training import Recipe, accuracy, build, needle, parameters, train
from mnemic.cube.errors import InvalidOption, MemoryDivergedError
from mnemic.layers.mom import MixtureOfMemories
from mnemic.layers.stack_cache import CACHE_NAME
from mnemic.layers.table import LAYERS, layer_class

STREAM_STEPS: Final = 200_000
OUR_STEPS: Final = 300
TWO_HOPS: Final = ("rapid-naming", "ordered")  # tasks that one memory layer cannot solve
BASELINES: Final = ("lstm", "linear", "hebbian")  # in every table, whatever layers are asked for
Record = dict[str, Any]
Report = Callable[[str, str], None]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One layer in one setting; `label` is its name in tables."""

    label: str
    layer: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def entry(self) -> dict[str, Any]:
        return {"layer": self.layer, **self.options}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    name: str
    about: str
    task: Task
    arms: tuple[Arm, ...]
    recipe: Recipe
    stream: int = 0  # noise steps of a needle's stream after training


def arm(layer: str, **options: Any) -> Arm:
    said = " ".join(f"{_SHORT.get(key, key)} {value}" for key, value in options.items())
    return Arm(label=f"{layer} {said}".strip(), layer=layer, options=options)


_SHORT = {"key_dim": "key", "value_dim": "value"}


SPECIFIED: Final = (
    arm("taylor", key_dim=8),
    arm("linear", key_dim=8),
    arm("hebbian", key_dim=8),
    arm("hebbian", key_dim=4),
    arm("hebbian", key_dim=4, value_dim=144),
    arm("mom", key_dim=4, value_dim=48, update="linear", conv=0, gated=False),
    arm("mom", key_dim=4, value_dim=48, update="linear", conv=0, gated=False, balance=0.0),
    arm("lstm"),
    arm("attention"),
)  # of the specifications of BASED (experiment 2) and MoM (3, 4)
DIALLED: Final = (
    *(arm("taylor", key_dim=size) for size in (4, 8, 16)),
    *(arm("window", window=size) for size in (8, 32, 64)),
    arm("attention"),
)  # of the specification of BASED (experiment 3)


def experiments(layers: Sequence[str] | None = None, *, steps: int | None = None) -> dict[str, Experiment]:
    """All experiments, of these layers (default: all) and the baselines. Raises InvalidOption.

    `small` and `dial` are as the specifications want them. The others are ours, so small that every layer
    learns within a few hundred steps and what is left is what it can hold: one [BaseConv, layer], for a task
    of two hops two, a curriculum, and the same recipe for all.
    """
    for name in layers or ():
        if not layer_class(name).dials:
            raise InvalidOption(
                f"{name} keeps no state of a sequence and has no place in this suite: see mnemic bench "
                "ultramem"
            )
    with_state = [name for name in LAYERS if layer_class(name).dials]
    names = [name for name in with_state if not layers or name in (*layers, *BASELINES)]
    tasks = {name: task for name, task in TASKS.items() if name != "mqar"}
    one = Recipe(steps=steps or OUR_STEPS, batch=32, rate=1e-2, depth=1, curriculum=True, tested=512)
    found = [
        Experiment(
            name="small",
            about="MQAR of 8 pairs in 32 tokens: capacity at equal key size",
            task=MQAR(length=32, pairs=8),
            arms=_of(names, SPECIFIED),
            recipe=Recipe(steps=steps or 700),
        ),
        Experiment(
            name="dial",
            about="MQAR of 16 pairs in 64 tokens: what key size and window buy",
            task=MQAR(length=64, pairs=16),
            arms=_of(names, DIALLED),
            recipe=Recipe(steps=steps or 400, batch=32),
        ),
        Experiment(
            name="curve",
            about="MQAR of 8 pairs in 32 tokens, 64 words: recall against state bytes",
            task=TASKS["mqar"],
            arms=tuple(arm(name, **dial) for name in names for dial in layer_class(name).dials),
            recipe=one,
        ),
        *(
            Experiment(
                name=name,
                about=(type(task).__doc__ or "").splitlines()[0],
                task=task,
                arms=tuple(arm(other, **layer_class(other).dials[0]) for other in names),
                recipe=replace(one, depth=2) if name in TWO_HOPS else one,
                stream=STREAM_STEPS if isinstance(task, Needle) else 0,
            )
            for name, task in tasks.items()
        ),
    ]
    return {experiment.name: experiment for experiment in found}


def _of(names: Sequence[str], arms: Sequence[Arm]) -> tuple[Arm, ...]:
    return tuple(one for one in arms if one.layer in names)


@dataclass(frozen=True)
class Run:
    experiment: Experiment
    arm: Arm
    seed: int

    @property
    def key(self) -> str:
        return f"{self.experiment.name}/{self.arm.label}/{self.seed}"

    def settings(self) -> Record:
        """What a record depends on: an equal record is not made again."""
        told = {
            "task": type(self.experiment.task).__name__,
            "of_task": asdict(self.experiment.task),  # type: ignore[call-overload]
            "entry": self.arm.entry(),
            "recipe": self.experiment.recipe.settings(),
            "stream": self.experiment.stream,
        }
        plain: Record = json.loads(json.dumps(told))
        return plain


def runs(chosen: Sequence[Experiment], seeds: int) -> list[Run]:
    """Seed by seed, so that a run that is stopped has whole tables with fewer seeds."""
    return [Run(e, one, seed) for seed in range(seeds) for e in chosen for one in e.arms]


def held(planned: Sequence[Run], path: Path) -> list[Run]:
    """The runs whose records `path` holds. Raises InvalidOption when it holds none."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    found = [run for run in planned if run.key in kept]
    if not found:
        raise InvalidOption(f"{path} holds none of these runs; leave out --report-only to make them")
    return found


def perform(run: Run) -> Record:
    """Train, test, count."""
    experiment, task, recipe = run.experiment, run.experiment.task, run.experiment.recipe
    clock = time.process_time()
    model = build(task, run.arm.entry(), recipe, run.seed)
    try:
        curve, diverged = train(model, task, recipe, run.seed), None
        found = accuracy(model, task, recipe.tested, run.seed)
    except MemoryDivergedError as error:  # its guard ended the training: it answers nothing
        curve, found, diverged = [0.0] * 4, 0.0, str(error).split(";")[0][:200]
    tokens, _ = task.batch(1, torch.Generator().manual_seed(run.seed))
    record: Record = {
        "settings": run.settings(),
        "accuracy": found,
        "curve": curve,
        "chance": task.chance,
        "parameters": parameters(model),
        "state_bytes": model.config.state_bytes(tokens.shape[1]),
        "layer_bytes": sum(_of_memory(model, tokens.shape[1])),
        "cpu_s": time.process_time() - clock,
    }
    if diverged is not None:
        none = {"steps": 0, "accuracy": 0.0, "last_bytes": 0, "tokens_per_s": 0, "diverged": diverged}
        stream = {"stream": none} if experiment.stream else {}
        return {**record, "shares": [], "diverged": diverged, "cpu_s": round(record["cpu_s"], 2), **stream}
    with torch.inference_mode():
        cache = model(task.batch(64, torch.Generator().manual_seed(9))[0])[CACHE_NAME]
    record["shares"] = [
        layer.load(holder.state).tolist()
        for layer, holder in zip(model.memory_layers(), cache.layers, strict=True)
        if isinstance(layer, MixtureOfMemories)
    ]
    if experiment.stream and isinstance(task, Needle):
        grows = record["state_bytes"] != model.config.state_bytes(experiment.stream)
        steps = min(experiment.stream, 4_000) if grows else experiment.stream
        try:
            record["stream"] = {"steps": steps, **needle(model, task, steps, run.seed)}
        except MemoryDivergedError as error:  # its guard stopped it: it holds nothing to answer from
            record["stream"] = {"steps": 0, "accuracy": 0.0, "last_bytes": 0, "tokens_per_s": 0}
            record["stream"]["diverged"] = str(error).split(";")[0][:200]
    record["cpu_s"] = round(time.process_time() - clock, 2)
    return record


def perform_all(
    planned: Sequence[Run], path: Path, *, fresh: bool = False, report: Report = lambda *_: None
) -> dict[str, Record]:
    """Records by key; those that `path` holds under the same settings are not made again.

    Raises InvalidOption when one there has other settings, unless `fresh` starts over.
    """
    kept: dict[str, Record] = {} if fresh or not path.exists() else json.loads(path.read_text())
    for run in planned:
        if run.key in kept and kept[run.key]["settings"] != run.settings():
            raise InvalidOption(
                f"{path.name} holds {run.key} under other settings; use another --out, or --fresh to redo it"
            )
    for run in planned:
        if run.key not in kept:
            kept[run.key] = perform(run)
            write_whole(path, json.dumps(kept, indent=1) + "\n")
            report(run.key, f"{kept[run.key]['accuracy']:.3f} in {kept[run.key]['cpu_s']:.0f} s of CPU")
        else:
            report(run.key, "kept")
    return kept


def _of_memory(model: Any, tokens: int) -> Iterator[int]:
    """Bytes of the memory layers alone, without the convolutions around them."""
    for kind, options in model.config.layer_options():
        if kind.name != "base-conv":
            yield options.state_bytes(tokens)
