"""`mnemic kv`: texts that a model in this process has read once and need not read again."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from mnemic.cli import options as o
from mnemic.cli.made import LocalModelName, Title, as_dict, chat_hint, cited, now, texts
from mnemic.cli.opening import Place, Who, read_where
from mnemic.cli.output import console, ending, minute, note, print_json, safe

app = typer.Typer(
    name="kv", no_args_is_help=True, help="Texts that a model has read once, kept so that it need not again."
)

Id = Annotated[
    str, typer.Argument(metavar="ID", help="A KV cube's id, or an ending of it that only one cube has.")
]


@app.command(epilog="Example:  mnemic kv build --user ana --model smollm2 --title profile")
def build(
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    user: o.User = None,
    agent: o.Agent = None,
    session: o.Session = None,
    id: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="ID", help="Read this cube; repeatable. Default: all of the user's."),
    ] = None,
    where: o.Where = None,
    model: LocalModelName = "smollm2",
    storage: Annotated[
        str, typer.Option("--storage", help="exact, or int8 and int4: smaller, with a measured error.")
    ] = "exact",
    title: Title = None,
    as_json: o.Json = False,
) -> None:
    """Have a model read texts once and keep what it computed; `mnemic chat --kv` starts from there.

    When one of the texts is updated, deleted or erased, or expires, it is not used any more.
    """
    from mnemic.models.registry import load_model
    from mnemic.upkeep import kv_memory

    who, filters = Who(user=user, agent=agent, session=session), read_where(where)
    reads = who.reads()
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        chosen = texts(memory, id, {**reads, "where": filters})
        local = load_model(model)
        start = time.perf_counter()
        made = memory.as_kv(chosen, local, storage=storage, title=title)
        seconds = time.perf_counter() - start
        kept = kv_memory(memory, made.id)
    if as_json:
        print_json({**as_dict(kept), "seconds": seconds})
        return
    told = kept.described
    console().print(
        f"[{ending(made.id)}] {local.name} read {told.tokens:,} tokens of {len(chosen):,} cubes in "
        f"{seconds:.1f} s; {told.size / 1e6:,.1f} MB kept, {told.label}"
    )
    if told.error:
        console().print(_error(told.error), style="dim")
    note(chat_hint("--kv", made, model, user))


@app.command("list", epilog="Example:  mnemic kv list --user ana")
def list_(
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    user: o.User = None,
    everyone: o.Everyone = False,
    as_json: o.Json = False,
) -> None:
    """List what models have read, and whether it may still be used."""
    from mnemic.cube.model import ANY
    from mnemic.upkeep import kv_memories

    Who(user=user, everyone=everyone).reads()
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        found = kv_memories(memory, user=ANY if everyone else user)
    if as_json:
        print_json([as_dict(kept) for kept in found])
        return
    if not found:
        note("there are none; make one with: mnemic kv build --user NAME --model smollm2")
        return
    from rich.table import Table

    table = Table("id", "title", "of", "model", "tokens", "MB", "kept", "made", "now")
    for kept in found:
        told, header = kept.described, kept.cube.header
        table.add_row(
            ending(kept.cube.id), safe(told.title or ""), safe(header.scope.user or ""), safe(told.model),
            f"{told.tokens:,}", f"{told.size / 1e6:,.1f}", safe(told.label), minute(header.recorded_at),
            now(kept, 60),
        )  # fmt: skip
    console().print(table)


@app.command(epilog="Example:  mnemic kv inspect 3f9a01bc")
def inspect(id: Id, vault: o.Vault = None, tenant: o.Tenant = "default", as_json: o.Json = False) -> None:
    """Show which model made it, from what, how it is kept, and whether it may still be used."""
    from mnemic.upkeep import full_id, kv_memory

    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        kept = kv_memory(memory, full_id(memory, id))
        sources = cited(memory, kept)
    if as_json:
        print_json(as_dict(kept))
        return
    out, told = console(), kept.described
    out.print(f"{kept.cube.id}  {safe(told.title or '')}", style="bold")
    out.print(now(kept))
    out.print(f"{told.tokens:,} tokens, {told.size / 1e6:,.1f} MB, {safe(told.label)}, by {safe(told.model)}")
    if told.error:
        out.print(_error(told.error))
    out.print(f"made with {safe(told.made_with)}", style="dim")
    for part, digest in told.fingerprint.items():
        out.print(f"  {part:9} {safe(digest[:16])}…", style="dim")
    out.print(f"  {'stack':9} {safe(told.stack[:16])}…", style="dim")
    out.print(f"from {len(sources)} cubes:")
    for line in sources:
        out.print(line, style="dim")


@app.command(epilog="Example:  mnemic kv verify --drop-stale")
def verify(
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    drop_stale: Annotated[
        bool, typer.Option("--drop-stale", help="Also drop those whose sources changed, and their files.")
    ] = False,
    grace: Annotated[
        float, typer.Option("--grace", min=0, help="Seconds that a file without a cube may still be wanted.")
    ] = 3600.0,
    as_json: o.Json = False,
) -> None:
    """Check every byte of every file, and remove files that a killed build left behind.

    Exit code 1 when a file is damaged or missing; its cube is refused by every mount, and can be built again.
    """
    from mnemic.upkeep import sweep_kv, verify_kv

    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        checked = list(verify_kv(memory))
        swept, dropped, freed = sweep_kv(memory, grace=grace, stale=drop_stale)
    wrong = [one for one in checked if one.wrong]
    stale = [one for one in checked if one.kept.why_not is not None]
    if as_json:
        print_json(
            {
                "checked": len(checked),
                "wrong": {one.kept.cube.id: one.wrong for one in wrong},
                "stale": {one.kept.cube.id: one.kept.why_not for one in stale},
                "orphans_removed": swept,
                "dropped": dropped,
                "bytes_freed": freed,
            }
        )
    else:
        for one in wrong:
            console().print(f"[{ending(one.kept.cube.id)}] {safe(one.wrong or '')}", style="red")
        console().print(
            f"{len(checked)} files checked, {len(wrong)} wrong · {len(stale)} not served any more"
            f"{f', {dropped} dropped, {freed / 1e6:,.1f} MB freed' if drop_stale else ''}"
            f" · {swept} files without a cube removed"
        )
    if wrong:
        raise typer.Exit(1)


@app.command(epilog='Example:  mnemic kv drop 3f9a01bc --reason "the profile moved on"')
def drop(
    id: Id,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    reason: o.Reason = None,
    as_json: o.Json = False,
) -> None:
    """Take a KV memory away and delete its file. Its texts stay; it can be built again from them."""
    from mnemic.upkeep import drop_kv, full_id

    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        cube = full_id(memory, id)
        freed = drop_kv(memory, cube, reason=reason)
    if as_json:
        print_json({"dropped": cube, "bytes_freed": freed})
        return
    console().print(f"dropped [{ending(cube)}]; {freed / 1e6:,.1f} MB freed")


def _error(error: dict[str, Any]) -> str:
    return (
        f"off by at most {error['max_logit']:.3f} in a logit, KL {error['mean_kl']:.2g} nats on average, the "
        f"same next token in {error['same_top']:.0%} of {error['tokens']} places"
    )
