"""Tokens to text as they come: whole characters only, and nothing of a stop text is let out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

_BROKEN: Final = "\ufffd"  # how a decoder shows a character whose last bytes are still to come


class TextStream:
    """One answer's text. After a stop text it is `ended`."""

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self._ids: list[int] = []
        self._from, self._read = (
            0,
            0,
        )  # text of ids[from:read] is out or held; it gives the rest its left side
        self._held = ""  # might be the beginning of a stop text
        self.ended = False

    def all(self, tokens: Iterable[int]) -> Iterator[str]:
        """The pieces of an answer, until it ends or a stop text comes. Never an empty piece."""
        for token in tokens:
            if piece := self.push(token):
                yield piece
            if self.ended:
                return
        if piece := self.finish():
            yield piece

    def push(self, token: int) -> str:
        """What can be shown after one more token, perhaps nothing yet."""
        self._ids.append(token)
        before = self._text(self._ids[self._from : self._read])
        now = self._text(self._ids[self._from :])
        if len(now) <= len(before) or now.endswith(_BROKEN):
            return ""
        self._from, self._read = self._read, len(self._ids)
        return self._release(now[len(before) :])

    def finish(self) -> str:
        """What was held back."""
        if self.ended:
            return ""
        rest = self._text(self._ids[self._from :])[len(self._text(self._ids[self._from : self._read])) :]
        out = self._release(rest)
        out, self._held = out + ("" if self.ended else self._held), ""
        return out

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _release(self, text: str) -> str:
        text = self._held + text
        found = [at for at in (text.find(word) for word in self._stop) if at >= 0]
        if found:
            self.ended, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, word) for word in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, word: str) -> int:
    """How many characters at the end of `text` begin `word`."""
    return next((n for n in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:n])), 0)


def token_bytes(tokenizer: Any) -> list[bytes | None]:
    """What each token adds to the text, as bytes; None for control tokens. O(vocabulary).

    Knows byte-level vocabularies (GPT-2's letters stand for bytes) and SentencePiece's (`▁` is a space,
    `<0x0A>` a byte).
    """
    layout = json.loads(tokenizer.backend_tokenizer.to_str())
    letters = _byte_letters() if '"ByteLevel"' in json.dumps(layout.get("decoder")) else None
    control = set(tokenizer.all_special_ids)
    out: list[bytes | None] = [None] * len(tokenizer)
    for piece, token in tokenizer.get_vocab().items():
        if token in control or token >= len(out):
            continue
        if letters is not None:
            known = all(letter in letters for letter in piece)
            out[token] = bytes(letters[letter] for letter in piece) if known else piece.encode()
        elif len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            out[token] = bytes([int(piece[3:5], 16)])
        else:
            out[token] = piece.replace("▁", " ").encode()
    return out


def _byte_letters() -> dict[str, int]:
    """GPT-2's letter for each byte, the other way round: printable Latin-1 is itself, the rest follow 256."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in set(printable)]
    return letters | {chr(256 + number): byte for number, byte in enumerate(others)}
