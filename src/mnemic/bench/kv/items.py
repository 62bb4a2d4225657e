"""What the policies are asked: prompts with the tokens that should follow, in seven families.

Every item is teacher-forced: the answer's own tokens are fed, and what is measured is how likely the model
finds them, and how far its distribution lies from the full cache's. That needs no luck in decoding, and a
small model that answers badly can still be seen to answer as it would with everything in view.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from mnemic.cube.errors import InvalidFile, InvalidOption

Encode = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """decode: the answer is fed token by token under a decode policy; else in one call after the prompt."""

    family: str
    name: str
    prompt: list[int]
    answer: list[int]
    decode: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the data lies: a folder with the data sets' own folders in it; what is missing is left out."""

    folder: Path

    def text(self) -> str:
        return _read(self.folder / "wikitext2_small" / "test.txt")

    def streams(self) -> dict[str, list[str]]:
        loaded: dict[str, list[str]] = json.loads(_read(self.folder / "pi-llm" / "dict_category_46x400.json"))
        return loaded

    def traces(self, name: str) -> list[dict[str, Any]]:
        lines = _read(self.folder / "lazyeviction_reasoning" / name).splitlines()
        return [json.loads(line) for line in lines if line.strip()]

    def dialogues(self) -> list[dict[str, Any]]:
        loaded: list[dict[str, Any]] = json.loads(_read(self.folder / "locomo" / "locomo5.json"))
        return loaded


def make_items(
    sources: Sources, encode: Encode, *, families: Sequence[str], length: int, count: int, seed: int = 0
) -> list[Item]:
    """`count` items of each family with prompts of about `length` tokens. The same for the same arguments.

    Raises InvalidOption for an unknown family, InvalidFile where a data set is missing.
    """
    found: list[Item] = []
    for family in families:
        if family not in FAMILIES:
            raise InvalidOption(f"family {family!r:.80} is unknown. There are: {', '.join(FAMILIES)}")
        rng = random.Random(f"{family}-{seed}")  # noqa: S311  # not for secrets
        found.extend(FAMILIES[family](sources, encode, length, count, rng))
    return found


def write_items(items: Sequence[Item], path: Path) -> None:
    """As JSON, for a program in another environment; the first of every family, then the second."""
    turn: dict[str, int] = {}
    order = []
    for item in items:
        turn[item.family] = turn.get(item.family, 0) + 1
        order.append((turn[item.family], item))
    order.sort(key=lambda pair: pair[0])
    path.write_text(json.dumps([asdict(item) for _, item in order]))


def _needle(sources: Sources, encode: Encode, length: int, count: int, rng: random.Random) -> Iterator[Item]:
    yield from _needles(sources, encode, length, count, rng, needles=1, family="needle")


def _multi_needle(
    sources: Sources, encode: Encode, length: int, count: int, rng: random.Random
) -> Iterator[Item]:
    yield from _needles(sources, encode, length, count, rng, needles=4, family="multi-needle")


