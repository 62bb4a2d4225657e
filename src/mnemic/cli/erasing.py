"""The command that destroys: erase."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnemic.cli import options as o
from mnemic.cli.opening import Place, Who, read_where
from mnemic.cli.output import console, minute, plain, print_json, safe

if TYPE_CHECKING:
    from mnemic.memory import Memory
    from mnemic.vault.erasing import Certificate

PENDING = 1


def register(app: typer.Typer) -> None:
    app.command(
        "erase", epilog="Example:  mnemic erase --user ana --reason 'asked on 3 May' -o certificate.json"
    )(erase)


def erase(
    id: Annotated[
        list[str] | None, typer.Argument(metavar="[ID…]", help="Ids, or endings of ids; or name a scope.")
    ] = None,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    user: o.User = None,
    agent: o.Agent = None,
    session: o.Session = None,
    everyone: o.Everyone = False,
    where: o.Where = None,
    reason: Annotated[
        str | None,
        typer.Option("--reason", metavar="TEXT", help="Why; on the certificate only.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would go; change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the certificate there, as JSON."),
    ] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="Go on with what an earlier erase could not overwrite yet.")
    ] = False,
    ledger: Annotated[bool, typer.Option("--list", help="Show every erase there was.")] = False,
    as_json: o.Json = False,
) -> None:
    """Destroy memories for good: all versions, all made from them, and their bytes on disk.

    By ids, or all of a user or an agent, or what of it passes --where. It cannot be undone (`mnemic delete`
    can). Prints a certificate of counts. Exit code 1 if another program still keeps bytes on disk: the erase
    is pending then, and goes on at the next open, or with --finish.
    """
    place = Place(vault=vault, tenant=tenant)
    with place.open(reading=True) as memory:
        if ledger:
            _print_ledger(memory, as_json=as_json)
            return
        if finish:
            _finish(memory, as_json=as_json)
            return
        named = _named(memory, id, Who(user=user, agent=agent, session=session, everyone=everyone), where)
        if not (dry_run or yes):
            _ask(memory, named)
        done = memory.erase(**named, reason=reason, dry_run=dry_run)
    if output is not None:
        output.write_text(json.dumps(plain(done), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if as_json:
        print_json(done)
    else:
        _print(done)
    if done.status == "pending":
        raise typer.Exit(PENDING)


def _named(memory: Memory, ids: list[str] | None, who: Who, where: str | None) -> dict[str, Any]:
    """Ids, or a scope. A user set in the environment does not turn ids into everything of that user."""
    from mnemic.upkeep import full_id

    if ids:
        return {"ids": [full_id(memory, one) for one in ids]}
    return {**who.reads(), "where": read_where(where)}


def _ask(memory: Memory, named: dict[str, Any]) -> None:
    planned = memory.erase(**named, dry_run=True)
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"this would destroy {_counted(planned)}; say --yes, or --dry-run first")
    typer.confirm(f"Destroy {_counted(planned)}? This cannot be undone", abort=True, err=True)


def _counted(done: Certificate) -> str:
    made = f", of which {done.derived:,} were made from the others" if done.derived else ""
    whole = f", and {done.spaces:,} whole memories with their names and keys" if done.spaces else ""
    return f"{done.cubes:,} cubes with {done.versions:,} versions{made}{whole}"


def _print(done: Certificate) -> None:
    out = console()
    verb = {"done": "erased", "pending": "erased, not yet overwritten on disk", "dry run": "would erase"}
    out.print(f"{verb[done.status]}: {_counted(done)}", style="bold")
    out.print(safe(f"certificate {done.id} · {minute(done.at)} UTC · {done.location} · tenant {done.tenant}"))
    if done.reason:
        out.print(safe(f"reason: {done.reason}"))
    if done.rooms:
        out.print("rows: " + ", ".join(f"{count:,} {table}" for table, count in done.rooms.items()))
    if done.waits_for:
        out.print(safe(f"pending: {done.waits_for} keeps it. Later: mnemic erase --finish"), style="yellow")
    for copy in done.copies:
        out.print(safe(f"may hold a copy, yours to delete: {copy}"), style="yellow")
    for copy in done.removed:
        out.print(safe(f"removed a copy that an upgrade had made: {copy}"))
    for beyond in done.beyond:
        out.print(safe(f"not reached: {beyond}"))


def _print_ledger(memory: Memory, *, as_json: bool) -> None:
    from mnemic.upkeep import erasures

    found = erasures(memory)
    if as_json:
        print_json(found)
        return
    for one in found:
        state = "pending" if one.finished_at is None else f"finished {minute(one.finished_at)}"
        rows = ", ".join(f"{count:,} {table}" for table, count in one.rooms.items())
        console().print(f"{minute(one.at)}  {one.id}  {state}: {rows}")
    if not found:
        console().print("nothing was ever erased here")


def _finish(memory: Memory, *, as_json: bool) -> None:
    from mnemic.upkeep import finish_erasures

    waits_for = finish_erasures(memory)
    if as_json:
        print_json({"pending": waits_for is not None, "waits_for": waits_for})
    else:
        console().print(safe(f"still pending: {waits_for}") if waits_for else "every erase is finished")
    if waits_for:
        raise typer.Exit(PENDING)
