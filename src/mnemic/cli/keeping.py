"""Commands that keep a memory in good order: export-jsonl, reembed, doctor."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnemic.cli import options as o
from mnemic.cli.opening import Place, Who, key_from_environment
from mnemic.cli.output import console, note, print_json, safe
from mnemic.cli.progress import Bar

if TYPE_CHECKING:
    from mnemic.cube.model import MemCube
    from mnemic.doctor import Finding
    from mnemic.memory import Memory

PAGE = 500
_STYLES = {"fine": "green", "note": "yellow", "wrong": "bold red"}


def register(app: typer.Typer) -> None:
    app.command("export-jsonl", epilog="Example:  mnemic export-jsonl --user ana -o ana.jsonl")(export_jsonl)
    app.command("reembed", epilog="Example:  mnemic reembed --embedder minilm")(reembed)
    app.command("doctor", epilog="Example:  mnemic doctor ana.db")(doctor)


def export_jsonl(
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    user: o.User = None,
    agent: o.Agent = None,
    session: o.Session = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: standard output.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Write one person's memory as JSON lines, a message each; `mnemic import` reads them back.

    Texts, names, times, ids, sessions, labels and metadata are kept; versions, deletions and where a text
    stood in an imported file are not. Memories of several agents are exported one agent at a time.
    """
    from mnemic.cube.errors import InvalidOption

    if output is not None and output.exists() and not force:
        raise InvalidOption(f"{output} exists; choose another name, or replace it with --force")
    if as_json and output is None:
        raise typer.BadParameter("--json is the account of an export into a file: add -o FILE")
    reads = Who(user=user, agent=agent, session=session).reads()
    with (
        Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url).open(reading=True) as memory,
        Bar("exporting", "messages") as bar,
    ):
        _one_agent(memory, user, agent)
        memory.audit.export()
        total, count = memory.count(**reads), 0
        part = None if output is None else output.with_name(output.name + ".part")
        stream = sys.stdout if part is None else part.open("w", encoding="utf-8")
        try:
            for count, message in enumerate(_messages(_cubes(memory, reads)), start=1):
                stream.write(json.dumps(message, ensure_ascii=False) + "\n")
                if output is not None:
                    bar(count, total)
            stream.flush()
        finally:
            if part is not None:
                stream.close()
    if part is not None and output is not None:
        part.replace(output)  # a file of this name is always whole
    if as_json:
        print_json({"file": str(output), "messages": count, "cubes": total})
    elif output is not None:
        console().print(
            f"{count:,} messages in {output}. Read them back with: mnemic import {output} --user NAME"
        )


