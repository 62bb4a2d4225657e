"""What a run is told, typed: from a TOML or JSON file or a mapping; what is unknown is refused by name."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import tomllib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from mnemic.cube.errors import InvalidFile, InvalidOption, NotFound
from mnemic.layers.options import check_fields, option

CUE: Final = 4  # tokens of a repeated passage that say which passage it is


@dataclass(frozen=True, kw_only=True)
class Options:
    """Checked at construction against annotations and bounds. Raises InvalidOption."""

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def read(cls, given: Mapping[str, Any], where: str = "a run") -> Self:
        """From a mapping; a section of the file is a field that is itself Options. `where`, for errors."""
        kinds = typing.get_type_hints(cls)
        unknown = sorted(set(given) - kinds.keys())
        if unknown:
            meant = [near for name in unknown for near in difflib.get_close_matches(name, kinds, 1)]
            hint = f" (did you mean {', '.join(meant)}?)" if meant else ""
            raise InvalidOption(f"{where} has no {', '.join(unknown)}{hint}; it has {', '.join(kinds)}")
        needed = [
            one.name
            for one in dataclasses.fields(cls)
            if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        ]
        if missing := [name for name in needed if name not in given]:
            raise InvalidOption(f"{where} needs {', '.join(missing)}")
        return cls(**{name: _value(name, kinds[name], value) for name, value in given.items()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """From a .toml or .json file. Raises NotFound, InvalidFile, InvalidOption."""
        return cls.read(read_file(path))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; the inverse of `read`."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


def read_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A .toml or .json file that holds a table. Raises NotFound, InvalidFile."""
    path = Path(path)
    try:
        data = path.read_bytes().decode("utf-8")
        found = tomllib.loads(data) if path.suffix.lower() == ".toml" else json.loads(data)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}") from error
    except ValueError as error:
        raise InvalidFile(
            f"{path} cannot be read as TOML (.toml) or JSON (any other name): {error}"
        ) from error
    if not isinstance(found, dict):
        raise InvalidFile(f"{path} must hold names and values, not {type(found).__name__}")
    return found


def _value(name: str, kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, Options):
        if not isinstance(value, Mapping):
            raise InvalidOption(f"{name} is a section, with names and values, not {value!r:.80}")
        return kind.read(value, f"[{name}]")
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """A stack: `layers`, names or mappings of a name and its options; `memory` beside every MLP."""

    layers: tuple[Any, ...] = ("window", "gated-delta")
    dim: int = 128
    mlp_ratio: float = option(2.0, low=0.0)
    memory: Any = None
    tie: bool = True


@dataclass(frozen=True, kw_only=True)
class LoopOptions(Options):
    """Sequences a step (`batch`) and at a time (`micro`, all unless given; the steps are the same).

    `rate` rises over the first `warmup` of the steps and falls to `final` of it by a cosine. Tables of rows
    learn at `rows_rate` times that, going to `rows_rate_end`. `decay` leaves out norms, biases, embeddings
    and tables. A step is a function of `seed` and its number.
    """

    steps: int = 1000
    batch: int = 16
    micro: int | None = None
    rate: float = option(3e-3, low=0.0)
    rows_rate: float = option(4.0, low=0.0)
    rows_rate_end: float = option(4.0, low=0.0)
    warmup: float = option(0.05, low=0.0, high=1.0)
    final: float = option(0.1, low=0.0, high=1.0)
    decay: float = option(0.1, low=0.0)
    clip: float = option(1.0, low=1e-9)
    seed: int = option(0, low=0)
    evaluate_every: int = 200
    save_every: int = 200


@dataclass(frozen=True, kw_only=True)
class TextOptions(Options):
    """Text files, or folders of .txt files, joined in order of name; `vocabulary` of the tokens made from
    the training text; `length` of a sequence in tokens; `held_out` None holds out the last tenth.

    repeats: share of the training sequences whose second half says the first again, word for word; then
    held-out sequences of that kind are evaluated too, half as many. passage: the shortest passage that such
    a sequence says again and again; each has one of its own, up to half its length. grow: within this share
    of the steps the longest grows from twice the shortest, and the share of repeats falls from 1.
    """

    train: str
    held_out: str | None = None
    vocabulary: int = option(2048, low=257)
    length: int = option(128, low=2)
    evaluated: int = 200  # sequences of the held-out text
    repeats: float = option(0.0, low=0.0, high=1.0)
    passage: int | None = None
    grow: float = option(0.0, low=0.0, high=1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        half = self.length // 2
        if self.repeats and half <= CUE:
            raise InvalidOption(
                f"repeats leave nothing to ask in {self.length} tokens: half is said again, and after "
                f"{CUE} tokens of it a guess counts; take a length of {2 * CUE + 2} or more"
            )
        if self.passage is not None and not (self.repeats and 2 * self.passage <= half):
            raise InvalidOption(
                f"passage is the shortest that is said again, at most a quarter of the length, with repeats; "
                f"got {self.passage}, length {self.length}, repeats {self.repeats:g}"
            )
        if self.grow and self.passage is None:
            raise InvalidOption("grow says within what share of the steps passages grow: give passage too")


@dataclass(frozen=True, kw_only=True)
class TaskOptions(Options):
    """A recall task of the suite, and its options."""

    name: str = "mqar"
    options: Mapping[str, Any] = field(default_factory=dict)
    evaluated: int = 512


@dataclass(frozen=True, kw_only=True)
class TextRun(Options):
    """`mnemic train lm`: a language model on text."""

    data: TextOptions
    model: ModelOptions = field(default_factory=ModelOptions)
    training: LoopOptions = field(default_factory=LoopOptions)


@dataclass(frozen=True, kw_only=True)
class RecallRun(Options):
    """`mnemic train recall`: a stack on a recall task."""

    task: TaskOptions = field(default_factory=TaskOptions)
    model: ModelOptions = field(default_factory=lambda: ModelOptions(layers=("base-conv", "taylor"), dim=48))
    training: LoopOptions = field(default_factory=lambda: LoopOptions(batch=64))
