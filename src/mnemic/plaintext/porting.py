"""Dump, load and compare memories: opens what is named, and makes the features that a dump did not bring."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mnemic.cube.errors import InvalidOption, NotFound
from mnemic.cube.ids import id_bytes
from mnemic.cube.model import Kind
from mnemic.cube.times import Clock, now
from mnemic.governance.guard import Guard
from mnemic.governance.redaction import Redactor
from mnemic.governance.sweep import over
from mnemic.plaintext.derive.facts import METHOD
from mnemic.plaintext.derive.names import key_of
from mnemic.plaintext.ingest.features import FeatureMaker, Progress, embed_pending, lexical_only
from mnemic.plaintext.ingest.recalled import find_recalled
from mnemic.plaintext.recall.select import Selection
from mnemic.vault.archive import Dumped, FileSource, check_target, is_dump, write
from mnemic.vault.comparing import Diff, diff
from mnemic.vault.keys import KeyLike
from mnemic.vault.kinds import cubes_of_other_kinds
from mnemic.vault.merging import Merged, merge
from mnemic.vault.records import Records, Redacted, VaultSource, Version
from mnemic.vault.vault import Vault, open_vault


def dump(
    vault: Vault,
    path: str | os.PathLike[str],
    selection: Selection | None,
    *,
    guard: Guard | None = None,
    redact: Redactor | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Dumped:
    """Write a memory, or a part of it, to one file, as of one moment; the vault remembers where it went.

    guard: by whose rules; what is over by them stays behind, as it is served in no other way either.
    redact: what no text may hold; KV memories and adapters stay behind, as their numbers cannot be redacted.

    That it went is on record before the first byte leaves: a process that is killed while it writes leaves
    a part of a file that the audit log knows of. Raises InvalidOption where the file exists, OSError.
    O(bytes), memory for one batch.
    """
    with vault.database.read() as transaction:
        records: Any = VaultSource(
            vault,
            transaction,
            spaces=None if selection is None else selection.spaces,
            cubes=None if selection is None else [id_bytes(cube) for cube in selection.cubes],
        )
        spaces = records.touched()
        hidden = set() if guard is None else over(guard, transaction, spaces)
        if redact is not None:
            for space in spaces:
                hidden |= cubes_of_other_kinds(transaction, vault.tenant, space, Kind.plaintext)
        records.hide(hidden)
        models = [{"name": name, "dim": dim} for name, dim in records.models.values()]
        if redact is not None:
            records = Redacted(records, redact, lambda text: find_recalled(text))
        about = {
            "tenant": vault.tenant,
            "whole": selection is None,
            "redacted": redact is not None,
            "models": models,
        }
        target = check_target(path, overwrite=overwrite)
        noted = vault.note_dump(spaces, str(target.absolute()))
        try:
            return write(target, records, about=about, overwrite=overwrite, progress=progress)
        except BaseException:
            vault.forget_dump(noted)
            raise


def load(
    vault: Vault,
    maker: FeatureMaker,
    source: str | os.PathLike[str],
    *,
    key: KeyLike | None = None,
    progress: Progress | None = None,
) -> Merged:
    """Take in a dump or another vault, all or nothing; then make the features that did not come along."""
    with opened(source, tenant=vault.tenant, key=key, clock=vault.clock) as records:
        account = merge(vault, records, slot_of=_slot_of, progress=progress)
    if account.stored:
        embed_pending(vault, maker.lexical, lexical_only, progress)
        if maker.embedder.inline:
            embed_pending(vault, maker.dense, maker.embed, progress)
    return account


def _slot_of(version: Version) -> tuple[str, str] | None:
    """What a fact that comes along is about, so that it meets those that are here."""
    said = version.header.get("metadata") or {}
    if version.header.get("method") != METHOD or not {"subject", "attribute"} <= said.keys():
        return None
    return key_of(str(said["subject"])), str(said["attribute"])


def compare(
    left: str | os.PathLike[str],
    right: str | os.PathLike[str],
    *,
    tenant: str = "default",
    key: KeyLike | None = None,
) -> Diff:
    """How two dumps or vaults differ. key: of those that are encrypted."""
    with opened(left, tenant=tenant, key=key) as one, opened(right, tenant=tenant, key=key) as other:
        return diff(one, other)


@contextmanager
def opened(
    source: str | os.PathLike[str], *, tenant: str, key: KeyLike | None = None, clock: Clock = now
) -> Iterator[Records]:
    """The records of a dump, or of a vault by path or URL. Raises NotFound; a vault is never made.

    Of a vault it is what a dump of it would hold now: what is over by its own rules stays there.
    """
    is_url = not isinstance(source, os.PathLike) and "://" in source
    path = None if is_url else Path(source).expanduser()
    if path is not None and not path.exists():
        raise NotFound(f"there is no dump and no vault at {path}")
    if path is not None and (is_dump(path) or path.suffix == ".mnemic"):
        with FileSource(path) as file:
            yield file
        return
    vault = _opened(source, tenant, key, clock)
    try:
        guard = Guard(vault)
        with vault.database.read() as transaction:
            records = VaultSource(vault, transaction)
            records.hide(over(guard, transaction))
            yield records
    finally:
        vault.close()


def _opened(source: str | os.PathLike[str], tenant: str, key: KeyLike | None, clock: Clock) -> Vault:
    try:
        return open_vault(source, tenant=tenant, key=key, clock=clock)
    except InvalidOption:
        if key is None:
            raise
        return open_vault(source, tenant=tenant, clock=clock)  # of the two, only the other is encrypted
