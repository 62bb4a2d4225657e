"""`mount(model, cubes)`: a model with memories, for as long as a `with` block lasts.

Nothing of the model is written to: a KV memory is handed to each generation as a fresh copy, anything else is
hooks, and every change undoes itself, in reverse, also when mounting fails half-way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

from mnemic.activation.kv import KV, probe_tokens
from mnemic.activation.kv_compose import COMPOSITIONS
from mnemic.activation.kv_compose import compose as compose_kv
from mnemic.activation.kv_cube import check_description, load
from mnemic.cube.errors import IncompatibleMemory, InvalidOption, ModelBusy
from mnemic.cube.model import Kind, MemCube
from mnemic.models.fingerprint import Verify, fingerprint
from mnemic.models.local import LocalModel
from mnemic.models.stack import mounted, set_mounted
from mnemic.parametric.registry import open_parametric
from mnemic.runtime.mountable import Mountable, Point
from mnemic.runtime.mounted import Mounted, Part, Prefix
from mnemic.vault.vault import Vault

Mountables = MemCube | KV | Mountable | str
Ask = Callable[[str], None]  # whether the cube of this id may be used now; raises if not
_guard: Final = threading.Lock()
_held: WeakKeyDictionary[Any, tuple[int, list[Mounted]]] = WeakKeyDictionary()  # model -> thread, mounts


@contextmanager
def mount(
    model: LocalModel,
    cubes: Mountables | Sequence[Mountables],
    *,
    vault: Vault | None = None,
    ask: Ask | None = None,
    order: Sequence[int] | None = None,
    verify: Verify = "fast",
    compose: str = "exact",
    ratio: float = 0.15,
    measure: bool = False,
) -> Iterator[Mounted]:
    """Mount memories on `model`; what is yielded generates with them.

    cubes: KV cubes and parametric cubes or their ids (they need `vault`), a KV that was never stored, or any
    `Mountable`; one or several. order: positions in `cubes`; KV memories stand in the prompt in that order.
    verify="full" hashes all weights again. compose: what several KV memories become: "exact" (read again
    as one text, a prefill), "rotated" or "selective" (approximate; see `kv_compose.compose`, also for
    `ratio`). measure: measure the error of an approximate one against the exact, which costs that prefill.

    Every cube is looked up in the vault now and again at each generation; one whose sources changed, were
    deleted or erased, or have expired raises StaleMemory and is never served, and one that the vault's actor
    may not see, or no longer, raises NotFound or AccessDenied. ask: how to look it up, by its id; default:
    `require_current` of the vault.

    Costs reading the files (83 MB for 1,800 tokens of SmolLM2 in float32) and hashing the weights once a
    model. Raises IncompatibleMemory naming the part that differs, StaleMemory, InvalidFile, NotFound,
    InvalidOption, PromptMismatch, UnsupportedModel, and ModelBusy when another thread has mounts on this
    model.
    """
    chosen = _in_order(cubes, order)
    if compose not in COMPOSITIONS:
        raise InvalidOption(f"compose={compose!r:.80} must be one of {', '.join(COMPOSITIONS)}")
    with ExitStack() as undo:
        depth = _hold(model, undo)
        opened: list[Any] = [
            one if _is_other(one) else _open(one, model, vault, ask, verify) for one in chosen
        ]
        asks = tuple(one.ask for one in opened if isinstance(one, _Parametric))
        others = [one.memory if isinstance(one, _Parametric) else one for one in opened if not _is_kv(one)]
        others.sort(key=lambda one: one.point)
        stack = mounted(model.model)
        for one in others:
            one.check(model, stack)
            if one.point < Point.PREFIX and any(outer.has_prefix for outer in depth):
                raise IncompatibleMemory(
                    f"{one.id} changes the weights under a KV memory that is mounted already, whose keys and "
                    "values were computed without it. Mount it first, and build the KV memory under it",
                    part="stack",
                )
            stack = (*stack, one.id)
        loaded = [one for one in opened if isinstance(one, _Loaded)]
        if loaded and any(outer.has_prefix for outer in depth):
            raise InvalidOption(
                "a KV memory is mounted already; mount all of them in one call: mount(model, […])"
            )
        for one in others:  # those below the prefix come first
            if one.point < Point.PREFIX:
                _install(one, model, undo)
        prefix = _prefix(model, loaded, verify, compose, ratio, measure)
        for one in others:
            if one.point > Point.PREFIX:
                _install(one, model, undo)
        parts = tuple(Part(one.id, one.point.name, bytes=getattr(one, "nbytes", 0)) for one in others)
        outer = tuple(ask for one in depth for ask in one.asks)
        made = Mounted(model, prefix, parts, mounted(model.model), asks=(*outer, *asks))
        depth.append(made)
        undo.callback(_leave, depth, made)
        yield made


def _in_order(cubes: Mountables | Sequence[Mountables], order: Sequence[int] | None) -> list[Any]:
    single = isinstance(cubes, str | MemCube | KV) or _is_other(cubes)
    listed: list[Any] = [cubes] if single else list(cubes)  # type: ignore[arg-type]
    if not listed:
        raise InvalidOption("there is nothing to mount: name a cube, or several")
    for one in listed:
        if not isinstance(one, str | MemCube | KV) and not _is_other(one):
            raise InvalidOption(
                f"a {type(one).__name__} cannot be mounted: give KV or parametric cubes, their ids, or "
                "objects with id, point, check and install. Text is made mountable by as_kv(…)"
            )
    if order is None:
        return listed
    if sorted(order) != list(range(len(listed))):
        raise InvalidOption(f"order={order!r:.80} must name each of 0 … {len(listed) - 1} once")
    return [listed[place] for place in order]


def _is_kv(one: Any) -> bool:
    return isinstance(one, _Loaded)


def _is_other(one: Any) -> bool:
    return not isinstance(one, str | MemCube | KV | type) and isinstance(one, Mountable)


def _hold(model: LocalModel, undo: ExitStack) -> list[Mounted]:
    """One thread at a time has mounts on a model; its mounts, outermost first."""
    here = threading.get_ident()
    with _guard:
        holder, mounts = _held.get(model.model, (here, []))
        if holder != here:
            raise ModelBusy(
                f"another thread has memories mounted on {model.name}. Wait until it has unmounted them, or "
                "load a second model: load_model(…)"
            )
        if model.model not in _held:
            _held[model.model] = (here, mounts)
            undo.callback(_free, model.model)
    return mounts


def _free(model: Any) -> None:
    with _guard:
        _held.pop(model, None)


def _leave(mounts: list[Mounted], made: Mounted) -> None:
    made.close()
    last = mounts[-1] is made
    mounts.remove(made)
    if not last:
        raise InvalidOption(
            "mounts are left in reverse: one that was mounted later is still there. Nest the with blocks"
        )


def _install(one: Mountable, model: LocalModel, undo: ExitStack) -> None:
    undo.callback(_strike_out, model.model, one.id, mounted(model.model).count(one.id))
    one.install(model, undo)
    set_mounted(model.model, (*mounted(model.model), one.id))


def _strike_out(model: Any, id: str, left: int) -> None:
    """Take an id off the list, wherever it stands by now, unless it never came onto it."""
    ids = list(mounted(model))
    while ids.count(id) > left:
        del ids[len(ids) - 1 - ids[::-1].index(id)]
    set_mounted(model, ids)


@dataclass(frozen=True, slots=True)
class _Loaded:
    kv: KV
    part: Part
    ask: Callable[[], None]  # raises StaleMemory, NotFound, AccessDenied


@dataclass(frozen=True, slots=True)
class _Parametric:
    memory: Mountable
    ask: Callable[[], None]  # raises StaleMemory, NotFound, AccessDenied


def _open(
    one: str | MemCube | KV, model: LocalModel, vault: Vault | None, ask: Ask | None, verify: Verify
) -> _Loaded | _Parametric:
    if isinstance(one, KV):
        part = Part(f"kv:{one.tokens}", Point.PREFIX.name, one.tokens, one.nbytes, one.label, one.error)
        return _Loaded(one, replace(part, checked="never stored: nothing can make it stale"), lambda: None)
    if vault is None:
        raise InvalidOption("say where the cube is kept, so that it can be checked: mount(…, vault=…)")
    id = one if isinstance(one, str) else one.id

    use = partial(ask or partial(_require_current, vault), id)
    use()
    with vault.snapshot() as snapshot:
        snapshot.require_current(id)  # again, in the transaction that reads it
        cube = snapshot.head(id)
    here = fingerprint(model, verify=verify)
    if cube.kind is Kind.parametric:
        return _Parametric(open_parametric(vault, cube, model), use)
    check_description(cube, here, model.name)
    kv = load(vault, cube)
    part = Part(id, Point.PREFIX.name, kv.tokens, kv.nbytes, kv.label, kv.error, "current, as the vault said")
    return _Loaded(kv, part, use)


def _require_current(vault: Vault, id: str) -> None:
    with vault.snapshot() as snapshot:
        snapshot.require_current(id)


def _prefix(
    model: LocalModel, loaded: Sequence[_Loaded], verify: Verify, how: str, ratio: float, measure: bool
) -> Prefix | None:
    if not loaded:
        return None
    for one in loaded:
        one.kv.check_model(model, verify=verify)
    below = mounted(model.model)
    memories = [one.kv for one in loaded]
    probe = probe_tokens(model, memories[0].form) if measure and how != "exact" else ()
    whole = compose_kv(model, memories, how=how, ratio=ratio, probe=probe)

    def ask() -> None:
        for one in loaded:
            one.ask()
        whole.check_model(model, under=mounted(model.model)[: len(below)])

    return Prefix(whole, tuple(one.part for one in loaded), ask)
