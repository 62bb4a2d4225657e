"""What may not be stored is taken out of what was told, before it is cut, digested, embedded or stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from mnemic.cube.errors import InvalidInput
from mnemic.cube.model import Scope
from mnemic.governance.guard import Guard
from mnemic.plaintext.ingest.told import Skipped, Told
from mnemic.vault.codec import Secret


class Cleaned:
    """Takes it out for one scope, and counts it by kind. Names of scopes are the caller's keys and stay."""

    def __init__(self, guard: Guard, scope: Scope) -> None:
        self._guard, self._scope = guard, scope
        self.counts: Counter[str] = Counter()
        self.sealed: Counter[str] = Counter()  # of those, what is kept and can be revealed

    def told(self, one: Told, *, vectors: object = None) -> Told:
        """Text, name, labels and metadata cleaned; itself where nothing was found.

        Raises InvalidInput for an id that holds what may not be stored, and for vectors of a text that does.
        """
        scope = self._scope if one.session is None else self._scope._replace(session=one.session)
        redaction = self._guard.redaction(scope, one.labels)
        if not redaction.detectors:
            return one
        self._guard.check_id(redaction, one.id)
        counts: Counter[str] = Counter()
        secrets: list[Secret] = []
        cleaned = replace(
            one,
            text=redaction.clean(one.text, counts, secrets),
            name=redaction.clean(one.name, counts) if one.name else one.name,
            labels=tuple(dict.fromkeys(redaction.clean(label, counts) for label in one.labels)),
            metadata=redaction.clean_value(dict(one.metadata), counts),
            source=redaction.clean(one.source, counts) if one.source else one.source,
            secrets=tuple(secrets),
        )
        if vectors is not None and cleaned.text != one.text:
            raise InvalidInput(
                "vectors were given for a text from which something must be taken out; they would keep a "
                "trace of it. Leave vectors out, or take it out yourself first"
            )
        self.counts += counts
        self.sealed += Counter(found.mark[1:-1] for found in secrets)
        return cleaned if counts else one

    def record(self, one: Told | Skipped) -> Told | Skipped:
        """A record of a file; one whose id may not be stored is reported."""
        if isinstance(one, Skipped):
            redaction = self._guard.redaction(None)
            return replace(
                one, reason=redaction.clean(one.reason), id=redaction.clean(one.id) if one.id else one.id
            )
        try:
            return self.told(one)
        except InvalidInput as error:
            return Skipped(where=f"{one.source or 'record'}:{one.line or '?'}", reason=str(error))

    def notes(self) -> Iterator[str]:
        for kind, count in self.counts.most_common():
            kept = self.sealed[kind]
            back = "that cannot be taken back" if not kept else f"{kept:,} sealed, for who may reveal them"
            yield f"{count:,} × {kind} taken out before storing; {back}"
