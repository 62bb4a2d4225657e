"""Embeddings from any endpoint that speaks OpenAI's protocol: OpenAI, Ollama, vLLM, llama.cpp and others."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from mnemic.cube.checks import require_count
from mnemic.cube.errors import InvalidOption, InvalidVector, ModelError
from mnemic.models.base import FloatArray, Usage
from mnemic.models.endpoint import OPENAI_URL, Endpoint
from mnemic.models.vectors import check_texts, check_vectors


class OpenAIEmbedder:
    """POST {base_url}/embeddings, `batch_size` texts at a time. Not `inline`: vectors are made after the
    commit.

    dim: the size to expect; another size is a ModelError. None learns it from the first answer (reading `dim`
    before then asks the endpoint once), so give it where the endpoint may be down when a vault is opened.
    shorten: ask the endpoint for `dim` dimensions ("dimensions" in the protocol; only models trained for it
    can). An empty or blank text is sent as a single ".": endpoints refuse empty ones, and every text needs a
    direction. `usage` counts the input tokens that the endpoint reported. Threads may share one object.

    Raises InvalidOption here; MissingExtra (the `openai` package) and ModelError at use.
    """

    inline: Final[bool] = False

    def __init__(
        self,
        *,
        model: str,
        base_url: str = OPENAI_URL,
        api_key: str | None = None,
        dim: int | None = None,
        shorten: bool = False,
        batch_size: int = 128,
        timeout: float = 30.0,
        max_retries: int = 3,
    ) -> None:
        require_count(batch_size=batch_size)
        if dim is not None:
            require_count(dim=dim)
        if shorten and dim is None:
            raise InvalidOption("shorten=True needs dim=, the number of dimensions to ask for")
        self.endpoint = Endpoint(
            model=model, base_url=base_url, api_key=api_key, timeout=timeout, max_retries=max_retries
        )
        self.batch_size, self.shorten = batch_size, shorten
        self._dim, self._input_tokens = dim, 0
        self._counting = threading.Lock()

    def __repr__(self) -> str:
        return f"OpenAIEmbedder({self.endpoint!r}, dim={self._dim})"

    @property
    def name(self) -> str:
        """`openai:<model>`, with the dimension where it was asked for. Not the URL:

        servers move, weights do not.
        """
        return f"openai:{self.endpoint.model}" + (f":{self._dim}" if self.shorten else "")

    @property
    def dim(self) -> int:
        if self._dim is None:
            self.embed(["dimension"])
        assert self._dim is not None  # noqa: S101  set by the first answer
        return self._dim

    @property
    def usage(self) -> Usage:
        return Usage(input_tokens=self._input_tokens)

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """(len(texts), dim) float32, rows of unit length. One request per `batch_size` texts.

        Raises InvalidText; ModelError when the endpoint fails or answers with vectors that cannot be used.
        """
        sent = [text if text.strip() else "." for text in check_texts(texts)]
        if not sent:
            return np.empty((0, self._dim or 0), np.float32)
        parts = [
            self._request(sent[at : at + self.batch_size]) for at in range(0, len(sent), self.batch_size)
        ]
        return np.concatenate(parts)

    def _request(self, texts: list[str]) -> FloatArray:
        body: dict[str, Any] = {"model": self.endpoint.model, "input": texts, "encoding_format": "float"}
        if self.shorten:
            body["dimensions"] = self._dim
        answer = self.endpoint.post("/embeddings", body)
        vectors = self._read(answer, len(texts))
        tokens = _tokens(answer)
        with self._counting:
            self._input_tokens += tokens
        return vectors

    def _read(self, answer: dict[str, Any], count: int) -> FloatArray:
        try:
            items = sorted(enumerate(answer["data"]), key=lambda item: item[1].get("index", item[0]))
            vectors = [item["embedding"] for _, item in items]
            sizes = {len(vector) for vector in vectors}
        except (KeyError, TypeError, AttributeError) as error:
            raise self.endpoint.unreadable(
                f"no list of embeddings ({type(error).__name__}: {error})"
            ) from None
        if len(vectors) != count:
            raise self.endpoint.unreadable(f"{len(vectors)} vectors for {count} texts")
        dim = self._dim or max(sizes)
        if sizes != {dim}:
            raise ModelError(
                f"{self.name} at {self.endpoint.shown_url} gave vectors of {sorted(sizes)} dimensions where "
                f"{dim} were "
                "expected. Set dim= to what the model gives, or shorten=True if it can shorten"
            )
        try:
            checked = check_vectors(vectors, count, dim, self.name)
        except InvalidVector as error:
            raise ModelError(
                f"{error} (from {self.endpoint.shown_url}). The model or its server is faulty"
            ) from error
        self._dim = dim
        return checked


def _tokens(answer: dict[str, Any]) -> int:
    usage = answer.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) else 0
