"""`mnemic bench parametric`: adapters, kNN and MLP memories, and what each form of memory costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mnemic.cli.bench import Fresh, Json
from mnemic.cli.progress import Steps
from mnemic.cli.results import Out, ReportOnly, leave


def parametric(
    data: Annotated[
        Path, typer.Option("--data", help="Folder with valid.txt and test.txt, such as wikitext-2's.")
    ],
    part: Annotated[
        list[str] | None,
        typer.Option(
            "--part",
            help="adapters, erasure, forms, facts, layers, text, ablation, cost; repeatable. Default: all.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="smollm2, or the folder of a transformers model.")
    ] = "smollm2",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Sets of facts for adapters.")] = 1,
    facts: Annotated[int, typer.Option("--facts", min=2, help="Invented facts for kNN and MLP.")] = 200,
    tokens: Annotated[int, typer.Option("--tokens", min=1000, help="Of the corpus.")] = 25_600,
    out: Out = Path("bench-results"),
    fresh: Fresh = False,
    report_only: ReportOnly = False,
    as_json: Json = False,
) -> None:
    """Learned memories: are they real and reversible, good students, constant in cost, and erased?

    Writes parametric.json and parametric.md to --out; a run that was stopped goes on where it was. Two hours
    of one processor for everything. Exit code 1 when a demand is not met.

    mnemic bench parametric --data DIR --part adapters --part forms
    """
    from mnemic.cube.errors import InvalidOption
    from mnemic.models.registry import load_model

    local = load_model(model)
    from mnemic.bench.parametric.suite import PARTS, markdown, read_data, run
    from mnemic.bench.parts import Parts
    from mnemic.models.fingerprint import fingerprint

    chosen = part or list(PARTS)
    if unknown := sorted(set(chosen) - set(PARTS)):
        raise InvalidOption(f"--part {unknown[0]!r:.40} is unknown; there are {', '.join(PARTS)}")
    corpus, other = read_data(data)
    settings = {"facts": facts, "tokens": tokens, **fingerprint(local).as_dict()}
    parts = Parts(out / "parametric.part.json", settings, fresh=fresh)
    with Steps(30) as step:
        found = run(
            local,
            corpus,
            other,
            parts=parts,
            chosen=[] if report_only else chosen,
            seeds=range(seeds),
            folder=out / "parametric",
            facts=facts,
            tokens=tokens,
            step=step,
        )
    command = f"mnemic bench parametric --data DIR --seeds {seeds}"
    command += "" if facts == 200 else f" --facts {facts}"
    command += "" if tokens == 25_600 else f" --tokens {tokens}"
    leave(out, "parametric", found, markdown(found, command), as_json)
    if not all(one["met"] for checks in found["demands"].values() for one in checks):
        raise typer.Exit(1)
