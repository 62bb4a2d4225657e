"""Write-time features of a text: what the indexes need at load, so that no text is read again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mnemic.cube.errors import InvalidInput, ModelError, TextsRefused
from mnemic.index.lexical import lexical_features
from mnemic.models.base import Embedder, FloatArray, TokenEmbedder
from mnemic.models.vectors import embed_checked
from mnemic.vault.snapshot import ModelRow
from mnemic.vault.vault import Vault

BATCH = 256
Progress = Callable[[int, int], None]  # done, total


@dataclass(frozen=True, slots=True)
class Utterance:
    """What is indexed of a cube: its text without recalled blocks, and who said it."""

    text: str
    speaker: str | None

    @property
    def spoken(self) -> str:
        """As embedders see it. A name is part of what makes "I" mean someone."""
        return f"{self.speaker}: {self.text}" if self.speaker and self.text else self.text


@dataclass(frozen=True)
class FeatureMaker:
    """The active lexical analyser and embedder of an open memory."""

    embedder: Embedder
    lexical: ModelRow
    dense: ModelRow

    @cached_property
    def _tokens(self) -> TokenEmbedder | None:
        """The embedder, if it is a static one. (Asking costs as much as storing a row.)"""
        return self.embedder if isinstance(self.embedder, TokenEmbedder) else None

    def make(self, said: Sequence[Utterance], vectors: FloatArray | None = None) -> list[dict[int, bytes]]:
        """Features of each utterance, by model number.

        Without the dense one where the embedder is not `inline`: those cubes are pending until
        `embed_pending`.
        """
        out = [{self.lexical.number: feature} for feature in lexical_only(said)]
        if vectors is not None:
            dense: Sequence[bytes] = vector_bytes(vectors)
        elif self.embedder.inline:
            dense = self.embed(said)
        else:
            return out
        for features, data in zip(out, dense, strict=True):
            features[self.dense.number] = data
        return out

    def embed(self, said: Sequence[Utterance]) -> list[bytes]:
        """The dense feature of each: token ids for a static embedder, else a float16 vector.

        Raises ModelError and InvalidVector.
        """
        texts = [one.spoken for one in said]
        if self._tokens is not None:
            return [ids.tobytes() for ids in self._tokens.tokenize(texts)]
        kept = [i for i, text in enumerate(texts) if text.strip()]
        out = [b""] * len(texts)
        if kept:
            checked = embed_checked(self.embedder, [texts[i] for i in kept], dim=self.dense.dim)
            for i, data in zip(kept, vector_bytes(checked), strict=True):
                out[i] = data
        return out


def lexical_only(said: Sequence[Utterance]) -> list[bytes]:
    """The lexical feature of each."""
    return lexical_features([one.text for one in said], [one.speaker for one in said])


def vector_bytes(vectors: FloatArray) -> list[bytes]:
    """Rows as float16: half the bytes, and cosine ranks unchanged beyond the third decimal."""
    return [row.tobytes() for row in vectors.astype(np.float16)]


Make = Callable[[Sequence[Utterance]], Sequence[bytes]]
PROBE = Utterance("yes", None)


def embed_pending(
    vault: Vault,
    model: ModelRow,
    make: Make,
    progress: Progress | None = None,
    *,
    above: Mapping[int, int] | None = None,
    refused: dict[tuple[int, int], int] | None = None,
) -> int:
    """Make the missing features of `model` for every live cube of the tenant; how many were made.

    above: only in these spaces, each above a seq. Those that `make` fails on, while it answers others, are
    raised as TextsRefused when the rest is done. refused: how often it failed on (space, seq), kept up to
    date here; what failed twice is not asked for. What fails on everything is raised at once. Each batch is
    one transaction, so a run that is stopped goes on where it was. O(versions looked at) in the database,
    O(cubes without the feature) here; a refused text costs 2 log2(BATCH) small calls more.
    """
    done, strikes = 0, {} if refused is None else refused
    failed: list[tuple[str, Exception]] = []
    with vault.snapshot() as snapshot:
        starts = {row.space: 0 for row in snapshot.spaces()} if above is None else above
        total = sum(snapshot.pending_count(space, model.number, after=seq) for space, seq in starts.items())
    for space, start in starts.items():
        after = start
        while True:
            with vault.snapshot() as snapshot:
                rows = snapshot.pending(space, model.number, after=after, limit=BATCH)
            if not rows:
                break
            after = rows[-1][0]
            asked = [(seq, cube) for seq, cube in rows if strikes.get((space, seq), 0) < 2]
            said = [utterance(cube.text, cube.header.recalled, speaker_of(cube.header)) for _, cube in asked]
            found: dict[int, bytes] = {}
            for (seq, cube), data in zip(asked, _each(make, said), strict=True):
                if isinstance(data, bytes):
                    found[seq] = data
                    strikes.pop((space, seq), None)
                else:
                    strikes[space, seq] = strikes.get((space, seq), 0) + 1
                    failed.append((cube.id, data))
            vault.put_features(space, model.number, found)
            done += len(found)
            if progress:
                progress(done, max(total, done))
    if failed:
        (first, error), cubes = failed[0], [cube for cube, _ in failed]
        raise TextsRefused(
            f"{model.name} fails on {len(cubes):,} of the texts and answers others: {first}: {error}. They "
            "are found by their words alone; update() or erase() them, or reembed with another embedder",
            cubes=cubes,
        ) from error
    return done


def _each(make: Make, said: Sequence[Utterance]) -> list[bytes | Exception]:
    """The feature of each, or why there is none: halves of what failed are asked again, down to the text.

    Raises what `make` raises if it does not answer a plain word either.
    """
    try:
        return list(make(said)) if said else []
    except (ModelError, InvalidInput) as error:
        make([PROBE])
        if len(said) == 1:
            return [error]
    middle = len(said) // 2
    return _each(make, said[:middle]) + _each(make, said[middle:])


def utterance(text: str, recalled: Sequence[tuple[int, int]], speaker: str | None) -> Utterance:
    """The part of a text that was said, without what mnemic itself had put there."""
    position, kept = 0, []
    for start, end in recalled:
        kept.append(text[position:start])
        position = end
    return Utterance("".join(kept) + text[position:] if recalled else text, speaker)


def speaker_of(header: object) -> str | None:
    """A name if there is one, else the role."""
    name: str | None = getattr(header, "name", None)
    role: str | None = getattr(header, "role", None)
    return name or role
