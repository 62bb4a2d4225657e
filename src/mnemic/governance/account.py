"""What a guard puts on record: refusals at once, served reads and uses in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from mnemic.cube.errors import AccessDenied, InvalidOption, MnemicError, NotFound
from mnemic.cube.ids import id_bytes
from mnemic.cube.model import State
from mnemic.governance.buffer import Buffer
from mnemic.vault import governing
from mnemic.vault.database import Actor, Deed
from mnemic.vault.governing import Use
from mnemic.vault.vault import Vault

READS: Final = frozenset(
    "search context ask list facts count sessions users get history changes explain".split()  # noqa: SIM905
)
USES: Final = frozenset(("search", "context", "ask", "get"))
MOST_IDS: Final = 256  # of one read that stand in the audit log


class Account:
    """Of one actor of a vault. Thread-safe. audits_reads: allowed reads are chained too."""

    def __init__(self, vault: Vault, actor: Actor, *, audits_reads: bool) -> None:
        self._vault, self._actor = vault.as_actor(actor), actor
        self.audits_reads = audits_reads
        self._buffer = Buffer(self._write)

    def chain(self, *deeds: Deed) -> None:
        """Put into the audit log what no transaction of its own does. O(deeds), durable."""
        self._buffer.flush()
        with self._vault.database.write() as transaction:
            transaction.deeds += deeds

    def refused(
        self, verb: str, error: MnemicError, args: Sequence[Any], options: Mapping[str, Any], *, guest: bool
    ) -> None:
        """Chain a refusal, once however deep it came from."""
        nested, error.chained = error.chained, True
        if nested:
            return
        if isinstance(error, AccessDenied):
            self.chain(Deed(verb, error.target, allowed=False))
        elif isinstance(error, NotFound) and guest:
            # whether it is not there or not theirs, it looks the same
            self.chain(Deed(verb, b"".join(_named(args, options)), allowed=False))

    def served(self, verb: str, result: object, *, counts: bool) -> None:
        """Note what a verb gave back, to be chained and, where a rule `counts` uses, counted. O(ids)."""
        audits, counts = self.audits_reads and verb in READS, counts and verb in USES
        if audits or counts:
            ids = ids_in(result)
            at = self._vault.clock()
            target = b"".join(ids[:MOST_IDS])
            deeds = [Deed(verb, target, principal=self._actor.principal, at=at)] if audits else []
            self._buffer.note(deeds, ids if counts else (), at)

    def flush(self) -> None:
        """Write what reading left behind."""
        self._buffer.flush()

    def close(self) -> None:
        self._buffer.close()

    def _write(self, deeds: Sequence[Deed], uses: Mapping[bytes, Use]) -> None:
        with self._vault.database.write() as transaction:
            transaction.deeds += deeds
            if uses:
                tenant = self._vault.tenant
                governing.use(transaction, tenant, uses)
                for was in (State.generated, State.archived):
                    governing.set_state(transaction, tenant, sorted(uses), int(was), int(State.activated))


def ids_in(result: object) -> list[bytes]:
    """The ids of the cubes in what a verb gives back: hits, a context, a page, a cube, an explanation."""
    cubes: Any = getattr(result, "cubes", None)
    if cubes is None:
        cubes = result if isinstance(result, list | tuple) else [result]
    found = [getattr(one, "cube", one) for one in cubes]
    return [id_bytes(one.id) for one in found if hasattr(one, "version_id")]


def _named(args: Sequence[Any], options: Mapping[str, Any]) -> list[bytes]:
    """The ids that a call named."""
    said = options.get("id", options.get("ids", args[0] if args else None))
    out = []
    for one in [said] if isinstance(said, str) else said if isinstance(said, list | tuple) else ():
        try:
            out.append(id_bytes(one))
        except InvalidOption:
            continue
    return out[:MOST_IDS]