def _needles(
    sources: Sources,
    encode: Encode,
    length: int,
    count: int,
    rng: random.Random,
    *,
    needles: int,
    family: str,
) -> Iterator[Item]:
    """Sentences in the first half of a Wikipedia text, asked for at its end: no recent window holds them."""
    passages = _passages(sources.text(), encode, length - 40 * needles)
    places = ["harbour", "library", "museum", "station", "castle", "market", "theatre", "garden"]
    for i in range(count):
        text = list(next(passages))
        chosen = rng.sample(places, needles)
        codes = [str(rng.randrange(10_000, 99_999)) for _ in chosen]
        for place, code in zip(chosen, codes, strict=True):
            at = rng.randrange(len(text) // 20, len(text) * 9 // 20)
            text[at:at] = encode(f"\nRemember: the secret code of the {place} is {code}.\n")
        asked = encode(
            f"\nQuestion: What is the secret code of the {chosen[0]}?\nAnswer: The secret code of the"
        )
        answer = encode(f" {chosen[0]} is {codes[0]}.")
        for place, code in list(zip(chosen, codes, strict=True))[1:]:
            answer += encode(f" The secret code of the {place} is {code}.")
        yield Item(family=family, name=f"{family}-{i}", prompt=text + asked, answer=answer)


def _pi_llm(sources: Sources, encode: Encode, length: int, count: int, rng: random.Random) -> Iterator[Item]:
    """A stream of "key: value" updates; asked is the last value of each key (Unable to Forget)."""
    table = sources.streams()
    for i in range(count):
        keys = rng.sample(sorted(table), 4)
        lines: list[str] = []
        last: dict[str, str] = {}
        tokens = 0
        while tokens < length - 60:
            key = rng.choice(keys)
            last[key] = rng.choice(table[key])
            lines.append(f"{key}: {last[key]}")
            tokens += len(encode(lines[-1] + "\n"))
        asked = sorted(last)
        prompt = encode("\n".join(lines) + "\n\nThe current value of each key, after the last update:\n")
        answer = encode("\n".join(f"{key}: {last[key]}" for key in asked))
        yield Item(family="pi-llm", name=f"pi-llm-{i}", prompt=prompt, answer=answer)


def _reread(sources: Sources, encode: Encode, length: int, count: int, _: random.Random) -> Iterator[Item]:
    """An earlier passage of the prompt, again, word for word."""
    passages = _passages(sources.text(), encode, length)
    for i in range(count):
        text = next(passages)
        yield Item(family="re-read", name=f"re-read-{i}", prompt=text, answer=text[40:120])


def _perplexity(
    sources: Sources, encode: Encode, length: int, count: int, _: random.Random
) -> Iterator[Item]:
    passages = _passages(sources.text(), encode, length + 64)
    for i in range(count):
        text = next(passages)
        yield Item(family="perplexity", name=f"perplexity-{i}", prompt=text[:length], answer=text[length:])


def _reasoning(
    sources: Sources, encode: Encode, length: int, count: int, rng: random.Random
) -> Iterator[Item]:
    """A problem, and its solution token by token: the cache grows with the output."""
    traces = sources.traces("math500_test.jsonl")
    rng.shuffle(traces)
    made = 0
    for trace in traces:
        prompt = encode(f"Problem: {trace['problem']}\nSolution:")
        answer = encode(" " + trace["solution"])
        if length * 3 // 4 <= len(prompt) + len(answer) <= length * 3 // 2 and len(answer) > len(prompt):
            yield Item(family="reasoning", name=f"math-{made}", prompt=prompt, answer=answer, decode=True)
            made += 1
        if made == count:
            return


def _locomo(sources: Sources, encode: Encode, length: int, count: int, rng: random.Random) -> Iterator[Item]:
    """Turns of a dialogue around the evidence, a question about them, and the gold answer."""
    made = 0
    dialogues = sources.dialogues()
    while made < count:
        dialogue = dialogues[made % len(dialogues)]
        turns = [
            (turn["dia_id"], f"{turn['speaker']}: {turn['text']}")
            for name, session in sorted(dialogue["conversation"].items())
            if name.startswith("session_") and isinstance(session, list)
            for turn in session
        ]
        places = {name: place for place, (name, _) in enumerate(turns)}
        question = rng.choice([q for q in dialogue["qa"] if q.get("category") == 4 and q.get("answer")])
        evidence = [places[name] for name in question["evidence"] if name in places]
        answer = encode(f" {question['answer']}")
        if not evidence or len(answer) < 3:
            continue
        first = max(0, evidence[0] - rng.randrange(2, 8))
        lines, tokens = [], 0
        for _, line in turns[first:]:
            tokens += len(encode(line + "\n"))
            if tokens > length - 40:
                break
            lines.append(line)
        asked = "\n".join(lines) + f"\n\nQuestion: {question['question']}\nShort answer:"
        item = Item(
            family="locomo",
            name=f"locomo-{made}",
            prompt=encode(asked),
            answer=answer,
        )
        made += 1
        yield item


def _passages(text: str, encode: Encode, length: int) -> Iterator[list[int]]:
    """Pieces of running text, `length` tokens each, that do not overlap."""
    ids: list[int] = []
    for paragraph in text.split("\n"):
        if len(paragraph) < 200:
            continue
        ids += encode(paragraph.strip().replace(" @-@ ", "-").replace(" @,@ ", ",") + "\n")
        while len(ids) >= length:
            yield ids[:length]
            ids = ids[length:]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidFile(
            f"{path} cannot be read ({error}). --data names a folder that holds wikitext2_small, pi-llm, "
            "lazyeviction_reasoning and locomo; leave a family out with --family"
        ) from error


FAMILIES: Final[dict[str, Callable[[Sources, Encode, int, int, random.Random], Iterator[Item]]]] = {
    "needle": _needle,
    "multi-needle": _multi_needle,
    "pi-llm": _pi_llm,
    "re-read": _reread,
    "perplexity": _perplexity,
    "locomo": _locomo,
    "reasoning": _reasoning,
}
