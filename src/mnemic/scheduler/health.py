"""Does the background work get done? What waits, what has failed, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mnemic.vault import deriving, jobs
from mnemic.vault.jobs import Job
from mnemic.vault.vault import Vault

OVERDUE: Final = 900 * 1_000_000  # µs that work may wait before something is wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """ok: nothing is dead or overdue. waiting: jobs that are not done, `dead` of them given up.

    unread: versions that derivers have still to read. oldest_s: how long the oldest of all that has waited.
    """

    ok: bool
    waiting: int
    dead: int
    unread: int
    oldest_s: float
    last_error: str | None = None


def health(vault: Vault, readers: Sequence[str], *, last_error: str | None = None) -> Health:
    """O(jobs + spaces)."""
    moment = vault.clock()
    with vault.snapshot() as snapshot:
        listed = jobs.listed(snapshot.transaction, vault.tenant, moment)
        behind = [
            one for reader in readers for one in deriving.behind(snapshot.transaction, vault.tenant, reader)
        ]
    waits = [_since(job, moment) for job in listed if not job.dead]
    waits += [moment - at for _, _, _, at in behind]
    oldest = max((one for one in waits if one > 0), default=0)
    dead = sum(job.dead for job in listed)
    return Health(
        ok=not dead and oldest < OVERDUE,
        waiting=len(listed),
        dead=dead,
        unread=sum(last - read for _, last, read, _ in behind),
        oldest_s=oldest / 1e6,
        last_error=next((job.error for job in listed if job.error), last_error),
    )


def _since(job: Job, moment: int) -> int:
    """How long a job has been due, in µs; negative where it is put off."""
    return moment - int(job.run_after.timestamp() * 1e6)
