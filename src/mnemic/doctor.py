"""The doctor: is this memory sound, and if not, what to do. Reads only.

One check a function; each gives a Finding. A check that breaks is itself a finding, and the rest go on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from mnemic.cube.errors import (
    KeyRequired,
    MnemicError,
    ModelError,
    VaultBusy,
    VaultReadOnly,
    VaultTooNew,
    WrongKey,
)
from mnemic.governance.ledger import verified
from mnemic.index.lexical import LEXICAL_VERSION
from mnemic.index.scope import ScopeIndex
from mnemic.memory import default_place
from mnemic.models.base import Embedder, TokenEmbedder
from mnemic.models.registry import EMBEDDERS, load_embedder
from mnemic.plaintext.derive.deriver import DEFAULT
from mnemic.plaintext.ingest.features import FeatureMaker, Progress, lexical_only, speaker_of, utterance
from mnemic.scheduler.health import health
from mnemic.vault import audit, check
from mnemic.vault.erasing import erasures
from mnemic.vault.keys import KeyLike
from mnemic.vault.migrations import MIGRATIONS, format_version
from mnemic.vault.snapshot import ModelRow
from mnemic.vault.sqlite import file_system
from mnemic.vault.vault import Vault, open_vault

LOW_BYTES: Final = 1 << 30
SAMPLED: Final = 50
CHUNK: Final = 97
Status = Literal["fine", "note", "wrong"]
_BACKUP: Final = "restore a backup of the file; what can still be read: mnemic export-jsonl"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and, if it is not fine, what to do."""

    check: str
    status: Status
    says: str
    advice: str | None = None


def examine(
    place: str | os.PathLike[str] | None,
    *,
    tenant: str = "default",
    key: KeyLike | None = None,
    embedder: str | Embedder | None = None,
    progress: Progress | None = None,
) -> Iterator[Finding]:
    """Findings, as they are made. O(bytes of the vault)."""
    where = default_place() if place is None else place
    path = _path(where)
    if path is not None:
        if not path.exists():
            yield Finding(
                "file", "wrong", f"{path} does not exist", "check --vault, or begin with `mnemic add`"
            )
            return
        if path.is_file() and not path.stat().st_size:
            yield Finding("file", "wrong", f"{path} is empty", "check --vault, or begin with `mnemic add`")
            return
        if check.is_ours(path):
            yield from _safely("file", lambda: _file(path))
        yield from _safely("disk", lambda: _disk(path))
    try:
        vault = open_vault(where, tenant=tenant, key=key)
    except MnemicError as error:
        yield Finding("opens", "wrong", str(error), _advice(error, path))
        return
    try:
        yield from _safely("durability", lambda: _durability(vault))
        yield from _safely("format", lambda: _format(vault))
        yield from _safely("structure", lambda: _structure(vault))
        yield from _safely("content", lambda: _content(vault, progress))
        yield from _safely("background", lambda: _background(vault))
        yield from _safely("payloads", lambda: _payloads(vault))
        yield from _safely("erasures", lambda: _erasures(vault))
        yield from _safely("audit", lambda: _audit(vault))
        yield from _safely("features", lambda: _searching(vault, embedder))
    finally:
        vault.close()


def _searching(vault: Vault, embedder: str | Embedder | None) -> Iterator[Finding]:
    """What the vault is searched by: features, the embedder that made them, and the index made from them."""
    active = _active(vault)
    if active is None:
        yield Finding("features", "note", "nothing was told yet, so nothing is indexed")
        return
    lexical, dense = active
    yield from _safely("features", lambda: _features(vault, lexical, dense))
    chosen = _embedder(embedder, dense)
    yield from _safely("embedder", lambda: _embedder_matches(vault, chosen, lexical, dense))
    yield from _safely("index", lambda: _index(vault, chosen, lexical, dense))


def _advice(error: MnemicError, path: Path | None) -> str:
    """What to do about a vault that does not open."""
    if isinstance(error, VaultTooNew):
        return "update mnemic: pip install --upgrade mnemic"
    if isinstance(error, VaultReadOnly):
        return "give yourself the right to write the file and its folder, or copy it to where you have it"
    if isinstance(error, KeyRequired | WrongKey):
        return "set MNEMIC_KEY_FILE or MNEMIC_PASSPHRASE to the key that the vault was made with"
    if isinstance(error, VaultBusy):
        return "find the process that keeps the file, then check again"
    if path is None:
        return "check the address and the server"
    if check.is_ours(path):
        return _BACKUP
    return "check the path: this is another program's file; `mnemic where` names your own memory"


