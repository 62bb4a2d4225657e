"""Runs derivers over a vault: over what is new in a log, and over what has become stale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from mnemic.cube.ids import id_text
from mnemic.cube.model import Kind
from mnemic.plaintext.derive.deriver import BATCH, Deriver, Later, Look
from mnemic.plaintext.ingest.features import FeatureMaker, speaker_of, utterance
from mnemic.vault import deriving, jobs
from mnemic.vault.deriving import Moved, Put, Reading, State
from mnemic.vault.vault import Vault

TRIES: Final = 5  # plans that others overtake, before it is left for later


class Derivation:
    """The derivers of an open memory. Thread-safe as the vault is; several processes may run the same."""

    def __init__(self, vault: Vault, maker: FeatureMaker, derivers: Sequence[Deriver]) -> None:
        self._vault, self._maker = vault, maker
        self.derivers = tuple(derivers)

    def catch_up(self) -> int:
        """Read one batch of every space and deriver that is behind; how many versions that was. O(spaces).

        One that fails, such as when its model is down, keeps no other from its work: what it raised is raised
        when there is nothing else left to read.
        """
        done, failed = 0, None
        for deriver in self.derivers:
            try:
                with self._vault.snapshot() as snapshot:
                    spaces = deriving.behind(snapshot.transaction, self._vault.tenant, deriver.name)
                for space, *_ in spaces:
                    done += self._tried(partial(self._read_on, space, deriver))
            except Exception as error:  # noqa: BLE001  # a deriver may raise anything
                failed = failed or error
        if failed is not None and not done:
            raise failed
        return done

    def rebuild(self, space: int) -> int:
        """Make anew, or drop, what is stale in a space; how many cubes were written."""
        done = 0
        for deriver in self.derivers:
            while made := self._tried(partial(self._renew, space, deriver)):
                done += made
        return done

    def _tried(self, act: Callable[[], int]) -> int:
        for _ in range(TRIES):
            try:
                return act()
            except Moved:
                continue
        return 0

    def _read_on(self, space: int, deriver: Deriver) -> int:
        with self._vault.snapshot() as snapshot:
            position = snapshot.position(space)
            if position is None:
                return 0
            start = jobs.read_to(
                snapshot.transaction, self._vault.tenant, space, deriver.name, position.epoch
            )
            batch = getattr(deriver, "batch", BATCH)
            states = deriving.states_after(self._vault, snapshot.transaction, space, start, batch)
            end = states[-1].seq if len(states) == batch else position.seq
            fresh = [state for state in states if deriver.wants(state.cube)]
            made = deriver.derive(fresh, (), Look(snapshot, space)) if fresh else []
        if end == start:
            return 0
        plan = _now(made)
        reading = Reading(deriver.name, position.epoch, start, end)
        deriving.settle(self._vault, space, self._with_features(plan), reading)
        return end - start

    def _renew(self, space: int, deriver: Deriver) -> int:
        with self._vault.snapshot() as snapshot:
            look = Look(snapshot, space)
            found = look.states(id_text(cube) for cube in snapshot.stale(space)).values()
            stale = [one for one in found if one.cube.header.method == deriver.name and not _is_gone(one)]
            made = deriver.derive((), stale[:BATCH], look) if stale else []
        plan = _now(made)
        if plan:
            deriving.settle(self._vault, space, self._with_features(plan), None)
        return len(plan)

    def _with_features(self, plan: Sequence[Put]) -> list[Put]:
        """Write-time features of what can be found by its words."""
        drafts = [put.draft for put in plan]
        said = [
            utterance(draft.payload.decode(), (), speaker_of(draft))
            for draft in drafts
            if not draft.deleted and draft.kind is Kind.plaintext
        ]
        made = iter(self._maker.make(said))
        return [
            put
            if put.draft.deleted or put.draft.kind is not Kind.plaintext
            else replace(put, draft=replace(put.draft, features=next(made)))
            for put in plan
        ]


def _now(made: Sequence[Put] | Later) -> list[Put]:
    return list(made() if callable(made) else made)


def _is_gone(state: State) -> bool:
    return state.cube.deleted or state.cube.header.frozen
