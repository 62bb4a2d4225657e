"""Memory: the facade. Every verb is a few lines that call the rooms below;

there is no logic of its own here.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import tzinfo
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from mnemic.computing import Computing
from mnemic.cube.checks import require_count
from mnemic.cube.errors import InvalidOption, NotFound
from mnemic.cube.model import ANY, MemCube, ScopeField, Unset
from mnemic.cube.reach import EVERYWHERE, Reach
from mnemic.cube.times import Clock, TimeLike, now, to_micros
from mnemic.governance.guard import Guard, governed
from mnemic.governance.ledger import AuditLog
from mnemic.governance.manage import Governance, Policies
from mnemic.governance.redaction import Detector, Redactor, redactor
from mnemic.governance.sweep import Retention
from mnemic.index.cache import DEFAULT_BYTES
from mnemic.models.base import Embedder, LanguageModel
from mnemic.models.tokens import TokenCounter
from mnemic.plaintext.compose.answer import Answer, answer
from mnemic.plaintext.compose.context import Context, compose
from mnemic.plaintext.compose.policy import ContextOptions
from mnemic.plaintext.derive.deriver import DEFAULT, Deriver, load_derivers
from mnemic.plaintext.derive.engine import Derivation
from mnemic.plaintext.derive.explain import Explanation, explain
from mnemic.plaintext.ingest.checked import check_reason
from mnemic.plaintext.ingest.cleaned import Cleaned
from mnemic.plaintext.ingest.features import Progress
from mnemic.plaintext.ingest.files import read
from mnemic.plaintext.ingest.messages import Message, tell
from mnemic.plaintext.ingest.revealed import reveal
from mnemic.plaintext.ingest.store import Added, Change, Imported, remove, revise, store, store_all
from mnemic.plaintext.ingest.versions import History, changes, freeze, fuse, history, pin, restore, undo
from mnemic.plaintext.parts import Parts, open_parts
from mnemic.plaintext.porting import dump, load
from mnemic.plaintext.recall.browse import Page, Session, browse, choose, count, sessions, users
from mnemic.plaintext.recall.facts import Fact, facts
from mnemic.plaintext.recall.filters import Filter, Where
from mnemic.plaintext.recall.rank import Weights
from mnemic.plaintext.recall.search import Hits
from mnemic.plaintext.recall.select import select
from mnemic.scheduler.health import Health, health
from mnemic.scheduler.worker import Worker
from mnemic.vault.archive import Dumped
from mnemic.vault.changes import LoggedChange
from mnemic.vault.destroying import FINISH
from mnemic.vault.erasing import Certificate, erase, finish, finish_or_raise
from mnemic.vault.jobs import Job, listed, rerun
from mnemic.vault.keys import KeyLike
from mnemic.vault.merging import Merged
from mnemic.vault.vault import open_vault
from mnemic.vault.writing import REBUILD


def open(
    vault: str | os.PathLike[str] | None = None,
    *,
    tenant: str = "default",
    key: KeyLike | None = None,
    blobs: str | os.PathLike[str] | None = None,
    embedder: str | Embedder | None = None,
    model: LanguageModel | None = None,
    weights: Weights | None = None,
    index_bytes: int = DEFAULT_BYTES,
    derive: Sequence[str | Deriver] = DEFAULT,
    principal: str | None = None,
    audit_reads: bool = False,
    redact: str | Iterable[str | Detector] = (),
    clock: Clock = now,
) -> Memory:
    """Open a memory, making it if it is new.

    vault: a path, sqlite:///path or postgresql://…; default: a file in the user's data folder (`where()`
    names it). embedder: "static", "minilm", "openai:<model>" or an Embedder; default: the one the vault was
    made with, and "static" for a new one. Raises EmbedderMismatch when the vault's vectors come from another.
    key: a passphrase (text), a key file (pathlib.Path) or a KeyService; a vault that is made with one is
    encrypted, and opens with it only: KeyRequired, WrongKey (docs/security.md). blobs: the folder of large
    payloads; needed only for those of a PostgreSQL vault.
    model: a LanguageModel for `ask` and derivers; default none, and everything works without.
    index_bytes: how much of all indexes may stay in memory. derive: what is derived from what is told, in the
    background: "facts" (default), "contradictions" (asks `model`, docs/facts.md), or a Deriver of your own;
    () derives nothing. principal: on whose behalf;
    default: the owner, who may do everything. audit_reads: chain served reads too. redact: what is never
    stored, such as "email, card", beside what the vault's policies say. clock: microseconds since 1970, for
    tests and simulations.

    Raises VaultError and its kinds, AccessDenied. Costs one read of the vault; indexes and weights load at
    first use.
    """
    require_count(index_bytes=index_bytes)
    derivers = load_derivers(derive, model)
    opened = open_vault(
        default_place() if vault is None else vault, tenant=tenant, key=key, blobs=blobs, clock=clock
    )
    try:
        guard = Guard(opened, principal=principal, audit_reads=audit_reads, redact=redact)
        parts = open_parts(opened, embedder, weights=weights, index_bytes=index_bytes)
        return Memory(parts, model=model, derivers=derivers, guard=guard)
    except BaseException:
        opened.close()
        raise


def default_place() -> Path:
    """The user's own data folder, outside of any package, so that no update can touch it. Made if absent."""
    from platformdirs import user_data_path

    return user_data_path("mnemic", appauthor=False, ensure_exists=True) / "memory.db"


