"""What makes derived cubes: the protocol, and the table of those that are built in.

A deriver reads what is new in a space's log and what of its own has become stale, and answers with a plan:
what to write. It is called in the background, never between a caller and durability; the plan and how far it
has read are stored in one transaction. It may be called again with what it has seen: the same cubes must come
out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol, runtime_checkable

from mnemic.cube.errors import InvalidOption
from mnemic.cube.ids import id_text
from mnemic.cube.model import Kind, MemCube, Origin, Scope
from mnemic.index.lexical import terms_of
from mnemic.models.base import LanguageModel
from mnemic.vault import deriving
from mnemic.vault.deriving import Put, State
from mnemic.vault.snapshot import Snapshot

BATCH: Final = 500  # versions read at once, where a deriver names no `batch`
Later = Callable[[], Sequence[Put]]  # a plan that takes long to make: called when the snapshot is closed


class Told(NamedTuple):
    """A live cube that was told, by its words."""

    cube: str
    scope: Scope
    terms: frozenset[int]


class Look:
    """What a deriver may read: one snapshot of one space."""

    def __init__(self, snapshot: Snapshot, space: int) -> None:
        self._snapshot, self._space = snapshot, space

    def states(self, cubes: Iterable[str]) -> dict[str, State]:
        """Heads by cube id, tombstones included. O(cubes)."""
        return deriving.states_of(self._snapshot.vault, self._snapshot.transaction, cubes)

    def history(self, cube: str) -> list[MemCube]:
        """Every version of a cube, oldest first. Raises NotFound."""
        return self._snapshot.history(cube)

    def told(self) -> list[Told]:
        """All live texts that were told in this space, by the terms of the index. O(words of the space)."""
        lexical = next((one.number for one in self._snapshot.models() if one.active and not one.dim), 0)
        names = self._snapshot.scopes(self._space)
        rows = self._snapshot.since(self._space, 0, lexical=lexical, dense=None)
        heads = {row.cube: row for row in rows}
        return [
            Told(id_text(row.cube), names[row.scope], terms_of(row.lexical))
            for row in heads.values()
            if not row.deleted and row.kind == int(Kind.plaintext) and row.origin != int(Origin.derived)
        ]

    def slot(self, scope: Scope, subject: str, attribute: str) -> bytes:
        """The name of a slot, for `Put.slot` and `in_slots`."""
        return deriving.slot_key(self._snapshot.vault, scope, subject, attribute)

    def in_slots(self, slots: Iterable[bytes]) -> dict[bytes, list[str]]:
        """The ids of the cubes that ever took a place in each slot."""
        return deriving.cubes_in_slots(self._snapshot.vault, self._snapshot.transaction, self._space, slots)


@runtime_checkable
class Deriver(Protocol):
    """`name` stands in `header.method` of every cube that it makes, and says which stale ones are its own."""

    name: str

    def wants(self, cube: MemCube) -> bool:
        """Whether it derives anything from such a cube, derived ones included. O(1)."""
        ...

    def derive(self, fresh: Sequence[State], stale: Sequence[State], look: Look) -> Sequence[Put] | Later:
        """What to write, given new states of cubes that it wants, and stale cubes of its own.

        What takes long, such as asking a model, is left to a `Later`: it runs outside of any transaction. A
        stale cube that is in no `Put` stays stale, and is not served.
        """
        ...


DERIVERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "facts": "mnemic.plaintext.derive.facts:Facts",
        "contradictions": "mnemic.plaintext.derive.contradictions:Contradictions",
    }
)
DEFAULT: Final = ("facts",)


def load_derivers(names: Sequence[str | Deriver], model: LanguageModel | None = None) -> list[Deriver]:
    """Derivers by name or as they are, in the order in which they run. Raises InvalidOption.

    model: for those that need one.
    """
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise InvalidOption(f"derive={names!r:.80} must be a list of {', '.join(DERIVERS)} or Derivers")
    out: list[Deriver] = []
    for one in names:
        if isinstance(one, str):
            if one not in DERIVERS:
                raise InvalidOption(f"there is no deriver {one!r:.80}; there are {', '.join(DERIVERS)}")
            module, _, name = DERIVERS[one].partition(":")
            out.append(_made(one, getattr(import_module(module), name), model))
        elif isinstance(one, Deriver):
            out.append(one)
        else:
            raise InvalidOption(f"{one!r:.80} is no Deriver: it needs name, wants(…) and derive(…)")
    if len({one.name for one in out}) < len(out):
        raise InvalidOption("two derivers have the same name")
    return out


def _made(name: str, kind: Callable[..., Deriver], model: LanguageModel | None) -> Deriver:
    if not getattr(kind, "needs_model", False):
        return kind()
    if model is None:
        raise InvalidOption(
            f"the deriver {name!r} asks a language model: give one with model=…, or leave it out"
        )
    return kind(model)
