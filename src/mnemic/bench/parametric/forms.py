"""One set of facts in every form of memory: what is it worth, and what does it cost to write and to read?"""

from __future__ import annotations

import copy
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from mnemic.bench.parametric.adapters import RECIPE, told
from mnemic.bench.parametric.memories import REACH
from mnemic.memory import Memory
from mnemic.memory import open as open_memory
from mnemic.models.hf import cache_keyword
from mnemic.models.local import LocalModel
from mnemic.parametric.gate import Gate
from mnemic.parametric.nearest import Search
from mnemic.parametric.questions import Fact, choices
from mnemic.parametric.scoring import perplexity, question_ids, rank_after
from mnemic.transform.paraphrases import Templates, facts_of
from mnemic.transform.text_to_kv import as_text
from mnemic.transform.text_to_memory import Options

RECIPES: Final = {"LoRA, 4 epochs": replace(RECIPE, epochs=4, batch=16), "LoRA": RECIPE}
FORMS: Final = ("nothing", "text, all of it", "text, searched", "KV cube", "kNN", "MLP", *RECIPES)
WEIGHTS: Final = ("kNN", "MLP", *RECIPES)  # those that change what the model says of unrelated text
ASKED: Final = 60  # of the facts, in a wording that was trained on and in one that was not
FOUND: Final = 5  # texts that a search puts into the prompt
UNRELATED_TOKENS: Final = 2_000
ANSWER_TOKENS: Final = 8
USER: Final = "lockers"
Step = Callable[[str, str], None]
Asked = tuple[list[int], Any]  # a prompt, and a cache of its beginning or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How a question is asked. ask: as fast as the same result can be had; read: as a user would."""

    ask: Callable[[str], Asked]
    read: Callable[[str], Asked]
    bytes: int


def run(
    model: LocalModel,
    folder: Path,
    unrelated: str,
    name: str,
    *,
    count: int,
    seed: int,
    step: Step = lambda *_: None,
) -> dict[str, Any]:
    """One form of FORMS on `count` facts: written, asked in seen and unseen wordings, and its side effects.

    Seconds are of the processor. An answer is right when it ranks first among 20.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"form-{FORMS.index(name)}-{seed}.db"
    place.unlink(missing_ok=True)
    with open_memory(place) as memory:
        ids = [memory.add(text, user=USER)[0].id for text in told(seed, count)]
        facts = facts_of([memory.get(one) for one in ids], Templates())
        among = choices(facts, 20, seed)
        chosen = random.Random(seed).sample(range(len(facts)), min(ASKED, len(facts)))  # noqa: S311
        asked = [facts[n] for n in chosen]
        started = time.process_time()
        made = _write(memory, ids, model, name)
        spent = time.process_time() - started
        step("forms", f"{name}: written in {spent:.0f} s")
        with _asked(memory, ids, model, name, made) as asking:
            row = {
                "facts": len(facts),
                "asked": len(asked),
                "write_s": spent if made is not None else 0.0,
                "bytes": asking.bytes,
                "prompt_tokens": statistics.median(len(asking.read(one.held_out[0])[0]) for one in asked[:5]),
                "seen": _right(model, asked, [among[n] for n in chosen], asking, seen=True),
                "unseen": _right(model, asked, [among[n] for n in chosen], asking, seen=False),
                "read_s": _seconds(model, asked, asking),
                "perplexity": perplexity(model, unrelated, tokens=UNRELATED_TOKENS)
                if name in (*WEIGHTS, "nothing")
                else None,
                "provenance": _PROVENANCE[name],
            }
    step("forms", f"{name}: {row['unseen']:.2f} in unseen wordings, {row['read_s']:.2f} s an answer")
    return row


_PROVENANCE: Final = {
    "nothing": "-",
    "text, all of it": "the text itself",
    "text, searched": "the texts found",
    "KV cube": "the cubes it read",
    "kNN": "the neighbours of each token",
    "MLP": "the cubes it was made from, no more",
    **dict.fromkeys(RECIPES, "the cubes it was made from, no more"),
}


def _write(memory: Memory, ids: list[str], model: LocalModel, name: str) -> Any:
    if name == "KV cube":
        return memory.as_kv(ids, model)
    if name in RECIPES:
        gate = Gate(control=False, learned=0.0, perplexity=100.0, candidates=2, questions=10)
        return memory.as_adapter(ids, model, recipe=RECIPES[name], gate=gate)
    if name in ("kNN", "MLP"):
        options = Options(
            form="exact" if name == "kNN" else "mlp",
            search=Search(k=16, temperature=0.1, reach=REACH),
            compile=replace(Options().compile, precision="bfloat16"),
            lam=0.8,
        )
        return memory.as_memory(ids, model, options=options)
    return None


@contextmanager
def _asked(memory: Memory, ids: list[str], model: LocalModel, name: str, made: Any) -> Iterator[Asking]:
    """How a question is asked with the memory in place, and what the memory takes while it is."""

    def plain(question: str) -> Asked:
        return question_ids(model, question), None

    def before(text: str, question: str) -> list[int]:
        system = [{"role": "system", "content": text}]
        return model.prompt_ids([*system, {"role": "user", "content": question}])

    if made is not None:
        with memory.mount(model, made) as mounted:
            if (kv := mounted.kv) is None:
                yield Asking(ask=plain, read=plain, bytes=mounted.report().parts[0].bytes)
                return

            def resumed(question: str) -> Asked:
                return mounted.prompt_ids([{"role": "user", "content": question}]), kv.cache(model)

            yield Asking(ask=resumed, read=resumed, bytes=kv.nbytes)
        return
    text = as_text([memory.get(one) for one in ids])
    if name == "text, all of it":
        keep = _read_once(model, before(text, "a"), before(text, "b"))
        yield Asking(
            ask=lambda q: (before(text, q), copy.deepcopy(keep)),
            read=lambda q: (before(text, q), None),
            bytes=len(text.encode()),
        )
    elif name == "text, searched":

        def searched(question: str) -> Asked:
            hits = memory.search(question, user=USER, k=FOUND)
            return before(as_text([hit.cube for hit in hits]), question), None

        yield Asking(ask=searched, read=searched, bytes=len(text.encode()))
    else:
        yield Asking(ask=plain, read=plain, bytes=0)


def _read_once(model: LocalModel, one: Sequence[int], other: Sequence[int]) -> Any:
    """A cache of what two prompts begin with: it is the same for every question, and is read once."""
    from transformers import DynamicCache

    shared = next(n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    cache = DynamicCache(config=model.model.config)
    with torch.no_grad():
        model.model(
            torch.tensor([list(one[:shared])]),
            use_cache=True,
            logits_to_keep=1,
            **{cache_keyword(model.model): cache},
        )
    return cache


def _right(
    model: LocalModel, facts: Sequence[Fact], among: Sequence[Sequence[str]], asking: Asking, *, seen: bool
) -> float:
    found = []
    for fact, answers in zip(facts, among, strict=True):
        prompt, cache = asking.ask((fact.train if seen else fact.held_out)[0])
        found.append(rank_after(model, prompt, list(answers), fact.answer, cache=cache) == 1)
    return statistics.mean(found)


def _seconds(model: LocalModel, facts: Sequence[Fact], asking: Asking) -> float:
    """Of an answer of up to ANSWER_TOKENS tokens; the median of three."""
    spent = []
    for fact in facts[:3]:
        started = time.process_time()
        prompt, cache = asking.read(fact.held_out[0])
        list(model.answer_tokens(prompt, max_tokens=ANSWER_TOKENS, cache=cache))
        spent.append(time.process_time() - started)
    return statistics.median(spent)
