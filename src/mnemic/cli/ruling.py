"""Commands about how long things are kept, what is never stored, and the account of it: policy, retention,
audit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnemic.cli import options as o
from mnemic.cli import scopes as x
from mnemic.cli.opening import Place
from mnemic.cli.output import console, ending, minute, note, plain, print_json, safe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mnemic.governance.sweep import Due


def register(app: typer.Typer) -> None:
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


# --- policies and retention


def policy_add(
    rule: Annotated[
        str, typer.Argument(metavar="RULE", help='"keep 30 days", "legal hold", "redact email, card" …')
    ],
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    user: x.ReachUser = None,
    agent: x.ReachAgent = None,
    session: x.ReachSession = None,
    label: x.Label = None,
    as_json: o.Json = False,
) -> None:
    """Put a rule in force, for all processes at once.

    keep 30 days · keep 30 days then erase after 7 days · keep while used 30 days ·
    decay half-life 7 days below 0.1 · erase expired after 30 days · archive after 90 days · legal hold ·
    redact email, phone, card, iban, key · redact badge=EMP-[0-9]{6}
    """
    reach = x.reach_of(user, agent, session)
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
    x.print_table(("rule", "for", "label", "id"), rows, "no rules: everything is kept")


def policy_drop(
    id: x.Ending, vault: o.Vault = None, tenant: o.Tenant = "default", as_json: o.Json = False
) -> None:
    """Take a rule out of force."""
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        gone = memory.policies.drop(x.full([one.id for one in memory.policies.list()], id))
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
    user: x.ReachUser = None,
    agent: x.ReachAgent = None,
    session: x.ReachSession = None,
    as_json: o.Json = False,
) -> None:
    """What is over and no longer served, and what soon will be, by which rule. Ids, no content."""
    reach = x.reach_of(user, agent, session)
    with Place(vault=vault, tenant=tenant).open(reading=True) as memory:
        found = memory.retention.due(within, **reach)
    if as_json:
        print_json(found)
        return
    rows = [(minute(one.at), _said_of(one), one.rule, one.scope.user or "", ending(one.id)) for one in found]
    x.print_table(("when", "", "by the rule", "user", "id"), rows, "nothing is due")


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
    x.print_table(("n", "when", "who", "what", "", "ids"), rows, "nothing passes")


def _ids(ids: Sequence[str]) -> str:
    shown = " ".join(ending(one) for one in ids[:3])
    return shown + (f" … {len(ids)} in all" if len(ids) > 3 else "")


def _policy_json(one: Any) -> dict[str, Any]:
    return {"id": one.id, "rule": str(one.rule), "reach": one.reach.given(), "label": one.label}
