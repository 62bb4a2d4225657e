"""`mnemic bench kv-cubes`: what mounting a KV cube saves, and that it changes nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mnemic.cli.bench import Data, Fresh, Json, _command, _dialogues
from mnemic.cli.progress import Steps
from mnemic.cli.results import Out, ReportOnly, leave


def kv_cubes(
    data: Data = None,
    dialogue: Annotated[str, typer.Option("--dialogue", help="Whose turns are read.")] = "conv-26",
    model: Annotated[
        str, typer.Option("--model", help="smollm2, or the folder of a transformers model.")
    ] = "smollm2",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Query streams of the second experiment.")] = 5,
    memory: Annotated[
        list[int] | None, typer.Option("--memory", min=64, help="Tokens, repeatable.", show_default=False)
    ] = None,
    queries: Annotated[int, typer.Option("--queries", min=40, help="Of a stream.")] = 200,
    out: Out = Path("bench-results"),
    fresh: Fresh = False,
    report_only: ReportOnly = False,
    as_json: Json = False,
) -> None:
    """KV memory: exactness, time to the first token, smaller forms, and cost against truth under use.

    Memories of 256, 1,024 and 1,800 tokens unless named. Writes kv-cubes.json and kv-cubes.md to --out; a run
    that was stopped goes on where it was. Exit code 1 when a demand is not met.

    mnemic bench kv-cubes --data DIR --memory 256 --seeds 2
    """
    from mnemic.models.registry import load_model

    (chosen,), path = _dialogues(data, [dialogue])
    local = load_model(model)
    from mnemic.bench.kv_cubes import MEMORIES, markdown, run, settings
    from mnemic.bench.parts import Parts

    sizes = memory or list(MEMORIES)
    parts = Parts(
        out / "kv-cubes.part.json",
        settings(path, dialogue, local, queries),
        fresh=fresh,
        measure=not report_only,
    )
    with Steps(3 * len(sizes) + 9 + 4 * seeds) as step:
        found = run(
            chosen, local, seeds=range(seeds), parts=parts, memories=sizes, queries=queries, step=step
        )
    command = _command("kv-cubes", [dialogue]) + f" --seeds {seeds}"
    command += "".join(f" --memory {size}" for size in memory or ())
    command += "" if queries == 200 else f" --queries {queries}"
    leave(out, "kv-cubes", found, markdown(found, command), as_json)
    if not all(one["met"] for checks in found["demands"].values() for one in checks):
        raise typer.Exit(1)
