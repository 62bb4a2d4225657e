"""Taking out what expired: tombstones, and a state that says why. What it said stays for as long as it can be
restored, and is served to nobody meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mnemic.cube.model import Scope, State
from mnemic.vault import governing
from mnemic.vault.codec import Stored, tombstone
from mnemic.vault.database import Transaction
from mnemic.vault.vault import Next, Vault

OP = "expire"
IsOver = Callable[[Transaction, Scope, Stored], bool]


def expire(vault: Vault, cubes: Sequence[str], is_over: IsOver, *, reason: str) -> int:
    """Tombstones for those of `cubes` that are over as of this transaction; how many. One transaction."""
    with vault.database.write() as transaction:
        vault._hold_spaces_of(transaction, cubes)
        over = []
        for space, row in vault._heads(transaction, cubes):
            names = vault._scope_names(transaction, space, row.scope)
            if not row.deleted and is_over(transaction, names, row):
                over.append(Next(space, row, tombstone(row)))
        vault._advance(transaction, over, op=OP, reason=reason)
        for was in State:
            mine = [step.head.cube for step in over if step.head.state == was]
            governing.set_state(transaction, vault.tenant, mine, int(was), int(State.expired))
    return len(over)
