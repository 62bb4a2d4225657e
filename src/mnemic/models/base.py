"""What mnemic asks of a model: two small protocols, no base classes to inherit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
TokenIds = NDArray[np.uint16]


@runtime_checkable
class Embedder(Protocol):
    """Text to vectors.

    `name` identifies weights and settings: two embedders with one name must give equal vectors. `inline =
    True` declares that `embed` is fast and cannot fail (in process, no network), so that it may run inside
    `add`.
    """

    name: str
    dim: int
    inline: bool

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """(len(texts), dim) float32, rows of unit length. Raises ModelError."""
        ...


@runtime_checkable
class TokenEmbedder(Embedder, Protocol):
    """A static embedder: a table of token vectors, pooled later with the statistics of the space they live
    in.
    """

    @property
    def table(self) -> NDArray[Any]:
        """(vocabulary, dim) float16 or float32; at most 65,536 rows."""
        ...

    def tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids of each text, without special tokens."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a call cost. `cost` is in the currency of the configured prices, None where none are
    configured.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cost: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """An answer of a language model;

    `parsed` is set when a JSON schema was asked for and the answer satisfies it.
    """

    text: str
    usage: Usage
    parsed: Any = None


class LanguageModel(Protocol):
    """Chat messages to text."""

    @property
    def name(self) -> str: ...

    @property
    def context_tokens(self) -> int | None:
        """What fits into one call, prompt and answer together; None where it is not known."""
        ...

    def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int = 512,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
    ) -> Completion:
        """Answer. With `schema` (JSON Schema) the answer is validated against it. Raises ModelError."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` under this model's tokenizer;

        an estimate where the model does not say (see docs).
        """
        ...
