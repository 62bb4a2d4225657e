"""The whole of a run in one safetensors file: weights, buffers, optimisers, history. No pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import Tensor, nn

from mnemic.cube.errors import InvalidFile, InvalidOption
from mnemic.layers.state import digest, read_header, write_whole

FORMAT: Final = "mnemic-training-1"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """After `step` steps. `settings`: all that the run depends on; `history`: what was reported so far."""

    step: int
    settings: dict[str, Any]
    history: list[dict[str, Any]]
    tensors: dict[str, Tensor]

    def restore(self, model: nn.Module, optimisers: Sequence[torch.optim.Optimizer]) -> None:
        """Put everything back, bit by bit. Raises InvalidFile when the file holds another model."""
        left = dict(self.tensors)
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                tensor.copy_(_take(left, f"model.{name}", tensor))
        for number, optimiser in enumerate(optimisers):
            for place, parameter in enumerate(_parameters(optimiser)):
                start = f"optimiser.{number}.{place}."
                names = [name for name in left if name.startswith(start)]
                if names:
                    optimiser.state[parameter] = {
                        name.removeprefix(start): left.pop(name).clone() for name in names
                    }
        if left:
            raise InvalidFile(f"this checkpoint holds what the model has not: {', '.join(sorted(left)[:3])}")


def write(
    path: Path,
    model: nn.Module,
    optimisers: Sequence[torch.optim.Optimizer],
    *,
    step: int,
    settings: dict[str, Any],
    history: list[dict[str, Any]],
) -> None:
    """Whole or not at all: a run that is killed while it writes keeps the last one."""
    tensors = {f"model.{name}": tensor.detach() for name, tensor in model.state_dict().items()}
    for number, optimiser in enumerate(optimisers):
        for place, parameter in enumerate(_parameters(optimiser)):
            for name, value in optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser.{number}.{place}.{name}"] = value
    tensors = {name: one.clone(memory_format=torch.contiguous_format) for name, one in tensors.items()}
    header = {
        "format": FORMAT,
        "step": str(step),
        "settings": json.dumps(settings, sort_keys=True),
        "history": json.dumps(history),
        "sha256": digest(tensors),
    }
    write_whole(path, bytes_of(tensors, metadata=header))


def read(path: Path, settings: dict[str, Any]) -> Checkpoint | None:
    """The checkpoint there; None if there is none.

    Raises InvalidFile when it is damaged, InvalidOption, naming what differs, when it was made under other
    settings.
    """
    if not path.exists():
        return None
    data = path.read_bytes()
    header = read_header(data)
    if header.get("format") != FORMAT:
        raise InvalidFile(f"{path} is not a checkpoint of training")
    try:
        tensors = tensors_of(data)
    except SafetensorError as error:
        raise InvalidFile(f"{path} is damaged: {error}") from error
    if digest(tensors) != header["sha256"]:
        raise InvalidFile(f"{path} is damaged: its digest does not match")
    theirs = json.loads(header["settings"])
    mine = json.loads(json.dumps(settings))
    if differing := list(_differences(theirs, mine, "")):
        raise InvalidOption(
            f"the run in {path.parent} has other settings: {'; '.join(differing)}. Go on with those, take "
            "another folder, or start over (--fresh)"
        )
    return Checkpoint(
        step=int(header["step"]), settings=theirs, history=json.loads(header["history"]), tensors=tensors
    )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else trains in this folder meanwhile: InvalidOption. A process that dies holds nothing.

    Where the system has no such locks, nothing is held.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.name != "posix":
        yield
        return
    import fcntl

    held = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidOption(
                f"another run is training in {folder}: wait until it ends, or take another folder"
            ) from error
        yield
    finally:
        os.close(held)


def _parameters(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _take(left: dict[str, Tensor], name: str, like: Tensor) -> Tensor:
    found = left.pop(name, None)
    if found is None or found.shape != like.shape or found.dtype != like.dtype:
        raise InvalidFile(f"this checkpoint is of another model: {name} is not what is needed")
    return found


def _differences(theirs: Any, mine: Any, where: str) -> Any:
    if isinstance(theirs, dict) and isinstance(mine, dict):
        for name in sorted(theirs.keys() | mine.keys()):
            yield from _differences(theirs.get(name), mine.get(name), f"{where}.{name}" if where else name)
    elif theirs != mine:
        yield f"{where} is {theirs!r:.60} there and {mine!r:.60} here"
