"""What every store is told and asked: the same texts, the same users, the same vectors. Needs numpy only."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

DIM = 256
USER, SMALL_USER = "ana", "bo"  # the space that holds N, and one of SMALL that shares its store
SMALL = 1_000
Asked = tuple[str, str]  # a question and the text it was made from

_WORDS = """
Ana,Ben,Caro,Dev,Eli,Fatima,Goran,Hana,Ivo,Jun,Kira,Leo,Mina,Noah,Olga,Pia,Quin,Rosa,Sam,Tara
bought,repaired,sold,borrowed,lost,found,painted,returned,cleaned,ordered
espresso machine,road bike,violin,greenhouse,sourdough starter,telescope,kayak,typewriter,drone,loom
Lisbon,Oslo,Nairobi,Quito,Seoul,Tunis,Perth,Lima,Turin,Bergen,Osaka,Porto,Ghent,Leeds,Cork
Monday,Tuesday,Wednesday,Thursday,Friday,Saturday,Sunday
"""


def texts(count: int, seed: int = 7) -> list[str]:
    """Sentences of about 20 words, each with a number and a word of its own."""
    rng = random.Random(seed)
    names, verbs, things, cities, days = (line.split(",") for line in _WORDS.strip().splitlines())
    return [
        f"{rng.choice(names)} {rng.choice(verbs)} a {rng.choice(things)} in {rng.choice(cities)} on "
        f"{rng.choice(days)} for {rng.randint(5, 4999)} euros; ticket {i:06d}, "
        f"note {rng.getrandbits(40):010x}."
        for i in range(count)
    ]


def questions(said: Sequence[str], count: int = 120, seed: int = 3) -> list[Asked]:
    """Eight words of a text, shuffled; one of them is its price."""
    rng = random.Random(seed)
    asked = []
    for _ in range(count):
        text = rng.choice(said)
        words = text.split(";")[0].split()
        kept = words
        rng.shuffle(kept)
        price = re.search(r"\d+", text)
        assert price is not None
        asked.append((" ".join([*[w for w in kept if w != price[0]][:7], price[0]]), text))
    return asked


def vectors(of: Iterable[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(texts, DIM): bags of words, each word a Gaussian row that its hash seeds; unit length."""
    rows: dict[str, Any] = {}
    out = []
    for text in of:
        total = np.zeros(DIM, np.float32)
        for word in re.findall(r"[a-z0-9]+", text.lower()):
            if word not in rows:
                seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
                rows[word] = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
            total += rows[word]
        out.append(total / (np.linalg.norm(total) + 1e-9))
    return np.stack(out).astype(np.float32)


class Cached:
    """An embedder that only looks up: vectors are made before the clock starts. `misses` should stay 0.

    A text is also known with its speaker before it, as mnemic shows it to an embedder.
    """

    name, dim, inline = f"speed-random-projection-{DIM}", DIM, True

    def __init__(self, said: Sequence[str], made: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        self.made = made
        self.row = {text: i for i, text in enumerate(said)} | {
            f"user: {text}": i for i, text in enumerate(said)
        }
        self.misses = 0

    def embed(self, wanted: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        try:
            return self.made[[self.row[text] for text in wanted]]
        except KeyError:
            self.misses += len(wanted)
            return vectors(wanted)

    def lists(self, wanted: Sequence[str]) -> list[list[float]]:
        """For libraries that want lists of numbers."""
        return self.embed(wanted).tolist()  # type: ignore[no-any-return]


def prepare(folder: Path, size: int) -> None:
    """Make vectors and questions of one size once, for all stores. Size 0 is the empty store's."""
    asked = folder / f"questions-{size}.json"
    if asked.exists():
        return
    said = texts(size + SMALL)
    if size:
        np.save(folder / f"vectors-{size}.npy", vectors(said))
    large, small = questions(said[:size]) if size else [], questions(said[size:])
    np.save(folder / f"question-vectors-{size}.npy", vectors(question for question, _ in large + small))
    asked.write_text(json.dumps([large, small]))


def to_tell(folder: Path, size: int) -> tuple[list[str], Cached]:
    """All texts (N for USER, then SMALL for SMALL_USER) and their embedder."""
    said = texts(size + SMALL)
    return said, Cached(said, np.load(folder / f"vectors-{size}.npy"))


def to_ask(folder: Path, size: int) -> tuple[list[Asked], list[Asked], Cached]:
    """Questions on USER's space and on SMALL_USER's, and an embedder that holds only their vectors."""
    large, small = json.loads((folder / f"questions-{size}.json").read_text())
    asked = [question for question, _ in large + small]
    return large, small, Cached(asked, np.load(folder / f"question-vectors-{size}.npy"))