def reembed(
    file: o.VaultHere = None,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Change the embedder, or make missing features. Searching goes on meanwhile.

    Stopped half-way, the next run goes on where this one was.
    """
    from mnemic.upkeep import reembed_vault

    place = Place(vault=file or vault, tenant=tenant, embedder=embedder, base_url=base_url)
    place.require()
    with Bar("embedding", "cubes") as bar:
        made = reembed_vault(
            place.vault,
            tenant=tenant,
            key=key_from_environment(),
            embedder=place.make_embedder(),
            progress=bar,
        )
    if as_json:
        print_json({"features": made, "seconds": round(bar.seconds, 3)})
    else:
        said = (
            f"{made:,} features made in {bar.seconds:.1f} s"
            if made
            else "nothing to do: no cube lacks a feature"
        )
        console().print(said)


def doctor(
    file: o.VaultHere = None,
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="First remove files of large payloads that a crash left behind.")
    ] = False,
    as_json: o.Json = False,
) -> None:
    """Check the file, the content, the index and the embedder, and say what to do.

    Changes nothing, but for --sweep. Exit code 1 if something is wrong.
    """
    from mnemic.doctor import examine
    from mnemic.upkeep import sweep_vault

    place = Place(vault=file or vault, tenant=tenant, embedder=embedder, base_url=base_url)
    if sweep:
        place.require()
        swept = sweep_vault(place.vault, tenant=tenant, key=key_from_environment())
        note(f"{swept} files removed that no cube named")
    findings = []
    with Bar("reading every version", "versions") as bar:
        key = key_from_environment()
        for finding in examine(
            place.vault, tenant=tenant, key=key, embedder=place.make_embedder(), progress=bar
        ):
            findings.append(finding)
            if not as_json:
                _print_finding(finding)
    wrong = [finding for finding in findings if finding.status == "wrong"]
    if as_json:
        print_json({"sound": not wrong, "findings": findings})
    else:
        verdict = f"{len(wrong)} thing(s) wrong" if wrong else "this memory is sound"
        console().print(verdict, style="bold red" if wrong else "bold green")
    if wrong:
        raise typer.Exit(1)


def _print_finding(finding: Finding) -> None:
    from rich.text import Text

    line = Text(f"{finding.status:<6}", style=_STYLES[finding.status])
    line.append(f"{finding.check:<11}", style="bold").append(safe(finding.says), style="not bold default")
    console().print(line)
    if finding.advice:
        console().print(Text(f"{'':17}do: {safe(finding.advice)}", style="yellow"))


def _one_agent(memory: Memory, user: str | None, agent: str | None) -> None:
    """A line has no agent, so that a file could not be read back into several."""
    from mnemic.cube.errors import InvalidOption

    if agent is not None or not user:
        return
    agents = sorted({one.agent or "" for one in memory.sessions(user=user)})
    if len(agents) > 1:
        names = ", ".join(f"--agent {name or repr('')}" for name in agents)
        raise InvalidOption(f"{user} has memories of {len(agents)} agents; export them one by one: {names}")


def _cubes(memory: Memory, reads: dict[str, Any]) -> Iterator[MemCube]:
    cursor: str | None = None
    while True:
        page = memory.list(**reads, limit=PAGE, after=cursor)
        yield from page
        if page.next is None:
            return
        cursor = page.next


def _messages(cubes: Iterator[MemCube]) -> Iterator[dict[str, Any]]:
    """Messages as they were told: the pieces of a long one are joined where all of them are there."""
    pieces: list[MemCube] = []
    for cube in cubes:
        if cube.kind.name != "plaintext" or cube.header.origin.name in ("derived", "trained"):
            what = f"{cube.header.origin.name} {cube.kind.name}"
            note(f"{cube.id} is {what}, not something that was told: left out")
            continue
        if pieces and not _follows(pieces[-1], cube):
            yield from map(_message, pieces)
            pieces = []
        place = cube.header.place
        if place is None or (place.start, place.end) == (0, place.total) or (not pieces and place.start):
            yield _message(cube)
            continue
        pieces.append(cube)
        if place.end == place.total:
            yield {**_message(pieces[0], whole=True), "content": "".join(piece.text for piece in pieces)}
            pieces = []
    yield from map(_message, pieces)


def _follows(last: MemCube, cube: MemCube) -> bool:
    one, other = last.header.place, cube.header.place
    return (
        one is not None
        and other is not None
        and (one.end, one.total, one.source) == (other.start, other.total, other.source)
        and (last.header.scope, last.client_id) == (cube.header.scope, cube.client_id)
    )


def _message(cube: MemCube, *, whole: bool = False) -> dict[str, Any]:
    header = cube.header
    alone = header.place is None or (header.place.start, header.place.end) == (0, header.place.total)
    message = {
        "role": header.role or "user",
        "content": cube.text,
        "name": header.name,
        "at": header.at.isoformat(),
        "session": header.scope.session,
        "id": (cube.client_id or cube.id) if whole or alone else cube.id,
        "labels": list(header.labels),
        "metadata": dict(header.metadata),
    }
    return {key: value for key, value in message.items() if value not in (None, [], {})}
