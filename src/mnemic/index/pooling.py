"""Token ids to vectors: the weighted mean of static token vectors, minus the space's mean.

Smooth inverse frequency (Arora et al. 2017, "A simple but tough-to-beat baseline", §3): a token of relative
frequency f weighs a / (a + f). Ours takes f from the space itself and removes its mean, not its first
component.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
A: Final = 1e-3
MEAN_PRIOR: Final = 8  # rows; the mean of a nearly empty space is pulled towards zero
BLOCK: Final = 256  # texts pooled at once, token by token: their sums stay in the processor's cache
LONG: Final = 512  # tokens of a text that is pooled alone


def token_weights(tokens: NDArray[np.uint16], vocabulary: int) -> FloatArray:
    """(vocabulary,) the weight of each token in a space whose first texts hold `tokens`."""
    counts = np.bincount(tokens, minlength=vocabulary).astype(np.float64)
    weights: FloatArray = (A / (A + counts / max(counts.sum(), 1.0))).astype(np.float32)
    return weights


def pool(
    tokens: NDArray[np.uint16], lengths: NDArray[np.int64], table: NDArray[Any], weights: FloatArray
) -> FloatArray:
    """(texts, dim) unit vectors, zero for a text without tokens. O(tokens · dim).

    tokens: (sum(lengths),) of all texts, one after the other. Each sum runs over the text's own tokens, first
    to last, so texts pooled one by one or all at once give the same numbers.
    """
    used = np.flatnonzero(np.bincount(tokens, minlength=len(table)))
    weighted = table[used].astype(np.float32) * weights[used, None]
    place = np.zeros(len(table), np.int64)
    place[used] = np.arange(len(used))
    position = place[tokens]
    out = np.zeros((len(lengths), table.shape[1]), np.float32)
    starts = np.cumsum(lengths) - lengths
    by_length = np.argsort(-lengths, kind="stable")
    long = int((lengths > LONG).sum())
    for row in by_length[:long]:
        np.add.reduce(weighted[position[starts[row] : starts[row] + lengths[row]]], axis=0, out=out[row])
    for first in range(long, len(lengths), BLOCK):
        rows = by_length[first : first + BLOCK]
        mine, start = lengths[rows], starts[rows]
        total = np.zeros((len(rows), table.shape[1]), np.float32)
        reach = np.bincount(mine)[::-1].cumsum()[::-1]  # how many are at least so long
        for step in range(int(mine[0])):
            count = reach[step + 1]
            total[:count] += weighted[position[start[:count] + step]]
        out[rows] = total
    return normalise(out)


def normalise(vectors: FloatArray) -> FloatArray:
    """Rows to unit length, in place; zero rows stay zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    vectors /= np.where(norms > 1e-9, norms, 1.0)[:, None]
    return vectors


def space_mean(vectors: FloatArray) -> FloatArray:
    """(dim,) the mean of a space's first vectors, pulled towards zero when they are few."""
    total: FloatArray = vectors.sum(axis=0)
    return total / np.float32(len(vectors) + MEAN_PRIOR)


def centre(vectors: FloatArray, mean: FloatArray) -> FloatArray:
    """Unit vectors minus the mean, to unit length again, in place; rows that are zero stay zero."""
    for start in range(0, len(vectors), 1024):
        block = vectors[start : start + 1024]
        present = np.einsum("ij,ij->i", block, block) > 0
        block -= mean
        block[~present] = 0
        normalise(block)
    return vectors
