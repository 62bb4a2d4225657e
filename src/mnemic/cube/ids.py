"""Ids: 16 bytes inside, canonical UUID text outside.

UUIDv7 by default, UUIDv5 where the caller gave an id.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import uuid

from mnemic.cube.errors import InvalidOption

_NAMESPACE = uuid.UUID("6f0d5f0e-58a5-5c39-9d3e-0f2a7c1b6d11").bytes
_lock = threading.Lock()
_last = 0


def new_ids(count: int) -> list[bytes]:
    """UUIDv7s (RFC 9562) that rise strictly within this process. O(count), one system call.

    48 bits of milliseconds, 12 + 62 bits of which the first are a counter from 4096ths of a millisecond.
    """
    global _last
    with _lock:
        ticks = time.time_ns() * 4096 // 1_000_000
        first = max(ticks, _last + 1)
        _last = first + count - 1
    noise = os.urandom(8 * count)
    out = []
    for i in range(count):
        tick = first + i
        head = ((tick >> 12) << 16) | 0x7000 | (tick & 0xFFF)
        tail = noise[8 * i : 8 * i + 8]
        out.append(head.to_bytes(8, "big") + bytes((tail[0] & 0x3F | 0x80,)) + tail[1:])
    return out


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # another thread of the parent may have held it
    os.register_at_fork(after_in_child=_renew_lock)


def named_id(name: bytes) -> bytes:
    """UUIDv5 of `name`: the same in every vault, so that two imports of one record meet in a merge."""
    digest = bytearray(hashlib.sha1(_NAMESPACE + name, usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    return bytes(digest)


def id_text(raw: bytes) -> str:
    h = raw.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def id_bytes(text: str) -> bytes:
    """Raises InvalidOption when `text` is not an id."""
    try:
        return uuid.UUID(text).bytes
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidOption(
            f"{text!r:.80} is not a cube id: expected a UUID such as {id_text(_NAMESPACE)}"
        ) from error
