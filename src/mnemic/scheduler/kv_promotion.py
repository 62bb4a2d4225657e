"""Which texts a model should have read already: those in use, as many as fit (MemOS §4, §7).

The papers give no numbers; ours: a text is promoted to KV when it was used at least `uses` times in the last
`window` queries and has stood unchanged for `settled` of them. Beyond `bytes`, what was used longest ago goes
first. Everything is rebuilt from text at any time, so a wrong guess costs a prefill and nothing else.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from mnemic.activation.kv_description import Description
from mnemic.activation.kv_keeping import drop
from mnemic.cube.checks import require_count
from mnemic.cube.errors import InvalidOption, NotFound
from mnemic.cube.model import MemCube
from mnemic.cube.times import now, to_datetime
from mnemic.models.local import LocalModel
from mnemic.transform.text_to_kv import as_kv
from mnemic.vault.vault import Vault


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """When a text becomes KV. bytes: of all KV files together. Raises InvalidOption."""

    uses: int = 3
    window: int = 20
    settled: int = 10
    bytes: int = 1 << 30

    def __post_init__(self) -> None:
        require_count(uses=self.uses, window=self.window, bytes=self.bytes)
        require_count(minimum=0, settled=self.settled)
        if self.uses > self.window:
            raise InvalidOption(f"uses={self.uses} cannot come about in a window of {self.window}")


class KVShelf:
    """The KV cubes that one model has of single texts, by use. Not thread-safe.

    `use(cube)` counts a use and gives the KV cube to mount, or None while the text itself is to be shown.
    """

    def __init__(self, vault: Vault, model: LocalModel, policy: Promotion | None = None) -> None:
        self._vault, self._model = vault, model
        self.policy = policy or Promotion()
        self._recent: deque[str] = deque(maxlen=self.policy.window)
        self._queries = 0
        self._opened = to_datetime(now())
        self._seen: dict[str, tuple[str, int]] = {}  # text cube -> the version seen, and since which query
        self._kept: OrderedDict[str, MemCube] = OrderedDict()  # text cube -> KV cube, used longest ago first
        self._too_large: dict[str, str] = {}  # text cube -> the version whose KV the shelf cannot hold
        self.tokens_read = 0  # by building

    @property
    def resident_bytes(self) -> int:
        """Of the KV files on the shelf."""
        return sum(Description.of(one).size for one in self._kept.values())

    def use(self, cube: MemCube) -> MemCube | None:
        """One query that needs this text. Costs a prefill of it when it is promoted now.

        A KV whose text has changed is dropped, and the text has to settle again.
        """
        self._queries += 1
        self._recent.append(cube.id)
        if self._seen.get(cube.id, ("", 0))[0] != cube.version_id:
            old = cube.header.recorded_at <= self._opened  # it has stood since before the first query
            self._seen[cube.id] = (cube.version_id, 0 if old else self._queries)
        kept = self._kept.get(cube.id)
        if kept is not None:
            with self._vault.snapshot() as snapshot:
                current = snapshot.why_not_current(kept.id) is None
            if current:
                self._kept.move_to_end(cube.id)
                return kept
            self._remove(cube.id)
        return self._promote(cube) if self._is_due(cube) else None

    def _is_due(self, cube: MemCube) -> bool:
        if self._too_large.get(cube.id) == cube.version_id:
            return False
        settled = self._queries - self._seen[cube.id][1] >= self.policy.settled
        return settled and self._recent.count(cube.id) >= self.policy.uses

    def _promote(self, cube: MemCube) -> MemCube | None:
        made = as_kv(self._vault, [cube], self._model)
        told = Description.of(made)
        self.tokens_read += told.tokens
        self._kept[cube.id] = made
        if told.size > self.policy.bytes:
            self._too_large[cube.id] = cube.version_id
            self._remove(cube.id)
        while self.resident_bytes > self.policy.bytes:
            self._remove(next(iter(self._kept)))
        return self._kept.get(cube.id)

    def _remove(self, cube: str) -> None:
        kept = self._kept.pop(cube)
        try:
            drop(self._vault, kept.id, reason="demoted")
        except NotFound:  # somebody else dropped or erased it
            return
