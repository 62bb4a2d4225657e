"""Commands that carry memories from vault to vault: dump, load, merge, diff."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnemic.cli import options as o
from mnemic.cli.opening import Place, Who, embed_the_rest, key_from_environment, read_where
from mnemic.cli.output import console, ending, note, print_json, safe, short
from mnemic.cli.progress import Bar

if TYPE_CHECKING:
    from mnemic.vault.comparing import CubeDiff

MOST_SHOWN = 20
DIFFERENT = 1

Source = Annotated[
    str, typer.Argument(metavar="FILE|VAULT", help="A dump, or another vault: a path or postgresql://…")
]


def register(app: typer.Typer) -> None:
    app.command("dump", epilog="Example:  mnemic dump ana.mnemic --user ana")(dump)
    app.command("load", epilog="Example:  mnemic load ana.mnemic --vault laptop.db")(load)
    app.command("merge", epilog="Example:  mnemic merge phone.db --vault laptop.db")(merge)
    app.command("diff", epilog="Example:  mnemic diff monday.mnemic ana.db")(diff)


def dump(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, such as ana.mnemic.")],
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    user: o.User = None,
    agent: o.Agent = None,
    session: o.Session = None,
    everyone: o.Everyone = False,
    where: o.Where = None,
    redact: Annotated[
        str | None,
        typer.Option(
            "--redact",
            metavar="KINDS",
            help="To share it: only what is live, without history, ids and these: email, phone, card, iban, "
            "key, all, NAME=REGEX.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    as_json: o.Json = False,
) -> None:
    """Write a memory, or a part of it, to one file, with its full history. Other vaults load or merge it.

    What is over by its time or a rule stays behind. The file is not encrypted, also where the vault is.
    `mnemic erase` names the dumps it knows of.
    """
    who = Who(user=user, agent=agent, session=session, everyone=everyone)
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory, Bar("dumping", "versions") as bar:
        done = memory.dump(
            file, **who.reads(), where=read_where(where), redact=redact, overwrite=force, progress=bar
        )
    if as_json:
        print_json(done)
    else:
        erased = f" · {done.erased:,} marks of erased cubes" if done.erased else ""
        payloads = f" · {done.blobs:,} large payloads" if done.blobs else ""
        console().print(
            safe(f"{done.cubes:,} cubes with {done.versions:,} versions in {done.path} "
                 f"({done.bytes / 1e6:,.1f} MB){payloads}{erased}")
        )  # fmt: skip


def load(
    source: Source,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    as_json: o.Json = False,
) -> None:
    """Take in a dump or another vault. All or nothing; what is here already stays as it is.

    Nothing that either side has erased comes back. A damaged file is refused, and says what is wrong.
    """
    _take(source, vault, tenant, as_json=as_json)


def merge(
    source: Source,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    as_json: o.Json = False,
) -> None:
    """The same as `load`: take in a dump or another vault. In whatever order, all come to know the same."""
    _take(source, vault, tenant, as_json=as_json)


def _take(source: str, vault: str | None, tenant: str, *, as_json: bool) -> None:
    with Place(vault=vault, tenant=tenant).open() as memory:
        with Bar("loading", "versions") as bar:
            done = memory.load(source, key=key_from_environment("MNEMIC_OTHER"), progress=bar)
        embed_the_rest(memory)
    if as_json:
        print_json(done)
        return
    console().print(
        f"{done.stored:,} versions stored, {done.cubes:,} cubes are new, {done.existing:,} versions were here"
        + (f", {done.erased:,} belong to something erased and stayed out" if done.erased else "")
    )
    if done.gone:
        note(f"{done.gone:,} cubes were erased here, because the other had erased them")
    for id_ in done.conflicts[:MOST_SHOWN]:
        both = f"mnemic history {ending(id_)}"
        note(f"[{ending(id_)}] says different things on both sides; the later is shown, both: {both}")
    if len(done.conflicts) > MOST_SHOWN:
        note(f"and {len(done.conflicts) - MOST_SHOWN:,} more; --json lists all")


def diff(
    left: Source,
    right: Source,
    tenant: o.Tenant = "default",
    as_json: o.Json = False,
) -> None:
    """How two memories differ, cube by cube: dumps, vaults, or one of each. Exit code 1 if they do."""
    from mnemic.plaintext.porting import compare

    found = compare(left, right, tenant=tenant, key=key_from_environment())
    if as_json:
        print_json({**{name: getattr(found, name) for name in _PARTS}, "same": found.same})
    else:
        console().print(f"{found.same:,} cubes are the same")
        _print_cubes("only in the first", found.only_left)
        _print_cubes("only in the second", found.only_right)
        _print_cubes("other versions", found.changed)
        for what, ids in (("first", found.erased_left), ("second", found.erased_right)):
            if ids:
                console().print(f"{len(ids):,} erased in the {what}, still held by the other", style="bold")
    if not found.equal:
        raise typer.Exit(DIFFERENT)


_PARTS = ("only_left", "only_right", "changed", "erased_left", "erased_right")


def _print_cubes(title: str, cubes: tuple[CubeDiff, ...]) -> None:
    if not cubes:
        return
    console().print(f"{len(cubes):,} {title}", style="bold")
    for cube in cubes[:MOST_SHOWN]:
        sides = [side for side in (cube.left, cube.right) if side is not None]
        said = " → ".join(short(side, 60) for side in sides) if sides else "(deleted)"
        console().print(safe(f"  [{ending(cube.id)}] {cube.user or '(no user)'}: {said}"))
    if len(cubes) > MOST_SHOWN:
        console().print(f"  and {len(cubes) - MOST_SHOWN:,} more; --json lists all")
