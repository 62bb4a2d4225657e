"""Facts with slots: who has which value of which attribute, since when and until when. Rules, no model.

A slot is one attribute of one subject, as told by a user to an agent. Its facts are a function of the turns
that speak of it: in the order in which they were said, each run of the same value is a fact that begins with
its first turn; where a value excludes others, the next run ends the one before (`valid_to`, `ended_by`). So
new turns, changed ones and deleted ones are one and the same work: read the slot's turns, compare, write what
differs. A fact that somebody deleted, or whose making was undone, is not made again from the same words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from mnemic.cube.model import Kind, MemCube, Origin, Scope, Source
from mnemic.cube.times import to_micros
from mnemic.plaintext.derive.attributes import phrase
from mnemic.plaintext.derive.deriver import Look
from mnemic.plaintext.derive.mentions import Mention, mentions
from mnemic.plaintext.derive.names import key_of, same
from mnemic.vault.codec import Draft
from mnemic.vault.deriving import Put, State, derived_id

METHOD: Final = "facts"
MOST_SOURCES: Final = 8  # citations of one fact: its first turn and the latest that say it again
_SPEAKING: Final = (None, "user")
_Heard = dict[str, list[Mention]]  # by version


class _Said(NamedTuple):
    """A mention and the turn that holds it."""

    turn: State
    mention: Mention


@dataclass(slots=True)
class _Run:
    """Turns that state one value, one after the other, until something ends it."""

    value: str
    said: list[_Said]
    ended: _Said | None = None
    next: _Run | None = None

    @property
    def first(self) -> _Said:
        return self.said[0]


@dataclass(slots=True)
class _Slot:
    scope: Scope  # its user and agent
    subject: str
    attribute: str
    facts: list[State] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts from what people said of themselves and others; nothing rests on what a model said alone."""

    name: str = METHOD

    def wants(self, cube: MemCube) -> bool:
        return speaks(cube)

    def derive(self, fresh: Sequence[State], stale: Sequence[State], look: Look) -> list[Put]:
        """Plan for all slots that new turns or stale facts touch. O(turns that speak of these slots)."""
        turns = {one.cube.id: one for one in fresh}
        slots: dict[bytes, _Slot] = {}
        heard: _Heard = {}
        for turn in fresh:
            for mention in _mentions(turn.cube, heard):
                scope = turn.cube.header.scope
                _open(slots, look, scope, mention.subject, mention.attribute)
        for fact in stale:
            said = fact.cube.metadata
            _open(slots, look, fact.cube.header.scope, said["subject"], said["attribute"])
        if not slots:
            return []
        members = look.in_slots(slots)
        states = look.states(id for ids in members.values() for id in ids)
        for key, ids in members.items():
            slots[key].facts = [states[id] for id in ids if id in states]
        cited = {s.cube_id for slot in slots.values() for s in _cited(slot.facts, look)}
        turns |= look.states(cited - turns.keys())
        by_slot = _by_slot(turns.values(), look, slots, heard)
        return [put for key, slot in slots.items() for put in _settle(key, slot, by_slot.get(key, []), look)]


def _open(slots: dict[bytes, _Slot], look: Look, scope: Scope, subject: str, attribute: str) -> None:
    key = look.slot(scope, key_of(subject), attribute)
    if key not in slots:
        slots[key] = _Slot(scope, subject, attribute)


def speaks(cube: MemCube) -> bool:
    """Did a person say it?"""
    header = cube.header
    told = header.origin in (Origin.user, Origin.imported)
    return cube.kind is Kind.plaintext and told and header.role in _SPEAKING


def speaker_of_turn(cube: MemCube) -> str:
    """Whom "I" means in it."""
    header = cube.header
    return header.name or header.scope.user or header.scope.agent or "user"


def stated(cube: MemCube) -> list[Mention]:
    """What a turn states, without what mnemic itself had put there. Spans are of the whole text."""
    text = cube.text
    for start, end in cube.header.recalled:
        text = text[:start] + " " * (end - start) + text[end:]
    return list(mentions(text, speaker_of_turn(cube)))


