"""Commands that look back and take back, and what else happens to a cube: freeze, thaw, pin, unpin, fuse."""

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
    app.command("pin", epilog='Example:  mnemic pin 3f9a01bc --reason "asked for daily"')(pin)
    app.command("unpin", epilog="Example:  mnemic unpin 3f9a01bc")(unpin)
    app.command(
        "fuse",
        epilog='Example:  mnemic fuse 3f9a01bc 77c0d2e1 "Allergic to penicillin and to nuts."',
    )(fuse)


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
    place = Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url)
    _mark(id, place, "freeze", "frozen", reason, as_json)


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
    place = Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url)
    _mark(id, place, "thaw", "thawed", reason, as_json)


def pin(
    id: Annotated[list[str], typer.Argument(metavar="ID…", help="Ids, or endings of ids.")],
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    reason: o.Reason = None,
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Let cubes count as in use: no rule about disuse archives or ends them until they are unpinned."""
    place = Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url)
    _mark(id, place, "pin", "pinned", reason, as_json)


def unpin(
    id: Annotated[list[str], typer.Argument(metavar="ID…", help="Ids, or endings of ids.")],
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    reason: o.Reason = None,
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Let pinned cubes count as used only when they are."""
    place = Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url)
    _mark(id, place, "unpin", "unpinned", reason, as_json)


def fuse(
    id: Annotated[list[str], typer.Argument(metavar="ID… TEXT", help="Ids or endings of ids, and the text.")],
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    reason: o.Reason = None,
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Let one text stand for several cubes of a user; they are merged into it, and `undo` takes that back."""
    from mnemic.cube.errors import InvalidOption
    from mnemic.upkeep import full_id

    *ids, text = id
    if len(ids) < 2:
        raise InvalidOption(
            'give the ids of two cubes or more, and then the text, as in: mnemic fuse ID ID "…"'
        )
    with Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url).open(reading=True) as memory:
        done = memory.fuse([full_id(memory, one) for one in ids], text, reason=reason)
        embed_the_rest(memory)
    if as_json:
        print_json(_json(done))
        return
    console().print(f"[{ending(done.cubes[0].id)}] says now: {short(done.cubes[0].text, 80)}")
    note(f"fused {done.count - 1} into it; take it back with: mnemic undo {ending(done.id or '')}")


def _mark(ids: list[str], place: Place, verb: str, word: str, reason: str | None, as_json: bool) -> None:
    from mnemic.upkeep import full_id

    with place.open(reading=True) as memory:
        verbs = {
            "freeze": memory.freeze,
            "thaw": memory.thaw,
            "pin": memory.pin,
            "unpin": memory.unpin,
        }
        done = verbs[verb]([full_id(memory, one) for one in ids], reason=reason)
    if as_json:
        print_json(_json(done))
    else:
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
