"""Commands about who may do what, how long things are kept, and the account of it: principal, grant, policy,
retention, audit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnemic.cli import options as o
from mnemic.cli.opening import Place
from mnemic.cli.output import console, ending, minute, note, plain, print_json, safe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mnemic.governance.policy import Grant
    from mnemic.governance.sweep import Due
    from mnemic.memory import Memory

Label = Annotated[
    str | None,
    typer.Option("--label", metavar="LABEL", help="Only what bears this label.", show_default=False),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A principal's name.")]
Ending = Annotated[str, typer.Argument(metavar="ID", help="Its id, or an ending of it that only one has.")]
ReachUser = Annotated[
    str | None,
    typer.Option(
        "--user", "-u", metavar="NAME", help="Whose memory; left out: any; '': no user.", show_default=False
    ),
]
ReachAgent = Annotated[
    str | None,
    typer.Option(
        "--agent", "-a", metavar="NAME", help="Which agent's; left out: any; '': none.", show_default=False
    ),
]
ReachSession = Annotated[
    str | None,
    typer.Option(
        "--session", "-s", metavar="NAME", help="Which conversation; left out: any.", show_default=False
    ),
]


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
    policy = typer.Typer(help="How long things are kept, and what is never stored.", no_args_is_help=True)
    policy.command("add", epilog='Example:  mnemic policy add "keep 30 days" --user ana --label chat')(
        policy_add
    )
    policy.command("list", epilog="Example:  mnemic policy list")(policy_list)
    policy.command("drop", epilog="Example:  mnemic policy drop 3f9a01bc")(policy_drop)
    app.add_typer(policy, name="policy")
    retention = typer.Typer(help="What is over, or soon will be, and taking it out.", no_args_is_help=True)
    retention.command("due", epilog='Example:  mnemic retention due --within "7 days"')(retention_due)
    retention.command("sweep", epilog="Example:  mnemic retention sweep")(retention_sweep)
    app.add_typer(retention, name="retention")
    audit = typer.Typer(
        help="Who did what: a chain of rows in which no change goes unseen.", no_args_is_help=True
    )
    audit.command("start", epilog="Example:  mnemic audit start")(audit_start)
    audit.command("head", epilog="Example:  mnemic audit head >> heads-kept-elsewhere.txt")(audit_head)
    audit.command("verify", epilog="Example:  mnemic audit verify --head 42:9f…")(audit_verify)
    audit.command("log", epilog="Example:  mnemic audit log --denied")(audit_log)
    app.add_typer(audit, name="audit")


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
    _table(("name", "kind", "", "id"), rows, "nobody is known: whoever opens this vault is its owner")


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
    user: ReachUser = None,
    agent: ReachAgent = None,
    session: ReachSession = None,
    label: Label = None,
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
    reach = _reach(user, agent, session)
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
    _table(("who", "may", "on", "until", "id"), rows, "there are no grants")


def grant_revoke(
    id: Ending, vault: o.Vault = None, tenant: o.Tenant = "default", as_json: o.Json = False
) -> None:
    """Take a grant back. It counts for the next read of every process."""
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        gone = memory.governance.revoke(_full([one.id for one in memory.governance.grants()], id))
        shown = _grant_row(memory, gone)
    if as_json:
        print_json(_grant_json(gone))
    else:
        console().print(f"{shown[0]} may no longer {shown[1]}: {shown[2]}")


# --- policies and retention


def policy_add(
    rule: Annotated[
        str, typer.Argument(metavar="RULE", help='"keep 30 days", "legal hold", "redact email, card" …')
    ],
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    user: ReachUser = None,
    agent: ReachAgent = None,
    session: ReachSession = None,
    label: Label = None,
    as_json: o.Json = False,
) -> None:
    """Put a rule in force, for all processes at once.

    keep 30 days · keep 30 days then erase after 7 days · keep while used 30 days ·
    decay half-life 7 days below 0.1 · erase expired after 30 days · archive after 90 days · legal hold ·
    redact email, phone, card, iban, key · redact badge=EMP-[0-9]{6}
    """
    reach = _reach(user, agent, session)
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        made = memory.policies.add(rule, **reach, label=label)
    if as_json:
        print_json(_policy_json(made))
    else:
        labelled = f" labelled {safe(made.label)}" if made.label else ""
        console().print(
            f"in force for {safe(str(made.reach))}{labelled}: {safe(str(made.rule))}  [{ending(made.id)}]"
        )


def policy_list(vault: o.Vault = None, tenant: o.Tenant = "default", as_json: o.Json = False) -> None:
    """The rules in force."""
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        found = memory.policies.list()
    if as_json:
        print_json([_policy_json(one) for one in found])
        return
    rows = [(str(one.rule), str(one.reach), one.label or "", ending(one.id)) for one in found]
    _table(("rule", "for", "label", "id"), rows, "no rules: everything is kept")


def policy_drop(
    id: Ending, vault: o.Vault = None, tenant: o.Tenant = "default", as_json: o.Json = False
) -> None:
    """Take a rule out of force."""
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        gone = memory.policies.drop(_full([one.id for one in memory.policies.list()], id))
    if as_json:
        print_json(_policy_json(gone))
    else:
        console().print(f"no longer in force: {safe(str(gone.rule))}")


def retention_due(
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    within: Annotated[
        str | None,
        typer.Option("--within", metavar="SPAN", help="Such as '7 days'. Default: now.", show_default=False),
    ] = None,
    user: ReachUser = None,
    agent: ReachAgent = None,
    session: ReachSession = None,
    as_json: o.Json = False,
) -> None:
    """What is over and no longer served, and what soon will be, by which rule. Ids, no content."""
    reach = _reach(user, agent, session)
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        found = memory.retention.due(within, **reach)
    if as_json:
        print_json(found)
        return
    rows = [(minute(one.at), _said_of(one), one.rule, one.scope.user or "", ending(one.id)) for one in found]
    _table(("when", "", "by the rule", "user", "id"), rows, "nothing is due")


def _said_of(due: Due) -> str:
    if due.deed == "erase":
        return "to be destroyed" if due.over else "destroyed then"
    return "over" if due.over else "due"


def retention_sweep(vault: o.Vault = None, tenant: o.Tenant = "default", as_json: o.Json = False) -> None:
    """Take out what is over, destroy what a rule says is to be, archive what lay idle.

    Nothing waits for it: what is over is not served. `mnemic retention due` lists it beforehand.
    """
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        done = memory.retention.sweep()
    if as_json:
        print_json(done)
    else:
        destroyed = f", destroyed {done.erased:,}" if done.erased else ""
        console().print(f"taken out {done.expired:,}, archived {done.archived:,}{destroyed}")
        if done.waits_for:
            note(f"bytes are still on disk until they let go: {done.waits_for}; then: mnemic erase --finish")


# --- audit


def audit_start(vault: o.Vault = None, tenant: o.Tenant = "default", as_json: o.Json = False) -> None:
    """Begin the audit log. It begins by itself with the first principal, and never ends."""
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        head = memory.audit.start()
    print_json({"head": head}) if as_json else console().print(head)


def audit_head(vault: o.Vault = None, tenant: o.Tenant = "default", as_json: o.Json = False) -> None:
    """Where the log ends. Keep it elsewhere: with it, `verify` also finds a tail that was cut off."""
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        head = memory.audit.head()
    print_json({"head": head}) if as_json else console().print(head)


def audit_verify(
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    head: Annotated[
        str | None, typer.Option("--head", metavar="N:HASH", help="A head that you kept.", show_default=False)
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Read the whole log and see whether it is whole. Exit code 1 if not."""
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        verdict = memory.audit.verify(head)
    if as_json:
        print_json({"sound": verdict.sound, **plain(verdict)})
    elif verdict.sound:
        kept = (
            "" if head else "; without a head that you kept, a tail cut off with its record would not be seen"
        )
        console().print(f"whole: {verdict.rows:,} rows, ends at {verdict.head}{kept}")
    else:
        for problem in verdict.problems:
            console().print(f"broken: {problem}", style="bold red")
    if not verdict.sound:
        raise typer.Exit(1)


