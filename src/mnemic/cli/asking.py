"""Commands that ask: search, context, ask."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnemic.cli import options as o
from mnemic.cli.opening import Place, Who, known_users, read_where
from mnemic.cli.output import (
    console,
    cube_json,
    day,
    ending,
    note,
    plain,
    print_json,
    safe,
    short,
    speaker,
    write_text,
)
from mnemic.cli.why import in_words, print_hits, print_pieces, signals_of

if TYPE_CHECKING:
    from mnemic.plaintext.compose.context import Context

Question = Annotated[
    list[str], typer.Argument(metavar="QUESTION", help="In your own words; - reads standard input.")
]
AskedAt = Annotated[
    str | None,
    typer.Option("--asked-at", metavar="TIME", help="When it is asked: 'last summer' is read from there."),
]
Budget = Annotated[int, typer.Option("--budget", "-b", min=1, help="Tokens that the context may take.")]


def register(app: typer.Typer) -> None:
    app.command("search", epilog='Example:  mnemic search "where does Ana live?" --user ana --explain')(
        search
    )
    app.command("context", epilog='Example:  mnemic context "plan her trip" --user ana --budget 500 | llm')(
        context
    )
    app.command("ask", epilog='Example:  mnemic ask "what is Ana allergic to?" --user ana')(ask)


def search(
    question: Question,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    user: o.User = None,
    agent: o.Agent = None,
    session: o.Session = None,
    everyone: o.Everyone = False,
    k: Annotated[int, typer.Option("-k", min=1, help="How many at most.")] = 10,
    where: o.Where = None,
    asked_at: AskedAt = None,
    as_of: o.AsOf = None,
    valid_at: o.ValidAt = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show what every signal added.")] = False,
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Find what answers a question, best first, and say why each was found."""
    who, filters, asked = _asked(question, user, agent, session, everyone, where)
    with Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url).open(reading=True) as memory:
        hits = memory.search(
            asked, **who.reads(), k=k, where=filters, asked_at=asked_at, as_of=as_of, valid_at=valid_at
        )
        remark = None if hits else known_users(memory, who)
    if as_json:
        found = [
            {
                "rank": rank,
                "score": hit.score,
                "why": in_words(hit.signals),
                "signals": hit.signals,
                "superseded": plain(hit.superseded),
                **cube_json(hit.cube),
            }
            for rank, hit in enumerate(hits, start=1)
        ]
        print_json({"question": asked, "hits": found, "notes": hits.notes})
        return
    print_hits(hits, explain=explain)
    for name, text in hits.notes.items():
        note(f"{name}: {text}")
    if not hits:
        note(remark or "nothing found; try other words, or look at everything with `mnemic list`")


def context(
    question: Question,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    user: o.User = None,
    agent: o.Agent = None,
    session: o.Session = None,
    everyone: o.Everyone = False,
    budget: Budget = 2000,
    strategy: Annotated[str, typer.Option("--strategy", help="auto, full, hybrid or retrieval.")] = "auto",
    why: Annotated[bool, typer.Option("--why", help="List the pieces and why each was chosen.")] = False,
    where: o.Where = None,
    asked_at: AskedAt = None,
    as_of: o.AsOf = None,
    valid_at: o.ValidAt = None,
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Print what a model should see to answer, within a token budget.

    The context goes to standard output, the account of it (which strategy and why, what was left out) to
    standard error.
    """
    who, filters, asked = _asked(question, user, agent, session, everyone, where)
    with Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url).open(reading=True) as memory:
        look = {
            **who.reads(),
            "where": filters,
            "asked_at": asked_at,
            "as_of": as_of,
            "valid_at": valid_at,
        }
        made = memory.context(asked, **look, budget=budget, strategy=strategy)
        signals = signals_of(memory, asked, made, look) if why else {}
        remark = None if made.cubes else known_users(memory, who)
    if as_json:
        print_json(made)
        return
    if made.text:
        write_text(made.text)
    if sys.stdout.isatty():
        console(stderr=True).rule(style="dim")
    if why:
        print_pieces(made, signals, limit=len(made.cubes), stderr=True)
    console(stderr=True).print(summary(made), style="dim")
    if remark:
        note(remark)


def ask(
    question: Question,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    user: o.User = None,
    agent: o.Agent = None,
    session: o.Session = None,
    everyone: o.Everyone = False,
    budget: Budget = 2000,
    where: o.Where = None,
    asked_at: AskedAt = None,
    as_of: o.AsOf = None,
    valid_at: o.ValidAt = None,
    embedder: o.Embedder = None,
    model: o.Model = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Answer from memory and cite it: by a model if you name one, else in the memory's own words."""
    who, filters, asked = _asked(question, user, agent, session, everyone, where)
    place = Place(vault=vault, tenant=tenant, embedder=embedder, model=model, base_url=base_url)
    with place.open(reading=True) as memory:
        found = memory.ask(
            asked,
            **who.reads(),
            budget=budget,
            where=filters,
            asked_at=asked_at,
            as_of=as_of,
            valid_at=valid_at,
        )
        remark = known_users(memory, who)
    if as_json:
        print_json({"question": asked, **plain(found)})
        return
    print_answer(found)
    if remark:
        note(remark)


def print_answer(found: Any) -> None:
    """An answer, how sure it is, and what it rests on."""
    from rich.text import Text

    out = console()
    if found.text:
        out.print(Text(safe(found.text), style="bold"))
    if found.abstained:
        out.print(Text("The memory does not hold the answer.", style="yellow"))
    out.print(Text(f"{found.method} · confidence {found.confidence:.2f}", style="dim"))
    for cube in found.cubes:
        out.print(
            Text(
                f"  [{ending(cube.id)}] {day(cube.header.at)} {speaker(cube)}: {short(cube.text, 160)}",
                style="dim",
            )
        )


def summary(made: Context) -> str:
    """Strategy, tokens and what was left out, in a line."""
    left_out = sum(one.count for one in made.omitted)
    return (
        f"{made.strategy}: {made.reason} · {made.tokens:,} of {made.budget:,} tokens"
        f" · {len(made.cubes):,} cubes, {left_out:,} left out"
    )


def _asked(
    question: list[str],
    user: str | None,
    agent: str | None,
    session: str | None,
    everyone: bool,
    where: str | None,
) -> tuple[Who, dict[str, Any] | None, str]:
    who = Who(user=user, agent=agent, session=session, everyone=everyone)
    who.reads()
    text = sys.stdin.read() if question == ["-"] else " ".join(question)
    return who, read_where(where), text.strip()
