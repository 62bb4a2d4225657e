"""A thread that does what changes have caused: reads on where derivers are behind, and works off the outbox.

It knows neither derivers nor kinds of jobs, only how to call them. Nothing waits for it but `flush`; what it
has not done when the process ends is done by whoever opens the vault next.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from mnemic.cube.errors import MnemicError, VaultTooNew
from mnemic.vault import jobs
from mnemic.vault.database import ForkSafeLock
from mnemic.vault.jobs import Job
from mnemic.vault.vault import Vault

QUIET_S: Final = 0.25  # nobody has called for so long: callers go first, and a batch is cheaper than messages
NOISY_S: Final = 5.0  # while callers leave no such pause, work waits so long before it begins all the same
SHARE: Final = 0.2  # and then takes this part of the time
LONGEST_PAUSE_S: Final = 60.0  # while something keeps failing
IDLE_S: Final = 10.0  # after which the thread ends; the next change starts another
LEASED: Final = 8

Handler = Callable[[Job], object]


class Worker:
    """catch_up: reads one batch of all that is behind and says how many versions that was; handlers: by kind

    of job, what does it. Both may be called twice for the same work. Its thread gives way to callers, who
    share the interpreter with it.
    """

    def __init__(self, vault: Vault, *, catch_up: Callable[[], int], handlers: Mapping[str, Handler]) -> None:
        self._vault = vault
        self._catch_up = catch_up
        self._handlers = dict(handlers)
        self._one_at_a_time = ForkSafeLock()
        self.last_error: str | None = None
        self._called_at = 0.0
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._kicked, self._closing = threading.Event(), threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def give_way(self) -> None:
        """Somebody is calling: whatever is not begun yet waits. O(1)."""
        self._called_at = time.monotonic()

    def kick(self) -> None:
        """There may be something to do. Returns at once. O(1)."""
        self.give_way()
        if self._pid != os.getpid():  # a forked child has no thread, and maybe a lock that is never released
            self._renew()
        if self._kicked.is_set() or self._closing.is_set():
            return
        with self._starting:
            self._kicked.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mnemic-worker", daemon=True)
                self._thread.start()

    def flush(self) -> int:
        """Do all that is due, in this thread; how many versions were read and jobs tried.

        What failed stays in the outbox (`jobs`), to be tried again later. O(what is due).
        """
        done = 0
        while made := self._some():
            done += made
        return done

    def _some(self) -> int:
        """One batch of what is due."""
        with self._one_at_a_time:
            return self._work_off() + self._catch_up()  # reading may raise: what is due was done

    def close(self) -> None:
        """Stop. What is not done stays so, durably, until the next open."""
        if self._pid != os.getpid():
            return
        self._closing.set()
        self._kicked.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5)

    def _run(self) -> None:
        pause = QUIET_S
        while not self._closing.is_set():
            due = self._until_due()
            if not self._kicked.wait(IDLE_S if due is None else due) and due is None and self._has_ended():
                return
            self._kicked.clear()
            try:
                self._do_all_in_turn()
                self.last_error, pause = None, QUIET_S
            except Exception as error:  # noqa: BLE001  # a deriver may raise anything; `health` says it
                self.last_error = f"{type(error).__name__}: {error}"
                pause = min(2 * pause, LONGEST_PAUSE_S)
                self._closing.wait(pause)
                self._kicked.set()

    def _do_all_in_turn(self) -> None:
        """All that is due, a batch at a time, each when callers are quiet or have had their share."""
        theirs = NOISY_S
        while self._waits_for_quiet(theirs):
            begun = time.monotonic()
            if not self._some():
                return
            theirs = (time.monotonic() - begun) * (1 / SHARE - 1)

    def _waits_for_quiet(self, longest: float) -> bool:
        """Until nobody has called for QUIET_S, or `longest` is over; False where this is to end."""
        until = time.monotonic() + longest
        while (rest := min(self._called_at + QUIET_S, until) - time.monotonic()) > 0:
            if self._closing.wait(rest):
                return False
        return not self._closing.is_set()

    def _has_ended(self) -> bool:
        """A thread with nothing to do ends, so that a memory nobody closes is not kept for ever."""
        with self._starting:
            if not self._kicked.is_set():
                self._thread = None
            return self._thread is None

    def _until_due(self) -> float | None:
        """Seconds until a job that was put off is due."""
        try:
            with self._vault.database.read() as transaction:
                due = jobs.next_due(transaction, self._vault.tenant)
        except MnemicError:
            return None
        return None if due is None else max(0.0, (due - self._vault.clock()) / 1e6)

    def _work_off(self) -> int:
        """Do the jobs that are due, a few at a time; how many were tried: each that fails is put off."""
        with self._vault.database.read() as transaction:
            due = jobs.next_due(transaction, self._vault.tenant)
        if due is None or due > self._vault.clock():
            return 0
        with self._vault.database.write() as transaction:
            leased = jobs.lease(transaction, self._vault.tenant, self._vault.clock(), LEASED)
        for job in leased:
            self._do(job)
        return len(leased)

    def _do(self, job: Job) -> None:
        error = None
        try:
            if job.kind not in self._handlers:
                raise VaultTooNew(f"this version of mnemic knows no jobs of kind {job.kind!r}: upgrade it")
            self._handlers[job.kind](job)
        except Exception as caught:  # noqa: BLE001  # whatever it is, the job says so and is tried again
            error = f"{type(caught).__name__}: {caught}"
        with self._vault.database.write() as transaction:
            if error is None:
                jobs.done(transaction, self._vault.tenant, job)
            else:
                jobs.failed(transaction, self._vault.tenant, job, error, self._vault.clock())
