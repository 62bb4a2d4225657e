"""What is kept of a text's words when it is written, so that no text is read again when an index loads.

A feature is a row of little-endian 32-bit words: `HEADER` numbers about the whole text, then one word per
distinct term (28 bits of the stem's hash, 4 bits of its count). Knows nothing of spaces, questions or scores.
"""

from __future__ import annotations

import re
import struct
import threading
import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final

import Stemmer

LEXICAL_VERSION: Final = "lexical-1"
HEADER: Final = 7  # text hash (2), speaker, speaker's first name, terms | words << 16, flags, marks
ENDS_ASKING, HOLDS_NUMBER = 1, 2  # flags
MAX_COUNT: Final = 15
EMPTY: Final = bytes(4 * HEADER)  # of a cube without text: the only feature whose text hash is 0

_WORD: Final = re.compile(r"[^\W_]+")
_CJK: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff]+")
_NUMBERS: Final = frozenset(
    "two three four five six seven eight nine ten couple few once twice several".split()  # noqa: SIM905
)
_TIMES: Final = frozenset(
    """yesterday today tonight tomorrow last next ago week weeks weekend month months year years recently
    since monday tuesday wednesday thursday friday saturday sunday january february march april may june july
    august september october november december summer winter spring autumn fall""".split()  # noqa: SIM905
)
_NAME: Final = re.compile(r"(?<=[\w,'\"] )[\"“]?[A-Z][a-z]+")
_ASIDE: Final = re.compile(r"(?:\s*\[[^\]]*\])+\s*$")  # a trailing placeholder, such as "[image: …]"
_CACHE_SIZE: Final = 200_000

_local = threading.local()
_terms: dict[str, int] = {}


def term(word: str) -> int:
    """28 bits of the hash of a lower-case word's English stem; never 0. Cached by word."""
    found = _terms.get(word)
    if found is None:
        stemmer = getattr(_local, "stemmer", None)  # a Stemmer may not be shared by threads
        if stemmer is None:
            stemmer = _local.stemmer = Stemmer.Stemmer("english")
        found = (zlib.crc32(stemmer.stemWord(word).encode()) >> 4) or 1
        if len(_terms) >= _CACHE_SIZE:
            _terms.clear()
        _terms[word] = found
    return found


def words(text: str) -> list[str]:
    """Lower-case words; "Ana's" is "ana"; Chinese, Japanese and Korean runs become overlapping pairs."""
    lowered = text.lower()
    if "'" in lowered or "’" in lowered:
        lowered = re.sub(r"(?<=\w)['’]\w+", "", lowered)
    found: list[str] = _WORD.findall(lowered)
    if lowered.isascii() or not _CJK.search(lowered):
        return found
    return [piece for word in found for piece in _pairs(word)]


@lru_cache(maxsize=1024)
def speaker_terms(speaker: str | None) -> tuple[int, int]:
    """Hashes of a speaker's whole name and of its first word; (0, 0) for nobody."""
    parts = words(speaker) if speaker else []
    return (term(" ".join(parts)), term(parts[0])) if parts else (0, 0)


def lexical_feature(text: str, speaker: str | None) -> bytes:
    """The feature of one text, `EMPTY` for a blank one. O(characters), about 15 µs for a short turn."""
    if not text.strip():
        return EMPTY
    spoken = words(text)
    known = _terms.get
    counts: dict[int, int] = {}
    for number in [known(word) or term(word) for word in spoken]:
        counts[number] = counts.get(number, 0) + 1
    terms = [number << 4 | min(count, MAX_COUNT) for number, count in counts.items()][:0xFFFF]
    said = _ASIDE.sub("", text) if text.rstrip().endswith("]") else text
    flags = ENDS_ASKING if said.rstrip().endswith(("?", "？")) else 0
    figures = [word for word in spoken if word.isdecimal()]
    flags |= HOLDS_NUMBER if figures or not _NUMBERS.isdisjoint(spoken) else 0
    times = len([year for year in figures if _is_year(year)])
    if not _TIMES.isdisjoint(spoken):
        times += len([word for word in spoken if word in _TIMES])
    times, names = min(times, 255), min(len(_NAME.findall(text)), 255)
    digest = blake2b(" ".join(spoken).encode() or text.strip().encode(), digest_size=8).digest()
    return digest + struct.pack(
        f"<{HEADER - 2 + len(terms)}I",
        *speaker_terms(speaker),
        len(terms) | min(len(spoken), 0xFFFF) << 16,
        flags,
        times | names << 8,
        *terms,
    )


def terms_of(feature: bytes) -> frozenset[int]:
    """The terms of a text, from its feature. O(terms)."""
    return frozenset(number >> 4 for (number,) in struct.iter_unpack("<I", feature[4 * HEADER :]))


def _is_year(figure: str) -> bool:
    return len(figure) == 4 and figure.startswith(("19", "20"))


def lexical_features(texts: Sequence[str], speakers: Iterable[str | None]) -> list[bytes]:
    """The features of many texts."""
    return [lexical_feature(text, speaker) for text, speaker in zip(texts, speakers, strict=True)]


def _pairs(word: str) -> list[str]:
    """A word as it is, its CJK runs cut into overlapping pairs of characters."""
    out, position = [], 0
    for run in _CJK.finditer(word):
        out += [word[position : run.start()]] if run.start() > position else []
        signs = run.group()
        out += [signs[i : i + 2] for i in range(max(1, len(signs) - 1))]
        position = run.end()
    return out + ([word[position:]] if position < len(word) else [])
