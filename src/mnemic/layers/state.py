"""The state of a layer: typed tensors, batch first, and the specification they mean something under.

A state is frozen. A forward returns a new one and never writes into the one it was given, so states may be
kept, shared and branched without copying.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import Tensor

from mnemic.cube.errors import IncompatibleMemory, InvalidFile, InvalidInput, NotFound

S = TypeVar("S", bound="LayerState")

FORMAT: Final = "mnemic-layer-state-1"


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """What a state means: the layer, its version, the options it depends on, and its parts' specifications.

    `options` holds plain JSON values; a chunk length that changes results is among them, one that does not is
    left out.
    """

    layer: str
    version: int
    options: Mapping[str, Any]
    parts: Mapping[str, LayerSpec] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises InvalidFile."""
        try:
            return cls._of(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidFile(f"this is not the specification of a layer's state: {text!r:.80}") from error

    @classmethod
    def _of(cls, read: dict[str, Any]) -> Self:
        return cls(
            layer=read["layer"],
            version=read["version"],
            options=read["options"],
            parts={name: cls._of(part) for name, part in read["parts"].items()},
        )

    def require(self, found: LayerSpec) -> None:
        """Raise IncompatibleMemory, naming each difference, unless `found` says the same as this one."""
        differences = list(self._differences(found))
        if differences:
            said = [f"{part} is {here}, the state's is {there}" for part, here, there in differences]
            part, here, there = differences[0]
            raise IncompatibleMemory(
                f"this state belongs to another layer or configuration: {'; '.join(said)}. "
                "Use it with the layer that made it, or begin with init_state()",
                part=part,
                expected=there,
                found=here,
            )

    def _differences(self, found: LayerSpec, where: str = "") -> Iterator[tuple[str, str, str]]:
        """What differs by name, as it is here and in `found`."""
        mine, theirs = (f"{one.layer} version {one.version}" for one in (self, found))
        if mine != theirs:
            yield f"{where}layer", mine, theirs
            return
        options, others = _canonical(self.options), _canonical(found.options)
        for name in sorted(options.keys() | others.keys()):
            if options.get(name) != others.get(name):
                yield f"{where}{name}", repr(options.get(name)), repr(others.get(name))
        for name in sorted(self.parts.keys() | found.parts.keys()):
            if name in self.parts and name in found.parts:
                yield from self.parts[name]._differences(found.parts[name], f"{where}{name}.")
            else:
                here, there = ("there" if name in one.parts else "absent" for one in (self, found))
                yield f"{where}{name}", here, there


def _canonical(options: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives them back, so that a tuple equals the list it becomes in a file."""
    read: dict[str, Any] = json.loads(json.dumps(dict(options)))
    return read


@dataclass(frozen=True, kw_only=True)
class LayerState:
    """Base of all states. A subclass adds fields: tensors with the batch first, and states of parts, each
    annotated with its own class.

    `seen` int32 (batch,): tokens each sequence has written; padding is not counted.
    """

    spec: LayerSpec
    seen: Tensor

    @property
    def batch(self) -> int:
        return self.seen.shape[0]

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by its name; those of parts as `part.name`."""
        return {".".join(path): tensor for path, tensor in _leaves(self, ())}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], spec: LayerSpec) -> Self:
        """The inverse of `tensors()`. Raises InvalidFile when a tensor is missing or left over."""
        left = dict(tensors)
        state = _build(cls, left, spec, "")
        if left:
            raise InvalidFile(f"a state of {spec.layer} has no {', '.join(sorted(left))}")
        return state

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same state with every tensor changed."""
        changed: dict[str, Any] = {name: _mapped(value, change) for name, value in _values(self)}
        return replace(self, **changed)

    def detach(self) -> Self:
        """Without its history: gradients stop here."""
        return self.map(Tensor.detach)

    def clone(self) -> Self:
        """A copy that shares no memory."""
        return self.map(Tensor.clone)

    def to(self, device: torch.device | str) -> Self:
        """On another device. Dtypes are part of the state's meaning and stay."""
        return self.map(lambda tensor: tensor.to(device))

    def select(self, index: Tensor) -> Self:
        """Rows by index int (n,), repeats allowed: beams, ragged batches. O(bytes of the result)."""
        return self.map(lambda tensor: tensor.index_select(0, index.to(tensor.device)))

    def where(self, rows: Tensor, other: Self) -> Self:
        """Rows of this state where `rows` bool (batch,) is True, of `other` elsewhere, bit by bit."""
        theirs = other.tensors()

        def choose(mine: Tensor, their: Tensor) -> Tensor:
            return torch.where(rows.view(-1, *[1] * (mine.dim() - 1)), mine, their)

        chosen = {name: choose(tensor, theirs[name]) for name, tensor in self.tensors().items()}
        return type(self).from_tensors(chosen, self.spec)

    def owned(self) -> Self:
        """With tensors that keep no larger tensor alive."""

        def own(tensor: Tensor) -> Tensor:
            small = tensor.numel() * tensor.element_size() < tensor.untyped_storage().nbytes()
            return tensor.clone(memory_format=torch.contiguous_format) if small else tensor

        return self.map(own)

    def size_bytes(self) -> int:
        """Bytes it keeps in memory: of distinct storages, so a slice counts with what it keeps alive."""
        storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in self.tensors().values()}
        return sum(tensor.untyped_storage().nbytes() for at, tensor in storages.items() if at)

    def to_bytes(self, *, about: Mapping[str, str] | None = None) -> bytes:
        """As a safetensors file; `about` is kept in its header (where it came from, weights' digest)."""
        tensors = {
            name: tensor.detach().clone(memory_format=torch.contiguous_format).cpu()
            for name, tensor in self.tensors().items()
        }
        header = {"format": FORMAT, "spec": self.spec.to_json(), "sha256": digest(tensors)}
        return bytes_of(tensors, metadata={**(about or {}), **header})

    @classmethod
    def from_bytes(cls, data: bytes, *, about: Mapping[str, str] | None = None) -> Self:
        """The inverse of `to_bytes`, on the CPU. `about`: what the header must say.

        Raises InvalidFile when it is damaged or something else, IncompatibleMemory when `about` differs.
        """
        spec, header = spec_of(data), read_header(data)
        for name, expected in (about or {}).items():
            if header.get(name) != expected:
                raise IncompatibleMemory(
                    f"{name} of this state is {header.get(name)!r:.90}, here it is {expected!r:.90}. A state "
                    "goes on only with the weights that made it",
                    part=name,
                    expected=str(header.get(name)),
                    found=expected,
                )
        try:
            tensors = tensors_of(data)
        except SafetensorError as error:
            raise InvalidFile(f"the file of a layer's state is damaged: {error}") from error
        if digest(tensors) != header.get("sha256"):
            raise InvalidFile("the file of a layer's state is damaged: its digest does not match")
        return cls.from_tensors(tensors, spec)

    def save(self, path: str | os.PathLike[str], *, about: Mapping[str, str] | None = None) -> None:
        """Write a safetensors file, whole or not at all. Makes its folder. Raises OSError."""
        write_whole(path, self.to_bytes(about=about))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, about: Mapping[str, str] | None = None) -> Self:
        """Read what `save` wrote. Raises NotFound too; `table.load_state` finds the class by itself."""
        return cls.from_bytes(read_file(path), about=about)


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace a file by a written and synced one. Makes its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Raises NotFound."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise NotFound(f"there is no state at {path}") from error


