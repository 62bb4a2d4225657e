"""Random operations on a memory beside a small reference model: both must say the same, whatever happens.

    python tests/governance/trust.py --steps 10000

Five principals and the owner, three tenants, a fake clock. `Model` says what a memory must answer; `House`
asks a real one. Outcomes are ("ok", value), or ("denied",), ("missing",), ("held",), ("frozen",),
("invalid",).
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from clocks import HOUR, START, FakeClock

import mnemic
from mnemic.cube.errors import AccessDenied, Frozen, InvalidOption, LegalHold, NotFound
from mnemic.cube.ids import id_text, named_id
from mnemic.vault.codec import mac

TENANTS = ("red", "green", "blue")
WHO = ("ada", "bob", "cyd", "dan", "eve")
USERS = ("u1", "u2", "u3")
Op = tuple[str, str, str | None, tuple[Any, ...]]
Outcome = tuple[Any, ...]
DENIED, MISSING, HELD, FROZEN, INVALID = ("denied",), ("missing",), ("held",), ("frozen",), ("invalid",)
ON_CUBES = ("update", "delete", "get", "history", "explain", "again", "restore", "freeze", "thaw")
READS = ("past", "list", "count", "search", "context", "ask", "sessions", "users")


@dataclass(frozen=True)
class Said:
    """One version: what, when, and whether it is frozen. None: deleted."""

    text: str | None
    at: int
    frozen: bool = False


@dataclass
class Cube:
    user: str
    session: str | None
    labels: tuple[str, ...]
    said: list[Said]
    swept: bool = False

    @property
    def text(self) -> str | None:
        return self.said[-1].text

    @property
    def lasting(self) -> Said:
        """The version that counts for how long it is kept: the last that said something."""
        return next(one for one in reversed(self.said) if one.text is not None)


@dataclass
class Model:
    """One tenant, as it must be."""

    now: int = START
    cubes: dict[str, Cube] = field(default_factory=dict)
    grants: list[tuple[str | None, str, str | None, str | None, str | None]] = field(default_factory=list)
    policies: list[tuple[int | None, str | None, str | None]] = field(default_factory=list)  # None: a hold
    disabled: set[str] = field(default_factory=set)

    def may(self, who: str | None, right: str, user: str | None, labels: tuple[str, ...] | None) -> bool:
        """labels None: on anything of the user; user None: of anybody."""
        return who is None or any(
            name in (None, who)
            and right in rights
            and (whose is None or user is None or whose == user)
            and (labels is None or ((label is None or label in labels) and unless not in labels))
            for name, rights, whose, label, unless in self.grants
        )

    def rules(self, cube: Cube) -> list[int | None]:
        return [
            span
            for span, user, label in self.policies
            if user in (None, cube.user) and (label is None or label in cube.labels)
        ]

    def over(self, cube: Cube, said: Said | None = None) -> bool:
        said = said or cube.lasting
        spans = [span for span in self.rules(cube) if span is not None]
        safe = None in self.rules(cube) or said.frozen
        return cube.swept or (not safe and any(said.at + span <= self.now for span in spans))

    def seen(self, who: str | None, user: str | None) -> set[str]:
        return {
            name
            for name, cube in self.cubes.items()
            if user in (None, cube.user)
            and cube.text is not None
            and not self.over(cube)
            and self.may(who, "read", cube.user, cube.labels)
        }

    def looks(self, who: str | None, cube: Cube | None) -> bool:
        """Whether it is there for them, live or deleted."""
        if cube is None or self.over(cube) or not self.may(who, "read", cube.user, cube.labels):
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
                return "ok", self.past(who, *args)
            if kind == "count":
                return "ok", len(seen)
            if kind == "sessions":
                return "ok", {(self.cubes[name].user, self.cubes[name].session) for name in seen}
            if kind == "users":
                told = self.cubes.values() if who is None else [self.cubes[name] for name in seen]
                return "ok", {cube.user for cube in told}
            return "ok", {self.cubes[name].text for name in seen}
        return getattr(self, f"do_{kind}")(who, *args)  # type: ignore[no-any-return]

    def past(self, who: str | None, user: str, moment: int) -> set[str]:
        """What was known at a moment of what may be seen now."""
        out = set()
        for cube in self.cubes.values():
            then = [one for one in cube.said if one.at <= moment][-1:]
            known = cube.user == user and then and then[0].text is not None
            if known and self.looks(who, cube) and not self.over(cube, then[0]):
                out.add(then[0].text)
        return out

    def do_add(
        self, who: str | None, name: str, user: str, session: str | None, labels: tuple[str, ...]
    ) -> Outcome:
        if not self.may(who, "write", user, labels):
            return DENIED
        self.cubes[name] = Cube(user, session, labels, [Said(f"{name} said 1", self.now)])
        return "ok", 1

    def do_again(self, who: str | None, name: str) -> Outcome:
        """Told once more, with the id it has: stored by nobody, and given back to who may see it."""
        cube = self.cubes[name]
        if not self.may(who, "write", cube.user, cube.labels):
            return DENIED
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
        return "ok", 1

    def do_delete(self, who: str | None, name: str) -> Outcome:
        cube = self.cubes[name]
        if not self.looks(who, cube):
            return MISSING
        if cube.text is None:
            return "ok", 0
        if cube.said[-1].frozen:
            return FROZEN
        if self.may(who, "write", cube.user, cube.labels) and None in self.rules(cube):
            return HELD
        return self.follows(who, cube, None)

    def do_restore(self, who: str | None, name: str, number: int) -> Outcome:
        cube = self.cubes[name]
        over = self.over(cube)
        hidden = not self.may(who, "read", cube.user, cube.labels) or (
            cube.text is None and not self.may(who, "write", cube.user, cube.labels)
        )
        if hidden or number > len(cube.said):
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

    def do_history(self, who: str | None, name: str) -> Outcome:
        cube = self.cubes[name]
        return ("ok", [one.text for one in cube.said]) if self.looks(who, cube) else MISSING

    do_explain = do_history

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
        over = [cube for cube in self.cubes.values() if cube.text is not None and self.over(cube)]
        for cube in over:
            cube.said.append(Said(None, self.now))
            cube.swept = True
        return "ok", len(over)


class House:
    """One tenant of a real memory."""

    def __init__(self, path: str, tenant: str, clock: FakeClock, model: Model) -> None:
        self.clock, self.tenant, self.model = clock, tenant, model
        self.owner = mnemic.open(path, tenant=tenant, clock=clock)
        known = {one.name for one in self.owner.governance.principals()}
        for name in WHO:
            if name not in known:
                self.owner.governance.add_principal(name)
        self._open: dict[str, mnemic.Memory] = {}

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

    def do_history(self, memory: mnemic.Memory, name: str) -> Any:
        return [None if one.deleted else one.text for one in memory.history(self.id(name))]

    def do_explain(self, memory: mnemic.Memory, name: str) -> Any:
        return [None if one.deleted else one.text for one in memory.explain(self.id(name)).history]

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

    def do_policy(self, memory: mnemic.Memory, span: int | None, user: str | None, label: str | None) -> Any:
        rule = "legal hold" if span is None else f"keep {span // (HOUR // 60)} minutes"
        memory.policies.add(rule, **({} if user is None else {"user": user}), label=label)
        return 1

    def do_drop(self, memory: mnemic.Memory, number: int) -> Any:
        memory.policies.drop(memory.policies.list()[number].id)
        return 1

    def do_forward(self, memory: mnemic.Memory, hours: int) -> Any:  # noqa: ARG002
        self.clock.forward(hours * HOUR)
        return 1

    def do_sweep(self, memory: mnemic.Memory) -> Any:
        return memory.retention.sweep().expired

    def close(self) -> None:
        self.owner.close()


def an_op(rng: random.Random, models: dict[str, Model], number: int) -> Op:
    """The next operation: it depends on the model alone, so that another process can make the same."""
    tenant = rng.choice(TENANTS)
    model = models[tenant]
    who = rng.choice((*WHO, None))
    kinds = ["add"] * 6 + [*READS] * 2
    kinds += [*ON_CUBES] * 2 if model.cubes else []
    admin = ["grant"] * 3 + ["forward", "policy"] + ["revoke"] * (2 if model.grants else 0)
    admin += ["drop"] * (2 if len(model.policies) > 1 else 0) + ["disable", "enable", "sweep"]
    kind = rng.choice(admin if rng.random() < 0.2 else kinds)
    label = rng.choice((None, None, "x", "y"))
    if kind in ON_CUBES:
        name = rng.choice(list(model.cubes)[-40:])
        return kind, tenant, who, (name, rng.randrange(1, 5)) if kind == "restore" else (name,)
    if kind == "add":
        labels = rng.choice(((), (), ("x",), ("y",), ("x", "y")))
        return kind, tenant, who, (f"n{number}", rng.choice(USERS), rng.choice((None, "s")), labels)
    if kind == "users":
        return kind, tenant, who, ()
    if kind == "past":
        moment = model.now - rng.randrange(1, 30) * HOUR + HOUR // 2
        return kind, tenant, who, (rng.choice(USERS), moment)
    if kind in READS:
        return kind, tenant, who, (rng.choice(USERS),)
    if kind == "grant":
        whose = rng.choice((*USERS, None))
        rights = rng.choice(("read", "read,write", "write"))
        unless = rng.choice((None, None, "x", "y"))
        return kind, tenant, None, (rng.choice((*WHO, None)), rights, whose, label, unless)
    if kind == "policy":
        span = rng.choice((None, *(hours * HOUR + HOUR // 2 for hours in (1, 5, 20))))
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
                for kind, args in (*(("list", (user,)) for user in USERS), ("users", ())):
                    found, expected = house.do(kind, who, args), model.do(kind, who, args)
                    if found != expected:
                        out.append(f"{tenant} {who} {kind} {args}: {found}, must be {expected}")
            for name in list(model.cubes)[-60:]:
                if house.do("history", None, (name,)) != model.do("history", None, (name,)):
                    out.append(f"{tenant} history of {name}")
            verdict = house.owner.audit.verify()
            out += [f"{tenant} audit: {problem}" for problem in verdict.problems]
        return out


def run(path: str, *, seed: int, steps: int, every: int = 500) -> int:
    """So many steps in one process; how many operations were refused."""
    world = World(path, seed)
    world.open()
    try:
        for step in range(steps):
            world.check()
            if step % every == every - 1:
                assert (found := world.differences()) == [], found
        assert (found := world.differences()) == [], found
        return sum(len(house.owner.audit.log(denied=True, limit=10**6)) for house in world.houses.values())
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
    parser.add_argument("--live", nargs=2, type=int, metavar=("SKIP", "KILL_AT"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.live:
        live(chosen.path, chosen.seed, *chosen.live)
        return 0
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        refused = run(f"{folder}/a.db", seed=chosen.seed, steps=chosen.steps)
    print(f"{chosen.steps} operations, {refused} refused and on record: as the model says, every one")
    return 0


if __name__ == "__main__":
    sys.exit(main())
