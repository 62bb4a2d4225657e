"""What `mnemic kv` and `mnemic memory` share: texts for a model, and showing what it made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnemic.cli.output import ending, plain, safe, short

if TYPE_CHECKING:
    from mnemic.activation.kv_keeping import Kept
    from mnemic.cube.model import MemCube
    from mnemic.memory import Memory
    from mnemic.parametric.keeping import Learned

PAGE = 1000

LocalModelName = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        envvar="MNEMIC_MODEL",
        metavar="NAME",
        help="smollm2, or a transformers model's folder.",
    ),
]
Title = Annotated[str | None, typer.Option("--title", metavar="TEXT", help="For people who list them.")]


def texts(memory: Memory, ids: list[str] | None, reads: dict[str, Any]) -> list[Any]:
    """The cubes that are named, or all within reach. Raises NotFound where there is none."""
    from mnemic.cube.errors import NotFound
    from mnemic.upkeep import full_id

    if ids:
        return [full_id(memory, one) for one in ids]
    found: list[MemCube] = []
    after = None
    while True:
        page = memory.list(**reads, limit=PAGE, after=after)
        found += page
        if page.next is None:
            break
        after = page.next
    if not found:
        raise NotFound("there is no text within reach to read. `mnemic stats` says whose memories there are")
    return found


def as_dict(made: Kept | Learned) -> dict[str, Any]:
    return {
        "id": made.cube.id,
        "user": made.cube.header.scope.user,
        "made": made.cube.header.recorded_at.isoformat(),
        "current": made.why_not is None,
        "why_not": made.why_not,
        "sources": [one.cube_id for one in made.cube.header.sources],
        **plain(made.described),
    }


def now(made: Kept | Learned, limit: int | None = None) -> str:
    """Whether it may be used now, and if not, why. limit: characters of the reason."""
    if made.why_not is None:
        return "current"
    return f"not served: {safe(made.why_not) if limit is None else short(made.why_not, limit)}"


def cited(memory: Memory, made: Kept | Learned) -> list[str]:
    """A line for each source: its id, and its text in the version that was read."""
    found = []
    for source in made.cube.header.sources:
        versions = memory.history(source.cube_id)
        read = next((one for one in versions if one.version_id == source.version_id), versions[-1])
        found.append(f"  [{ending(source.cube_id)}] {short(read.text, 100)}")
    return found


def chat_hint(option: str, made: MemCube, model: str, user: str | None) -> str:
    """How to chat with what was made."""
    return f"chat with it: mnemic chat --model {model} {option} {ending(made.id)}" + (
        f" --user {user}" if user else ""
    )
