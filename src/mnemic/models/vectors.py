"""Checks on what goes into an embedder and on what comes out of one. Knows no embedder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mnemic.cube.errors import InvalidText, InvalidVector, MnemicError, ModelError
from mnemic.models.base import Embedder, FloatArray


def check_texts(texts: Sequence[str]) -> list[str]:
    """The texts as a list. Raises InvalidText on a lone string, on what is not text and on lone
    surrogates.
    """
    if isinstance(texts, str | bytes):
        raise InvalidText(f"expected a list of texts, got one {type(texts).__name__}: write [text]")
    try:
        checked = list(texts)
    except TypeError as error:
        raise InvalidText(f"expected a list of texts, got {type(texts).__name__}") from error
    for position, text in enumerate(checked):
        if not isinstance(text, str):
            raise InvalidText(f"texts[{position}] must be str, got {type(text).__name__}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidText(
                f"texts[{position}] is not valid Unicode at character {error.start} ({error.reason}); "
                "decode the bytes it came from with errors='replace'"
            ) from None
    return checked


def embed_checked(embedder: Embedder, texts: Sequence[str], *, dim: int) -> FloatArray:
    """(len(texts), dim) float32 of unit length, by somebody's embedder, which may do anything.

    Raises ModelError when it fails and InvalidVector when what it gives cannot be used.
    """
    try:
        raw = embedder.embed(texts)
    except MnemicError:
        raise
    except Exception as error:
        raise ModelError(
            f"the embedder {embedder.name} failed: {type(error).__name__}: {_short(error)}"
        ) from error
    return check_vectors(raw, count=len(texts), dim=dim, name=embedder.name)


_LEAST, _MOST = 1e-30, 1e30  # squared lengths between which nothing overflows or vanishes on the way


def check_vectors(vectors: Any, count: int, dim: int, name: str) -> FloatArray:
    """`vectors` as a new (count, dim) float32 array with rows of unit length. O(count · dim).

    Raises InvalidVector, naming the embedder `name` and the first bad row, on another shape, on what is not a
    number, on NaN or infinity, and on a row of zeros (it has no direction). Lengths are taken in float64, so
    that very long and very short rows are normalised too.
    """
    try:
        array = np.asarray(vectors)
        if array.dtype.kind not in "fiu" and array.size:
            raise TypeError(f"values of type {array.dtype}")
        if array.dtype == np.float32 and array.shape == (count, dim) and count:
            squares = np.einsum("ij,ij->i", array, array, dtype=np.float64)
            if squares.min() > _LEAST and squares.max() < _MOST:  # false of NaN
                unit: FloatArray = (array / np.sqrt(squares)[:, None]).astype(np.float32)
                return unit
        wide = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidVector(
            f"{name}: expected an array of shape {(count, dim)}, one row of {dim} for each text; got "
            f"{_short(error)}"
        ) from error
    if count == 0 and wide.size == 0:
        return np.empty((0, dim), np.float32)
    if wide.shape != (count, dim):
        raise InvalidVector(
            f"{name}: expected an array of shape {(count, dim)}, one row of {dim} for each text; got "
            f"{wide.shape}"
        )
    finite = np.isfinite(wide).all(axis=1)
    if not finite.all():
        raise InvalidVector(
            f"{name}: vector {int(np.argmin(finite))} holds NaN or infinity; every number must be finite"
        )
    largest = np.abs(wide).max(axis=1, keepdims=True)
    if not largest.all():
        raise InvalidVector(
            f"{name}: vector {int(np.argmin(largest))} is all zeros and has no direction; leave it out"
        )
    wide /= largest  # else the squares of values near the limits of float64 overflow or vanish
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide.astype(np.float32)


def _short(error: Exception) -> str:
    said = str(error)
    return said if len(said) <= 160 else said[:159] + "…"
