"""`mnemic bench kv`: cache policies on a real model, and the experiments of the papers they come from."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnemic.cli.progress import Steps
from mnemic.cli.results import Out, ReportOnly, leave

if TYPE_CHECKING:
    from mnemic.bench.kv.items import Item
    from mnemic.bench.parts import Parts

app = typer.Typer(
    name="kv",
    no_args_is_help=True,
    help="Measure cache policies: quality, rhythm, heads, speed. Needs [torch].",
)

Model = Annotated[str, typer.Option("--model", help="smollm2, or the folder of a transformers model.")]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder with wikitext2_small, pi-llm, lazyeviction_reasoning, locomo.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON instead of Markdown.")]
Items = Annotated[int, typer.Option(min=1, help="Items of each kind.")]
Length = Annotated[int, typer.Option(min=128, help="Tokens of a prompt.")]
AtMost = Annotated[
    int | None,
    typer.Option(min=1, help="Measure so many parts now, and the rest in other runs.", show_default=False),
]
Budgets = Annotated[
    list[float] | None,
    typer.Option(
        "--budget", help="Share of the tokens kept, repeatable. Default: 0.5, 0.25.", show_default=False
    ),
]


@app.command()
def quality(
    model: Model = "smollm2",
    data: Data = None,
    family: Annotated[list[str] | None, typer.Option("--family", help="Only these, repeatable.")] = None,
    budget: Budgets = None,
    items: Items = 8,
    length: Length = 512,
    kvpress: Annotated[
        Path | None,
        typer.Option(help="The Python of kvpress's own environment: its presses run on the same items."),
    ] = None,
    at_most: AtMost = None,
    report_only: ReportOnly = False,
    out: Out = Path("bench-results"),
    as_json: Json = False,
) -> None:
    """Every policy at equal budgets: needles, update streams, re-reading, dialogues, reasoning, perplexity.

    Writes items.json, kv.jsonl, kv.json, kv.md and kv.svg to --out, and kvpress's results to its kvpress.
    With --kvpress both environments' logits must agree first. docs/bench.md says how to make the other one.

    mnemic bench kv quality --data DIR --items 8 --length 512 --kvpress kvpress-env/bin/python
    """
    from mnemic.bench.kv.items import FAMILIES, Sources, make_items, write_items
    from mnemic.bench.kv.measure import measure
    from mnemic.bench.kv.peer import read_kvpress, run_kvpress
    from mnemic.bench.kv.report import markdown, quality_svg, summarise

    local, encode = _model(model)
    chosen = make_items(
        Sources(folder=_folder(data)), encode, families=family or list(FAMILIES), length=length, count=items
    )
    out.mkdir(parents=True, exist_ok=True)
    write_items(chosen, out / "items.json")
    shares = budget or [0.5, 0.25]
    peers: list[dict[str, Any]] = []
    notes = [f"Prompts of about {length} tokens, {_machine()}; the tables count the items."]
    at_most = 0 if report_only else at_most
    with _progress(len(chosen) * (1 if kvpress is None else 2)) as report:
        rows = measure(local, chosen, shares, out / "kv.jsonl", report, at_most=at_most)
        if kvpress is not None:
            if report_only:
                peer = read_kvpress(local, chosen, out / "kvpress")
            else:
                peer = run_kvpress(kvpress, local, chosen, out, shares, report, at_most=at_most)
            notes, peers = notes + peer.notes, peer.rows
    found = summarise(rows, peers)
    (out / "kv.svg").write_text(quality_svg(found))
    leave(out, "kv", found, markdown(found, command=_command("quality"), notes=notes), as_json)


@app.command()
def rhythm(
    seed: Annotated[list[int] | None, typer.Option("--seed", help="Repeatable. Default: 0 and 1.")] = None,
    out: Out = Path("bench-results"),
    as_json: Json = False,
) -> None:
    """Synthetic recurrence: which policy holds what falls silent and comes back? Needs no model; a minute.

    mnemic bench kv rhythm
    """
    from mnemic.bench.kv.rhythm import policies, run
    from mnemic.bench.kv.tables import rhythm_markdown

    with _progress(len(policies())) as report:
        found = run(tuple(seed or (0, 1)), report)
    leave(out, "kv-rhythm", found, rhythm_markdown(found, command=_command("rhythm")), as_json)


@app.command()
def reasoning(
    model: Model = "smollm2",
    data: Data = None,
    items: Items = 4,
    prompts: Annotated[int, typer.Option(min=1, help="GSM8K prompts to generate from.")] = 20,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate from each.")] = 200,
    at_most: AtMost = None,
    out: Out = Path("bench-results"),
    as_json: Json = False,
) -> None:
    """LazyEviction on real attention: the mass that each policy retains on MATH-500, and whole generations.

    mnemic bench kv reasoning --data DIR --items 4
    """
    from mnemic.bench.kv.items import Sources, make_items
    from mnemic.bench.kv.reasoning import end_to_end, retained_mass
    from mnemic.bench.kv.tables import reasoning_markdown

    local, encode = _model(model)
    sources = Sources(folder=_folder(data))
    texts = make_items(sources, encode, families=["reasoning"], length=600, count=items)
    asked = [
        encode(f"Question: {trace['question']}\nAnswer:")
        for trace in sources.traces("gsm8k_test.jsonl")[:prompts]
    ]
    parts = _parts(out, "kv-reasoning", local, {"new tokens": new_tokens}, at_most)
    with _progress(len(texts) + len(asked)) as report:
        found = {
            "tokens": [len(item.prompt) + len(item.answer) for item in texts],
            "mass": retained_mass(local, texts, [0.5, 0.25], report, parts.keep),
            "end_to_end": end_to_end(local, asked, new_tokens=new_tokens, report=report, keep=parts.keep),
        }
    _require_all(parts)
    leave(out, "kv-reasoning", found, reasoning_markdown(found, command=_command("reasoning")), as_json)


@app.command()
def heads(
    model: Model = "smollm2",
    data: Data = None,
    items: Items = 6,
    length: Length = 400,
    at_most: AtMost = None,
    out: Out = Path("bench-results"),
    as_json: Json = False,
) -> None:
    """Task-KV: are the chosen heads the right ones, do they depend on the task, what is each part worth?

    Writes kv-heads.svg too: how often each head kept everything.

    mnemic bench kv heads --data DIR --items 6
    """
    from mnemic.bench.kv.heads import families, reread, task_dependence
    from mnemic.bench.kv.plot import map_svg
    from mnemic.bench.kv.tables import heads_markdown

    local, encode = _model(model)
    texts = _solved(Path(_folder(data)), encode, items, length)
    parts = _parts(out, "kv-heads", local, {"length": length}, at_most)
    with _progress(len(texts)) as report:
        found = {
            "tasks": parts.keep("tasks", lambda: task_dependence(local, families(encode))),
            "reread": reread(local, texts, [0.4, 0.2], report, parts.keep),
        }
    _require_all(parts)
    out.mkdir(parents=True, exist_ok=True)
    often = found["tasks"]["how often full"]
    (out / "kv-heads.svg").write_text(map_svg(often, x="query head", y="layer"))
    leave(out, "kv-heads", found, heads_markdown(found, command=_command("heads")), as_json)


@app.command()
def speed(
    model: Model = "smollm2",
    length: Annotated[
        list[int] | None, typer.Option("--length", help="Repeatable. Default: 2048, 8192.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Tokens in a round.")] = 24,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, each with every policy once.")] = 5,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    out: Out = Path("bench-results"),
    as_json: Json = False,
) -> None:
    """Tokens a second of decoding against the stock cache, in alternating rounds.

    mnemic bench kv speed --length 2048 --length 8192
    """
    from mnemic.bench.kv.plot import Line, lines_svg
    from mnemic.bench.kv.speed import decode
    from mnemic.bench.kv.tables import speed_lines, speed_markdown

    local, _ = _model(model, dtype)
    lengths = length or [2048, 8192]
    with _progress((1 + rounds) * len(lengths)) as report:
        found = decode(
            local, lengths, steps=steps, rounds=rounds, report=report, vocabulary=local.config.vocab_size
        )
    out.mkdir(parents=True, exist_ok=True)
    lines = [Line(name=name, points=points) for name, points in speed_lines(found).items()]
    (out / "kv-speed.svg").write_text(lines_svg(lines, x="tokens of context", y="milliseconds a token"))
    leave(
        out, "kv-speed", found, speed_markdown(found, command=_command("speed"), machine=_machine()), as_json
    )


@app.command()
def tables(
    results: Annotated[Path, typer.Argument(help="The folder that holds kv-rhythm.json and the others.")],
) -> None:
    """What LazyEviction, Task-KV and every cache are held to, beside what was measured: kv-acceptance.md.

    Measures nothing: it reads the result files of `rhythm`, `reasoning`, `heads` and `speed`, and says which
    are missing.

    mnemic bench kv tables bench-results
    """
    from mnemic.bench.kv.acceptance import page
    from mnemic.cube.errors import InvalidOption

    names = ("kv-rhythm", "kv-reasoning", "kv-heads", "kv-speed")
    files = {name: results / f"{name}.json" for name in names}
    found = {name: json.loads(path.read_text()) for name, path in files.items() if path.is_file()}
    if not found:
        raise InvalidOption(f"{results} holds none of {', '.join(path.name for path in files.values())}")
    text = page(found, command="mnemic bench kv tables DIR")
    (results / "kv-acceptance.md").write_text(text)
    typer.echo(text)


def _model(spec: str, dtype: str = "float32") -> tuple[Any, Callable[[str], list[int]]]:
    """A model and its tokenizer's encoding, from files alone."""
    from mnemic.models.registry import load_model

    local = load_model(spec, dtype=dtype)
    return local.model, local.encode


