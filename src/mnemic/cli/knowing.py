"""Commands about what was derived: facts, explain, jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from mnemic.cli import options as o
from mnemic.cli.opening import Place, Who, embed_the_rest, known_users
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
)

if TYPE_CHECKING:
    from mnemic.memory import Memory
    from mnemic.plaintext.derive.explain import Explanation, Link


def register(app: typer.Typer) -> None:
    app.command("facts", epilog="Example:  mnemic facts --user ana --past")(facts)
    app.command("explain", epilog="Example:  mnemic explain 3f9a01bc")(explain)
    app.command("jobs", epilog="Example:  mnemic jobs --run")(jobs)


def facts(
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    user: o.User = None,
    agent: o.Agent = None,
    session: o.Session = None,
    everyone: o.Everyone = False,
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="NAME", help="Only facts about this one.")
    ] = None,
    attribute: Annotated[
        str | None, typer.Option("--attribute", metavar="WORDS", help="Only this, such as home or employer.")
    ] = None,
    past: Annotated[bool, typer.Option("--past", help="Also facts that hold no more.")] = False,
    as_of: o.AsOf = None,
    valid_at: o.ValidAt = None,
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """List what is known of whom: facts that were derived from what was told, and since when they hold."""
    who = Who(user=user, agent=agent, session=session, everyone=everyone)
    with Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url).open(reading=True) as memory:
        embed_the_rest(memory)
        found = memory.facts(
            **who.reads(), subject=subject, attribute=attribute, past=past, as_of=as_of, valid_at=valid_at
        )
        remark = None if found else known_users(memory, who)
    if as_json:
        print_json([{**plain(one), "sources": plain(one.cube.header.sources)} for one in found])
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for title in ("who", "what", "is"):
        table.add_column(title, overflow="fold")
    for title in ("since", "until"):
        table.add_column(title, no_wrap=True)
    table.add_column("id", no_wrap=True, style="dim")
    for one in found:
        cells = [Text(safe(text)) for text in (one.subject, one.attribute, one.value)]
        times = [day(moment) if moment else "" for moment in (one.since, one.until)]
        table.add_row(*cells, *times, ending(one.cube.id), style="dim" if one.until else "")
    if found:
        console().print(table)
    else:
        note(remark or "no facts are known; what was told is there all the same (`mnemic list`)")


def explain(
    id: o.Id,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Show what a cube was made from, down to the words that were told, and what was made from it."""
    from mnemic.upkeep import full_id

    with Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url).open(reading=True) as memory:
        found = memory.explain(full_id(memory, id))
    if as_json:
        print_json(
            {
                **cube_json(found.cube),
                "stale_since": plain(found.cube.stale_since),
                "versions": len(found.history),
                "made_from": plain(found.made_from),
                "made_into": [cube_json(cube) for cube in found.made_into],
            }
        )
        return
    for line in _lines(found):
        console().print(line, soft_wrap=True)


def jobs(
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    run: Annotated[bool, typer.Option("--run", help="Do what is due now.")] = False,
    rerun: Annotated[
        list[str] | None,
        typer.Option("--rerun", metavar="ID", help="Try a dead job again; repeatable. 'all' for all."),
    ] = None,
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """List background work that is not done, and why not. Exit code 1 if something is dead or overdue."""
    with Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url).open(reading=True) as memory:
        for job in _chosen(memory, rerun or []):
            memory.rerun(job)
        if run or rerun:
            memory.flush()
        found, health = memory.jobs(), memory.health()
    if as_json:
        print_json({"health": health, "jobs": found})
    else:
        for one in found:
            state = "dead" if one.dead else "at work" if one.leased else f"due {minute(one.run_after)}"
            said = f"  {ending(one.id)}  {one.kind}  {state}  {one.attempts} attempts  "
            console().print(safe(said) + short(one.error or "", 200), soft_wrap=True)
        unread = f"{health.unread:,} versions are to be read for facts" if health.unread else ""
        waiting = f"{health.waiting:,} jobs wait, {health.dead:,} of them dead" if health.waiting else ""
        console().print("; ".join(filter(None, (waiting, unread))) or "nothing waits")
        if health.waiting or health.unread:
            note("a program that has this memory open does it; or: mnemic jobs --run")
    if not health.ok:
        raise typer.Exit(1)


def _chosen(memory: Memory, wanted: list[str]) -> Iterator[str]:
    from mnemic.cube.errors import NotFound

    for one in wanted:
        mine = [job.id for job in memory.jobs() if one == "all" or job.id.endswith(one.lower())]
        if not mine and one != "all":
            raise NotFound(f"no job has an id that ends in {one!r}; `mnemic jobs` lists them")
        yield from mine


def _lines(found: Explanation) -> Iterator[str]:
    cube = found.cube
    said = "(deleted)" if cube.deleted else short(cube.text, 200)
    yield f"[{ending(cube.id)}] {said}"
    if cube.stale_since:
        yield f"  stale since {minute(cube.stale_since)}: what it rests on has changed; it is not served"
    if cube.header.valid_to:
        yield f"  held until {day(cube.header.valid_to)}"
    if not found.made_from:
        yield f"  told by {speaker(cube) or 'somebody'} on {minute(cube.header.at)}"
    else:
        yield f"  made by {cube.header.method or 'a deriver'} from"
        yield from _below(found.made_from, "  ")
    if found.made_into:
        yield "  made into"
        for one in found.made_into:
            state = "  (stale)" if one.stale_since else "  (dropped)" if one.deleted else ""
            yield f"    [{ending(one.id)}] {short(one.text, 120) if not one.deleted else ''}{state}"


def _below(links: tuple[Link, ...], indent: str) -> Iterator[str]:
    for link in links:
        mark = "" if link.role == "source" else f"{link.role} "
        broken = f"  ({link.broken})" if link.broken else ""
        when = f"{day(link.cube.header.at)} " if link.cube else ""
        said = f'"{short(link.quote, 120)}"' if link.quote else ""
        yield f"{indent}  {mark}[{ending(link.id)}] {when}{said}{broken}"
        yield from _below(link.made_from, indent + "  ")
