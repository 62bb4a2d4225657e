"""What rules ask of a stored row: its labels, whether it is frozen or pinned, and what becomes of it."""

from __future__ import annotations

import json

from mnemic.cube.model import Scope
from mnemic.governance.retention import Fate, fate_of
from mnemic.governance.rules import Rules
from mnemic.vault.codec import Stored
from mnemic.vault.governing import Use


def is_frozen(header: bytes) -> bool:
    """Whether a stored header is that of a frozen cube: it does not expire."""
    return b'"frozen":true' in header and bool(json.loads(header).get("frozen"))


def is_pinned(header: bytes) -> bool:
    """Whether a stored header is that of a pinned cube: it counts as in use."""
    return b'"pinned":true' in header and bool(json.loads(header).get("pinned"))


def labels_of(header: bytes) -> tuple[str, ...]:
    """The labels in a stored header. O(1) for one without."""
    if b'"labels":' not in header:
        return ()
    return tuple(json.loads(header).get("labels", ()))


def fate_in(rules: Rules, scope: Scope, row: Stored, use: Use | None) -> Fate:
    """What becomes of a version that is the last to say something."""
    return fate_of(
        rules.policies,
        scope,
        labels_of(row.header),
        recorded_at=row.recorded_at,
        expires_at=row.expires_at,
        use=use,
        frozen=is_frozen(row.header),
        pinned=is_pinned(row.header),
    )
