"""A thread that does what changes have caused: reads on where derivers are behind, and works off the outbox.

It knows neither derivers nor kinds of jobs, only how to call them. Nothing waits for it but `flush`; what it
has not done when the process ends is done by whoever opens the vault next.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Final

from mnemic.cube.errors import MnemicError
from mnemic.vault import jobs
from mnemic.vault.database import ForkSafeLock
from mnemic.vault.jobs import Job
from mnemic.vault.vault import Vault

PAUSE_S: Final = 0.25  # between what was told and its being read: a batch is cheaper than its messages
LONGEST_PAUSE_S: Final = 60.0  # while something keeps failing
IDLE_S: Final = 10.0  # after which the thread ends; the next change starts another
LEASED: Final = 8

Handler = Callable[[Job], object]


class Worker:
    """catch_up: reads one batch of all that is behind and says how many versions that was; handlers: by kind

    of job, what does it. Both may be called twice for the same work.
    """

    def __init__(self, vault: Vault, *, catch_up: Callable[[], int], handlers: Mapping[str, Handler]) -> None:
        self._vault = vault
        self._catch_up = catch_up
        self._handlers = dict(handlers)
        self._one_at_a_time = ForkSafeLock()
        self.last_error: str | None = None
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._kicked, self._closing = threading.Event(), threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def kick(self) -> None:
        """There may be something to do. Returns at once. O(1)."""
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
        """Do all that is due, in this thread; how many versions were read and jobs done.

        What failed stays in the outbox (`jobs`), to be tried again later. O(what is due).
        """
        done = 0
        with self._one_at_a_time:
            while made := self._work_off() + self._catch_up():  # reading may raise: what is due was done
                done += made
        return done

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
        pause = PAUSE_S
        while not self._closing.is_set():
            due = self._until_due()
            if not self._kicked.wait(IDLE_S if due is None else due) and due is None and self._has_ended():
                return
            self._closing.wait(pause)
            if self._closing.is_set():
                return
            self._kicked.clear()
            try:
                self.flush()
                self.last_error, pause = None, PAUSE_S
            except Exception as error:  # noqa: BLE001  # a deriver may raise anything; `health` says it
                self.last_error = f"{type(error).__name__}: {error}"
                pause = min(2 * pause, LONGEST_PAUSE_S)
                self._kicked.set()

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
        """Do the jobs that are due, a few at a time; how many were done."""
        with self._vault.database.read() as transaction:
            due = jobs.next_due(transaction, self._vault.tenant)
        if due is None or due > self._vault.clock():
            return 0
        with self._vault.database.write() as transaction:
            leased = jobs.lease(transaction, self._vault.tenant, self._vault.clock(), LEASED)
        return sum(self._do(job) for job in leased)

    def _do(self, job: Job) -> bool:
        error = None
        try:
            if job.kind not in self._handlers:
                raise NotImplementedError(f"nothing here does jobs of kind {job.kind!r}")
            self._handlers[job.kind](job)
        except Exception as caught:  # noqa: BLE001  # whatever it is, the job says so and is tried again
            error = f"{type(caught).__name__}: {caught}"
        with self._vault.database.write() as transaction:
            if error is None:
                jobs.done(transaction, self._vault.tenant, job)
            else:
                jobs.failed(transaction, self._vault.tenant, job, error, self._vault.clock())
        return error is None
