"""Why a piece was chosen: its signals in plain words, and the tables that show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from mnemic.cli.output import console, day, ending, short, speaker

if TYPE_CHECKING:
    from mnemic.cube.model import MemCube
    from mnemic.memory import Memory
    from mnemic.plaintext.compose.context import Context
    from mnemic.plaintext.recall.search import Hit

Signals = Mapping[str, float]
SEARCHED = 50  # of the best hits, to find what the pieces of a context have for them

WORDS: Final[Mapping[str, str]] = {
    "lexical": "same words",
    "lexical_around": "same words nearby",
    "lexical_follow": "follows the same words",
    "coverage": "says most of it by itself",
    "dense": "similar meaning",
    "dense_around": "similar meaning nearby",
    "speaker": "said by whom you ask about",
    "statement": "tells rather than asks",
    "answer_type": "holds what is asked for",
    "names": "names something",
    "novelty": "new at the time",
    "time": "from the time asked about",
    "sequence": "before or after what you name",
    "opening": "opens its conversation",
    "recency": "the latest, or the earliest",
    "feedback": "like the best matches",
    "session": "in the best conversation",
    "current": "what holds now",
}


def strongest(signals: Mapping[str, float], count: int = 3) -> list[tuple[str, float]]:
    """The signals that added most and their share of what was added, best first; small ones are left out."""
    added = {name: value for name, value in signals.items() if value > 0}
    total = sum(added.values())
    shares = sorted(((name, value / total) for name, value in added.items()), key=lambda one: -one[1])
    return [(name, share) for name, share in shares[:count] if share >= 0.05]


def in_words(signals: Signals) -> str:
    """Such as "same words 70 %, similar meaning 30 %"."""
    said = [f"{WORDS.get(name, name)} {share:.0%}".replace("%", " %") for name, share in strongest(signals)]
    return ", ".join(said) or "nothing stood out"


def signals_of(memory: Memory, question: str, made: Context, look: Mapping[str, Any]) -> dict[str, Signals]:
    """cube id -> its signals, best first, for the pieces of a context that a search finds too."""
    held = {cube.id for cube in made.cubes}
    hits = memory.search(question, **look, k=max(SEARCHED, len(held)))
    return {hit.cube.id: hit.signals for hit in hits if hit.cube.id in held}


def print_pieces(made: Context, signals: Mapping[str, Signals], *, limit: int, stderr: bool = False) -> None:
    """The pieces of a context, the best first, and why each was chosen."""
    held = {cube.id: cube for cube in made.cubes}
    best = [held[id] for id in signals]
    chosen = [*best, *(cube for cube in made.cubes if cube.id not in signals)][:limit]
    _print_rows(
        ((cube, _of_piece(made, signals, cube.id), None) for cube in chosen), stderr=stderr, scores=False
    )
    if len(held) > len(chosen):
        console(stderr=stderr).print(f"   … and {len(held) - len(chosen):,} more pieces", style="dim")


def print_hits(hits: Sequence[Hit], *, explain: bool) -> None:
    """Hits, best first; `explain` shows every signal instead of the strongest."""
    said = _all if explain else in_words
    _print_rows((hit.cube, _over(hit) + said(hit.signals), hit.score) for hit in hits)


def _over(hit: Hit) -> str:
    """What of a hit holds no more, in a line of its own."""
    return "".join(
        f"no longer: {one.attribute} {one.value}, since {day(one.since)}"
        + (f"; now {one.now}" if one.now else "")
        + f" [{ending(one.by)}]\n"
        for one in hit.superseded
    )


def _of_piece(made: Context, signals: Mapping[str, Signals], id: str) -> str:
    reason = made.why.get(id, "")
    if not strongest(signals.get(id, {})):
        return reason
    placed = "" if not reason or reason.startswith("evidence") else f"{reason}; "
    return placed + in_words(signals[id])


def _all(signals: Signals) -> str:
    added = [(name, value) for name, value in signals.items() if value]
    by_size = sorted(added, key=lambda one: -abs(one[1]))
    return "  ".join(f"{name} {value:+.3f}" for name, value in by_size) or "every signal is 0"


def _print_rows(
    rows: Iterable[tuple[MemCube, str, float | None]], *, stderr: bool = False, scores: bool = True
) -> None:
    """Cubes in order, each with the reason why it is there."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("#", justify="right", no_wrap=True)
    if scores:
        table.add_column("score", justify="right", no_wrap=True)
    for title in ("when", "who"):
        table.add_column(title, no_wrap=True)
    table.add_column("what was said, and why it was found", overflow="fold", ratio=1)
    table.add_column("id", no_wrap=True, style="dim")
    for rank, (cube, why, score) in enumerate(rows, start=1):
        said = Text(short(cube.text)).append(f"\n{why}", style="cyan dim")
        shown = [f"{score:.2f}"] if scores and score is not None else []
        who = short(speaker(cube), 14)
        table.add_row(str(rank), *shown, day(cube.header.at), who, said, ending(cube.id))
    if table.row_count:
        console(stderr=stderr).print(table)
