"""What the benches of single layers share: choosing arms, keeping runs, writing tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnemic.cli.progress import Steps

if TYPE_CHECKING:
    from mnemic.bench.kept import Record
    from mnemic.bench.layers.acceptance import Demand

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of Markdown.")]
Arms = Annotated[
    list[str] | None,
    typer.Option("--arm", help="Train only these arms, repeatable; `none` trains none.", show_default=False),
]


def chosen(asked: list[str] | None, known: Collection[str], what: str) -> list[str]:
    """All, unless some are asked for; `none` is none. Raises InvalidOption for one that is not known."""
    from mnemic.cube.errors import InvalidOption

    found = list(known) if not asked else [] if asked == ["none"] else asked
    if unknown := [name for name in found if name not in known]:
        told = ", ".join(repr(name) for name in known)  # a name may hold a comma
        raise InvalidOption(f"there is no {what} {unknown[0]!r:.80}. Known: {told}; 'none' for none")
    return found


def measured(
    planned: Mapping[str, Callable[[], Record]], path: Path, said: Callable[[Record], str]
) -> dict[str, Record]:
    """All that `path` holds, after the planned runs it lacks have been made, each kept as soon as it ends."""
    from mnemic.bench.kept import kept

    with Steps(len(planned)) as report:
        return kept(
            planned, path, report=report,
            said=lambda record: f"{said(record)} in {record['cpu_s']:.0f} s of CPU",
        )  # fmt: skip


def write_demands(name: str, out: Path, lines: Sequence[Demand], text: str, *, as_json: bool) -> None:
    """NAME.json and NAME.md in `out`, and one of them on standard output."""
    out.mkdir(parents=True, exist_ok=True)
    found = json.dumps([asdict(one) for one in lines], indent=1)
    (out / f"{name}.json").write_text(found + "\n")
    (out / f"{name}.md").write_text(text)
    typer.echo(found if as_json else text)
