"""Several cubes told anew as one: the fusion says it, and what it was told instead of is merged into it.

MemOS §5.2, "merged". Nothing is lost by it: the fusion is a new cube that cites what it stands for, and that
gets a tombstone which names the fusion, so that a restore, or the undo of the change, brings it back. An
erase of the fusion takes along what is merged into it, as they are one memory since; an erase of something
that was fused takes the fusion, which quotes it, and the rest is there again (`destroying.bring_back`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mnemic.cube.errors import InvalidOption, NotFound
from mnemic.cube.ids import id_text, new_ids
from mnemic.cube.lifecycle import Event, require
from mnemic.cube.model import Scope, Source
from mnemic.vault import lineage, writing
from mnemic.vault.codec import Draft, Stored, check_thawed, merged_into, state_of, tombstone
from mnemic.vault.vault import Vault
from mnemic.vault.writing import Parent, Target, Written

OP = "fuse"
Tell = Callable[[Sequence[Draft]], Draft]


def fuse(
    vault: Vault, cubes: Sequence[str], tell: Tell, *, reason: str | None = None
) -> list[tuple[Written, Scope]]:
    """Store what `tell` makes of cubes, in the scope of the first, and merge them into it; all or none.

    Raises NotFound, Frozen, InvalidOption where they are fewer than two, of several users, or in a state that
    cannot be fused (cube/lifecycle.py), before anything is written. O(cubes).
    """
    with vault.database.write() as transaction:
        vault._hold_spaces_of(transaction, cubes)
        found = vault._visible_heads(transaction, cubes)
        _require_fusible(found)
        (space, first), rows = found[0], [row for _, row in found]
        fusion, change_id = new_ids(2)
        cited = tuple(Source(cube_id=id_text(row.cube), version_id=id_text(row.version)) for row in rows)
        told = replace(tell([row.draft() for row in rows]), fused=cited)
        by_scope: dict[int, list[Stored]] = {first.scope: []}
        for row in rows:
            by_scope.setdefault(row.scope, []).append(row)
        done: list[tuple[Written, Scope]] = []
        for scope, mine in by_scope.items():
            names = vault._scope_names(transaction, space, scope)
            drafts = [replace(tombstone(row), merged_into=id_text(fusion)) for row in mine]
            parents = [Parent(row.cube, row.version) for row in mine]
            if scope == first.scope:
                drafts, parents = [told, *drafts], [Parent(fusion, None), *parents]
            target = Target(vault.tenant, space, scope, names)
            written = writing.insert(
                transaction, target, vault._key, drafts, op=OP, reason=reason, parents=parents,
                change_id=change_id,
            )  # fmt: skip
            done.append((written, names))
        stored = [row for one, _ in done for row in one.stored]
        made = next(row for row in stored if row.cube == fusion)
        lineage.cite(transaction, vault.tenant, space, made.version, cited, role=lineage.FUSED)
        into = Source(cube_id=id_text(fusion), version_id=id_text(made.version))
        for row in stored:
            if row.cube != fusion:
                lineage.cite(transaction, vault.tenant, space, row.version, [into], role=lineage.MERGED)
        return done


def _require_fusible(found: Sequence[tuple[int, Stored]]) -> None:
    if len(found) < 2:
        raise InvalidOption("name at least two cubes that are to be one; update(id, text) changes one")
    if len({space for space, _ in found}) > 1:
        raise InvalidOption("cubes of several users cannot be one memory: fuse each user's own")
    for _, row in found:
        cube = id_text(row.cube)
        if row.deleted:
            into = merged_into(row.header)
            what = "deleted" if into is None else f"merged into {into}"
            raise NotFound(f"cube {cube} was {what}; restore it before you fuse it")
        check_thawed(row, tombstone(row))
        require(state_of(row), Event.fuse)
