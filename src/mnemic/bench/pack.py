"""The plainest way to make a context: the best turns that fit, put back in the order they were said."""

from __future__ import annotations

from collections.abc import Iterable

from mnemic.bench.locomo import Turn
from mnemic.bench.tokens import count_tokens


def pack(turns: Iterable[Turn], budget: int | None) -> str:
    """Take turns best first while they fit into `budget` tokens (a later, shorter one may still fit).

    Sessions are headed by their date, because questions ask when. O(turns).
    """
    taken: list[Turn] = []
    headed: set[str] = set()
    spent = 0
    for turn in turns:
        cost = count_tokens(turn.line + "\n")
        if turn.session not in headed:
            cost += count_tokens(_heading(turn) + "\n")
        if budget is not None and spent + cost > budget:
            continue
        taken.append(turn)
        headed.add(turn.session)
        spent += cost
    text = render(taken)
    while (
        budget is not None and count_tokens(text) > budget
    ):  # pieces may split differently across a line's end
        taken.pop()
        text = render(taken)
    return text


def render(turns: Iterable[Turn]) -> str:
    """Turns as text, session by session, in the order of their ids."""
    lines: list[str] = []
    last = None
    for turn in sorted(turns, key=lambda t: position(t.id)):
        if turn.session != last:
            lines.append(_heading(turn))
            last = turn.session
        lines.append(turn.line)
    return "\n".join(lines)


def position(turn_id: str) -> tuple[int, ...]:
    """(session, place) of an id such as D3:12."""
    return tuple(int(part) for part in turn_id[1:].split(":"))


def _heading(turn: Turn) -> str:
    return f"[{turn.at[:10]} {turn.at[11:16]}]"
