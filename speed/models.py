"""How long the static embedder takes to load, and how many chat turns it embeds in a second."""

from __future__ import annotations

import time

started = time.perf_counter()
from mnemic.models.static import StaticEmbedder  # noqa: E402

TURNS = [
    f"Turn {n}: I moved to Porto in March, and the bakery opens at {n % 12} o'clock." for n in range(3_000)
]


def main() -> None:
    imported = time.perf_counter()
    embedder = StaticEmbedder()
    name = embedder.name
    named = time.perf_counter()
    embedder.tokenize(["x"])
    loaded = time.perf_counter()
    print(
        f"import {1e3 * (imported - started):.0f} ms, weights and name {1e3 * (named - imported):.0f} ms, "
        f"tokenizer {1e3 * (loaded - named):.0f} ms ({name})"
    )
    for label, work in (("tokenize", embedder.tokenize), ("embed", embedder.embed)):
        begun = time.perf_counter()
        work(TURNS)
        print(f"{label}: {len(TURNS) / (time.perf_counter() - begun):,.0f} turns/s in one batch")
    begun = time.perf_counter()
    for turn in TURNS:
        embedder.embed([turn])
    print(f"embed: {1e3 * (time.perf_counter() - begun) / len(TURNS):.3f} ms for one")


if __name__ == "__main__":
    main()
