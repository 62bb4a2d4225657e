"""Where a cube comes from, down to what was told, and what was made from it, all the way up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mnemic.cube.model import Kind, MemCube, Source
from mnemic.vault import deriving
from mnemic.vault.deriving import State
from mnemic.vault.snapshot import Snapshot
from mnemic.vault.vault import Vault

_DOWN: Final = ("source", "fused from")  # roles that are followed
DEEPEST: Final = 32  # levels of derivation that are followed down


@dataclass(frozen=True, slots=True)
class Link:
    """One citation: the state that was cited, the words that were used, and whether it still stands.

    cube: the version as it was cited; None where it was erased. role: "source", "ended by", "fused from" or
    "merged into". broken: why it does not stand any more; None while it does. made_from: what that cube
    itself rests on.
    """

    id: str
    role: str
    cube: MemCube | None
    quote: str
    broken: str | None
    made_from: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """A cube, all its versions (oldest first), what it was made from, and what was made from it.

    made_from: its citations, each with its own, down to what was told. made_into: the heads of all cubes that
    rest on it, directly or through others; `used_by` are their ids. A stale one says so by `stale_since`.
    """

    cube: MemCube
    history: tuple[MemCube, ...]
    made_from: tuple[Link, ...]
    made_into: tuple[MemCube, ...]

    @property
    def used_by(self) -> tuple[str, ...]:
        return tuple(sorted(cube.id for cube in self.made_into))

    @property
    def raw(self) -> tuple[MemCube, ...]:
        """What was told that it rests on in the end, each once, as it was cited."""
        found: dict[str, MemCube] = {}
        todo = [link for link in reversed(self.made_from) if link.role == "source"]
        while todo:
            link = todo.pop()
            todo += [one for one in reversed(link.made_from) if one.role == "source"]
            if link.cube is not None and not link.cube.header.sources:
                found.setdefault(link.cube.version_id, link.cube)
        return tuple(found.values())


def explain(vault: Vault, id: str) -> Explanation:
    """Raises NotFound. O(citations followed + cubes that rest on it)."""
    with vault.snapshot() as snapshot:
        cube = snapshot.head(id)
        above = deriving.states_of(vault, snapshot.transaction, snapshot.made_from(id))
        made_into = [one.cube for one in sorted(above.values(), key=lambda one: one.seq)]
        return Explanation(
            cube, tuple(snapshot.history(id)), _links(snapshot, cube, DEEPEST), tuple(made_into)
        )


def _links(snapshot: Snapshot, cube: MemCube, depth: int) -> tuple[Link, ...]:
    header = cube.header
    cited = [("source", source) for source in header.sources]
    cited += [("ended by", header.ended_by)] if header.ended_by is not None else []
    cited += [("fused from", source) for source in header.fused]
    into = header.merged_into
    cited += [("merged into", Source(cube_id=into, version_id=""))] if into is not None else []
    cited = [(role, source) for role, source in cited if snapshot.shows_or_gone(source.cube_id)]
    if not cited or not depth:
        return ()
    heads = deriving.states_of(snapshot.vault, snapshot.transaction, [source.cube_id for _, source in cited])
    return tuple(_link(snapshot, role, source, heads.get(source.cube_id), depth) for role, source in cited)


def _link(snapshot: Snapshot, role: str, source: Source, head: State | None, depth: int) -> Link:
    if head is None:
        return Link(source.cube_id, role, None, "", "was erased")
    past = snapshot.history(source.cube_id)
    cube = next((one for one in past if one.version_id == source.version_id), None)
    quote = cube.text[source.start : source.end] if cube and cube.kind is Kind.plaintext else ""
    broken = None
    if head.cube.header.merged_into is not None:
        broken = None if role == "fused from" else "was merged into another"
    elif head.cube.deleted:
        broken = "was deleted"
    elif role == "fused from":
        broken = "is told by itself again"
    elif role == "source" and head.digest != source.digest:
        broken = "says something else now"
    elif head.cube.stale_since is not None:
        broken = "rests on something that has changed"
    below = _links(snapshot, cube, depth - 1) if cube is not None and role in _DOWN else ()
    return Link(source.cube_id, role, cube, quote, broken, below)