def audit_log(
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many of the last.")] = 100,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="NAME", help="Only what one principal did.", show_default=False),
    ] = None,
    verb: Annotated[
        str | None,
        typer.Option("--verb", metavar="VERB", help="Only this, such as update.", show_default=False),
    ] = None,
    denied: Annotated[bool, typer.Option("--denied", help="Only what was refused.")] = False,
    as_json: o.Json = False,
) -> None:
    """Who did what to which id, and what was refused."""
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        found = memory.audit.log(limit=limit, by=by, verb=verb, denied=denied)
    if as_json:
        print_json(found)
        return
    rows = [
        (str(one.n), minute(one.at), one.by, one.verb, "" if one.allowed else "denied", _ids(one.ids))
        for one in found
    ]
    _table(("n", "when", "who", "what", "", "ids"), rows, "nothing passes")


# --- what they share


def _reach(user: str | None, agent: str | None, session: str | None) -> dict[str, Any]:
    given = {"user": user, "agent": agent, "session": session}
    return {field: name or None for field, name in given.items() if name is not None}


def _ids(ids: Sequence[str]) -> str:
    shown = " ".join(ending(one) for one in ids[:3])
    return shown + (f" … {len(ids)} in all" if len(ids) > 3 else "")


def _full(known: Sequence[str], wanted: str) -> str:
    """The id that ends so. Raises NotFound and InvalidOption."""
    from mnemic.cube.errors import InvalidOption, NotFound

    found = [one for one in known if one.replace("-", "").endswith(wanted.lower().replace("-", ""))]
    if not found or not wanted:
        raise NotFound(f"no id ends in {wanted!r:.40}")
    if len(found) > 1:
        raise InvalidOption(f"{len(found)} ids end in {wanted!r:.40}; give more of it")
    return found[0]


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


def _policy_json(one: Any) -> dict[str, Any]:
    return {"id": one.id, "rule": str(one.rule), "reach": one.reach.given(), "label": one.label}


def _table(titles: Iterable[str], rows: Sequence[Sequence[str]], nothing: str) -> None:
    from rich.table import Table
    from rich.text import Text

    if not rows:
        note(nothing)
        return
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold", style="dim" if title == "id" else None)
    for row in rows:
        table.add_row(*(Text(safe(one)) for one in row))
    console().print(table)