def _mentions(cube: MemCube, heard: _Heard) -> list[Mention]:
    """What a turn states; each version is read once."""
    if cube.version_id not in heard:
        heard[cube.version_id] = stated(cube)
    return heard[cube.version_id]


def _cited(facts: Iterable[State], look: Look) -> Iterator[Source]:
    """The turns that facts rest on or are ended by; of a fact that was deleted, those it rested on."""
    for fact in facts:
        header = _last_words(fact, look).header
        yield from header.sources
        if header.ended_by is not None:
            yield header.ended_by


def _last_words(fact: State, look: Look) -> MemCube:
    """A fact as it is, or as it was before it was deleted."""
    if not fact.cube.deleted:
        return fact.cube
    return next((one for one in reversed(look.history(fact.cube.id)) if not one.deleted), fact.cube)


def _by_slot(
    turns: Iterable[State], look: Look, slots: Mapping[bytes, _Slot], heard: _Heard
) -> dict[bytes, list[_Said]]:
    """What living turns say of these slots, in the order in which it was said."""
    out: dict[bytes, list[_Said]] = {}
    for turn in turns:
        if turn.cube.deleted or turn.cube.header.origin is Origin.derived:
            continue
        for mention in _mentions(turn.cube, heard):
            key = look.slot(turn.cube.header.scope, key_of(mention.subject), mention.attribute)
            if key in slots:
                out.setdefault(key, []).append(_Said(turn, mention))
    for said in out.values():
        said.sort(
            key=lambda one: (one.turn.cube.header.at, one.turn.cube.header.recorded_at, one.mention.start)
        )
    return out


def _settle(key: bytes, slot: _Slot, said: Sequence[_Said], look: Look) -> Iterator[Put]:
    """What brings the facts of a slot from what they are to what its turns say."""
    refused = set(_refused(slot.facts, look))
    said = [
        one
        for one in said
        if one.mention.value is None or (one.turn.cube.id, key_of(one.mention.value)) not in refused
    ]
    left = {fact.cube.id: fact for fact in slot.facts}
    runs = _runs(said)
    ids = _ids(slot, runs, left)
    left |= look.states(set(ids.values()) - left.keys())  # from another vault, and in no slot of this one
    for run in runs:
        put = _put(key, slot, run, ids, left.get(ids[id(run)]))
        if put is not None:
            yield put
    for fact in slot.facts:
        gone = fact.cube.deleted or fact.cube.header.frozen or fact.cube.header.method != METHOD
        if fact.cube.id not in ids.values() and not gone:
            tombstone = Draft(payload=b"", origin=Origin.derived, method=METHOD, deleted=True)
            header = fact.cube.header
            yield Put(id=fact.cube.id, scope=header.scope, draft=tombstone, follows=fact.cube.version_id)


def _refused(facts: Iterable[State], look: Look) -> Iterator[tuple[str, str]]:
    """(turn, value) of facts that were taken back by somebody else than this deriver."""
    for fact in facts:
        if fact.cube.deleted and fact.cube.header.method != METHOD:
            last = _last_words(fact, look)
            if "value" in last.metadata:
                yield from ((one.cube_id, key_of(last.metadata["value"])) for one in last.header.sources)


def _runs(said: Sequence[_Said]) -> list[_Run]:
    runs: list[_Run] = []
    for one in said:
        mention = one.mention
        living = [run for run in runs if run.ended is None and run.next is None]
        instead = mention.instead
        if instead is not None and not any(same(run.value, instead) for run in living):
            continue
        if mention.ends:
            for run in living:
                if mention.value is None or same(run.value, mention.value):
                    run.ended = one
            continue
        value = mention.value or ""
        known = next((run for run in living if same(run.value, value)), None)
        if known is not None:
            known.said.append(one)
            if len(value) > len(known.value):
                known.value = value
            continue
        new = _Run(value, [one])
        if mention.single:
            for run in living:
                run.next = new
        runs.append(new)
    return runs


