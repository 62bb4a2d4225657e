"""Coarse-to-fine search beside what scores everything: on LoCoMo's questions, and on sentences of a text.

What is saved is counted in vectors compared, summaries included, and in processor time.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mnemic.bench.context import TopK
from mnemic.bench.kept import Record, kept
from mnemic.bench.locomo import Dialogue, Turn
from mnemic.bench.markdown import table
from mnemic.bench.metrics import recall_at_k
from mnemic.bench.ours import USER, Mnemic
from mnemic.bench.vectors import embed
from mnemic.cube.errors import InvalidFile
from mnemic.cube.model import ANY
from mnemic.cube.reach import Reach
from mnemic.cube.times import to_micros
from mnemic.index.chunks import Chunks
from mnemic.plaintext.recall.chunked import ChunkedRecall, ChunkOptions
from mnemic.plaintext.recall.search import Hits

KS: Final = (5, 10, 20)
Step = Callable[[str, str], None]
Asked = tuple[str, Sequence[str]]  # question, evidence
ALL: Final = 1_000_000
ARMS: Final[Mapping[str, ChunkOptions | None]] = {
    "every signal, every turn (the default)": None,
    "every signal, 8 stretches of 8": ChunkOptions(chunks=8),
    "every signal, 16 stretches of 8": ChunkOptions(),
    "every signal, 64 stretches of 8": ChunkOptions(chunks=64),
    "every signal, 32 stretches of 4": ChunkOptions(chunk=4, chunks=32),
    "every signal, 16 of 8, plain mean": ChunkOptions(summary="mean"),
    "cosine, every turn": ChunkOptions(chunks=ALL, fine="dense"),
    "cosine, 8 stretches of 8": ChunkOptions(chunks=8, fine="dense"),
    "cosine, 16 stretches of 8": ChunkOptions(fine="dense"),
    "cosine, 64 stretches of 8": ChunkOptions(chunks=64, fine="dense"),
    "cosine, 16 of 8, plain mean": ChunkOptions(fine="dense", summary="mean"),
}

TOGETHER: Final = (
    "every signal, every turn (the default)",
    "every signal, 16 stretches of 8",
    "every signal, 64 stretches of 8",
    "cosine, every turn",
    "cosine, 16 stretches of 8",
)
"""Of the arms, those that are asked about all dialogues in one memory too."""


class MnemicChunks(TopK):
    """mnemic's memory searched from coarse to fine: summaries of 8 turns, then the turns of the best 16."""

    name = "mnemic-chunks"

    def open(self, folder: Path) -> None:
        super().open(folder)
        self.chunked = ChunkedRecall(self.memory._parts.recall)

    def search(self, question: str, k: int) -> list[str]:
        hits = self.chunked.search(question, Reach.of(USER, ANY, ANY), k=k, asked_at=to_micros(self.asked_at))
        return [hit.cube.client_id or "" for hit in hits]

    def describe(self) -> str:
        return f"{super().describe()}; {self.chunked.options}"


def locomo(
    dialogues: Sequence[Dialogue],
    path: Path,
    digest: str,
    step: Step = lambda *_: None,
    *,
    together: bool = True,
) -> dict[str, Any]:
    """Each dialogue a memory of its own, then all `together` in one. What `path` holds is not made again."""
    names = [dialogue.id for dialogue in dialogues]
    runs: dict[str, Callable[[], Record]] = {
        f"{digest[:12]}/{dialogue.id}": partial(_apart, dialogue) for dialogue in dialogues
    }
    all_of_them = f"{digest[:12]}/{'+'.join(names)}, together"
    in_one = TOGETHER if together else ()
    for arm in in_one:
        runs[f"{all_of_them}/{arm}"] = partial(_together, dialogues, arm)
    found = kept(runs, path, report=step, said=lambda record: f"{record['questions']} questions")
    apart = [found[f"{digest[:12]}/{name}"] for name in names]
    return {
        "dialogues": names,
        "questions": sum(record["questions"] for record in apart),
        "turns": sum(len(dialogue.turns) for dialogue in dialogues),
        "apart": {
            arm: _weighted([(record["questions"], record["arms"][arm]) for record in apart]) for arm in ARMS
        },
        "together": {arm: found[f"{all_of_them}/{arm}"]["arms"][arm] for arm in in_one},
        "arms": {name: None if one is None else asdict(one) for name, one in ARMS.items()},
        "data_sha256": digest,
    }


