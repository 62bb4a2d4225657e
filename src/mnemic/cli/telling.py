"""Commands that write: add, update, delete."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnemic.cli import options as o
from mnemic.cli.opening import Place, Who, embed_the_rest
from mnemic.cli.output import console, cube_json, ending, note, print_json, safe, short

if TYPE_CHECKING:
    from mnemic.plaintext.ingest.store import Added

FIRST_SHOWN = 10


def register(app: typer.Typer) -> None:
    app.command("add", epilog='Example:  echo "I am allergic to penicillin." | mnemic add - --user ana')(add)
    app.command("update", epilog='Example:  mnemic update 3f9a01bc "I live in Porto." --reason "moved"')(
        update
    )
    app.command("delete", epilog='Example:  mnemic delete 3f9a01bc --reason "told by mistake"')(delete)


def add(
    text: Annotated[
        list[str], typer.Argument(metavar="TEXT…", help="What to remember; - reads standard input.")
    ],
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    user: o.User = None,
    agent: o.Agent = None,
    session: o.Session = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="When it was said, ISO 8601. Default: now.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Who said it.")] = None,
    role: Annotated[str, typer.Option("--role", help="user, assistant, system or tool.")] = "user",
    id: Annotated[
        str | None,
        typer.Option("--id", metavar="TEXT", help="Your own id: adding it again stores nothing twice."),
    ] = None,
    label: Annotated[list[str] | None, typer.Option("--label", help="A label; repeatable.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option("--metadata", metavar="KEY=VALUE", help="Repeatable.")
    ] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Each line of standard input is a message.")] = False,
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Remember a text, verbatim. It is safe on disk when this returns."""
    content = _content(text, lines)
    to = Who(user=user, agent=agent, session=session)
    scope = to.writes()
    with Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url).open() as memory:
        added = memory.add(
            content,
            **scope,
            at=at,
            id=id,
            role=role,
            name=name,
            labels=label or (),
            metadata=_pairs(metadata),
        )
        embed_the_rest(memory)
        place = memory.where()
    if as_json:
        print_json(_added_json(added))
        return
    for skipped in added.skipped:
        note(f"{skipped.where}: {skipped.reason}")
    fresh = [cube for cube in added if cube.id not in added.existing]
    for cube in fresh[:FIRST_SHOWN]:
        console().print(f"remembered for {safe(str(to))}: {short(cube.text, 60)}  [{ending(cube.id)}]")
    if len(fresh) > FIRST_SHOWN:
        console().print(f"… {len(fresh):,} in all, in {place}")


def update(
    id: o.Id,
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="What it says from now on; - reads standard input.")
    ],
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    reason: o.Reason = None,
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Let a cube say something else. What it said stays in its history."""
    from mnemic.upkeep import full_id

    place = Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url)
    content = _content([text], lines=False)
    with place.open(reading=True) as memory:
        change = memory.update(full_id(memory, id), str(content), reason=reason)
        embed_the_rest(memory)
    if as_json:
        print_json({"change_id": change.id, "cubes": [cube_json(cube) for cube in change.cubes]})
    else:
        console().print(f"[{ending(change.cubes[0].id)}] now says: {short(change.cubes[0].text, 80)}")
        note(f"take it back with: mnemic undo {ending(change.id or '')}")


def delete(
    id: Annotated[list[str], typer.Argument(metavar="ID…", help="Ids, or endings of ids, of what is to go.")],
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    reason: o.Reason = None,
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Take cubes out of every search. All or none; their history stays (`mnemic history ID`)."""
    from mnemic.upkeep import full_id

    place = Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url)
    with place.open(reading=True) as memory:
        change = memory.delete([full_id(memory, one) for one in id], reason=reason)
    if as_json:
        print_json({"change_id": change.id, "deleted": [cube.id for cube in change.cubes]})
    else:
        console().print(f"deleted {change.count}" + ("" if change.count else " (already deleted before)"))
        if change.id:
            note(f"take it back with: mnemic undo {ending(change.id)}")


def _content(text: list[str], lines: bool) -> str | list[str]:
    if lines and text != ["-"]:
        raise typer.BadParameter("--lines goes with standard input: … | mnemic add - --lines")
    if text != ["-"]:
        return " ".join(text)
    raw = sys.stdin.read()
    if lines:
        return [line for line in raw.splitlines() if line.strip()]
    return raw.removesuffix("\n").removesuffix("\r")


def _pairs(metadata: list[str] | None) -> dict[str, str]:
    out = {}
    for pair in metadata or ():
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"--metadata {pair!r} must be KEY=VALUE")
        out[key] = value
    return out


def _added_json(added: Added) -> dict[str, Any]:
    return {
        "change_id": added.change_id,
        "cubes": [cube_json(cube) for cube in added],
        "existing": list(added.existing),
        "skipped": [{"where": one.where, "reason": one.reason, "id": one.id} for one in added.skipped],
    }
