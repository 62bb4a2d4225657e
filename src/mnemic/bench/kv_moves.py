"""Conversion moves cost, not truth: always text, always KV, or KV for what is in use (MemOS, E2)."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from mnemic.activation.kv import KV, SYSTEM, prefill, text_ids
from mnemic.activation.kv_description import Description
from mnemic.cube.errors import StaleMemory
from mnemic.cube.model import MemCube
from mnemic.memory import Memory
from mnemic.memory import open as open_memory
from mnemic.models.hf import cache_keyword, cache_of
from mnemic.models.local import LocalModel
from mnemic.runtime.mount import mount
from mnemic.runtime.mounted import Mounted
from mnemic.scheduler.kv_promotion import KVShelf, Promotion
from mnemic.transform.text_to_kv import as_text

QUERIES: Final = 200
CANDIDATES: Final = 20
EXPONENT: Final = 1.2
CAPACITY: Final = 8
UPDATED: Final = 5
NAMES: Final = tuple(
    """Ada Bea Cleo Dora Edda Fay Gina Hana Ida Jana Kira Lea Mina Nora Olga Pia Rosa Sara Tess Una Vera Wanda
    Yara Zoe Adam Ben Carl Dan Emil Finn Gus Hugo Ivan Jan Karl Leo Max Nico Otto Paul""".split()  # noqa: SIM905
)
SCHEDULERS: Final = ("text", "all KV", "promotion", "promotion, unchecked")
Step = Callable[[str, str], None]


class Lockers:
    """Forty facts in a memory, some of which change, and a stream of questions about them."""

    def __init__(self, memory: Memory, seed: int, queries: int) -> None:
        self.memory = memory
        self._draw = random.Random(seed)  # noqa: S311
        self.codes = {name: self._code() for name in NAMES}
        self.replaced: dict[str, str] = {}
        self.ids = {name: memory.add(self._fact(name), user="lockers")[0].id for name in NAMES}
        order = list(NAMES)
        self._draw.shuffle(order)
        weights = [1 / (rank + 1) ** EXPONENT for rank in range(len(order))]
        self.stream = self._draw.choices(order, weights, k=queries)

    def change_the_most_used(self) -> None:
        """Half-way: what promotion has promoted by then, in all likelihood."""
        asked = self.stream[: len(self.stream) // 2]
        for name in sorted(set(asked), key=lambda one: (-asked.count(one), one))[:UPDATED]:
            self.replaced[name], self.codes[name] = self.codes[name], self._code()
            self.memory.update(self.ids[name], self._fact(name))

    def choices(self, name: str) -> list[str]:
        """The right code, the one it replaced if any, and others: always the same for the same codes."""
        found = dict.fromkeys([self.codes[name], self.replaced.get(name, self.codes[name])])
        others = random.Random(" ".join(found))  # noqa: S311
        while len(found) < CANDIDATES:
            found[f"{others.randrange(10_000):04}"] = None
        return sorted(found)

    def _fact(self, name: str) -> str:
        return f"The locker code of {name} is {self.codes[name]}."

    def _code(self) -> str:
        return f"{self._draw.randrange(10_000):04}"


class Scorer:
    """The likeliest of some codes, teacher-forced.

    The answer to a question on the same ids is the same each time, so it is computed once for text and once
    for KV; what was read is counted each time.
    """

    def __init__(self, model: LocalModel) -> None:
        self.model = model
        self._known: dict[tuple[Any, ...], str] = {}

    def of_text(self, ids: list[int], name: str, codes: list[str]) -> str:
        """The memory is read, then as `of_kv`."""

        def read() -> str:
            with mount(self.model, prefill(self.model, ids, form=SYSTEM)) as mounted:
                return self._score(mounted, name, codes)

        return self._once(("text", tuple(ids), name, tuple(codes)), read)

    def of_kv(self, mounted: Mounted, name: str, codes: list[str]) -> str:
        """One forward of the question, one of all codes."""
        ids = () if mounted.kv is None else tuple(mounted.kv.ids.tolist())
        return self._once(("KV", ids, name, tuple(codes)), lambda: self._score(mounted, name, codes))

    def _once(self, key: tuple[Any, ...], answer: Callable[[], str]) -> str:
        if key not in self._known:
            self._known[key] = answer()
        return self._known[key]

    def _score(self, mounted: Mounted, name: str, codes: list[str]) -> str:
        start = mounted.prompt_ids([{"role": "user", "content": f"What is the locker code of {name}?"}])
        start += self.model.encode(f"The locker code of {name} is")
        spelt = [self.model.encode(f" {code}") for code in codes]
        longest = max(map(len, spelt))
        tails = torch.tensor([[*one, *[0] * (longest - len(one))] for one in spelt])
        counts = torch.tensor([[1.0] * len(one) + [0.0] * (longest - len(one)) for one in spelt])
        keyword = cache_keyword(self.model.model)
        with torch.inference_mode():
            asked = mounted(torch.tensor([start]))
            cache = cache_of(asked)
            cache.batch_repeat_interleave(len(codes))
            more = self.model.model(tails[:, :-1], use_cache=True, **{keyword: cache}).logits
            first = asked.logits[0, -1:].expand(len(codes), 1, -1)
            logits = torch.cat([first, more], dim=1).log_softmax(-1)
        scores = (logits.gather(2, tails[..., None])[..., 0] * counts).sum(1)
        return codes[int(scores.argmax())]


class Server:
    """Answers the stream in one of the ways of SCHEDULERS, and keeps account."""

    def __init__(self, name: str, lockers: Lockers, scorer: Scorer) -> None:
        self._name, self._lockers, self._scorer = name, lockers, scorer
        self._model, self._memory = scorer.model, lockers.memory
        self._vault = lockers.memory._parts.vault
        longest = max(NAMES, key=lambda one: len(self._ids(self._memory.get(lockers.ids[one]))))
        one = Description.of(self._memory.as_kv([lockers.ids[longest]], self._model)).size
        self._shelf = KVShelf(self._vault, self._model, Promotion(bytes=int(CAPACITY * one * 1.02)))
        self._kept: dict[str, MemCube] = {}  # all KV
        self._held: dict[str, KV] = {}  # of the control: tensors, and no question to the vault
        self.read = self.peak_bytes = self.right = self.stale = self.from_kv = 0
        if name == "all KV":
            for person in NAMES:
                self._build(person)

    def serve(self, person: str) -> None:
        answer = self._answer(person)
        codes, replaced = self._lockers.codes, self._lockers.replaced
        self.right += answer == codes[person]
        self.stale += answer == replaced.get(person) != codes[person]
        kept = sum(Description.of(kv).size for kv in self._kept.values())
        self.peak_bytes = max(self.peak_bytes, kept + self._shelf.resident_bytes)

    def account(self) -> dict[str, Any]:
        asked = len(self._lockers.stream)
        return {
            "memory_tokens": self.read + self._shelf.tokens_read,
            "peak_bytes": self.peak_bytes,
            "accuracy": self.right / asked,
            "stale_answers": self.stale,
            "answers_from_kv": self.from_kv,
        }

    def _answer(self, person: str) -> str:
        cube = self._memory.get(self._lockers.ids[person])
        if self._name == "promotion, unchecked" and person in self._held:  # what must not be done
            self.from_kv += 1
            return self._of(self._held[person], person)
        kv = self._shelf.use(cube) if self._name.startswith("promotion") else self._kept.get(person)
        if kv is None:
            ids = self._ids(cube)
            self.read += len(ids)
            return self._scorer.of_text(ids, person, self._lockers.choices(person))
        self.from_kv += 1
        try:
            return self._of(kv, person)
        except StaleMemory:  # all KV: built again from what holds now
            return self._of(self._build(person), person)

    def _of(self, kv: KV | MemCube, person: str) -> str:
        with mount(self._model, kv, vault=self._vault) as mounted:
            if mounted.kv is not None:
                self._held.setdefault(person, mounted.kv)
            return self._scorer.of_kv(mounted, person, self._lockers.choices(person))

    def _build(self, person: str) -> MemCube:
        made = self._memory.as_kv([self._lockers.ids[person]], self._model)
        self.read += Description.of(made).tokens
        self._kept[person] = made
        return made

    def _ids(self, cube: MemCube) -> list[int]:
        return text_ids(self._model, as_text([cube]), form=SYSTEM)


def run(
    model: LocalModel, folder: Path, *, seed: int = 0, queries: int = QUERIES, step: Step = lambda *_: None
) -> dict[str, Any]:
    """The same stream for each scheduler; five of the most used facts change half-way.

    "promotion, unchecked" is the control that must fail: it serves a KV without asking the vault.
    """
    scorer, out = Scorer(model), {}
    for number, name in enumerate(SCHEDULERS):
        with open_memory(folder / f"moves-{seed}-{number}.db") as memory:
            lockers = Lockers(memory, seed, queries)
            server = Server(name, lockers, scorer)
            for asked, person in enumerate(lockers.stream):
                if asked == queries // 2:
                    lockers.change_the_most_used()
                server.serve(person)
            out[name] = server.account()
        step(
            "moves",
            f"seed {seed}, {name}: {out[name]['memory_tokens']:,} tokens, {out[name]['stale_answers']} stale",
        )
    return out


def demands(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """E2's demands over all seeds: the worst seed decides."""
    tokens = [one["promotion"]["memory_tokens"] / one["text"]["memory_tokens"] for one in runs]
    sizes = [one["promotion"]["peak_bytes"] / one["all KV"]["peak_bytes"] for one in runs]
    best = [max(one["text"]["accuracy"], one["all KV"]["accuracy"]) for one in runs]
    worse = [high - one["promotion"]["accuracy"] for high, one in zip(best, runs, strict=True)]
    stale = [max(one[name]["stale_answers"] for name in SCHEDULERS[:3]) for one in runs]
    control = [one["promotion, unchecked"]["stale_answers"] for one in runs]
    checks = [
        ("memory tokens read, promotion / text", "<= 0.6", tokens, max(tokens) <= 0.6),
        ("bytes, promotion / all KV", "<= 0.35", sizes, max(sizes) <= 0.35),
        ("accuracy lost to the better of both", "<= 0.02", worse, max(worse) <= 0.02),
        ("stale answers", "0", stale, max(stale) == 0),
        ("stale answers of the unchecked control", "> 0, or nothing is tested", control, min(control) > 0),
    ]
    return [{"what": w, "demanded": d, "measured": m, "met": bool(ok)} for w, d, m, ok in checks]