class Memory(Computing):
    """One tenant's memory in an open vault. Thread-safe; other processes may use the same vault.

    See `open`.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        model: LanguageModel | None = None,
        derivers: Sequence[Deriver] = (),
        guard: Guard | None = None,
    ) -> None:
        self._parts = parts
        self._stand_behind(guard or Guard(parts.vault))
        self._model = model
        self._shares = False  # what is open is another Memory's to close
        self._derivation = derivation = Derivation(parts.vault, parts.maker, derivers)
        self._worker = Worker(
            parts.vault,
            catch_up=derivation.catch_up,
            handlers={
                REBUILD: lambda job: derivation.rebuild(job.space),
                FINISH: lambda _: finish_or_raise(parts.vault),
            },
        )

    def _stand_behind(self, guard: Guard) -> None:
        self._guard = guard
        self._vault, self._recall = self._parts.vault.as_actor(guard), self._parts.recall.behind(guard)

    @property
    def governance(self) -> Governance:
        """Principals and grants."""
        return Governance(self._guard)

    @property
    def policies(self) -> Policies:
        """Rules about how long things are kept and what is never stored."""
        return Policies(self._guard)

    @property
    def retention(self) -> Retention:
        """What is over or soon will be, and taking it out."""
        return Retention(self._guard)

    @property
    def audit(self) -> AuditLog:
        """The audit log: its head, whether it is whole, and what it says."""
        return AuditLog(self._guard)

    @governed
    def as_principal(self, name: str | None) -> Memory:
        """The same open memory on behalf of somebody else: a handle that costs nothing.

        For the owner or an admin of everything. Raises AccessDenied.
        """
        other = copy.copy(self)
        other._stand_behind(self._guard.for_principal(name))
        other._shares = True
        return other

    # --- telling

    @governed
    def add(
        self,
        content: str | Message | Sequence[str | Message],
        *,
        user: str | None = None,
        agent: str | None = None,
        session: str | None = None,
        at: TimeLike | None = None,
        id: str | None = None,
        role: str | None = None,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        labels: Iterable[str] | str = (),
        vectors: object = None,
    ) -> Added:
        """Remember a text or messages, verbatim; durable when this returns. One transaction, O(characters).

        content: text, one message or a list, OpenAI's format: "role", "content", and also "name", "at", "id"
        (yours, unique in the exact scope), "metadata", "labels". The keywords hold where a message does not
        say it. vectors: (messages, dim) of the vault's embedder, if you have them already.

        Raises InvalidInput and its kinds, ScopeRequired, IdempotencyConflict; then nothing was stored.
        """
        scope = self._scope(user, agent, session)
        told = tell(content, at=at, id=id, role=role, name=name, metadata=metadata, labels=labels)
        cleaned = Cleaned(self._guard, scope)
        said = [cleaned.told(one, vectors=vectors) for one in told]
        added = store(self._vault, self._parts.maker, scope, said, vectors=vectors)
        added.redacted = dict(cleaned.counts)
        self._kick()
        return added

    @governed
    def load_file(
        self,
        path: str | os.PathLike[str],
        *,
        user: str | None = None,
        agent: str | None = None,
        session: str | None = None,
        format: str = "auto",
        sample: str | int | None = None,
        day_first: bool | None = None,
        timezone: tzinfo | None = None,
        progress: Progress | None = None,
    ) -> Imported:
        """Read an export or notes (docs/import.md) into memory; the account says what did not go in and why.

        sample: which dialogue (LoCoMo). day_first: whether 3/5 is in May (WhatsApp). timezone: where times
        without a zone were written (WhatsApp, notes). A few hundred records are one transaction; importing
        again, also after an interruption, stores only what is missing.

        Raises InvalidFile and InvalidOption before anything is stored. O(characters).
        """
        scope = self._scope(user, agent, session)
        records = read(path, format=format, sample=sample, day_first=day_first, timezone=timezone)
        cleaned = Cleaned(self._guard, scope)
        account = store_all(
            self._vault, self._parts.maker, scope, map(cleaned.record, records), progress=progress
        )
        account.notes.extend([*records.notes, *cleaned.notes()])
        self._kick()
        return account

    @governed
    def update(self, id: str, text: str, *, reason: str | None = None) -> Change:
        """Let a cube say something else from now on; what it said stays in its history. Raises NotFound."""
        reason = self._guard.clean_reason(reason)
        change = revise(self._vault, self._parts.maker, id, text, reason=reason, guard=self._guard)
        self._kick()
        return change

    @governed
    def delete(
        self,
        ids: str | Iterable[str] | None = None,
        *,
        where: Where | None = None,
        user: ScopeField = ANY,
        agent: ScopeField = ANY,
        session: ScopeField = ANY,
        dry_run: bool = False,
        reason: str | None = None,
    ) -> Change:
        """Take cubes out of every search, all or none; their history stays.

        Which: their ids, or `where` within a user's or an agent's memory, as `list` would show them.
        dry_run: nothing is changed, and `.cubes` are those that would go.

        Raises NotFound, InvalidOption, InvalidFilter, ScopeRequired. O(cubes that go + rows within reach).
        """
        chosen = choose(self._recall, ids, where=where, user=user, agent=agent, session=session)
        change = remove(self._vault, chosen, reason=self._guard.clean_reason(reason), dry_run=dry_run)
        self._kick()
        return change

    @governed
    def restore(self, id: str, version: int, *, reason: str | None = None) -> Change:
        """Let a cube say again what its `version` (1 is the first) said, as a new one; also a deleted cube.

        Raises NotFound, Frozen. O(versions).
        """
        reason = self._guard.clean_reason(reason)
        change = restore(self._vault, self._parts.maker, id, version, reason=reason)
        self._kick()
        return change

    @governed
    def undo(self, change: str | Iterable[str], *, reason: str | None = None) -> Change:
        """Take back a change or several, whatever they did, in one transaction; itself a change.

        Raises NotFound; ChangedSince where a cube has been changed again and that is not undone with it;
        Frozen. O(versions of the cubes concerned).
        """
        reason = self._guard.clean_reason(reason)
        undone = undo(self._vault, self._parts.maker, change, reason=reason)
        self._kick()
        return undone

    @governed
    def freeze(self, ids: str | Iterable[str], *, reason: str | None = None) -> Change:
        """Keep cubes as they are: until `thaw`, a change of them raises Frozen, and they do not expire.

        Raises NotFound.
        """
        return freeze(self._vault, ids, thaw=False, reason=self._guard.clean_reason(reason))

    @governed
    def thaw(self, ids: str | Iterable[str], *, reason: str | None = None) -> Change:
        """Let frozen cubes be changed again; they expire when they would have. Raises NotFound."""
        return freeze(self._vault, ids, thaw=True, reason=self._guard.clean_reason(reason))

    @governed
    def pin(self, ids: str | Iterable[str], *, reason: str | None = None) -> Change:
        """Let cubes count as in use until `unpin`: they are not archived, and what ends when it is not used
        any more (`keep while used`, `decay`) does not end. Other rules hold all the same.

        Raises NotFound, Frozen.
        """
        return pin(self._vault, ids, unpin=False, reason=self._guard.clean_reason(reason))

    @governed
    def unpin(self, ids: str | Iterable[str], *, reason: str | None = None) -> Change:
        """Let cubes count as used only when they are, from now on. Raises NotFound, Frozen."""
        return pin(self._vault, ids, unpin=True, reason=self._guard.clean_reason(reason))

    @governed
    def fuse(self, ids: str | Iterable[str], text: str, *, reason: str | None = None) -> Change:
        """Let one text stand for several cubes of a user; `.cubes[0]` is it, in the scope of the first.

        It has the labels of all, the time of the latest, and expires with the first; they are merged into it,
        and served no more. `undo` and `restore` bring them back; they are one memory for `erase`.

        Raises NotFound, Frozen, LegalHold, InvalidText, InvalidOption; then nothing was changed.
        O(characters).
        """
        reason = self._guard.clean_reason(reason)
        change = fuse(self._vault, self._parts.maker, ids, text, guard=self._guard, reason=reason)
        self._kick()
        return change

    @governed
    def erase(
        self,
        ids: str | Iterable[str] | None = None,
        *,
        where: Where | None = None,
        user: ScopeField = ANY,
        agent: ScopeField = ANY,
        session: ScopeField = ANY,
        everyone: bool = False,
        reason: str | None = None,
        dry_run: bool = False,
    ) -> Certificate:
        """Destroy memory for good: every version, all that was made from it, and its bytes on disk; of what
        was fused the fusion too, and with a fusion all that is merged into it.

        Which: ids, or all of a user's or an agent's (`user=` alone: name and key go too), or what of it
        passes `where` in any of its versions, deleted and expired too. The certificate counts what went; its
        status is "pending" while another connection keeps bytes on disk; `flush` and the next open go on.
        No merge or import brings it back. reason: for the certificate only, as it may say what was erased.

        Raises NotFound, InvalidOption, InvalidFilter, ScopeRequired before anything is erased, and VaultBusy.
        O(what goes), then O(vault), as the database is written anew.
        """
        self._guard.require_rule("erase", EVERYWHERE if ids is not None else Reach(user, agent, session))
        chosen = select(
            self._vault, ids, where=where, user=user, agent=agent, session=session, everyone=everyone
        )
        self._guard.require_unheld(chosen.cubes, chosen.spaces)
        done = erase(self._vault, chosen.cubes, chosen.spaces, reason=check_reason(reason), dry_run=dry_run)
        self._recall.forget()
        self._kick()
        return done

    # --- carrying

    @governed
    def dump(
        self,
        path: str | os.PathLike[str],
        *,
        where: Where | None = None,
        user: ScopeField = ANY,
        agent: ScopeField = ANY,
        session: ScopeField = ANY,
        everyone: bool = False,
        redact: Redactor | str | Iterable[str | Detector] | None = None,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> Dumped:
        """Write memory to one `.mnemic` file, with its full history, in clear (docs/portable.md).

        Which: as for `erase`; `everyone=True` for all of it. What is over stays behind. redact: "email,
        phone", detectors, or a function from text to text; then only what is live goes out, with other ids
        and without history, reasons and the caller's ids.

        Raises InvalidOption where the file exists, ScopeRequired, InvalidFilter, OSError. O(bytes).
        """
        self._guard.require_rule("dump", Reach(user, agent, session), reads=True)
        everything = (
            everyone and where is None and all(isinstance(one, Unset) for one in (user, agent, session))
        )
        chosen = None if everything else select(
            self._vault, where=where, user=user, agent=agent, session=session, everyone=everyone
        )  # fmt: skip
        return dump(
            self._vault, path, chosen, guard=self._guard, redact=None if redact is None else redactor(redact),
            overwrite=overwrite, progress=progress,
        )  # fmt: skip

    @governed
    def load(
        self,
        source: str | os.PathLike[str],
        *,
        key: KeyLike | None = None,
        progress: Progress | None = None,
    ) -> Merged:
        """Take in a dump, or another vault by path or URL: a union, all or nothing (docs/portable.md).

        What is here already is left alone; where both went on from the same state, both are kept and the cube
        is in conflict; what either erased stays erased. key: of the other vault, if it is encrypted.

        Raises DumpDamaged, DumpTooNew, NotFound, VaultError; then nothing was loaded. O(records).
        """
        self._guard.require_rule("load", EVERYWHERE)
        account = load(self._vault, self._parts.maker, source, key=key, progress=progress)
        self._recall.forget()
        self._kick()
        return account

    merge = load

    # --- asking

    @governed
    def search(
        self,
        question: str,
        *,
        user: ScopeField = ANY,
        agent: ScopeField = ANY,
        session: ScopeField = ANY,
        everyone: bool = False,
        k: int = 10,
        where: Where | None = None,
        asked_at: TimeLike | None = None,
        as_of: TimeLike | None = None,
        valid_at: TimeLike | None = None,
    ) -> Hits:
        """The k cubes (or fewer) that answer best, best first, each with what every signal added to its
        score.

        user, agent, session: left out matches any, a name exactly, None only "unset". Filters apply before
        ranking; what was derived is looked at where `where` asks for `origin` derived. asked_at: when the
        question is asked (default now): "last summer" is read from there. as_of: only what was known then, as
        it was said then. valid_at: only what was true then. Of statements that exclude each other the one
        that is true goes first, and the others say by what they were superseded.

        Raises ScopeRequired, InvalidFilter, InvalidText. O(cubes within reach), all scored with every signal.
        """
        self._worker.give_way()
        reach = Reach.of(user, agent, session, everyone=everyone)
        conditions = Filter.of(where, as_of=as_of, valid_at=valid_at)
        return self._recall.search(question, reach, k=k, where=conditions, asked_at=_moment(asked_at))

    @governed
    def context(
        self,
        question: str,
        *,
        user: ScopeField = ANY,
        agent: ScopeField = ANY,
        session: ScopeField = ANY,
        everyone: bool = False,
        budget: int = 2000,
        where: Where | None = None,
        asked_at: TimeLike | None = None,
        as_of: TimeLike | None = None,
        valid_at: TimeLike | None = None,
        count_tokens: TokenCounter | None = None,
        strategy: str = "auto",
        previous: str | None = None,
        options: ContextOptions | None = None,
    ) -> Context:
        """What a reader should see to answer, in at most `budget` tokens: all of it, or the best of it.

        count_tokens: the reader's own tokenizer; default: the configured model's, else a careful estimate.
        strategy: "auto" chooses between "full", "hybrid" and "retrieval" (docs/context.md). previous: the
        strategy of the context before, so that a history near the limit does not flip. options: how.

        Raises as `search` does. O(cubes within reach + characters shown).
        """
        self._worker.give_way()
        reach = Reach.of(user, agent, session, everyone=everyone)
        return compose(
            self._recall,
            question,
            reach,
            budget=budget,
            where=Filter.of(where, as_of=as_of, valid_at=valid_at),
            asked_at=_moment(asked_at),
            count_tokens=count_tokens or (self._model.count_tokens if self._model else None),
            strategy=strategy,
            previous=previous,
            options=options,
        )

    @governed
    def ask(
        self,
        question: str,
        *,
        user: ScopeField = ANY,
        agent: ScopeField = ANY,
        session: ScopeField = ANY,
        everyone: bool = False,
        budget: int = 2000,
        where: Where | None = None,
        asked_at: TimeLike | None = None,
        as_of: TimeLike | None = None,
        valid_at: TimeLike | None = None,
        model: LanguageModel | None = None,
    ) -> Answer:
        """Answer from memory, citing cubes: by the language model if there is one, else in the memory's own
        words.

        Says so when the memory does not hold it. Raises as `search` does, and ModelError.
        """
        self._worker.give_way()
        reach = Reach.of(user, agent, session, everyone=everyone)
        return answer(
            self._recall,
            question,
            reach,
            model=model or self._model,
            budget=budget,
            where=Filter.of(where, as_of=as_of, valid_at=valid_at),
            asked_at=_moment(asked_at),
        )

    # --- looking

    @governed
    def list(
        self,
        *,
        user: ScopeField = ANY,
        agent: ScopeField = ANY,
        session: ScopeField = ANY,
        everyone: bool = False,
        where: Where | None = None,
        as_of: TimeLike | None = None,
        valid_at: TimeLike | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page:
        """Live cubes in the order they were told; `after` is the `.next` of the page before.

        where, as_of, valid_at: as in `search`.
        """
        reach = Reach.of(user, agent, session, everyone=everyone)
        conditions = Filter.of(where, as_of=as_of, valid_at=valid_at)
        return browse(self._recall, reach, where=conditions, limit=limit, after=after)

    @governed
    def count(
        self,
        *,
        user: ScopeField = ANY,
        agent: ScopeField = ANY,
        session: ScopeField = ANY,
        everyone: bool = False,
        where: Where | None = None,
    ) -> int:
        """How many live cubes there are."""
        return count(self._recall, Reach.of(user, agent, session, everyone=everyone), where=Filter.of(where))

    @governed
    def sessions(
        self, *, user: ScopeField = ANY, agent: ScopeField = ANY, everyone: bool = False
    ) -> Sequence[Session]:
        """Every exact scope in use, the latest first."""
        return sessions(self._recall, Reach.of(user, agent, ANY, everyone=everyone))

    @governed
    def users(self) -> Sequence[str]:
        """Every user that has a memory here."""
        return users(self._recall)

    @governed
    def get(self, id: str, *, version: int | None = None) -> MemCube:
        """A cube's current state, or its `version` (1 is the first).

        Raises NotFound, also for a deleted one.
        """
        with self._vault.snapshot() as snapshot:
            if version is None:
                cube = snapshot.head(id)
                if cube.deleted:
                    into = cube.header.merged_into
                    what = f"merged into {into}" if into else "deleted"
                    raise NotFound(f"cube {id} was {what}; history({id!r}) shows what it said")
                return cube
            versions = snapshot.history(id)
        if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= len(versions):
            raise NotFound(f"cube {id} has versions 1 to {len(versions)}, not {version!r:.80}")
        return versions[version - 1]

    @governed
    def reveal(self, id: str, *, version: int | None = None) -> str:
        """A text with what a rule such as "seal card" took out of it, for who has the right to `reveal`.

        The audit log has it, in the same transaction. Raises NotFound, also where nothing was sealed (what
        "redact …" takes out is kept nowhere), and AccessDenied. O(versions).
        """
        return reveal(self._vault, self._guard, id, version)

    @governed
    def history(self, id: str) -> History:
        """Every version of a cube, oldest first, tombstones included; `.revisions` say who, when and why.

        Raises NotFound. O(versions).
        """
        return history(self._vault, id)

    @governed
    def changes(
        self,
        *,
        user: ScopeField = ANY,
        agent: ScopeField = ANY,
        session: ScopeField = ANY,
        everyone: bool = False,
        after: int = 0,
        limit: int = 1000,
    ) -> Sequence[LoggedChange]:
        """What was changed, in the order of the log: which call, when, by whom, why, and which cubes.

        after: the `.seq` of the last one seen. O(changes).
        """
        reach = Reach.of(user, agent, session, everyone=everyone)
        with self._vault.snapshot() as snapshot:
            self._guard.require_reach(snapshot.transaction, reach)
            return changes(snapshot, reach, after=after, limit=limit)

    @governed
    def open_blob(self, id: str) -> BinaryIO:
        """The large payload (tensors) of a cube's current state, to be read and closed. Raises NotFound."""
        return self._vault.open_blob(self.get(id))

    @governed
    def explain(self, id: str) -> Explanation:
        """Where a cube comes from, down to what was told, and what was made from it, all the way up.

        Raises NotFound. O(citations followed).
        """
        return explain(self._vault, id)

    @governed
    def facts(
        self,
        *,
        user: ScopeField = ANY,
        agent: ScopeField = ANY,
        session: ScopeField = ANY,
        everyone: bool = False,
        subject: str | None = None,
        attribute: str | None = None,
        past: bool = False,
        as_of: TimeLike | None = None,
        valid_at: TimeLike | None = None,
        limit: int = 1000,
    ) -> Sequence[Fact]:
        """What is known of whom: facts that hold, each with the turns that it rests on.

        subject, attribute: only those whose names hold these words. past: also those that hold no more.
        as_of, valid_at: as in `search`. Facts are derived in the background; `flush()` waits for them.
        O(facts within reach).
        """
        reach = Reach.of(user, agent, session, everyone=everyone)
        names = {"subject": subject, "attribute": attribute}
        return facts(self._recall, reach, **names, past=past, as_of=as_of, valid_at=valid_at, limit=limit)

    def where(self) -> str:
        """Where this memory is kept: a path, or a URL without its password."""
        return self._vault.database.location

    # --- keeping

    def scope(
        self, *, user: str | None = None, agent: str | None = None, session: str | None = None
    ) -> ScopedMemory:
        """A handle bound to a scope: `ana = mem.scope(user="ana"); ana.add(…); ana.search(…)`."""
        self._scope(user, agent, session)
        return ScopedMemory(self, user=user, agent=agent, session=session)

    @governed
    def flush(self, progress: Progress | None = None) -> int:
        """Do all background work that is due: derive, rebuild what is stale, embed what is pending.

        What reading left behind (audited reads, uses) is written too. Returns how many cubes were embedded; a
        principal is not told: 0. What fails stays listed in `jobs()`. Raises ModelError.
        Also goes on with overwriting what an erase could not reach yet.
        """
        self._guard.flush()
        self._worker.flush()
        finish(self._vault)
        embedded = self._parts.pending.flush(progress)
        return embedded if self._guard.name is None else 0

    @governed
    def jobs(self) -> Sequence[Job]:
        """Background work that is not done: what waits, what was put off, and what is dead and why.

        For the owner or an admin of everything: what failed may quote content.
        """
        self._guard.require_admin("see the background work")
        with self._vault.snapshot() as snapshot:
            return listed(snapshot.transaction, self._vault.tenant, self._vault.clock())

    @governed
    def rerun(self, job: str) -> None:
        """Let a job that is dead or put off be done now. Raises NotFound, AccessDenied as `jobs` does."""
        self._guard.require_admin("rerun background work")
        with self._vault.database.write() as transaction:
            if not rerun(transaction, self._vault.tenant, job, self._vault.clock()):
                raise NotFound(f"no job {job} in this vault; it may be done. jobs() lists what is not")
        self._worker.kick()

    @governed
    def health(self) -> Health:
        """Whether background work gets done: not `ok` where something is dead or overdue. O(jobs + users).

        For the owner or an admin of everything.
        """
        self._guard.require_admin("see the background work")
        readers = [one.name for one in self._derivation.derivers]
        error = self._worker.last_error or self._parts.pending.last_error
        return health(self._vault, readers, last_error=error)

    def close(self) -> None:
        """Give the file back. What was acknowledged is safe with or without it."""
        try:
            self._guard.close()
        finally:
            if not self._shares:
                self._worker.close()
                self._parts.close()

    def _kick(self) -> None:
        self._worker.kick()
        self._parts.pending.kick()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<mnemic.Memory {self.where()}>"