def _ids(slot: _Slot, runs: Sequence[_Run], facts: Mapping[str, State]) -> dict[int, str]:
    """The fact that each run is: the one that was made of its first turn, else the one that rests on the
    earliest of its turns and is no other run, else a new.
    """
    names = (slot.scope.user, slot.scope.agent, key_of(slot.subject), slot.attribute)
    own = {
        id(run): derived_id(METHOD, *names, run.first.turn.cube.id, key_of(run.first.mention.value or ""))
        for run in runs
    }
    out = {place: fact for place, fact in own.items() if fact in facts and not facts[fact].cube.deleted}
    for run in runs:
        if id(run) not in out:
            taken = {*out.values(), *own.values()} - {own[id(run)]}
            left = {fact: state for fact, state in facts.items() if fact not in taken}
            out[id(run)] = _match(run, left) or own[id(run)]
    return out


def _match(run: _Run, facts: Mapping[str, State]) -> str | None:
    """The fact of the same value that rests on the earliest of a run's turns."""
    turns = [one.turn.cube.id for one in run.said]
    best: tuple[int, str] | None = None
    for fact in facts.values():
        if fact.cube.deleted or not same(str(fact.cube.metadata.get("value", "")), run.value):
            continue
        rests = [turns.index(one.cube_id) for one in fact.cube.header.sources if one.cube_id in turns]
        if rests and (best is None or (min(rests), fact.cube.id) < best):
            best = (min(rests), fact.cube.id)
    return None if best is None else best[1]


def _put(key: bytes, slot: _Slot, run: _Run, ids: Mapping[int, str], known: State | None) -> Put | None:
    """The version that a fact should have; None where it has it, or may not be changed."""
    ended_by, ended = None, run.ended
    if run.next is not None:
        ended_by, ended = ids[id(run.next)], run.next.first
    elif run.ended is not None:
        ended_by = run.ended.turn.cube.id
    said = run.said if len(run.said) <= MOST_SOURCES else [run.first, *run.said[1 - MOST_SOURCES :]]
    sources: dict[str, Source] = {}
    for one in said:
        sources.setdefault(one.turn.cube.id, one.turn.cite(one.mention.start, one.mention.end))
    headers = [one.turn.cube.header for one in run.said]
    first = run.first.turn.cube.header
    subject = run.first.mention.subject
    begins = to_micros(first.at)
    ends = None if ended is None else max(to_micros(ended.turn.cube.header.at), begins)
    expiries = [to_micros(header.expires_at) for header in headers if header.expires_at is not None]
    draft = Draft(
        payload=phrase(subject, slot.attribute, run.value).encode(),
        origin=Origin.derived,
        method=METHOD,
        at=begins,
        valid_from=begins,
        valid_to=ends,
        expires_at=min(expiries, default=None),
        name=subject,
        labels=tuple(dict.fromkeys(label for header in headers for label in header.labels)),
        metadata={"subject": subject, "attribute": slot.attribute, "value": run.value},
        sources=tuple(sources.values()),
    )
    if known is not None and (known.cube.header.frozen or _is(known.cube, draft, ended_by)):
        return None
    return Put(
        id=ids[id(run)],
        scope=first.scope if known is None else known.cube.header.scope,
        draft=draft,
        follows=None if known is None else known.cube.version_id,
        ended_by=ended_by,
        slot=key,
    )


def _is(cube: MemCube, draft: Draft, ended_by: str | None) -> bool:
    """Does a fact say already what it should, resting on the same states of its turns?"""
    header = cube.header
    ended = None if header.ended_by is None else header.ended_by.cube_id
    rests = [(one.cube_id, one.digest, one.start, one.end) for one in header.sources]
    should = [(one.cube_id, one.digest, one.start, one.end) for one in draft.sources]
    return (
        not cube.deleted
        and cube.payload == draft.payload
        and (ended, rests) == (ended_by, should)
        and (header.labels, dict(header.metadata)) == (draft.labels, dict(draft.metadata))
        and [_micros(one) for one in (header.at, header.valid_from, header.valid_to, header.expires_at)]
        == [draft.at, draft.valid_from, draft.valid_to, draft.expires_at]
    )


def _micros(moment: object) -> int | None:
    return None if moment is None else to_micros(moment)  # type: ignore[arg-type]
