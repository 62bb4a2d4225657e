"""`mnemic bench flash`: weights on disk, what each idea of LLM in a flash saves, and models that run so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnemic.cli.bench import Fresh, Json
from mnemic.cli.progress import Steps
from mnemic.cli.results import Out, ReportOnly, leave

if TYPE_CHECKING:
    from mnemic.models.local import LocalModel


def flash(
    data: Annotated[
        Path, typer.Option("--data", help="Folder with valid.txt and test.txt, such as wikitext-2's.")
    ],
    questions: Annotated[
        Path | None,
        typer.Option(
            "--gsm8k",
            metavar="FILE",
            help="GSM8K's test.jsonl; without it `shares` is left out.",
            show_default=False,
        ),
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            "--part",
            help="exact, ablation, shares, model, values; repeatable. Default: all.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="With SwiGLU, for `shares`: smollm2, or a transformers folder.")
    ] = "smollm2",
    out: Out = Path("bench-results"),
    fresh: Fresh = False,
    report_only: ReportOnly = False,
    as_json: Json = False,
) -> None:
    """Weights on disk: exact, within a budget, and how much less is read.

    `ablation` writes 3.2 GB to --out and deletes them; `model` trains a small language model with ReLU (seven
    minutes of one processor) and runs it in processes whose memory is limited, on Linux. Writes flash.json
    and flash.md to --out; a run that was stopped goes on where it was. Exit code 1 when a demand is not met.

    mnemic bench flash --data DIR --part exact --part ablation
    """  # fmt: skip
    from mnemic.models.registry import load_model

    def swiglu() -> LocalModel:
        return load_model(model)

    from mnemic.bench.flash.shares import read_questions
    from mnemic.bench.flash.suite import PARTS, markdown, run
    from mnemic.bench.parametric.suite import read_data
    from mnemic.bench.parts import Parts
    from mnemic.cube.errors import InvalidOption

    chosen = part or [one for one in PARTS if questions is not None or one != "shares"]
    if unknown := sorted(set(chosen) - set(PARTS)):
        raise InvalidOption(f"--part {unknown[0]!r:.40} is unknown; there are {', '.join(PARTS)}")
    if questions is None and "shares" in chosen:
        raise InvalidOption("--part shares reads GSM8K: name its test.jsonl by --gsm8k FILE")
    corpus, other = read_data(data)
    text = None if questions is None else read_questions(questions)
    parts = Parts(out / "flash.part.json", {"model": model}, fresh=fresh)
    with Steps(30) as step:
        found = run(
            corpus,
            other,
            text,
            swiglu_model=swiglu,
            parts=parts,
            chosen=[] if report_only else chosen,
            folder=out / "flash",
            step=step,
        )
    command = "mnemic bench flash --data DIR --gsm8k FILE"
    leave(out, "flash", found, markdown(found, command), as_json)
    if not all(one["met"] for one in found["demands"]):
        raise typer.Exit(1)
