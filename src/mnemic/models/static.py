"""The default embedder: WordLlama's token vectors (MIT), read from its installed wheel without importing the
package.

Importing `wordllama` configures the root logger and takes a quarter of a second; its data files need neither.
The tokenizer is Llama 2's, with one change that alters no token: text is cut before each word. No token of
that vocabulary crosses a word's start, so the ids are the same, and the tokenizer's cache holds single words
instead of whole texts (less memory, and what was erased does not linger there).
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from mnemic.cube.errors import InvalidOption, MissingExtra, ModelError
from mnemic.models.base import FloatArray, TokenIds
from mnemic.models.vectors import check_texts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WEIGHTS: Final = Path("weights", "l2_supercat_256.safetensors")
TOKENIZER: Final = Path("tokenizers", "l2_supercat_tokenizer_config.json")
UNKNOWN: Final = 0  # the id of <unk>: stands for a text without any token

_loading = threading.Lock()


def _renew_lock() -> None:
    global _loading
    _loading = threading.Lock()  # a thread of the parent may have held the old one


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@dataclass(frozen=True, slots=True)
class _Weights:
    table: NDArray[np.float16]
    name: str


class StaticEmbedder:
    """A table of 32,000 token vectors of 256 numbers; a text is the mean of its tokens' vectors.

    `tokenize` and `table` are what a space pools with its own token frequencies. `embed` is for uses without
    a space: every token weighs the same (WordLlama's own pooling), then unit length. A text without tokens,
    such as "", gets the direction of `<unk>`, so that every row is a unit vector.

    Nothing is read before first use. `name` and `table` then read 16 MB and hash them with the tokenizer: the
    whole content, since equal names promise equal vectors, with SHA-256, which processors have instructions
    for (about half the time of BLAKE2b). `tokenize` loads the tokenizer. Both are kept for the life of the
    object; threads may share it, and it works in a forked child. Costs: docs/models.md.

    folder: where the `wordllama` package lies; default: where it is installed.
    Raises, at first use: MissingExtra when the package is absent, ModelError when its files are not as
    expected.
    """

    dim: Final[int] = 256
    inline: Final[bool] = True

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        if folder is not None and not isinstance(folder, str | os.PathLike):
            raise InvalidOption(f"folder must be a path, got {type(folder).__name__}")
        self._folder = None if folder is None else Path(folder)
        self._weights: _Weights | None = None
        self._tokenizer: Tokenizer | None = None

    def __repr__(self) -> str:
        return f"StaticEmbedder(folder={str(self._folder)!r})" if self._folder else "StaticEmbedder()"

    def __reduce__(self) -> tuple[type[StaticEmbedder], tuple[Path | None]]:
        return StaticEmbedder, (self._folder,)

    @property
    def name(self) -> str:
        """`wordllama-256-` and 12 hex digits of the content: another release's weights have another name."""
        return self._load_weights().name

    @property
    def table(self) -> NDArray[np.float16]:
        """(32,000, 256) float16, read-only."""
        return self._load_weights().table

    def tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids of each text, without special tokens, never cut short. Raises InvalidText.

        O(characters). One by one on purpose: the tokenizer's batch call starts worker threads, which are no
        faster on short texts and, once used, make a later fork warn on stderr (tokenizers < 0.22) or lose
        them.
        """
        checked = check_texts(texts)
        encode = self._load_tokenizer().encode
        return [np.array(encode(text, add_special_tokens=False).ids, dtype=np.uint16) for text in checked]

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """(len(texts), 256) float32, rows of unit length. Raises InvalidText. O(tokens · 256)."""
        table = self.table
        tokens = self.tokenize(texts)
        vectors = np.empty((len(tokens), self.dim), np.float32)
        for row, ids in zip(vectors, tokens, strict=True):
            _sum(table, ids, row)
        # No row can be zero: a sum of float16 rows cancels exactly only if their words do, and then <unk>
        # stands in.
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not lengths.all():
            vectors[lengths[:, 0] == 0] = table[UNKNOWN]
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= lengths
        return vectors

    def _load_weights(self) -> _Weights:
        if self._weights is None:
            with _loading:
                if self._weights is None:
                    folder = self._folder or _package_folder()
                    self._weights = _read_weights(folder / WEIGHTS, folder / TOKENIZER, self.dim)
        return self._weights

    def _load_tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            with _loading:
                if self._tokenizer is None:
                    self._tokenizer = _read_tokenizer((self._folder or _package_folder()) / TOKENIZER)
        return self._tokenizer


def _sum(table: NDArray[np.float16], ids: TokenIds, out: NDArray[np.float32], *, block: int = 65_536) -> None:
    """out = the sum of the rows `ids`. In blocks, so that a book costs no more than 64 MB."""
    if len(ids) <= block:
        table[ids].astype(np.float32).sum(axis=0, out=out)
        return
    out[:] = sum(
        table[ids[at : at + block]].astype(np.float32).sum(axis=0) for at in range(0, len(ids), block)
    )


def _package_folder() -> Path:
    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise MissingExtra(
            "the static embedder reads its weights from the wordllama package, which is not installed. "
            "Install it with: pip install wordllama"
        )
    return Path(spec.origin).parent


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"the static embedder cannot read {path} ({error.strerror}). Reinstall the package that holds "
            "it: "
            "pip install --force-reinstall wordllama"
        ) from error


def _read_weights(path: Path, tokenizer: Path, dim: int) -> _Weights:
    """The safetensors format by hand: 8 bytes of header size, a JSON header, one tensor."""
    content = _read_file(path)
    size = int.from_bytes(content[:8], "little")
    try:
        entry: Any = json.loads(content[8 : 8 + size])["embedding.weight"]
        (rows, columns), (start, end) = entry["shape"], entry["data_offsets"]
        if (
            entry["dtype"] != "F16"
            or columns != dim
            or not UNKNOWN < rows <= 65_536
            or end - start != 2 * rows * dim
        ):
            raise ValueError(f"found {entry['dtype']} of shape {entry['shape']}")
        data = memoryview(content)[8 + size + start : 8 + size + end]
        table = np.frombuffer(data, dtype="<f2").reshape(rows, dim)
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} is not the float16 table of {dim} columns that mnemic knows ({error}). Install a "
            "release that "
            "has it: pip install --force-reinstall 'wordllama==0.4.0.post1'"
        ) from error
    digest = hashlib.sha256(content)
    digest.update(_read_file(tokenizer))
    return _Weights(table, f"wordllama-{dim}-{digest.hexdigest()[:12]}")


def _read_tokenizer(path: Path) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, pre_tokenizers

    content = _read_file(path)
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises no subclass of it
        raise ModelError(
            f"{path} is not a tokenizer ({error}). pip install --force-reinstall wordllama repairs it"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True  # "<s>" in a text is three characters that somebody wrote
    if tokenizer.pre_tokenizer is None:
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁*[^▁]+|▁+"), "isolated")
    return tokenizer
