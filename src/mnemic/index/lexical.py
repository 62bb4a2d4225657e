"""Write-time lexical features."""

from __future__ import annotations

import re
import struct
import zlib
from collections import Counter
from functools import lru_cache

import Stemmer

LEXICAL_VERSION = "lexical-0"
_WORD = re.compile(r"\w+")


@lru_cache(100_000)
def _term(word: str) -> int:
    return zlib.crc32(Stemmer.Stemmer("english").stemWord(word).encode())


def lexical_feature(text: str, speaker: str | None) -> bytes:
    counts = Counter(_term(word) for word in _WORD.findall(text.lower()))
    return struct.pack(f"<{2 * len(counts)}I", *counts.keys(), *counts.values())


def lexical_features(texts: list[str], speakers: list[str | None]) -> list[bytes]:
    return [lexical_feature(text, speaker) for text, speaker in zip(texts, speakers, strict=True)]
