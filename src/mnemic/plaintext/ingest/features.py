"""Write-time features of a text: what the indexes need at load, so that no text is read again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

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


def embed_pending(
    vault: Vault,
    model: ModelRow,
    make: Callable[[Sequence[Utterance]], Sequence[bytes]],
    progress: Progress | None = None,
    *,
    above: Mapping[int, int] | None = None,
) -> int:
    """Make the missing features of `model` for every live cube of the tenant; how many were made.

    above: only in these spaces, each above a seq. Each batch is one transaction, so a run that is stopped
    goes on where it was. O(versions looked at) in the database, O(cubes without the feature) here.
    """
    done = 0
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
            data = make(
                [utterance(cube.text, cube.header.recalled, speaker_of(cube.header)) for _, cube in rows]
            )
            vault.put_features(space, model.number, dict(zip((seq for seq, _ in rows), data, strict=True)))
            after = rows[-1][0]
            done += len(rows)
            if progress:
                progress(done, max(total, done))
    return done


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
