"""Synthetic recall tasks, one suite for every layer. Each batch is fresh; nothing is downloaded.

A task makes tokens (batch, length) and labels (batch, length): what the model should say at a position, -100
where it is not asked. Fillers are random tokens, not zeros: zeros make recall far easier (Arora et al. 2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Protocol

import torch
from torch import Generator, Tensor

from mnemic.cube.errors import InvalidOption

ASK_NOTHING: Final = -100
Batch = tuple[Tensor, Tensor]


class Task(Protocol):
    """`chance`: accuracy of a guess among the answers that can be right. `grows`: fields that are its size,
    which a curriculum begins small; what a token means does not depend on them.
    """

    grows: ClassVar[tuple[str, ...]]

    @property
    def vocabulary(self) -> int: ...
    @property
    def chance(self) -> float: ...
    def batch(self, rows: int, generator: Generator) -> Batch: ...


@dataclass(frozen=True, kw_only=True)
class MQAR:
    """Multi-query associative recall (Arora et al. 2023): pairs first, then each key again, far or near.

    Keys and values are distinct; key j is asked at 2 · pairs + 2 · gap_j, gaps drawn by a power law, exponent
    `power` - 1; every other position holds a random token. Raises InvalidOption.
    """

    grows: ClassVar[tuple[str, ...]] = ("length", "pairs")
    vocabulary: int = 128
    length: int = 32
    pairs: int = 8
    power: float = 0.01

    def __post_init__(self) -> None:
        if self.length % 2 or self.vocabulary % 2:
            raise InvalidOption("length and vocabulary must be even")
        if not 1 <= 4 * self.pairs <= self.length:
            raise InvalidOption(f"4 · pairs must be at most length = {self.length}, got pairs = {self.pairs}")
        if self.pairs > self.vocabulary // 2 - 1:
            raise InvalidOption(f"{self.pairs} distinct keys need a vocabulary above {self.vocabulary}")

    @property
    def chance(self) -> float:
        return 2 / self.vocabulary

    def batch(self, rows: int, generator: Generator) -> Batch:
        half, pairs = self.vocabulary // 2, self.pairs
        keys = 1 + distinct(rows, half - 1, pairs, generator)
        values = half + distinct(rows, half, pairs, generator)
        space = (self.length - 2 * pairs) // 2
        weights = torch.arange(1, space + 1, dtype=torch.float64) ** (self.power - 1)
        gaps = torch.multinomial(weights.expand(rows, -1), pairs, generator=generator)
        tokens = torch.randint(self.vocabulary, (rows, self.length), generator=generator)
        tokens[:, 0 : 2 * pairs : 2], tokens[:, 1 : 2 * pairs : 2] = keys, values
        return asked(tokens, 2 * pairs + 2 * gaps, keys, values)


@dataclass(frozen=True, kw_only=True)
class Rebinding:
    """Keys are bound, then half of them bound anew; each is asked for its latest value."""

    grows: ClassVar[tuple[str, ...]] = ("pairs",)
    keys: int = 12
    values: int = 12
    pairs: int = 6

    @property
    def vocabulary(self) -> int:
        return self.keys + self.values

    @property
    def chance(self) -> float:
        return 1 / self.values

    def batch(self, rows: int, generator: Generator) -> Batch:
        first = distinct(rows, self.keys, self.pairs, generator)
        questions, again = (shuffled(first, generator) for _ in range(2))
        keys = torch.cat([first, again[:, : self.pairs // 2]], 1)
        values = self.keys + torch.randint(self.values, keys.shape, generator=generator)
        filler = torch.randint(self.vocabulary, questions.shape, generator=generator)
        tokens = torch.cat([interleaved(keys, values), interleaved(questions, filler)], 1)
        told = torch.arange(keys.shape[1])  # the last of equal keys is the latest
        answers = (told * (questions.unsqueeze(2) == keys.unsqueeze(1))).argmax(2)
        at = 2 * keys.shape[1] + 2 * torch.arange(self.pairs).expand(rows, -1)
        return asked(tokens, at, questions, values.gather(1, answers))


@dataclass(frozen=True, kw_only=True)
class BeyondWindow:
    """Pairs, then more filler than any window of the suite sees, then the keys in another order."""

    grows: ClassVar[tuple[str, ...]] = ("pairs", "filler")
    keys: int = 12
    values: int = 12
    pairs: int = 4
    filler: int = 24

    @property
    def vocabulary(self) -> int:
        return self.keys + self.values + 1

    @property
    def chance(self) -> float:
        return 1 / self.values

    def batch(self, rows: int, generator: Generator) -> Batch:
        keys = distinct(rows, self.keys, self.pairs, generator)
        values = self.keys + distinct(rows, self.values, self.pairs, generator)
        questions = shuffled(keys, generator)
        blank = self.vocabulary - 1
        between = torch.full((rows, self.filler), blank)
        tokens = torch.cat(
            [interleaved(keys, values), between, interleaved(questions, torch.full_like(keys, blank))], 1
        )
        answers = values.gather(1, (questions.unsqueeze(2) == keys.unsqueeze(1)).long().argmax(2))
        at = 2 * self.pairs + self.filler + 2 * torch.arange(self.pairs).expand(rows, -1)
        return asked(tokens, at, questions, answers)


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """A stream of many more pairs than are asked for: the last few. What is old is only in the way."""

    grows: ClassVar[tuple[str, ...]] = ("pairs",)
    keys: int = 20
    values: int = 12
    pairs: int = 16
    recent: int = 4

    @property
    def vocabulary(self) -> int:
        return self.keys + self.values

    @property
    def chance(self) -> float:
        return 1 / self.values

    def batch(self, rows: int, generator: Generator) -> Batch:
        keys = distinct(rows, self.keys, self.pairs, generator)
        values = self.keys + torch.randint(self.values, keys.shape, generator=generator)
        order = distinct(rows, self.recent, self.recent, generator) + self.pairs - self.recent
        questions = keys.gather(1, order)
        filler = torch.randint(self.vocabulary, questions.shape, generator=generator)
        tokens = torch.cat([interleaved(keys, values), interleaved(questions, filler)], 1)
        at = 2 * self.pairs + 2 * torch.arange(self.recent).expand(rows, -1)
        return asked(tokens, at, questions, values.gather(1, order))


@dataclass(frozen=True, kw_only=True)
class OrderedRecall:
    """A list of items, then ordinal numbers: which item came n-th? A bag of items cannot say."""

    grows: ClassVar[tuple[str, ...]] = ("length", "questions")
    items: int = 16
    length: int = 8
    questions: int = 4

    @property
    def vocabulary(self) -> int:
        return self.items + self.length

    @property
    def chance(self) -> float:
        return 1 / self.length  # of one who knows the items and not their order

    def batch(self, rows: int, generator: Generator) -> Batch:
        items = distinct(rows, self.items, self.length, generator)
        ordinals = distinct(rows, self.length, self.questions, generator)
        tokens = torch.cat([items, self.items + ordinals], 1)
        at = self.length + torch.arange(self.questions).expand(rows, -1)
        return asked(tokens, at, self.items + ordinals, items.gather(1, ordinals))


@dataclass(frozen=True, kw_only=True)
class RapidNaming:
    """Chunks of a name, then an attribute of each type and noises in any order; at last name and type.

    The value stands at another step than the name it belongs to (Lampinen et al. 2021, ours in symbols). The
    name comes first, since a layer is not told where a chunk begins.
    """

    grows: ClassVar[tuple[str, ...]] = ("chunks",)
    names: int = 12
    types: int = 2
    values: int = 6
    chunks: int = 4
    questions: int = 4
    step: int = 5

    @property
    def vocabulary(self) -> int:
        return (
            self.names + self.types * self.values + self.values + self.types
        )  # name, attribute, noise, type

    @property
    def chance(self) -> float:
        return 1 / self.values

    def batch(self, rows: int, generator: Generator) -> Batch:
        names = distinct(rows, self.names, self.chunks, generator)
        shape = rows, self.chunks, self.types
        values = torch.randint(self.values, shape, generator=generator)
        attributes = self.names + torch.arange(self.types) * self.values + values
        noises = torch.randint(
            self.values, (rows, self.chunks, self.step - 1 - self.types), generator=generator
        )
        noises = noises + self.names + self.types * self.values
        about = shuffled(torch.cat([attributes, noises], 2).flatten(0, 1), generator)
        told = torch.cat([names.unsqueeze(2), about.view(rows, self.chunks, -1)], 2).flatten(1)
        which = torch.randint(self.chunks, (rows, self.questions), generator=generator)
        kind = torch.randint(self.types, (rows, self.questions), generator=generator)
        type_tokens = self.vocabulary - self.types + kind
        questions = interleaved(names.gather(1, which), type_tokens)
        answer = values.flatten(1).gather(1, which * self.types + kind)
        at = told.shape[1] + 1 + 2 * torch.arange(self.questions).expand(rows, -1)
        tokens = torch.cat([told, questions], 1)
        right = self.names + kind * self.values + answer  # said as the attribute's token
        return asked(tokens, at, type_tokens, right)


@dataclass(frozen=True, kw_only=True)
class Needle:
    """A few pairs, a stream of noise, the keys: trained on short streams, asked after `noise` steps.

    `told`, `haystack` and `asked_for` give the stream in parts, so that it is never held as a whole.
    """

    grows: ClassVar[tuple[str, ...]] = ("noise",)
    keys: int = 8
    values: int = 16
    noises: int = 8
    pairs: int = 2
    noise: int = 40

    @property
    def vocabulary(self) -> int:
        return self.keys + self.values + self.noises

    @property
    def chance(self) -> float:
        return 1 / self.values

    def batch(self, rows: int, generator: Generator) -> Batch:
        """Streams of random length up to `noise`, filled up in front: no distance to learn by heart."""
        pairs = self.told(rows, generator)
        steps = int(torch.randint(self.noise // 2, self.noise + 1, (1,), generator=generator))
        between = self.haystack(rows, steps, generator)
        before = self.haystack(rows, self.noise - steps, generator)
        questions, answers = self.asked_for(pairs, generator)
        tokens = torch.cat([before, pairs, between, questions], 1)
        labels = torch.full_like(tokens, ASK_NOTHING)
        labels[:, -questions.shape[1] :] = answers
        return tokens, labels

    def told(self, rows: int, generator: Generator) -> Tensor:
        keys = distinct(rows, self.keys, self.pairs, generator)
        return interleaved(keys, self.keys + distinct(rows, self.values, self.pairs, generator))

    def haystack(self, rows: int, steps: int, generator: Generator) -> Tensor:
        low = self.keys + self.values
        return torch.randint(low, self.vocabulary, (rows, steps), generator=generator)

    def asked_for(self, told: Tensor, generator: Generator) -> Batch:
        """The keys in another order, each followed by noise; the values they had."""
        keys, values = told[:, ::2], told[:, 1::2]
        order = distinct(told.shape[0], self.pairs, self.pairs, generator)
        tokens = interleaved(keys.gather(1, order), self.haystack(told.shape[0], self.pairs, generator))
        labels = torch.full_like(tokens, ASK_NOTHING)
        labels[:, ::2] = values.gather(1, order)
        return tokens, labels


TASKS: Final[Mapping[str, Task]] = {
    "mqar": MQAR(vocabulary=64),
    "rapid-naming": RapidNaming(),
    "re-binding": Rebinding(),
    "beyond-window": BeyondWindow(),
    "forgetting": Forgetting(),
    "ordered": OrderedRecall(),
    "needle": Needle(),
}


def smaller(task: Task, share: float) -> Task:
    """The task at a share of its size, its vocabulary as it was."""
    sizes = {name: max(1, round(getattr(task, name) * share)) for name in task.grows}
    changed: Any = task
    return replace(changed, **sizes) if share != 1 else task


def distinct(rows: int, below: int, count: int, generator: Generator) -> Tensor:
    """(rows, count) numbers below `below`, no two alike in a row."""
    return torch.rand(rows, below, generator=generator).argsort(1)[:, :count]


def shuffled(x: Tensor, generator: Generator) -> Tensor:
    """Each row in an order of its own."""
    return x.gather(1, torch.rand(x.shape, generator=generator).argsort(1))


def interleaved(a: Tensor, b: Tensor) -> Tensor:
    """a_1 b_1 a_2 b_2 … of two (rows, n)."""
    return torch.stack([a, b], 2).flatten(1)


def asked(tokens: Tensor, at: Tensor, questions: Tensor, answers: Tensor) -> Batch:
    """Put questions and the labels they are asked for at (rows, n) positions."""
    labels = torch.full_like(tokens, ASK_NOTHING)
    return tokens.scatter(1, at, questions), labels.scatter(1, at, answers)