def _safely(name: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except MnemicError as error:
        yield Finding(name, "wrong", str(error), _BACKUP)
    except Exception as error:  # noqa: BLE001  # what is damaged can break anything that reads it
        says = f"the check broke off ({type(error).__name__}: {error}); something it reads is damaged"
        yield Finding(name, "wrong", says, _BACKUP)


def _path(where: str | os.PathLike[str]) -> Path | None:
    if isinstance(where, os.PathLike):
        return Path(where).absolute()
    scheme, separator, rest = where.partition("://")
    if not separator:
        return Path(where).expanduser().absolute()
    return Path(rest.removeprefix("/")).expanduser().absolute() if scheme == "sqlite" else None


def _file(path: Path) -> Iterator[Finding]:
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        yield Finding("file", "wrong", f"{path} or its folder is not writable", "check the permissions")
    said = check.file_problems(path)
    if said:
        yield Finding(
            "file", "wrong", f"SQLite finds the file damaged: {said[0]} ({len(said)} in all)", _BACKUP
        )
    else:
        yield Finding("file", "fine", f"SQLite's integrity check passes: {path}")


def _disk(path: Path) -> Iterator[Finding]:
    size, free = check.disk(path)
    kind = file_system(path.parent) or "unknown"
    says = f"{size / 1e6:,.1f} MB used, {free / 1e9:,.1f} GB free, file system {kind}"
    if free < max(LOW_BYTES // 4, size):
        yield Finding(
            "disk", "wrong", says, "free some space: a full disk refuses new memories (old ones stay safe)"
        )
    elif free < LOW_BYTES:
        yield Finding("disk", "note", says, "space is getting short")
    else:
        yield Finding("disk", "fine", says)


def _durability(vault: Vault) -> Iterator[Finding]:
    found = check.settings(vault.database)
    if not found:
        yield Finding(
            "durability", "note", "kept by the server; check its fsync and synchronous_commit settings"
        )
        return
    safe = found["journal_mode"] == "wal" and found["synchronous"] == "2"
    level = "FULL" if found["synchronous"] == "2" else found["synchronous"]
    says = f"journal {found['journal_mode']}, synchronous {level}"
    advice = (
        None
        if safe
        else "another program changed the file's mode; open it with mnemic once more, then check again"
    )
    yield Finding("durability", "fine" if safe else "wrong", says, advice)


def _format(vault: Vault) -> Iterator[Finding]:
    with vault.database.read() as transaction:
        found = format_version(transaction)
    yield Finding("format", "fine", f"{found}, the newest this mnemic knows is {len(MIGRATIONS)}")


def _structure(vault: Vault) -> Iterator[Finding]:
    with vault.database.read() as transaction:
        found = check.problems(transaction, vault.tenant)
        versions, _ = check.version_counts(transaction, vault.tenant)
    for one in found:
        yield Finding("structure", "wrong", f"{one.count:,} {one.what}: {', '.join(one.examples)}", _BACKUP)
    if not found:
        yield Finding(
            "structure", "fine", f"heads, scopes, features and changes fit all {versions:,} versions"
        )


def _content(vault: Vault, progress: Progress | None) -> Iterator[Finding]:
    bad: list[str] = []
    read = 0
    with vault.database.read() as transaction:
        total, _ = check.version_counts(transaction, vault.tenant)
        for read, found in check.altered(transaction, vault.tenant, vault._key):
            bad += found
            if progress:
                progress(read, total)
    if bad:
        says = f"{len(bad):,} versions do not say what was stored: {', '.join(bad[:3])}"
        yield Finding("content", "wrong", says, _BACKUP)
    else:
        yield Finding("content", "fine", f"all {read:,} versions match their digests")


def _background(vault: Vault) -> Iterator[Finding]:
    """Does what changes have caused get done?"""
    jobs, reading = health(vault, ()), health(vault, DEFAULT)
    if jobs.dead:
        says = f"{jobs.dead:,} jobs failed too often and were given up: {jobs.last_error or ''}"
        yield Finding("background", "wrong", says, "mnemic jobs, then mnemic jobs --rerun all")
    elif not jobs.ok:
        says = f"{jobs.waiting:,} jobs wait, the oldest for {jobs.oldest_s / 60:,.0f} minutes"
        yield Finding("background", "wrong", says, "mnemic jobs --run")
    elif reading.unread or jobs.waiting:
        says = f"{jobs.waiting:,} jobs wait, and {reading.unread:,} versions to be read for facts"
        yield Finding("background", "note", says, "mnemic jobs --run, or leave a program that has it open")
    else:
        yield Finding("background", "fine", "nothing waits")


def _payloads(vault: Vault) -> Iterator[Finding]:
    """Files of large payloads; nothing is said where there are none."""
    looked = list(vault.blobs.damaged())
    bad = [f"{name[:16]}…: {wrong}" for name, wrong in looked if wrong]
    if bad:
        says = f"{len(bad):,} of {len(looked):,} large payloads are not as they were stored: {bad[0]}"
        yield Finding("payloads", "wrong", says, "make those cubes again from their sources, or " + _BACKUP)
    elif looked:
        yield Finding("payloads", "fine", f"all {len(looked):,} large payloads match their names")
    if orphans := vault.blobs.orphans():
        size = sum(path.stat().st_size for path in orphans)
        says = f"{len(orphans):,} files of {size / 1e6:,.1f} MB that no cube names, left by a crash"
        yield Finding("payloads", "note", says, "mnemic doctor --sweep removes them")


def _erasures(vault: Vault) -> Iterator[Finding]:
    """Nothing is said where nothing was erased."""
    found = erasures(vault)
    if pending := [one for one in found if one.finished_at is None]:
        says = f"{len(pending)} erasures whose bytes are still on disk, the first of {pending[0].at:%Y-%m-%d}"
        yield Finding(
            "erasures", "wrong", says, "close what keeps the vault open, then: mnemic erase --finish"
        )
    elif found:
        yield Finding("erasures", "fine", f"all {len(found):,} are finished")


def _audit(vault: Vault) -> Iterator[Finding]:
    """Nothing is said where no audit log was begun."""
    with vault.database.read() as transaction:
        kept = audit.head(transaction, vault.tenant)
        verdict = None if kept is None else verified(transaction, vault.tenant, kept)
    if verdict is None:
        return
    if verdict.sound:
        yield Finding("audit", "fine", f"the chain of {verdict.rows:,} rows is whole")
    else:
        says = f"{len(verdict.problems):,} places do not fit: {verdict.problems[0]}"
        yield Finding("audit", "wrong", says, "somebody wrote past mnemic: find out who; " + _BACKUP)


def _active(vault: Vault) -> tuple[ModelRow, ModelRow] | None:
    with vault.snapshot() as snapshot:
        rows = {row.dim == 0: row for row in snapshot.models() if row.active}
    return (rows[True], rows[False]) if len(rows) == 2 else None


def _features(vault: Vault, lexical: ModelRow, dense: ModelRow) -> Iterator[Finding]:
    if lexical.name != LEXICAL_VERSION:
        says = f"words were indexed by {lexical.name!r}; this mnemic uses {LEXICAL_VERSION!r}"
        yield Finding("features", "wrong", says, "mnemic reembed")
    with vault.snapshot() as snapshot:
        spaces = [row.space for row in snapshot.spaces()]
        no_words = sum(snapshot.pending_count(space, lexical.number) for space in spaces)
        no_vector = sum(snapshot.pending_count(space, dense.number) for space in spaces)
    if no_words:
        yield Finding(
            "features", "wrong", f"{no_words:,} cubes cannot be found by their words", "mnemic reembed"
        )
    if no_vector:
        says = f"{no_vector:,} cubes wait for {dense.name}; until then they are found by their words"
        yield Finding(
            "features", "note", says, "mnemic reembed, or leave a program that has this memory open"
        )
    if not no_words and not no_vector:
        yield Finding("features", "fine", "no cube lacks a feature")


def _embedder(wanted: str | Embedder | None, dense: ModelRow) -> Embedder | None:
    if wanted is not None:
        return load_embedder(wanted)
    for name in EMBEDDERS:
        if name != "openai" and (found := load_embedder(name)).name == dense.name:
            return found
    return None


def _embedder_matches(
    vault: Vault, chosen: Embedder | None, lexical: ModelRow, dense: ModelRow
) -> Iterator[Finding]:
    if chosen is None:
        advice = "name it with --embedder to check it, or change it: mnemic reembed --embedder static"
        yield Finding("embedder", "note", f"vectors come from {dense.name!r}, which is not built in", advice)
        return
    if chosen.name != dense.name:
        advice = "leave out --embedder, or change it for good: mnemic reembed --embedder NAME"
        yield Finding(
            "embedder", "wrong", f"vectors come from {dense.name!r}, not from {chosen.name!r}", advice
        )
        return
    maker = FeatureMaker(chosen, lexical, dense)
    try:
        differing, looked = _resampled(vault, maker)
    except ModelError as error:
        yield Finding(
            "embedder", "wrong", f"{dense.name} does not answer: {error}", "make it available, or reembed"
        )
        return
    if differing:
        says = f"{differing} of {looked} cubes get other features now than when they were told"
        yield Finding(
            "embedder", "wrong", says, "mnemic reembed --embedder NAME, with another embedder and back"
        )
    else:
        yield Finding(
            "embedder", "fine", f"{dense.name} loads and gives {looked} sampled cubes the same features"
        )


def _resampled(vault: Vault, maker: FeatureMaker) -> tuple[int, int]:
    """How many of some cubes have features that are not made again the same."""
    differing = looked = 0
    with vault.snapshot() as snapshot:
        for row in snapshot.spaces():
            cubes = snapshot.live_after(row.space, 0, SAMPLED - looked)
            if not cubes:
                continue
            said = [utterance(cube.text, cube.header.recalled, speaker_of(cube.header)) for _, cube in cubes]
            words, vectors = lexical_only(said), maker.embed(said)
            kept_words = snapshot.features_after(row.space, 0, maker.lexical.number)
            kept_vectors = snapshot.features_after(row.space, 0, maker.dense.number)
            for (seq, _), word, vector in zip(cubes, words, vectors, strict=True):
                same = bytes(kept_words.get(seq, word)) == word
                differing += not (
                    same and _near(bytes(kept_vectors.get(seq, vector)), vector, maker.embedder)
                )
            looked += len(cubes)
            if looked >= SAMPLED:
                break
    return differing, looked


def _near(kept: bytes, made: bytes, embedder: Embedder) -> bool:
    if isinstance(embedder, TokenEmbedder) or kept == made or len(kept) != len(made):
        return kept == made
    one, other = (np.frombuffer(data, np.float16).astype(np.float32) for data in (kept, made))
    return float(one @ other) > 0.99 * float(np.linalg.norm(one) * np.linalg.norm(other))


def _index(vault: Vault, chosen: Embedder | None, lexical: ModelRow, dense: ModelRow) -> Iterator[Finding]:
    """Built at once and built change by change, an index must be the same."""
    table = chosen.table if isinstance(chosen, TokenEmbedder) and chosen.name == dense.name else None
    bad, rows = [], 0
    with vault.snapshot() as snapshot:
        for space in snapshot.spaces():
            log = snapshot.since(space.space, 0, lexical=lexical.number, dense=dense.number)
            at_once, by_steps = (ScopeIndex(table=table, dim=dense.dim) for _ in range(2))
            at_once.apply(log)
            for start in range(0, len(log), CHUNK):
                by_steps.apply(log[start : start + CHUNK])
            rows += len(at_once.seq)
            columns = ("seq", "scope", "kind", "origin", "at", "recorded_at", "expires_at")
            if not all(np.array_equal(getattr(at_once, name), getattr(by_steps, name)) for name in columns):
                bad.append(space.user or "(no user)")
    if bad:
        says = f"indexes built at once and step by step differ for {', '.join(bad[:3])}"
        yield Finding("index", "wrong", says, "this is a fault of mnemic, not of your data: please report it")
    else:
        yield Finding(
            "index", "fine", f"rebuilt from the log, the index equals the incremental one ({rows:,} cubes)"
        )