def _parts(out: Path, name: str, model: Any, settings: dict[str, Any], at_most: int | None) -> Parts:
    """What is measured already, of this model and with these settings."""
    from mnemic.bench.parts import Parts

    settings = {"model": Path(model.config.name_or_path).name, "dtype": str(model.dtype), **settings}
    return Parts(out / f"{name}.part.json", settings, at_most=at_most)


def _require_all(parts: Parts) -> None:
    if parts.missing:
        typer.echo(f"still to be measured: {', '.join(parts.missing)}. Run it again for the tables")
        raise typer.Exit(0)


def _folder(data: Path | None) -> Path:
    from mnemic.cube.errors import InvalidOption

    if data is None:
        raise InvalidOption(
            "--data is missing: a folder that holds wikitext2_small, pi-llm, lazyeviction_reasoning, locomo"
        )
    return data


def _solved(data: Path, encode: Callable[[str], list[int]], items: int, length: int) -> list[Item]:
    """GSM8K questions with their solutions, one after the other; what is read again are tokens 40 to 120."""
    from mnemic.bench.kv.items import Item, Sources

    traces = Sources(folder=data).traces("gsm8k_test.jsonl")
    ids: list[int] = []
    made: list[Item] = []
    for trace in traces:
        ids += encode(f"Question: {trace['question']}\nAnswer: {trace['answer']}\n\n")
        if len(ids) >= length:
            name = f"gsm8k-{len(made)}"
            made.append(Item(family="re-read", name=name, prompt=ids[:length], answer=ids[40:120]))
            ids = []
        if len(made) == items:
            break
    return made


def _command(name: str) -> str:
    """The command as it was given, without where its files lie."""
    words = iter(sys.argv[sys.argv.index(name) + 1 :] if name in sys.argv else [])
    places, kept = {"--model": "MODEL", "--data": "DIR", "--out": "", "--kvpress": "PYTHON"}, []
    for word in words:
        if word in places:
            next(words, None)
            kept += [] if word == "--out" else [word, places[word]]
        elif word == "--at-most":
            next(words, None)
        elif word not in ("--json", "--report-only"):
            kept.append(word)
    return " ".join(["mnemic bench kv", name, *map(shlex.quote, kept)])


def _machine() -> str:
    import torch

    return f"{torch.get_num_threads()} threads, torch {torch.__version__}"


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[str], None]]:
    with Steps(steps) as report:
        yield lambda name: report(name, "done")
