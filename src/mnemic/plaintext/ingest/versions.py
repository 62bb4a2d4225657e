"""What was said before and how to get it back: history, restore, undo; and freeze, pin, fuse."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import unified_diff
from typing import overload

from mnemic.cube.checks import require_count
from mnemic.cube.errors import InvalidOption
from mnemic.cube.ids import id_bytes
from mnemic.cube.model import Kind, MemCube, Origin, Scope
from mnemic.cube.reach import Reach
from mnemic.governance.guard import Guard
from mnemic.plaintext.ingest.checked import check_reason, check_text
from mnemic.plaintext.ingest.features import FeatureMaker, embed_pending, lexical_only, utterance
from mnemic.plaintext.ingest.recalled import find_recalled
from mnemic.plaintext.ingest.store import Change, changed
from mnemic.vault.changes import LoggedChange
from mnemic.vault.codec import Draft, Secret
from mnemic.vault.fusing import fuse as vault_fuse
from mnemic.vault.snapshot import Snapshot
from mnemic.vault.vault import Vault
from mnemic.vault.writing import Written

PAGE = 1000
LEAST = 20  # changes that are looked at together


@dataclass(frozen=True, slots=True)
class Revision:
    """One version of a cube: its number (1 is the first), what it said, and the change that made it.

    diff: how its text differs from the version before, as unified diff lines; "" for the first.
    """

    version: int
    cube: MemCube
    change: LoggedChange
    diff: str


class History(Sequence[MemCube]):
    """Every version of a cube, oldest first; `.revisions` also say who made each, when, why, and the diff."""

    def __init__(self, cubes: Sequence[MemCube], changes: Sequence[LoggedChange]) -> None:
        self._cubes = tuple(cubes)
        before = ("", *(_text(cube) for cube in cubes))
        self.revisions = tuple(
            Revision(number, cube, change, _diff(old, _text(cube)) if number > 1 else "")
            for number, (cube, change, old) in enumerate(zip(cubes, changes, before, strict=False), start=1)
        )

    @overload
    def __getitem__(self, index: int) -> MemCube: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[MemCube]: ...
    def __getitem__(self, index: int | slice) -> MemCube | Sequence[MemCube]:
        return self._cubes[index]

    def __len__(self) -> int:
        return len(self._cubes)

    def __repr__(self) -> str:
        return f"History({len(self)} versions of {self._cubes[0].id})"


def history(vault: Vault, cube: str) -> History:
    """Raises NotFound. O(versions)."""
    with vault.snapshot() as snapshot:
        return History(snapshot.history(cube), snapshot.changes_of(cube))


def changes(snapshot: Snapshot, reach: Reach, *, after: int, limit: int) -> list[LoggedChange]:
    """What was changed within reach after a seq, in the order of the log. O(cubes of the changes read).

    A change without the cubes that may not be seen, and without its reason where there are some.
    """
    require_count(after=after, minimum=0)
    require_count(limit=limit)
    out: list[LoggedChange] = []
    if isinstance(reach.user, str) or reach.user is None:
        found = snapshot.space_of(reach.user)
        spaces = [] if found is None else [found]
    else:
        spaces = [row.space for row in snapshot.spaces()]
    if len(spaces) > 1 and after:
        raise InvalidOption("after= counts within one user's memory: name the user")
    for space in spaces:
        last = after
        while len(out) < limit and (page := snapshot.changes(space, last, min(PAGE, max(limit, LEAST)))):
            last = page[-1].seq
            mine = [one for one in page if one.scope and reach.has(one.scope)]
            if len(mine) > (most := limit - len(out) + LEAST):  # of some nothing may be shown
                mine, last = mine[:most], mine[most - 1].seq
            shown = snapshot.shown({id_bytes(cube) for one in mine for cube in one.cubes})
            out += [seen for one in mine if (seen := _seen(one, shown)).cubes]
    return out[:limit]


def _seen(change: LoggedChange, shown: Collection[str]) -> LoggedChange:
    cubes = tuple(cube for cube in change.cubes if cube in shown)
    return change if cubes == change.cubes else replace(change, cubes=cubes, reason=None)


def restore(
    vault: Vault, maker: FeatureMaker, cube: str, version: int, *, reason: str | None = None
) -> Change:
    """A new version that says what an older one said. Raises NotFound, InvalidOption, Frozen."""
    return _done(vault, maker, vault.restore(cube, version, reason=check_reason(reason)))


def undo(vault: Vault, maker: FeatureMaker, ids: str | Iterable[str], *, reason: str | None = None) -> Change:
    """Take changes back, all or none, the latest first. Raises NotFound, ChangedSince, Frozen."""
    wanted = _listed(ids, "change")
    return _done(vault, maker, vault.undo(wanted, reason=check_reason(reason)))


def freeze(vault: Vault, ids: str | Iterable[str], *, thaw: bool, reason: str | None = None) -> Change:
    """Raises NotFound."""
    return changed(vault.freeze(_listed(ids, "cube"), thaw=thaw, reason=check_reason(reason)))


def pin(vault: Vault, ids: str | Iterable[str], *, unpin: bool, reason: str | None = None) -> Change:
    """Raises NotFound, Frozen."""
    return changed(vault.pin(_listed(ids, "cube"), unpin=unpin, reason=check_reason(reason)))


def fuse(
    vault: Vault,
    maker: FeatureMaker,
    ids: str | Iterable[str],
    text: str,
    *,
    guard: Guard,
    reason: str | None = None,
) -> Change:
    """Raises NotFound, Frozen, InvalidText, InvalidOption."""
    cubes, checked, reason = _listed(ids, "cube"), check_text(text), check_reason(reason)
    with vault.snapshot() as snapshot:
        first = snapshot.head(cubes[0]).header.scope
        labels = {label for cube in cubes for label in snapshot.head(cube).header.labels}
    secrets: list[Secret] = []
    checked = guard.redaction(first, labels).clean(checked, secrets=secrets)
    recalled = tuple(find_recalled(checked))

    def tell(said: Sequence[Draft]) -> Draft:
        if any(one.kind is not Kind.plaintext or one.origin is Origin.derived for one in said):
            raise InvalidOption("only texts that were told can be fused; what is derived follows from them")
        name, role, origin = ({getattr(one, field) for one in said} for field in ("name", "role", "origin"))
        speaker = name.pop() if len(name) == 1 else None
        speaker_role = role.pop() if len(role) == 1 else None
        (features,) = maker.make([utterance(checked, recalled, speaker or speaker_role)])
        return Draft(
            payload=checked.encode(),
            origin=origin.pop() if len(origin) == 1 else Origin.user,
            at=max(one.at for one in said if one.at is not None),
            expires_at=min((one.expires_at for one in said if one.expires_at is not None), default=None),
            role=speaker_role,
            name=speaker,
            labels=tuple(dict.fromkeys(label for one in said for label in one.labels)),
            metadata=said[0].metadata,
            pinned=any(one.pinned for one in said),
            recalled=recalled,
            features=features,
            secrets=tuple(secrets),
        )

    return changed(vault_fuse(vault, cubes, tell, reason=reason))


def _done(vault: Vault, maker: FeatureMaker, written: Sequence[tuple[Written, Scope]]) -> Change:
    """What came back may be older than the embedder in use: its features are made anew. O(what came back)."""
    if written and maker.embedder.inline:
        above: dict[int, int] = {}
        with vault.snapshot() as snapshot:
            for one, scope in written:
                space, first = snapshot.space_of(scope.user), one.stored[0].seq - 1
                if space is not None:
                    above[space] = min(first, above.get(space, first))
        embed_pending(vault, maker.lexical, lexical_only, above=above)
        embed_pending(vault, maker.dense, maker.embed, above=above)
    return changed(written)


def _listed(ids: object, what: str) -> list[str]:
    if isinstance(ids, str):
        return [ids]
    if not isinstance(ids, Iterable):
        raise InvalidOption(f"{ids!r:.80} must be the id of a {what}, or several")
    listed = list(ids)
    if not listed:
        raise InvalidOption(f"name at least one {what}")
    return listed


def _text(cube: MemCube) -> str:
    return cube.text if cube.kind is Kind.plaintext else f"<{len(cube.payload)} bytes>"


def _diff(old: str, new: str) -> str:
    lines = unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=1)
    return "\n".join(line for line in list(lines)[2:] if not line.startswith("@@"))
