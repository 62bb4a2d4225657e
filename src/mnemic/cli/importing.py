"""`mnemic import`: chat exports and notes into memory, with an account of what did not go in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnemic.cli import options as o
from mnemic.cli.opening import Place, Who, embed_the_rest
from mnemic.cli.output import console, note, print_json, safe
from mnemic.cli.progress import Bar

if TYPE_CHECKING:
    from mnemic.plaintext.ingest.store import Imported

FIRST_SKIPPED = 10


def register(app: typer.Typer) -> None:
    app.command("import", epilog="Example:  mnemic import chatgpt-export.zip --user ana")(import_)


def import_(
    file: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Files, folders of notes or .zip exports.")
    ],
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    user: o.User = None,
    agent: o.Agent = None,
    session: o.Session = None,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="NAME",
            help="auto, chatgpt, claude, markdown, text, jsonl, whatsapp or locomo (docs/import.md).",
        ),
    ] = "auto",
    sample: Annotated[
        str | None, typer.Option("--sample", metavar="ID", help="Which dialogue (locomo only).")
    ] = None,
    day_first: Annotated[
        bool | None,
        typer.Option(
            "--day-first/--month-first", help="Whether 3/5 is in May (whatsapp).", show_default=False
        ),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(
            "--timezone", metavar="ZONE", help="Where times without a zone were written: Europe/Lisbon."
        ),
    ] = None,
    skipped: Annotated[
        Path | None,
        typer.Option("--skipped", metavar="FILE", help="Write every skipped record to FILE (JSON lines)."),
    ] = None,
    embedder: o.Embedder = None,
    base_url: o.BaseUrl = None,
    as_json: o.Json = False,
) -> None:
    """Import chat exports and notes. Importing a file again stores only what is new."""
    given = {"sample": sample, "day_first": day_first, "timezone": _zone(timezone)}
    reading = {name: value for name, value in given.items() if value is not None}
    scope = Who(user=user, agent=agent, session=session).writes()
    reports = []
    with (
        Place(vault=vault, tenant=tenant, embedder=embedder, base_url=base_url).open() as memory,
        _lines_to(skipped) as keep,
    ):
        for one in file:
            with Bar(f"importing {one.name}", "records") as bar:
                account = memory.load_file(one, **scope, format=format, progress=bar, **reading)
            keep(account)
            reports.append(_imported_json(str(one), account, bar.seconds))
            if not as_json:
                _print_import(reports[-1], skipped)
        embed_the_rest(memory)
    if as_json:
        print_json(reports)


def _zone(name: str | None) -> Any:
    if name is None:
        return None
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise typer.BadParameter(
            f"--timezone {name!r} is not a time zone; use a name such as Europe/Lisbon"
        ) from None


class _lines_to:
    """Writes skipped records to a file as they come, if there is one."""

    def __init__(self, path: Path | None) -> None:
        self._file = None if path is None else path.open("w", encoding="utf-8")

    def __enter__(self) -> Any:
        return self._keep

    def _keep(self, account: Imported) -> None:
        if self._file is not None:
            for one in account.skipped:
                line = {"where": one.where, "reason": one.reason, "id": one.id}
                self._file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _imported_json(file: str, account: Imported, seconds: float) -> dict[str, Any]:
    return {
        "file": file,
        "read": account.read,
        "stored": account.stored,
        "existing": account.existing,
        "sessions": len(account.sessions),
        "seconds": round(seconds, 3),
        "skipped": [{"where": one.where, "reason": one.reason, "id": one.id} for one in account.skipped],
        "notes": list(getattr(account, "notes", ())),
    }


def _print_import(report: dict[str, Any], skipped_to: Path | None) -> None:
    rate = report["read"] / report["seconds"] if report["seconds"] else 0
    out = console()
    seconds, skipped = report["seconds"], len(report["skipped"])
    out.print(f"{safe(report['file'])}: read {report['read']:,} records in {seconds:.1f} s ({rate:,.0f}/s)")
    out.print(
        f"  stored {report['stored']:,} · already there {report['existing']:,} · skipped {skipped:,}"
        f" · sessions {report['sessions']:,}"
    )
    for remark in report["notes"]:
        note(f"  {remark}")
    for one in report["skipped"][:FIRST_SKIPPED]:
        note(f"  {one['where']}: {one['reason']}")
    more = skipped - FIRST_SKIPPED
    if more > 0:
        note(
            f"  … and {more:,} more"
            + (f", in {skipped_to}" if skipped_to else "; --skipped FILE writes them all")
        )
