"""What commands about grants and rules share: which scopes they are about, their ids, and their tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnemic.cli.output import console, note, safe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Label = Annotated[
    str | None,
    typer.Option("--label", metavar="LABEL", help="Only what bears this label.", show_default=False),
]
Ending = Annotated[str, typer.Argument(metavar="ID", help="Its id, or an ending of it that only one has.")]
ReachUser = Annotated[
    str | None,
    typer.Option(
        "--user", "-u", metavar="NAME", help="Whose memory; left out: any; '': no user.", show_default=False
    ),
]
ReachAgent = Annotated[
    str | None,
    typer.Option(
        "--agent", "-a", metavar="NAME", help="Which agent's; left out: any; '': none.", show_default=False
    ),
]
ReachSession = Annotated[
    str | None,
    typer.Option(
        "--session", "-s", metavar="NAME", help="Which conversation; left out: any.", show_default=False
    ),
]


def reach_of(user: str | None, agent: str | None, session: str | None) -> dict[str, Any]:
    given = {"user": user, "agent": agent, "session": session}
    return {field: name or None for field, name in given.items() if name is not None}


def full(known: Sequence[str], wanted: str) -> str:
    """The id that ends so. Raises NotFound and InvalidOption."""
    from mnemic.cube.errors import InvalidOption, NotFound

    found = [one for one in known if one.replace("-", "").endswith(wanted.lower().replace("-", ""))]
    if not found or not wanted:
        raise NotFound(f"no id ends in {wanted!r:.40}")
    if len(found) > 1:
        raise InvalidOption(f"{len(found)} ids end in {wanted!r:.40}; give more of it")
    return found[0]


def print_table(titles: Iterable[str], rows: Sequence[Sequence[str]], nothing: str) -> None:
    from rich.table import Table
    from rich.text import Text

    if not rows:
        note(nothing)
        return
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold", style="dim" if title == "id" else None)
    for row in rows:
        table.add_row(*(Text(safe(one)) for one in row))
    console().print(table)
