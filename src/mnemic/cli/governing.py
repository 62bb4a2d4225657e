"""Commands about who may do what: principal, grant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnemic.cli import options as o
from mnemic.cli import scopes as x
from mnemic.cli.opening import Place
from mnemic.cli.output import console, ending, minute, print_json, safe

if TYPE_CHECKING:
    from mnemic.governance.policy import Grant
    from mnemic.memory import Memory

Name = Annotated[str, typer.Argument(metavar="NAME", help="A principal's name.")]


def register(app: typer.Typer) -> None:
    principal = typer.Typer(help="Who is known here: users, agents and services.", no_args_is_help=True)
    command = principal.command
    command("add", epilog="Example:  mnemic principal add ana --owns ana")(principal_add)
    command("list", epilog="Example:  mnemic principal list")(principal_list)
    command("disable", epilog="Example:  mnemic principal disable coach")(principal_disable)
    command("enable", epilog="Example:  mnemic principal enable coach")(principal_enable)
    app.add_typer(principal, name="principal")
    grant = typer.Typer(help="What they may do.", no_args_is_help=True)
    grant.command("add", epilog="Example:  mnemic grant add coach read --user ana --label training")(
        grant_add
    )
    grant.command("list", epilog="Example:  mnemic grant list coach")(grant_list)
    grant.command("revoke", epilog="Example:  mnemic grant revoke 3f9a01bc")(grant_revoke)
    app.add_typer(grant, name="grant")


# --- principals


def principal_add(
    name: Name,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    kind: Annotated[str, typer.Option("--kind", help="user, agent or service.", metavar="KIND")] = "user",
    owns: Annotated[
        str | None,
        typer.Option(
            "--owns",
            metavar="USER",
            help="The user whose memory is theirs: read, write, admin.",
            show_default=False,
        ),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Make somebody known. Without a grant they may do nothing; with the first, the audit log begins."""
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        made = memory.governance.add_principal(name, kind=kind, owns=owns)
    if as_json:
        print_json(made)
    else:
        owned = f", with all rights on {safe(owns)}'s memory" if owns else ", who may do nothing yet"
        console().print(f"{made.kind} {safe(made.name)} is known{owned}  [{ending(made.id)}]")


def principal_list(vault: o.Vault = None, tenant: o.Tenant = "default", as_json: o.Json = False) -> None:
    """Everybody who is known."""
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        known = memory.governance.principals()
    if as_json:
        print_json(known)
        return
    rows = [(one.name, one.kind, "disabled" if one.disabled else "", ending(one.id)) for one in known]
    x.print_table(("name", "kind", "", "id"), rows, "nobody is known: whoever opens this vault is its owner")


def principal_disable(
    name: Name, vault: o.Vault = None, tenant: o.Tenant = "default", as_json: o.Json = False
) -> None:
    """Refuse somebody everything from now on. Their grants are kept."""
    _turn(name, vault, tenant, as_json, enable=False)


def principal_enable(
    name: Name, vault: o.Vault = None, tenant: o.Tenant = "default", as_json: o.Json = False
) -> None:
    """Let the grants of somebody who was disabled hold again."""
    _turn(name, vault, tenant, as_json, enable=True)


def _turn(name: str, vault: str | None, tenant: str, as_json: bool, *, enable: bool) -> None:
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        turned = memory.governance.disable(name, enable=enable)
    if as_json:
        print_json(turned)
    else:
        console().print(f"{safe(turned.name)} is {'enabled' if enable else 'disabled'}")


# --- grants


def grant_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A principal's name, or everyone.")],
    rights: Annotated[
        str,
        typer.Argument(
            metavar="RIGHTS", help="read, write, admin (with commas), or reader, editor, owner, auditor."
        ),
    ],
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    user: x.ReachUser = None,
    agent: x.ReachAgent = None,
    session: x.ReachSession = None,
    label: x.Label = None,
    unless: Annotated[
        str | None,
        typer.Option("--unless", metavar="LABEL", help="Not what bears this label.", show_default=False),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="TIME", help="ISO 8601; default: for good.", show_default=False),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Give somebody rights on scopes."""
    reach = x.reach_of(user, agent, session)
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        made = memory.governance.grant(name, rights, **reach, label=label, unless=unless, until=until)
        shown = _grant_row(memory, made)
    if as_json:
        print_json(_grant_json(made))
    else:
        console().print(f"{shown[0]} may {shown[1]}: {shown[2]}  [{shown[-1]}]")


def grant_list(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only those of one principal.", show_default=False)
    ] = None,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    as_json: o.Json = False,
) -> None:
    """What they may do, as far as you are admin of it."""
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        found = memory.governance.grants(name)
        rows = [_grant_row(memory, one) for one in found]
    if as_json:
        print_json([_grant_json(one) for one in found])
        return
    x.print_table(("who", "may", "on", "until", "id"), rows, "there are no grants")


def grant_revoke(
    id: x.Ending, vault: o.Vault = None, tenant: o.Tenant = "default", as_json: o.Json = False
) -> None:
    """Take a grant back. It counts for the next read of every process."""
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        gone = memory.governance.revoke(x.full([one.id for one in memory.governance.grants()], id))
        shown = _grant_row(memory, gone)
    if as_json:
        print_json(_grant_json(gone))
    else:
        console().print(f"{shown[0]} may no longer {shown[1]}: {shown[2]}")


def _grant_row(memory: Memory, one: Grant) -> tuple[str, ...]:
    from mnemic.cube.times import to_datetime

    on = str(one.reach) + (f", labelled {one.label}" if one.label else "")
    on += f", unless {one.unless}" if one.unless else ""
    until = "" if one.until is None else minute(to_datetime(one.until))
    who = safe(memory.governance.name_of(one.principal))
    return who, _rights(one), safe(on), until, ending(one.id)


def _rights(one: Grant) -> str:
    return ", ".join(right.name or "" for right in one.rights)


def _grant_json(one: Grant) -> dict[str, Any]:
    return {
        "id": one.id,
        "principal": one.principal,
        "rights": [right.name for right in one.rights],
        "reach": one.reach.given(),
        "label": one.label,
        "unless": one.unless,
        "until": one.until,
    }
