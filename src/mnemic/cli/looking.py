"""Commands that look: list, show, reveal, history, stats, where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnemic.cli import options as o
from mnemic.cli.opening import Place, Who, known_users, read_where
from mnemic.cli.output import (
    console,
    cube_json,
    day,
    ending,
    minute,
    note,
    plain,
    print_json,
    safe,
    short,
    speaker,
    write_text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mnemic.cube.model import MemCube
    from mnemic.upkeep import Stats


def register(app: typer.Typer) -> None:
    app.command("list", epilog="Example:  mnemic list --user ana --limit 20")(list_)
    app.command("show", epilog="Example:  mnemic show 3f9a01bc")(show)
    app.command("reveal", epilog="Example:  mnemic reveal 3f9a01bc")(reveal)
    app.command("history", epilog="Example:  mnemic history 3f9a01bc")(history)
    app.command("stats", epilog="Example:  mnemic stats ana.db")(stats)
    app.command("where", epilog='Example:  cp "$(mnemic where)" backup.db')(where_)


def list_(
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    user: o.User = None,
    agent: o.Agent = None,
    session: o.Session = None,
    everyone: o.Everyone = False,
    where: o.Where = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 100,
    after: Annotated[
        str | None, typer.Option("--after", metavar="CURSOR", help="Go on where the page before ended.")
    ] = None,
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """List what is remembered, in the order it was told."""
    who, filters = Who(user=user, agent=agent, session=session, everyone=everyone), read_where(where)
    reads = who.reads()
    with Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url).open(reading=True) as memory:
        page = memory.list(**reads, where=filters, limit=limit, after=after)
        remark = None if page else known_users(memory, who)
    if as_json:
        print_json({"cubes": [cube_json(cube) for cube in page], "next": page.next})
        return
    _print_cubes(page)
    if page.next:
        note(f"there is more: --after {page.next}")
    if not page:
        note(remark or "nothing passes")


def show(
    id: o.Id,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Show one cube whole: its text, who said it, when, and what it was made from or into."""
    from mnemic.upkeep import full_id

    with Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url).open(reading=True) as memory:
        found = memory.explain(full_id(memory, id))
    if as_json:
        print_json(
            {**cube_json(found.cube), "versions": len(found.history), "used_by": list(found.used_by)}
            | {"sources": plain([source.model_dump() for source in found.cube.header.sources])}
        )
        return
    _print_facts(_facts(found.cube, len(found.history), found.used_by))
    told = [found.cube, *reversed(found.history)]
    write_text("\n" + next((one.text for one in told if not one.deleted), ""))


def reveal(
    id: o.Id,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="1 is the first; default: the last.")
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Show a text with what a rule such as "seal card" took out of it. The audit log has it.

    For the owner and who was granted `reveal`. What "redact …" takes out is kept nowhere.
    """
    from mnemic.upkeep import full_id

    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        cube = full_id(memory, id)
        text = memory.reveal(cube, version=version)
    if as_json:
        print_json({"id": cube, "text": text})
    else:
        write_text(text)


def history(
    id: o.Id,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Show everything a cube ever said, oldest first: when, by which change, by whom and why."""
    from mnemic.upkeep import full_id

    with Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url).open(reading=True) as memory:
        versions = memory.history(full_id(memory, id))
    if as_json:
        print_json(
            [
                {
                    "version": one.version,
                    **cube_json(one.cube),
                    "op": one.change.op,
                    "by": one.change.by,
                    "reason": one.change.reason,
                    "change_id": one.change.id,
                    "diff": one.diff,
                }
                for one in versions.revisions
            ]
        )
        return
    for one in versions.revisions:
        cube, change = one.cube, one.change
        into = cube.header.merged_into
        gone = "(deleted)" if into is None else f"(merged into {ending(into)})"
        said = gone if cube.deleted else short(cube.text, 400)
        by = f" by {ending(change.by)}" if change.by else ""
        why = f": {short(change.reason, 200)}" if change.reason else ""
        console().print(f"{one.version}  {minute(cube.header.recorded_at)}  {said}")
        console().print(f"   {change.op}{by} [{ending(change.id)}]{why}", style="dim")


