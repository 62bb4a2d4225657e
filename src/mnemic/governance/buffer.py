"""What reading leaves behind, written in batches: audited reads, and uses.

A crash loses at most `WAIT_S` of it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from mnemic.cube.errors import MnemicError
from mnemic.vault.database import Deed, ForkSafeLock
from mnemic.vault.governing import Use

WAIT_S: Final = 0.5
Write = Callable[[Sequence[Deed], Mapping[bytes, Use]], None]


class Buffer:
    """Thread-safe; a forked child starts empty. A failed write is raised by the next read that is noted."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._lock, self._one_at_a_time = ForkSafeLock(), ForkSafeLock()
        self._deeds: list[Deed] = []
        self._uses: dict[bytes, Use] = {}
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._closing = False
        self._failed: MnemicError | None = None

    def note(self, deeds: Iterable[Deed], used: Iterable[bytes], at: int) -> None:
        """Take in what was read. Raises what went wrong when the batch before was written."""
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed
        with self._lock:
            if os.getpid() != self._pid:  # what a parent noted is the parent's to write
                self._pid, self._deeds, self._uses = os.getpid(), [], {}
                self._thread, self._wake = None, threading.Event()
            self._deeds += deeds
            for cube in used:
                self._uses[cube] = Use(self._uses.get(cube, Use(0, 0)).uses + 1, at)
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._run, name="mnemic-reads", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Write what there is, now. Raises VaultError; then nothing is lost."""
        with self._one_at_a_time:
            with self._lock:
                deeds, self._deeds = self._deeds, []
                uses, self._uses = self._uses, {}
            if not deeds and not uses:
                return
            try:
                self._write(deeds, uses)
            except BaseException:
                with self._lock:
                    self._deeds = deeds + self._deeds
                    for cube, use in self._uses.items():
                        uses[cube] = Use(uses.get(cube, Use(0, 0)).uses + use.uses, use.last_used)
                    self._uses = uses
                raise

    def close(self) -> None:
        self._closing = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)
        if os.getpid() == self._pid:
            self.flush()

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(WAIT_S)
            try:
                self.flush()
            except MnemicError as error:
                self._failed = error
