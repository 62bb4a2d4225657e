"""`mnemic bench chunks`: coarse-to-fine search beside what scores everything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mnemic.cli.progress import Steps


def chunks(
    data: Annotated[
        Path | None,
        typer.Option("--data", help="LoCoMo's JSON file, or the folder that holds it.", show_default=False),
    ] = None,
    dialogue: Annotated[
        list[str] | None, typer.Option("--dialogue", help="Only these dialogues, repeatable.")
    ] = None,
    together: Annotated[
        bool, typer.Option("--together/--apart", help="Also ask all dialogues in one memory.")
    ] = True,
    text_file: Annotated[
        Path | None,
        typer.Option("--text", help="A text of 300 paragraphs or more, UTF-8.", show_default=False),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder for results; a second run goes on where the first ended.")
    ] = Path("bench-results"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of Markdown.")] = False,
) -> None:
    """Search from coarse to fine, summaries first: what it finds and saves, beside scoring everything.

    On the questions of LoCoMo (--data) and on sentences of a text (--text), or one of them. Writes
    chunks.json and chunks.md to --out.

    Examples:

      mnemic bench chunks --data DIR --text book.txt
    """
    from mnemic.bench.chunked import TOGETHER, chunks_markdown, locomo, text
    from mnemic.bench.locomo import digest, load
    from mnemic.cube.errors import InvalidOption

    if data is None and text_file is None:
        raise InvalidOption("say on what: --data with LoCoMo's file, --text with a book, or both")
    found: dict[str, Any] = {}
    command = "mnemic bench chunks"
    dialogues = [] if data is None else [d for d in load(data) if not dialogue or d.id in dialogue]
    if data is not None and not dialogues:
        raise InvalidOption(f"no dialogue {', '.join(dialogue or ())} in {data.name}")
    planned = len(dialogues) + together * len(TOGETHER) if dialogues else 0
    with Steps(planned + bool(text_file)) as report:
        if data is not None:
            kept, file_digest = out / "chunks-runs.json", digest(data)
            found["locomo"] = locomo(dialogues, kept, file_digest, report, together=together)
            command += " --data DIR" + "".join(f" --dialogue {one}" for one in dialogue or ())
            command += "" if together else " --apart"
        if text_file is not None:
            found["text"] = text(text_file)
            command += f" --text {text_file.name}"
            report("text", "done")
    out.mkdir(parents=True, exist_ok=True)
    written = chunks_markdown(found, command)
    (out / "chunks.json").write_text(json.dumps(found, indent=1) + "\n")
    (out / "chunks.md").write_text(written)
    typer.echo(json.dumps(found, indent=1) if as_json else written)
