"""A stream that stops here and goes on elsewhere: the states of layers as an activation cube.

The tensors are the cube's blob, what they mean is its payload, what they were computed from it cites: so the
vault marks a state stale in the transaction that changes a source, and an erasure takes its file with it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final, TypeAlias, cast

import torch
from torch import Tensor

from mnemic.activation.state_description import StateDescription
from mnemic.cube.errors import IncompatibleMemory, InvalidFile, InvalidInput, StaleMemory
from mnemic.cube.model import Kind, MemCube, Origin, Scope
from mnemic.cube.times import to_micros
from mnemic.layers.layer import MemoryLayer
from mnemic.layers.stack import StackForCausalLM
from mnemic.layers.stack_cache import StateCache, ids_digest, require_specs
from mnemic.layers.state import LayerSpec, LayerState, read_header
from mnemic.models.fingerprint import Verify, library_version, weights_hash
from mnemic.vault.codec import Draft
from mnemic.vault.vault import Vault

METHOD: Final = "stream_to_state"
States: TypeAlias = LayerState | StateCache  # of one layer, of a stack
Module: TypeAlias = MemoryLayer[Any] | StackForCausalLM


def keep_state(
    vault: Vault,
    scope: Scope,
    state: States,
    model: Module,
    *,
    sources: Sequence[str | MemCube] = (),
    token_ids: Tensor | None = None,
    title: str | None = None,
) -> MemCube:
    """Keep a state as a cube: its tensors first, then, in one transaction, the cube that names them.

    model: what made it, a layer for a LayerState, a StackForCausalLM for a StateCache. sources: cubes that
    the stream was read from, of this user; the cube is stale when one changes, and expires with the first.
    token_ids: what was read; a digest of it is kept.

    O(bytes of the state), and of the weights once a model. Raises IncompatibleMemory when `model` did not
    make it, InvalidInput, NotFound, VaultFull, StaleMemory when a source changed meanwhile.
    """
    with vault.snapshot() as snapshot:
        ids = [one if isinstance(one, str) else one.id for one in sources]
        read = [snapshot.head(id) for id in ids]  # first of all: may they be seen?
        cited = snapshot.citations(ids)
    vault.require_writable(scope)
    layers = _layers(model)
    states = _states(state, model)
    require_specs([one.spec for one in states], layers)
    if others := sorted({str(one.header.scope.user) for one in read if one.header.scope.user != scope.user}):
        raise InvalidInput(f"a state of {scope.user} cannot be made from cubes of {', '.join(others)}")
    expiries = [one.header.expires_at for one in read if one.header.expires_at is not None]
    about = {"sources": json.dumps([one.version_id for one in cited])}
    if isinstance(state, StateCache):
        data = state.to_bytes(model, token_ids=token_ids, about=about)
    else:
        data = cast("LayerState", state).to_bytes(about=about)
    blob = vault.put_blob(scope, data)
    described = StateDescription(
        specs=[json.loads(one.spec.to_json()) for one in states],
        stacked=isinstance(state, StateCache),
        weights=weights_hash(model),
        seen=states[0].seen.tolist(),
        tokens=state.layers[0].tokens if isinstance(state, StateCache) else int(states[0].seen.max()),
        token_ids=None if token_ids is None else ids_digest(token_ids),
        made_with=library_version(),
        sha256=read_header(data)["sha256"],
        size=blob.size,
        title=title,
    )
    draft = Draft(
        payload=described.payload(),
        kind=Kind.activation,
        origin=Origin.derived if cited else Origin.model,
        sources=tuple(cited),
        blob=blob,
        expires_at=to_micros(min(expiries)) if expiries else None,
        method=METHOD,
    )
    (outcome,) = vault.append(scope, [draft], op="derive", reason=METHOD).outcomes
    if outcome.row is None:
        raise StaleMemory(
            "the state was not stored: what it was made from has changed. Read the stream again"
        )
    cube = outcome.row.cube_in(scope)
    with vault.snapshot() as snapshot:
        snapshot.require_current(cube.id)
    return cube


def load_state(
    vault: Vault,
    cube: str | MemCube,
    model: Module,
    *,
    token_ids: Tensor | None = None,
    verify: Verify = "fast",
) -> States:
    """The state to go on from, on the model's device; in this process or another.

    token_ids: what the stream should have read, compared with the digest that was kept. verify="full" hashes
    all weights again. O(bytes of the state), every byte checked.

    Raises StaleMemory when a source changed, was deleted or erased or has expired, IncompatibleMemory naming
    the part that differs (an option of a layer, "weights", "token_ids") before a tensor is read, InvalidFile
    when the file is damaged or another's, InvalidOption when the cube is no state, NotFound.
    """
    id = cube if isinstance(cube, str) else cube.id
    with vault.snapshot() as snapshot:
        snapshot.require_current(id)
        found = snapshot.head(id)
    told = StateDescription.of(found)
    _check(found, told, model, verify, token_ids)
    with vault.open_blob(found) as file:
        data = file.read()
    cited = json.dumps([one.version_id for one in found.header.sources])
    header = read_header(data)
    if header.get("sha256") != told.sha256 or header.get("sources") != cited:
        raise InvalidFile(
            f"the file of cube {id} is not the one that the cube describes: files were damaged, renamed or "
            "exchanged. It was not used. Read the stream again"
        )
    if isinstance(model, StackForCausalLM):
        return StateCache.from_bytes(data, model, model.memory_layers())
    state: LayerState = model.load_state(model.State.from_bytes(data))
    return state


def _check(
    cube: MemCube, told: StateDescription, model: Module, verify: Verify, token_ids: Tensor | None
) -> None:
    """Raises IncompatibleMemory, by the description alone."""
    if told.stacked != isinstance(model, StackForCausalLM):
        kinds = ("a layer", "a stack")
        raise IncompatibleMemory(
            f"cube {cube.id} holds the state of {kinds[told.stacked]}, and {type(model).__name__} is "
            f"{kinds[not told.stacked]}",
            part="layers",
            expected=kinds[told.stacked],
            found=kinds[not told.stacked],
        )
    require_specs([LayerSpec.from_json(json.dumps(one)) for one in told.specs], _layers(model))
    here = {"weights": weights_hash(model, verify=verify)}
    if token_ids is not None:
        here["token_ids"] = ids_digest(token_ids)
    for part, found in here.items():
        expected = asdict(told)[part]
        if found != expected:
            raise IncompatibleMemory(
                f"cube {cube.id} was made with other {part}: {expected!s:.12}… then, {found:.12}… now. A "
                "state goes on only where it began: read the stream again with these",
                part=part,
                expected=str(expected),
                found=found,
            )


def _layers(model: Module) -> list[MemoryLayer[Any]]:
    return model.memory_layers() if isinstance(model, StackForCausalLM) else [model]


def _states(state: States, model: Module) -> list[LayerState]:
    """Raises InvalidInput unless the state is of this kind of module."""
    if isinstance(state, StateCache) != isinstance(model, StackForCausalLM) or not isinstance(
        model, torch.nn.Module
    ):
        raise InvalidInput(
            f"a {type(state).__name__} is not made by a {type(model).__name__}: keep a LayerState with its "
            "layer, a StateCache with its StackForCausalLM"
        )
    return state.states if isinstance(state, StateCache) else [state]