def spec_of(data: bytes) -> LayerSpec:
    """The specification in the header of a saved state. Raises InvalidFile."""
    header = read_header(data)
    if header.get("format") != FORMAT or "spec" not in header:
        raise InvalidFile(f"not a layer's state: its format is {header.get('format')!r}, not {FORMAT!r}")
    return LayerSpec.from_json(header["spec"])


def read_header(data: bytes) -> dict[str, str]:
    """What `to_bytes` was told and added. Raises InvalidFile."""
    try:
        length = int.from_bytes(data[:8], "little")
        header: dict[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (ValueError, AttributeError) as error:
        raise InvalidFile("not a layer's state: this is not a safetensors file") from error
    return header


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over sorted names, dtypes, shapes and bytes: equal iff the tensors are."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def require_batch(state: LayerState, batch: int) -> None:
    """Raise InvalidInput unless the state holds as many sequences as the input."""
    if state.batch != batch:
        raise InvalidInput(
            f"the input holds {batch} sequences and the state {state.batch}; state.select(rows) picks, "
            "repeats or reorders them"
        )


def _values(state: LayerState) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(state):
        if field.name != "spec":
            yield field.name, getattr(state, field.name)


def _leaves(state: LayerState, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    for name, value in _values(state):
        if isinstance(value, Tensor):
            yield (*path, name), value
        else:
            yield from _leaves(value, (*path, name))


def _mapped(value: Tensor | LayerState, change: Callable[[Tensor], Tensor]) -> Tensor | LayerState:
    return change(value) if isinstance(value, Tensor) else value.map(change)


def _build(cls: type[S], left: dict[str, Tensor], spec: LayerSpec, path: str) -> S:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        name = f"{path}{field.name}"
        if field.name == "spec":
            continue
        if field.name in spec.parts:
            part = typing.get_type_hints(cls)[field.name]
            found[field.name] = _build(part, left, spec.parts[field.name], f"{name}.")
        elif name in left:
            found[field.name] = left.pop(name)
        else:
            raise InvalidFile(f"a state of {spec.layer} needs {name}, which is missing")
    return cls(spec=spec, **found)