def stats(
    file: o.VaultHere = None,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Count what is there: cubes, sessions, users, bytes, what waits to be embedded."""
    from mnemic.upkeep import stats as count

    place = Place(vault=file or vault, tenant=tenant, embedder=embedder, base_url=base_url)
    with place.open(reading=True) as memory:
        found = count(memory)
    if as_json:
        print_json(found)
    else:
        _print_stats(found)


def where_(vault: o.Vault = None, as_json: o.Json = False) -> None:
    """Say where the memory is kept."""
    place = Place(vault=vault)
    path = place.path()
    if as_json:
        exists = None if path is None else path.exists()
        print_json({"location": str(path) if path else _without_password(vault or ""), "exists": exists})
    else:
        write_text(str(path) if path else _without_password(vault or ""))


def _without_password(url: str) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = parts.username
    return parts._replace(netloc=f"{user}@{host}" if user else host, query="").geturl()


def _facts(cube: MemCube, versions: int, used_by: Sequence[str]) -> dict[str, Any]:
    header = cube.header
    scope = [f"user {header.scope.user}" if header.scope.user else "", f"agent {header.scope.agent or ''}"]
    scope = [one for one in (*scope, f"session {header.scope.session or ''}") if not one.endswith(" ")]
    place = header.place
    facts = {
        "id": cube.id,
        "whose": ", ".join(one for one in scope if one),
        "said by": f"{speaker(cube)} ({header.origin.name})",
        "said at": minute(header.at),
        "recorded": minute(header.recorded_at),
        "labels": ", ".join(header.labels),
        "metadata": ", ".join(f"{key}={value}" for key, value in header.metadata.items()),
        "your id": cube.client_id,
        "from": place
        and f"{place.source or 'a long text'}, characters {place.start} to {place.end} of {place.total}",
        "versions": f"{versions} (mnemic history {ending(cube.id)})" if versions > 1 else "1",
        "made into": ", ".join(used_by),
        "state": _state(cube),
    }
    return {name: value for name, value in facts.items() if value}


def _state(cube: MemCube) -> str:
    """Where it is in its life, as far as that says more than that it is there."""
    if cube.header.merged_into is not None:
        return f"merged into {ending(cube.header.merged_into)}; it last said"
    if cube.deleted:
        return "deleted; it last said"
    return ", ".join(word for word in ("frozen", "pinned") if getattr(cube.header, word))


def _print_facts(facts: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, Text(safe(str(value))))
    console().print(table)


def _print_cubes(cubes: Sequence[MemCube]) -> None:
    from rich.table import Table
    from rich.text import Text

    if not cubes:
        return
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for title in ("when", "session", "who"):
        table.add_column(title, no_wrap=True)
    table.add_column("what was said", overflow="fold", ratio=1)
    table.add_column("id", no_wrap=True, style="dim")
    for cube in cubes:
        session = short(cube.header.scope.session or "", 14)
        said = Text(short(cube.text, 160))
        table.add_row(day(cube.header.at), session, short(speaker(cube), 14), said, ending(cube.id))
    console().print(table)


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count / 1e3:,.1f} KB"


def _print_stats(found: Stats) -> None:
    from rich.table import Table
    from rich.text import Text

    size = "kept by the server" if found.bytes_on_disk is None else _size(found.bytes_on_disk)
    free = "" if found.bytes_free is None else f" ({found.bytes_free / 1e9:,.0f} GB free)"
    waiting = (
        f"{found.pending:,} cubes wait to be embedded; mnemic reembed" if found.pending else "nothing waits"
    )
    _print_facts(
        {
            "vault": found.location,
            "tenant": found.tenant,
            "on disk": size + free,
            "in memory": f"{_size(found.index_bytes)} of indexes when all are loaded",
            "cubes": f"{found.cubes:,} live, {found.versions:,} versions, {found.tombstones:,} deletions",
            "embedder": f"{found.embedder}, {waiting}",
        }
    )
    if not found.users:
        return
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    table.add_column("user")
    for title in ("cubes", "sessions"):
        table.add_column(title, justify="right")
    table.add_column("from")
    table.add_column("to")
    for one in found.users:
        name = Text(safe(one.user) if one.user is not None else "(no user)")
        table.add_row(name, f"{one.cubes:,}", f"{one.sessions:,}", day(one.first_at), day(one.last_at))
    console().print(table)
