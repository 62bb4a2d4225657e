"""Embeddings that come after the commit: a remote embedder never stands between a caller and durability.

What is pending needs no list of its own: it is every live cube without a feature of the active embedder.
"""

from __future__ import annotations

import os
import threading

from mnemic.cube.errors import TextsRefused
from mnemic.plaintext.ingest.features import FeatureMaker, Progress, embed_pending
from mnemic.vault.database import ForkSafeLock
from mnemic.vault.vault import Vault

FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0


class PendingEmbeddings:
    """A thread that embeds what is pending, with growing pauses while the embedder fails.

    Idle for inline ones.
    """

    def __init__(self, vault: Vault, maker: FeatureMaker) -> None:
        self._vault = vault
        self._maker = maker
        self._one_at_a_time, self._starting = ForkSafeLock(), ForkSafeLock()
        self.last_error: str | None = None
        self._refused: dict[tuple[int, int], int] = {}  # how often the embedder failed on (space, seq)
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._work, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def kick(self) -> None:
        """There may be something to embed. Returns at once."""
        if self._maker.embedder.inline:
            return
        with self._starting:
            if self._pid != os.getpid():  # a forked child has no thread
                self._renew()
            if self._closing.is_set():
                return
            self._work.set()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="mnemic-embeddings", daemon=True)
                self._thread.start()

    def flush(self, progress: Progress | None = None) -> int:
        """Embed all that is pending now, in this thread; how many.

        Raises ModelError when the embedder fails; TextsRefused, when others are done, if on some alone.
        """
        with self._one_at_a_time:
            self._refused.clear()
            return self._embed(progress)

    def _embed(self, progress: Progress | None = None) -> int:
        maker = self._maker
        done = embed_pending(self._vault, maker.dense, maker.embed, progress, refused=self._refused)
        if not self._refused:
            self.last_error = None
        return done

    def close(self) -> None:
        """Stop. What is pending stays so, durably, until the next open."""
        if self._pid != os.getpid():
            return
        self._closing.set()
        self._work.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        wait = FIRST_WAIT_S
        while not self._closing.is_set():
            self._work.wait()
            self._work.clear()
            if self._closing.is_set():
                return
            try:
                with self._one_at_a_time:
                    self._embed()
                wait = FIRST_WAIT_S
            except TextsRefused as error:  # once more, then no more: others must not wait for them
                self.last_error = str(error)
                self._closing.wait(FIRST_WAIT_S)
                self._work.set()
            except Exception as error:  # noqa: BLE001  # an embedder may raise anything; `health` says it
                self.last_error = f"{type(error).__name__}: {error}"
                self._closing.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT_S)
                self._work.set()
