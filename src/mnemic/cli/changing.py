"""Commands that look back and take back: changes, undo, restore, freeze, thaw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mnemic.cli import options as o
from mnemic.cli.opening import Place, Who, embed_the_rest, known_users
from mnemic.cli.output import console, cube_json, ending, minute, note, print_json, safe, short

if TYPE_CHECKING:
    from mnemic.plaintext.ingest.store import Change
    from mnemic.vault.changes import LoggedChange

Change_ = Annotated[
    list[str],
    typer.Argument(metavar="CHANGE…", help="Ids of changes, or endings of them; see `mnemic changes`."),
]


def register(app: typer.Typer) -> None:
    app.command("changes", epilog="Example:  mnemic changes --user ana --limit 20")(changes)
    app.command("undo", epilog='Example:  mnemic undo 3f9a01bc --reason "wrong person"')(undo)
    app.command("restore", epilog="Example:  mnemic restore 3f9a01bc 1")(restore)
    app.command("freeze", epilog='Example:  mnemic freeze 3f9a01bc --reason "evidence"')(freeze)
    app.command("thaw", epilog="Example:  mnemic thaw 3f9a01bc")(thaw)


def changes(
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    user: o.User = None,
    agent: o.Agent = None,
    session: o.Session = None,
    after: Annotated[
        int, typer.Option("--after", min=0, metavar="SEQ", help="Only what came after this place in the log.")
    ] = 0,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most, the latest.")] = 50,
    derived: Annotated[bool, typer.Option("--derived", help="Also what background work derived.")] = False,
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """List what was changed: when, by which call, why, and how to take it back (`mnemic undo`)."""
    who = Who(user=user, agent=agent, session=session)
    with Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url).open(reading=True) as memory:
        found = [
            one
            for one in memory.changes(**who.reads(), after=after, limit=10**9)
            if derived or one.op != "derive"
        ][-limit:]
        remark = None if found else known_users(memory, who)
    if as_json:
        print_json(found)
        return
    _print_changes(found)
    if not found:
        note(remark or "nothing was changed")


def undo(
    change: Change_,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    reason: o.Reason = None,
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Take back a change, or several at once, whatever they did. That is a change too, and can be undone."""
    from mnemic.upkeep import full_change

    with Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url).open(reading=True) as memory:
        done = memory.undo([full_change(memory, one) for one in change], reason=reason)
        embed_the_rest(memory)
    if as_json:
        print_json(_json(done))
        return
    for cube in done.cubes:
        said = "is gone again" if cube.deleted else f"says again: {short(cube.text, 80)}"
        console().print(f"[{ending(cube.id)}] {said}")
    if done.count:
        note(_receipt(done, "undone"))
    else:
        console().print("everything is already as it was before")


def restore(
    id: o.Id,
    version: Annotated[
        int, typer.Argument(metavar="VERSION", help="Its number in `mnemic history`; 1 is the first.")
    ],
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    reason: o.Reason = None,
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Let a cube say again what an older version of it said; also a deleted one."""
    from mnemic.upkeep import full_id

    with Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url).open(reading=True) as memory:
        done = memory.restore(full_id(memory, id), version, reason=reason)
        embed_the_rest(memory)
    if as_json:
        print_json(_json(done))
    elif not done.count:
        console().print("it says so already")
    else:
        console().print(f"[{ending(done.cubes[0].id)}] says again: {short(done.cubes[0].text, 80)}")
        note(_receipt(done, "restored"))


def freeze(
    id: Annotated[list[str], typer.Argument(metavar="ID…", help="Ids, or endings of ids.")],
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    reason: o.Reason = None,
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Keep cubes as they are: nothing changes or expires them until they are thawed."""
    _freeze(
        id, False, Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url), reason, as_json
    )


def thaw(
    id: Annotated[list[str], typer.Argument(metavar="ID…", help="Ids, or endings of ids.")],
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    reason: o.Reason = None,
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Let frozen cubes be changed again."""
    _freeze(
        id, True, Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url), reason, as_json
    )


def _freeze(ids: list[str], thawing: bool, place: Place, reason: str | None, as_json: bool) -> None:
    from mnemic.upkeep import full_id

    with place.open(reading=True) as memory:
        full = [full_id(memory, one) for one in ids]
        done = memory.thaw(full, reason=reason) if thawing else memory.freeze(full, reason=reason)
    if as_json:
        print_json(_json(done))
    else:
        word = "thawed" if thawing else "frozen"
        console().print(_receipt(done, word) if done.count else f"already {word}")


def _receipt(done: Change, word: str) -> str:
    return f"{word} {done.count}; take it back with: mnemic undo {ending(done.id or '')}"


def _json(done: Change) -> dict[str, object]:
    return {"change_id": done.id, "cubes": [cube_json(cube) for cube in done.cubes]}


def _print_changes(found: list[LoggedChange]) -> None:
    from rich.table import Table
    from rich.text import Text

    if not found:
        return
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("seq", justify="right", no_wrap=True, style="dim")
    for title in ("when", "what"):
        table.add_column(title, no_wrap=True)
    table.add_column("cubes", justify="right")
    table.add_column("why", overflow="fold", ratio=1)
    table.add_column("change", no_wrap=True, style="dim")
    for one in found:
        why = safe(one.reason or "")
        if one.undoes:
            why = f"takes back {ending(one.undoes)}" + (f": {why}" if why else "")
        who = f" by {ending(one.by)}" if one.by else ""
        table.add_row(str(one.seq), minute(one.at), one.op + who, f"{one.count:,}", Text(why), ending(one.id))
    console().print(table)
