"""One set of facts in every form of memory: what is it worth, and what does it cost to write and to read?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from mnemic.bench.parametric.adapters import RECIPE, told
from mnemic.memory import Memory
from mnemic.memory import open as open_memory
from mnemic.models.local import LocalModel
from mnemic.parametric.gate import Gate
from mnemic.parametric.keeping import look
from mnemic.parametric.mlp import Compile
from mnemic.parametric.nearest import Search
from mnemic.parametric.questions import Fact, choices
from mnemic.parametric.scoring import perplexity, question_ids, rank_after
from mnemic.transform.paraphrases import Templates, facts_of
from mnemic.transform.text_to_kv import as_text
from mnemic.transform.text_to_memory import Options

FORMS: Final = ("nothing", "text in the prompt", "KV cube", "kNN", "MLP", "LoRA")
UNRELATED_TOKENS: Final = 2_000
ANSWER_TOKENS: Final = 8
Step = Callable[[str, str], None]
Ask = Callable[[str], tuple[list[int], Any]]  # a question's prompt, and a cache of its beginning or None


def run(
    model: LocalModel,
    folder: Path,
    unrelated: str,
    name: str,
    *,
    seed: int,
    step: Step = lambda *_: None,
) -> dict[str, Any]:
    """One form of FORMS on twenty facts: written, asked in seen and unseen wordings, and its side effects.

    Seconds are of the processor. An answer is right when it ranks first among 20.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"form-{FORMS.index(name)}-{seed}.db"
    place.unlink(missing_ok=True)
    with open_memory(place) as memory:
        ids = [memory.add(text, user="lockers")[0].id for text in told(seed)]
        facts = facts_of([memory.get(one) for one in ids], Templates())
        started = time.process_time()
        made = _write(memory, ids, model, name)
        spent = time.process_time() - started
        with _asked(memory, ids, model, name, made) as (ask, size):
            among = choices(facts, 20, seed)
            row = {
                "write_s": spent if name not in FORMS[:2] else 0.0,
                "bytes": size,
                "seen": _right(model, facts, among, ask, seen=True),
                "unseen": _right(model, facts, among, ask, seen=False),
                "read_s": _seconds(model, facts, ask),
                "perplexity": perplexity(model, unrelated, tokens=UNRELATED_TOKENS),
                "provenance": _PROVENANCE[name],
            }
    step("forms", f"{name}: {row['unseen']:.2f} in unseen wordings, {row['read_s']:.2f} s an answer")
    return row


_PROVENANCE: Final = {
    "nothing": "-",
    "text in the prompt": "the text itself",
    "KV cube": "the cubes it read",
    "kNN": "the neighbours of each token",
    "MLP": "the cubes it was made from, no more",
    "LoRA": "the cubes it was made from, no more",
}


def _write(memory: Memory, ids: list[str], model: LocalModel, name: str) -> Any:
    if name == "KV cube":
        return memory.as_kv(ids, model)
    if name == "LoRA":
        return memory.as_adapter(
            ids, model, recipe=RECIPE, gate=Gate(control=False, learned=0.0, perplexity=10.0, candidates=2)
        )
    if name in ("kNN", "MLP"):
        options = Options(
            form="exact" if name == "kNN" else "mlp",
            search=Search(k=16, temperature=0.1),
            compile=Compile(epochs=6, precision="bfloat16"),
            lam=0.5,
        )
        return memory.as_memory(ids, model, options=options)
    return None


@contextmanager
def _asked(
    memory: Memory, ids: list[str], model: LocalModel, name: str, made: Any
) -> Iterator[tuple[Ask, int]]:
    """How a question is asked with the memory in place, and what the memory takes while it is."""
    text = as_text([memory.get(one) for one in ids])
    if made is None:
        system = [{"role": "system", "content": text}] if name == "text in the prompt" else []
        ask = (lambda q: (model.prompt_ids([*system, {"role": "user", "content": q}]), None)) if system else (
            lambda q: (question_ids(model, q), None)
        )  # fmt: skip
        yield ask, len(text.encode()) if system else 0
        return
    with memory.mount(model, made) as mounted:
        if (kv := mounted.kv) is not None:
            yield lambda q: (mounted.prompt_ids([{"role": "user", "content": q}]), kv.cache(model)), kv.nbytes
        else:
            yield lambda q: (question_ids(model, q), None), mounted.report().parts[0].bytes
    if name == "LoRA":
        look(memory._parts.vault, made.id)  # it is still there, and current


def _right(
    model: LocalModel, facts: Sequence[Fact], among: Sequence[Sequence[str]], ask: Ask, *, seen: bool
) -> float:
    found = []
    for fact, answers in zip(facts, among, strict=True):
        prompt, cache = ask((fact.train if seen else fact.held_out)[0])
        found.append(rank_after(model, prompt, list(answers), fact.answer, cache=cache) == 1)
    return statistics.mean(found)


def _seconds(model: LocalModel, facts: Sequence[Fact], ask: Ask) -> float:
    """Of an answer of up to ANSWER_TOKENS tokens; the median of five."""
    spent = []
    for fact in facts[:5]:
        started = time.process_time()
        prompt, cache = ask(fact.held_out[0])
        list(model.answer_tokens(prompt, max_tokens=ANSWER_TOKENS, cache=cache))
        spent.append(time.process_time() - started)
    return statistics.median(spent)
