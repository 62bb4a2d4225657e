"""Text as a source: BPE tokens made from the training text, windows of it, perplexity and recall."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Generator, Tensor

from mnemic.cube.errors import InvalidFile, InvalidOption, NotFound
from mnemic.training.options import CUE, TextOptions
from mnemic.training.source import ASK_NOTHING, Batch

END: Final = "<|end|>"


class Text:
    """Windows at random of the training text; of the held-out text consecutive ones, each read alone."""

    def __init__(self, options: TextOptions, folder: Path | None = None) -> None:
        """Paths are below `folder`, if given. Raises NotFound, InvalidFile, InvalidOption."""
        self.options = options
        train = read_text(_below(folder, options.train))
        if options.held_out is None:
            cut = len(train) * 9 // 10
            train, held = train[:cut], train[cut:]
        else:
            held = read_text(_below(folder, options.held_out))
        self.tokenizer = tokenizer_of(train, options.vocabulary)
        self.train = torch.tensor(self.tokenizer.encode(train).ids)
        self.held = torch.tensor(self.tokenizer.encode(held).ids)
        for name, ids in (("training", self.train), ("held-out", self.held)):
            if ids.numel() <= options.length:
                raise InvalidOption(
                    f"the {name} text has {ids.numel():,} tokens; a sequence takes {options.length + 1}: "
                    "give more text or a smaller length"
                )
        self._digest = hashlib.sha256(f"{train}\0{held}".encode()).hexdigest()
        pairs = self.train[:-1] * self.vocabulary + self.train[1:]
        self._known = torch.unique(pairs, return_counts=True)
        self._lengths = torch.tensor([_bytes_of(self.tokenizer, one) for one in range(self.vocabulary)])

    @property
    def vocabulary(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def batch(self, rows: int, generator: Generator, done: float = 1.0) -> Batch:
        options = self.options
        starts = torch.randint(self.train.numel() - options.length, (rows,), generator=generator)
        windows = self._windows(self.train, starts)
        grown = min(done / options.grow, 1.0) if options.grow else 1.0
        again = torch.rand(rows, generator=generator) < 1 - grown * (1 - options.repeats)
        if options.repeats:
            passages = self._passages(rows, generator, grown)
            windows = torch.where(again.unsqueeze(1), _repeated(windows, passages), windows)
        return windows[:, :-1], windows[:, 1:]

    def _passages(self, rows: int, generator: Generator, grown: float) -> Tensor:
        """int64 (rows,): tokens of what is said again, uniform in their logarithm."""
        half, least = self.options.length // 2, self.options.passage
        if least is None:
            return torch.full((rows,), half)
        most = 2 * least * (half / (2 * least)) ** grown
        drawn = least * (most / least) ** torch.rand(rows, generator=generator)
        found: Tensor = drawn.round().long()
        return found

    def held_out(self, rows: int) -> Iterator[Batch]:
        windows = self._windows(self.held, torch.arange(self._evaluated) * self.options.length)
        if self.options.repeats:
            some = windows[::2]
            asked = [_repeated(some, torch.full((some.shape[0],), size)) for size in self._asked]
            windows = torch.cat([windows, *asked])
        for some in windows.split(rows):
            yield some[:, :-1], some[:, 1:]

    @property
    def _asked(self) -> list[int]:
        """Tokens of the held-out passages that are said again, half a sequence last."""
        half, least = self.options.length // 2, self.options.passage
        return [half] if least is None else sorted({min(2 * least, half), half // 2, half})

    @property
    def _evaluated(self) -> int:
        """Held-out sequences, those that repeat themselves left out."""
        return min((self.held.numel() - 1) // self.options.length, self.options.evaluated)

    def _windows(self, ids: Tensor, starts: Tensor) -> Tensor:
        return ids[starts.unsqueeze(1) + torch.arange(self.options.length + 1)]

    def settings(self) -> dict[str, Any]:
        kept = self.options.to_dict()
        return {**kept, "train": "", "held_out": "", "sha256": self._digest}  # the texts, not their places

    def report(self, losses: Tensor, right: Tensor, tokens: Tensor, labels: Tensor) -> dict[str, float]:
        """Perplexity a token, bits a byte, and the perplexity of associative recall hits and of the rest.

        Hits: the token and the one before stood together earlier in the window and at most twice in the
        training text, so that only the window can tell (Arora et al. 2023, §3.1). With `repeats`, `recall`:
        first guesses right where half a sequence of held-out text is said again, after four tokens of it,
        and `first_time`: where the same text is said first; with `passage` also `recall_N`, of passages of N
        tokens that are said again and again.
        """
        plain = self._evaluated
        nats, hits = losses[:plain], self.recallable(tokens[:plain], labels[:plain])
        found = {
            "loss": float(nats.mean()),
            "perplexity": math.exp(float(nats.mean())),
            "bits_per_byte": float(nats.sum()) / math.log(2) / int(self._lengths[labels[:plain]].sum()),
            "hits": float(hits.double().mean()),
        }
        if bool(hits.any()):
            found["hits_perplexity"] = math.exp(float(nats[hits].mean()))
            found["rest_perplexity"] = math.exp(float(nats[~hits].mean()))
        if self.options.repeats:
            parts = right[plain:].tensor_split(len(self._asked))
            for size, part in zip(self._asked, parts, strict=True):
                name = "recall" if size == self._asked[-1] else f"recall_{size}"
                found[name] = float(part[:, size + CUE - 1 :].double().mean())
            found["first_time"] = float(parts[-1][:, CUE - 1 : self._asked[-1] - 1].double().mean())
        return found

    def recallable(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """bool (rows, time): associative recall hits, see `report`. O(rows · time²)."""
        pairs = tokens * self.vocabulary + labels  # (rows, time): the pair that ends at each label
        earlier = (pairs.unsqueeze(2) == pairs.unsqueeze(1)).tril(-1).any(2)
        known, counts = self._known
        at = torch.searchsorted(known, pairs).clamp(max=known.numel() - 1)
        seen = torch.where(known[at] == pairs, counts[at], 0)
        return earlier & (seen <= 2) & (labels != ASK_NOTHING)


def read_text(path: Path) -> str:
    """A text file, or the .txt files of a folder in order of name. Raises NotFound, InvalidFile."""
    if not path.exists():
        raise NotFound(f"there is no text at {path}")
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise NotFound(f"the folder {path} holds no .txt files")
    try:
        return "\n".join(file.read_text(encoding="utf-8") for file in files)
    except UnicodeDecodeError as error:
        raise InvalidFile(f"{path} is not UTF-8 text: {error}") from error


def tokenizer_of(text: str, vocabulary: int) -> Tokenizer:
    """Byte-level BPE with all bytes in it, so that no text is unknown to it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return tokenizer


def _bytes_of(tokenizer: Tokenizer, token: int) -> int:
    """Byte-level BPE writes each byte as one character."""
    written = tokenizer.id_to_token(token) or ""
    return 0 if written == END else len(written)


def _repeated(windows: Tensor, passages: Tensor) -> Tensor:
    """Of each row its first `passages` (rows,) tokens, again and again."""
    return windows.gather(1, torch.arange(windows.shape[1]) % passages.unsqueeze(1))


def _below(folder: Path | None, path: str) -> Path:
    return Path(path) if folder is None else folder / path


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Beside a saved model, as `AutoTokenizer` reads it."""
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END).save_pretrained(folder)
