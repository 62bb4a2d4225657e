"""How two memories differ, cube by cube: vaults, dumps, or one of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mnemic.cube.ids import id_text
from mnemic.vault.codec import erased_marker
from mnemic.vault.records import Records, Version

SHOWN = 200  # characters of a text


@dataclass(frozen=True, slots=True, kw_only=True)
class CubeDiff:
    """One cube that differs. `left`, `right`: what is current there; None where it is not, or deleted."""

    id: str
    user: str | None
    left: str | None
    right: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """What a merge of either into the other would do.

    same: cubes with equal histories. only_left, only_right: cubes that one has. changed: cubes with versions
    that the other lacks. erased_left, erased_right: cubes that this side has erased and the other holds.
    """

    same: int
    only_left: tuple[CubeDiff, ...]
    only_right: tuple[CubeDiff, ...]
    changed: tuple[CubeDiff, ...]
    erased_left: tuple[str, ...]
    erased_right: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether a merge would change neither."""
        parts = (self.only_left, self.only_right, self.changed, self.erased_left, self.erased_right)
        return not any(parts)


class _State(NamedTuple):
    """A cube in few bytes: a hash of the set of its versions, and its head."""

    versions: int
    recorded_at: int
    head: bytes


def diff(left: Records, right: Records) -> Diff:
    """Compare all histories. Reads each twice; O(versions), memory O(cubes)."""
    ours, theirs = _states(left), _states(right)
    gone_left = _held(set(left.markers()), theirs)
    gone_right = _held(set(right.markers()), ours)
    only_left = ours.keys() - theirs.keys() - gone_right
    only_right = theirs.keys() - ours.keys() - gone_left
    changed = {cube for cube in ours.keys() & theirs.keys() if ours[cube].versions != theirs[cube].versions}
    here = _heads(left, {cube: ours[cube] for cube in only_left | changed})
    there = _heads(right, {cube: theirs[cube] for cube in only_right | changed})

    def shown(cubes: set[bytes]) -> tuple[CubeDiff, ...]:
        return tuple(_diff(cube, here.get(cube), there.get(cube)) for cube in sorted(cubes))

    return Diff(
        same=len(ours.keys() & theirs.keys()) - len(changed),
        only_left=shown(only_left),
        only_right=shown(only_right),
        changed=shown(changed),
        erased_left=tuple(sorted(map(id_text, gone_left))),
        erased_right=tuple(sorted(map(id_text, gone_right))),
    )


def _states(records: Records) -> dict[bytes, _State]:
    out: dict[bytes, _State] = {}
    for _, versions in records.groups():
        for one in versions:
            known = out.get(one.cube, _State(0, -(1 << 63), b""))
            mark = int.from_bytes(hashlib.blake2b(one.version, digest_size=8).digest(), "big")
            recorded_at, head = max((known.recorded_at, known.head), (one.recorded_at, one.version))
            out[one.cube] = _State(known.versions ^ mark, recorded_at, head)
    return out


def _held(markers: set[bytes], states: dict[bytes, _State]) -> set[bytes]:
    return {cube for cube in states if erased_marker(cube) in markers} if markers else set()


def _heads(records: Records, wanted: dict[bytes, _State]) -> dict[bytes, Version]:
    return {one.cube: one for one in _current(records, wanted)} if wanted else {}


def _current(records: Records, wanted: dict[bytes, _State]) -> Iterator[Version]:
    for _, versions in records.groups():
        for one in versions:
            if one.cube in wanted and wanted[one.cube].head == one.version:
                yield one


def _diff(cube: bytes, left: Version | None, right: Version | None) -> CubeDiff:
    either = left or right
    return CubeDiff(
        id=id_text(cube), user=either.user if either else None, left=_said(left), right=_said(right)
    )


def _said(one: Version | None) -> str | None:
    if one is None or one.deleted:
        return None
    if one.kind:
        return f"<{len(one.payload)} bytes>"
    text = one.payload.decode("utf-8", "replace")
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