class ScopedMemory:
    """A Memory with user, agent and session filled in, which no call can turn to somebody else's.

    A field that was not named is "unset" in a write and matches any in a read, and a call may name it.
    """

    def __init__(self, memory: Memory, *, user: str | None, agent: str | None, session: str | None) -> None:
        self.memory = memory
        named = {"user": user, "agent": agent, "session": session}
        self._bound = {field: name for field, name in named.items() if name is not None}

    def add(self, /, content: str | Message | Sequence[str | Message], **options: Any) -> Added:
        return self.memory.add(content, **self._with(options))

    def load_file(self, /, path: str | os.PathLike[str], **options: Any) -> Imported:
        return self.memory.load_file(path, **self._with(options))

    def delete(self, /, *, where: Where, **options: Any) -> Change:
        return self.memory.delete(where=where, **self._with(options))

    def erase(self, /, **options: Any) -> Certificate:
        return self.memory.erase(**self._with(options))

    def dump(self, /, path: str | os.PathLike[str], **options: Any) -> Dumped:
        return self.memory.dump(path, **self._with(options))

    def search(self, /, question: str, **options: Any) -> Hits:
        return self.memory.search(question, **self._with(options))

    def context(self, /, question: str, **options: Any) -> Context:
        return self.memory.context(question, **self._with(options))

    def ask(self, /, question: str, **options: Any) -> Answer:
        return self.memory.ask(question, **self._with(options))

    def facts(self, /, **options: Any) -> Sequence[Fact]:
        return self.memory.facts(**self._with(options))

    def list(self, /, **options: Any) -> Page:
        return self.memory.list(**self._with(options))

    def count(self, /, **options: Any) -> int:
        return self.memory.count(**self._with(options))

    def __repr__(self) -> str:
        return f"<mnemic.ScopedMemory {self._bound} of {self.memory.where()}>"

    def _with(self, options: dict[str, Any]) -> dict[str, Any]:
        for field, name in self._bound.items():
            if options.get(field, name) != name:
                raise InvalidOption(
                    f"this handle is bound to {field}={name!r}; for {field}={options[field]!r:.80} ask "
                    "the Memory itself, or make another handle with scope(…)"
                )
        return {**options, **self._bound}


def _moment(value: TimeLike | None) -> int | None:
    return None if value is None else to_micros(value, field="asked_at")
