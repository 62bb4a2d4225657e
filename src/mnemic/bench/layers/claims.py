"""Which layer remembers better than which, by its paper: an ordering each, held to the records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mnemic.bench.layers.acceptance import Demand, Records, compared, of_experiment


@dataclass(frozen=True)
class Claim:
    """`better` and `worse`: arms of the experiment, by label, or by layer where it has one arm a layer."""

    paper: str
    what: str
    experiment: str
    better: str
    worse: str


CLAIMS: Final = (
    Claim("BASED", "Taylor over elu + 1, equal key size", "curve", "taylor key 8", "linear key 8"),
    Claim("BASED", "Taylor features and a window over the features alone", "curve",
          "based key 4 window 8", "taylor key 4"),
    Claim("BASED", "and over the window alone", "curve", "based key 4 window 8", "window window 8"),
    Claim("GLA", "a decay that the token decides over a fixed one", "curve", "gated-linear", "retention"),
    Claim("delta rule", "overwriting over adding, keys bound twice", "re-binding", "delta", "hebbian"),
    Claim("gated delta rule", "a memory that fades over one that does not, long streams", "forgetting",
          "gated-delta", "delta"),
    Claim("gated delta rule", "over a memory that adds, long streams", "forgetting", "gated-delta", "linear"),
    Claim("MoM", "several memories over one of its update, equal key size", "curve",
          "mom key 8", "gated-delta key 8"),
    Claim("Titans", "memory and window over the window alone, beyond it", "beyond-window",
          "titans-mag", "window"),
    Claim("Titans", "a deep memory over a matrix", "curve",
          "titans-lmm depth 2 hidden 48 chunk 16", "titans-lmm depth 1 chunk 16"),
    Claim("Titans", "the memory over the gated delta rule", "curve",
          "titans-lmm depth 1 chunk 16", "gated-delta key 16"),
    Claim("Titans", "the memory over the gated delta rule, needle", "needle", "titans-lmm", "gated-delta"),
)  # fmt: skip


def claims(records: Records) -> list[Demand]:
    """A row a claim; not met where the means are equal or the other way round."""
    return [_row(claim, records) for claim in CLAIMS]


def _row(claim: Claim, records: Records) -> Demand:
    found = of_experiment(records, claim.experiment)
    better, worse = (_label(name, found) for name in (claim.better, claim.worse))
    return compared(
        claim.paper, f"{claim.what} ({claim.experiment})", found, better, worse, gap=0.0, strict=True
    )


def _label(name: str, labels: Iterable[str]) -> str:
    """The arm of that label; else the one arm of that layer, if there is one."""
    if name in labels:
        return name
    mine = [label for label in labels if label.split()[0] == name]
    return mine[0] if len(mine) == 1 else name
