"""Told things become durable cubes: cut, given features, stored in one transaction a scope."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import NamedTuple, overload

from mnemic.cube.errors import IdempotencyConflict, InvalidInput, InvalidOption
from mnemic.cube.ids import id_text
from mnemic.cube.model import Kind, MemCube, Origin, Place, Scope
from mnemic.governance.guard import Guard
from mnemic.models.base import FloatArray
from mnemic.models.vectors import check_vectors
from mnemic.plaintext.ingest.checked import check_reason, check_text
from mnemic.plaintext.ingest.cut import cut
from mnemic.plaintext.ingest.features import FeatureMaker, Progress, Utterance, speaker_of, utterance
from mnemic.plaintext.ingest.recalled import find_recalled
from mnemic.plaintext.ingest.told import Skipped, Told
from mnemic.vault.codec import Draft, Secret, to_cube
from mnemic.vault.vault import Vault
from mnemic.vault.writing import Written

IMPORT_BATCH = 500
IMPORT_CHARS = 2_000_000


class Added(Sequence[MemCube]):
    """What an add did: the cubes that now hold what was told, in order, new ones and those that were there.

    `existing` are the ids of cubes that were there already; `skipped` says item by item what was not stored
    and why. `change_id` is None when nothing had to be written. `redacted` counts what was taken out, by
    kind. Cubes are made when they are looked at.
    """

    def __init__(
        self,
        cubes: Sequence[Callable[[], MemCube]],
        *,
        change_id: str | None,
        existing: Sequence[str],
        skipped: Sequence[Skipped],
    ) -> None:
        self._make = cubes
        self.change_id = change_id
        self.existing = tuple(existing)
        self.skipped = tuple(skipped)
        self.redacted: dict[str, int] = {}

    @cached_property
    def _cubes(self) -> tuple[MemCube, ...]:
        return tuple(make() for make in self._make)

    @overload
    def __getitem__(self, index: int) -> MemCube: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[MemCube]: ...
    def __getitem__(self, index: int | slice) -> MemCube | Sequence[MemCube]:
        return self._cubes[index]

    def __len__(self) -> int:
        return len(self._make)

    def __repr__(self) -> str:
        return f"Added({len(self)} cubes, {len(self.existing)} existing, {len(self.skipped)} skipped)"


@dataclass(frozen=True, slots=True)
class Change:
    """What an update or delete did: its id (None when there was nothing to do) and the new states of the
    cubes.
    """

    id: str | None
    cubes: tuple[MemCube, ...]

    @property
    def count(self) -> int:
        return len(self.cubes)


@dataclass(slots=True)
class Imported:
    """The account of an import: counts, and every record that did not go in.

    `notes` hold what was left out on purpose, counted, and what had to be guessed.
    """

    read: int = 0
    stored: int = 0
    existing: int = 0
    sessions: set[str | None] = field(default_factory=set)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def store(
    vault: Vault, maker: FeatureMaker, scope: Scope, told: Sequence[Told], *, vectors: object = None
) -> Added:
    """Store what was told in one scope, durably, in one transaction. O(characters)."""
    if not told and vectors is None:
        return Added((), change_id=None, existing=(), skipped=())
    pieces = [piece for number, one in enumerate(told) for piece in _pieces(number, one)]
    given = None if vectors is None else _given(vectors, maker, len(told), len(pieces))
    features = maker.make([piece.said for piece in pieces], given)
    drafts = [piece.draft(made) for piece, made in zip(pieces, features, strict=True)]
    appended = vault.append(scope, drafts)
    cubes: list[Callable[[], MemCube]] = []
    existing, skipped = [], []
    for piece, draft, outcome in zip(pieces, drafts, appended.outcomes, strict=True):
        if outcome.row is not None and outcome.reason is None:
            cubes.append(partial(to_cube, draft, outcome.row, scope))
            continue
        if outcome.row is not None:
            cubes.append(partial(outcome.row.cube_in, scope))
            existing.append(id_text(outcome.row.cube))
        there = None if outcome.row is None else existing[-1]
        skipped.append(
            Skipped(where=piece.where, reason=outcome.reason or "", id=draft.client_id, existing=there)
        )
    change_id = appended.change.change_id if appended.change else None
    return Added(cubes, change_id=change_id, existing=existing, skipped=list(dict.fromkeys(skipped)))


def store_all(
    vault: Vault,
    maker: FeatureMaker,
    scope: Scope,
    records: Iterable[Told | Skipped],
    *,
    progress: Progress | None = None,
) -> Imported:
    """Store the records of a file, each in the session that it names, a few hundred a transaction.

    A record that conflicts with what its id already holds is reported and the rest goes in. Stopped half-way,
    a second run stores only what is missing, because importers give every record an id.
    """
    account = Imported()
    for batch in _batches(records):
        for session, told in _by_session(scope, batch, account):
            account.sessions.add(session)
            target = scope._replace(session=session)
            for added in _store_or_report(vault, maker, target, told, account):
                account.stored += len(added) - len(added.existing)
                account.existing += len(added.existing)
                account.skipped += [one for one in added.skipped if one.existing is None]
        account.read += len(batch)
        if progress:
            progress(account.read, account.read)
    return account


def _batches(records: Iterable[Told | Skipped]) -> Iterator[list[Told | Skipped]]:
    """A few hundred records, or fewer long ones: what is held in memory at once."""
    batch: list[Told | Skipped] = []
    characters = 0
    for record in records:
        batch.append(record)
        characters += len(record.text) if isinstance(record, Told) else 0
        if len(batch) == IMPORT_BATCH or characters > IMPORT_CHARS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _by_session(
    scope: Scope, batch: Sequence[Told | Skipped], account: Imported
) -> Iterator[tuple[str | None, list[Told]]]:
    sessions: dict[str | None, list[Told]] = {}
    for record in batch:
        if isinstance(record, Skipped):
            account.skipped.append(record)
        else:
            sessions.setdefault(record.session if record.session is not None else scope.session, []).append(
                record
            )
    yield from sessions.items()


def _store_or_report(
    vault: Vault, maker: FeatureMaker, scope: Scope, told: list[Told], account: Imported
) -> Iterator[Added]:
    try:
        yield store(vault, maker, scope, told)
    except IdempotencyConflict as error:
        if len(told) == 1:
            account.skipped.append(Skipped(where=_where(told[0]), reason=str(error), id=told[0].id))
            return
        for one in told:
            yield from _store_or_report(vault, maker, scope, [one], account)


class _Piece(NamedTuple):
    """A span of what was told that becomes one cube."""

    number: int  # of the message
    told: Told
    place: Place | None
    text: str
    recalled: tuple[tuple[int, int], ...]

    @property
    def where(self) -> str:
        return _where(self.told) if self.told.source is not None else f"message {self.number}"

    @property
    def said(self) -> Utterance:
        return utterance(self.text, self.recalled, self.told.name or self.told.role)

    def draft(self, features: Mapping[int, bytes]) -> Draft:
        told = self.told
        return Draft(
            payload=self.text.encode(),
            origin=told.origin,
            at=told.at,
            role=told.role,
            name=told.name,
            labels=told.labels,
            metadata=told.metadata,
            place=self.place,
            recalled=self.recalled,
            client_id=told.id,
            features=features,
            secrets=self._secrets() if told.secrets else (),
        )

    def _secrets(self) -> tuple[Secret, ...]:
        """What was taken out of this span. A mark that a cut went through stays in the piece it begins in."""
        start = self.place.start if self.place else 0
        end = start + len(self.text)
        return tuple(
            one._replace(start=one.start - start) for one in self.told.secrets if start <= one.start < end
        )


def _where(told: Told) -> str:
    return f"{told.source or 'record'}:{told.line or '?'}"


def _pieces(number: int, told: Told) -> Iterator[_Piece]:
    total = len(told.text)
    recalled = find_recalled(told.text)
    for part, (start, end) in enumerate(cut(told.text)):
        place = None
        if (start, end) != (0, total) or told.source is not None or told.line is not None:
            place = Place(source=told.source, start=start, end=end, total=total, part=part, line=told.line)
        inside = tuple(
            (max(first, start) - start, min(last, end) - start)
            for first, last in recalled
            if first < end and last > start
        )
        yield _Piece(number, told, place, told.text[start:end], inside)


def _given(vectors: object, maker: FeatureMaker, told: int, drafts: int) -> FloatArray:
    if told != drafts:
        raise InvalidInput(
            "vectors can be given only for texts short enough to stay in one piece (2,000 characters)"
        )
    return check_vectors(vectors, count=told, dim=maker.dense.dim, name=maker.dense.name)


def revise(
    vault: Vault,
    maker: FeatureMaker,
    cube: str,
    text: str,
    *,
    reason: str | None = None,
    guard: Guard | None = None,
) -> Change:
    """A new version of a cube with another text. Raises InvalidText, NotFound, InvalidOption."""
    checked, reason = check_text(text), check_reason(reason)
    with vault.snapshot() as snapshot:
        head = snapshot.head(cube)
    header = head.header
    if head.kind is not Kind.plaintext:
        raise InvalidOption(
            f"cube {cube} is {head.kind.name} memory and says no text; make it again from its sources"
        )
    if header.origin is Origin.derived:
        raise InvalidOption(
            f"cube {cube} is derived from others and would be made again: change what it rests on "
            "(explain(id).raw), tell the correction, or delete it"
        )
    secrets: list[Secret] = []
    if guard is not None:
        checked = guard.redaction(header.scope, header.labels).clean(checked, secrets=secrets)
    recalled = tuple(find_recalled(checked))
    spoken = utterance(checked, recalled, speaker_of(header))
    (features,) = maker.make([spoken])
    change = {
        "payload": checked.encode(),
        "recalled": recalled,
        "place": None,
        "features": features,
        "secrets": tuple(secrets),
    }
    return changed([vault.revise(cube, change, reason=reason)])


def remove(vault: Vault, cubes: Sequence[str], *, reason: str | None = None, dry_run: bool = False) -> Change:
    """Tombstones for cubes, all or none; in a dry run the cubes as they are. Raises NotFound."""
    reason = check_reason(reason)
    if dry_run:
        with vault.snapshot() as snapshot:
            heads = [snapshot.head(cube) for cube in dict.fromkeys(cubes)]
        return Change(None, tuple(cube for cube in heads if not cube.deleted))
    return changed(vault.remove(cubes, reason=reason))


def changed(written: Sequence[tuple[Written, Scope]]) -> Change:
    """What the rows of one change did."""
    cubes = tuple(row.cube_in(scope) for one, scope in written for row in one.stored)
    return Change(written[0][0].change_id if written else None, cubes)