def _apart(dialogue: Dialogue) -> Record:
    asked = [(q.text, list(q.evidence)) for q in dialogue.retrieval_questions()]
    return {"questions": len(asked), "arms": _measure(dialogue.turns, asked, list(ARMS))}


def _together(dialogues: Sequence[Dialogue], arm: str) -> Record:
    turns = [
        replace(turn, id=f"{dialogue.id}/{turn.id}", session=f"{dialogue.id}/{turn.session}")
        for dialogue in dialogues
        for turn in dialogue.turns
    ]
    asked = [
        (q.text, [f"{dialogue.id}/{id}" for id in q.evidence])
        for dialogue in dialogues
        for q in dialogue.retrieval_questions()
    ]
    return {"questions": len(asked), "arms": _measure(turns, asked, [arm])}


def _measure(
    turns: Sequence[Turn], asked: Sequence[Asked], arms: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Of every arm, means over the questions: recall, vectors compared over turns, processor time."""
    system, found = Mnemic(), {}
    with tempfile.TemporaryDirectory(prefix="mnemic-bench-") as folder:
        system.open(Path(folder))
        try:
            system.add(turns)
            recall, moment = system.memory._parts.recall, to_micros(system.asked_at)
            for arm in arms:
                options = ARMS[arm]
                searcher = recall if options is None else ChunkedRecall(recall, options)
                search = partial(searcher.search, reach=Reach.of(USER, ANY, ANY), k=max(KS), asked_at=moment)
                search(asked[0][0])  # what is kept is made
                found[arm] = _weighted([(1, _row(search, text, evidence)) for text, evidence in asked])
        finally:
            system.close()
    return found


def _row(search: Callable[[str], Hits], text: str, evidence: Sequence[str]) -> dict[str, Any]:
    begun = time.process_time()
    hits = search(text)
    spent = time.process_time() - begun
    ids = [hit.cube.client_id or "" for hit in hits]
    counts = re.search(r"compared (\d+) vectors for (\d+)", hits.notes.get("chunks", ""))
    compared = int(counts[1]) / int(counts[2]) if counts else 1.0
    return {
        **{f"recall@{k}": recall_at_k(ids, evidence, k) for k in KS},
        "compared": compared,
        "cpu_ms": 1000 * spent,
    }


def _weighted(rows: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Means of every column, rows counted so many times."""
    total = sum(count for count, _ in rows)
    return {name: sum(count * row[name] for count, row in rows) / total for name in rows[0][1]}


# sentences of a text


def sentences(path: Path, *, paragraphs: int = 400, least: int = 4) -> list[list[str]]:
    """The first paragraphs of at least `least` sentences. Raises InvalidFile where there are not enough."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFile(f"{path} cannot be read as text: {error}") from error
    found = []
    for block in re.split(r"\n\s*\n", text):
        parts = re.split(r"(?<=[.!?])[\"”’)]*\s+", " ".join(block.split()))
        said = [part for part in parts if len(part.split()) >= 4]
        if len(said) >= least:
            found.append(said)
    if len(found) < 300:
        raise InvalidFile(
            f"{path} has {len(found)} paragraphs of {least} sentences or more; 300 are needed. Name a longer "
            "text"
        )
    return found[:paragraphs]


def text(path: Path, *, seeds: int = 3, asked: int = 200, chunks: int = 8) -> dict[str, Any]:
    """A sentence with a word left out, looked for among all sentences and in the best paragraphs alone."""
    said = sentences(path)
    vectors = embed("static", [sentence for paragraph in said for sentence in paragraph])
    flat = [sentence for paragraph in said for sentence in paragraph]
    made = Chunks(vectors, np.cumsum([0, *(len(paragraph) for paragraph in said)])[:-1])
    runs = []
    for seed in range(seeds):
        draws = np.random.default_rng(seed)
        chosen = draws.choice(len(flat), asked, replace=False)
        queries = embed("static", [_without_a_word(flat[n], draws) for n in chosen])
        runs.append({"seed": seed, **_agreement(made, vectors, queries, chunks)})
    return {"paragraphs": len(said), "sentences": len(flat), "chunks": chunks, "asked": asked, "runs": runs}


def _without_a_word(sentence: str, draws: np.random.Generator) -> str:
    words = sentence.split()
    del words[int(draws.integers(len(words)))]
    return " ".join(words)


def _agreement(
    made: Chunks, vectors: NDArray[np.float32], queries: NDArray[np.float32], chunks: int
) -> dict[str, float]:
    """How often coarse to fine finds what comparing with everything finds, and at what share of the cost."""
    agreed, compared, whole = 0, 0, 0
    for query in queries:
        first = int(np.argmax(vectors @ query))
        look, everything = (made.look(query, chunks=n) for n in (chunks, ALL))
        agreed += bool(len(look.rows)) and int(look.rows[np.argmax(vectors[look.rows] @ query)]) == first
        whole += int(everything.rows[np.argmax(vectors[everything.rows] @ query)]) == first
        compared += look.compared
    return {
        "agreement": agreed / len(queries),
        "of_all_chunks": whole / len(queries),
        "compared": compared / len(queries) / len(vectors),
    }


def chunks_markdown(found: Mapping[str, Any], command: str) -> str:
    parts = ["# Search from coarse to fine", f"`{command}`"]
    if "locomo" in found:
        parts += _locomo_parts(found["locomo"])
    if "text" in found:
        parts += _text_parts(found["text"])
    return "\n\n".join(parts) + "\n"


def _locomo_parts(found: Mapping[str, Any]) -> list[str]:
    heads = ["search", *(f"recall@{k}" for k in KS), "vectors compared, of the turns", "CPU ms a question"]
    parts = [
        "## LoCoMo",
        f"{found['questions']} questions of categories 1-4 on {', '.join(found['dialogues'])}; static "
        "embedder. Summaries count as vectors compared. A stretch is turns of one session in a row.",
    ]
    titles = ("A memory a dialogue", "apart"), (f"All {found['turns']:,} turns in one memory", "together")
    for title, part in titles:
        if not found[part]:
            continue
        rows = [
            [
                arm,
                *(f"{one[f'recall@{k}']:.3f}" for k in KS),
                f"{one['compared']:.2f}",
                f"{one['cpu_ms']:.1f}",
            ]
            for arm, one in found[part].items()
        ]
        parts += [f"### {title}", table(heads, rows)]
    return parts


def _text_parts(found: Mapping[str, Any]) -> list[str]:
    runs = found["runs"]
    demands: tuple[tuple[str, str, str, Callable[[list[float]], bool]], ...] = (
        ("top-1 agreement with comparing all", "agreement", "≥ 0.85", lambda v: min(v) >= 0.85),
        ("vectors compared, summaries included", "compared", "≤ 0.30", lambda v: max(v) <= 0.30),
        ("top-1 agreement, all paragraphs looked into", "of_all_chunks", "1", lambda v: min(v) == 1),
    )
    rows = []
    for what, name, demanded, judge in demands:
        values = [run[name] for run in runs]
        mean = sum(values) / len(values)
        rows.append([
            what, demanded, f"{mean:.3f} [{min(values):.3f}, {max(values):.3f}]", str(len(values)),
            "yes" if judge(values) else "no",
        ])  # fmt: skip
    return [
        "## Sentences of a text",
        f"{found['paragraphs']} paragraphs, {found['sentences']:,} sentences, static embedder; "
        f"{found['asked']} sentences with a word left out, a seed; {found['chunks']} paragraphs looked into.",
        table(["what", "demanded", "measured, mean [least, most]", "seeds", "met"], rows),
    ]
