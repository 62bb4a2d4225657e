"""Encryption at rest: values of marked columns are sealed as they are written and opened as they are read.

Every space has a data key of its own, wrapped by the tenant's, which the master key wraps. A value is sealed
with AES-256-GCM under the key of its space (a few under the tenant's); what it belongs to (tenant, column,
space and row) is authenticated, so that a value that was moved elsewhere does not open. Which columns a
statement touches is read from the statement itself (`columns`): no other file knows of encryption.
"""

from __future__ import annotations

import io
import secrets
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final

import sqlalchemy as sa

from mnemic.cube.errors import NotFound, VaultError, WrongKey
from mnemic.vault import tables
from mnemic.vault.columns import In, Out
from mnemic.vault.database import Row, Statement, Transaction
from mnemic.vault.keys import KEY_BYTES, NONCE_BYTES, aes, invalid_tag, unwrapped

TENANT: Final = 0  # the number of no space: sealed with the tenant's key
_HEAD: Final = struct.Struct(">BIQ")  # form, space, row
_FORM: Final = 1
_BLOB_HEAD: Final = struct.Struct(">4sI8s")  # magic, space, nonce prefix
_BLOB_MAGIC: Final = b"mnb1"
PIECE: Final = 1 << 20
_TAG: Final = 16
_p = sa.bindparam
_wrapped_key = Statement(
    sa.select(tables.space.c.wrapped_key).where(
        tables.space.c.tenant == _p("t"), tables.space.c.space == _p("s")
    )
)


class Seals:
    """The data keys of one tenant of an open vault. Thread-safe."""

    def __init__(self, tenant: str, tenant_key: bytes) -> None:
        self._tenant, self._tenant_key = tenant, tenant_key
        self._ciphers: dict[int, Any] = {TENANT: aes(tenant_key)}

    def new_key(self, transaction: Transaction, space: int) -> bytes:
        """A data key for a new space, wrapped. Known to this transaction only, until others read it."""
        key = secrets.token_bytes(KEY_BYTES)
        transaction.new_ciphers[space] = aes(key)
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + bytes(aes(self._tenant_key).encrypt(nonce, key, self._about_key(space)))

    def cipher(self, transaction: Transaction, space: int) -> Any:
        """What seals and opens values of a space. Raises NotFound when it is erased."""
        found = transaction.new_ciphers.get(space) or self._ciphers.get(space)
        if found is None:
            row = transaction.row(_wrapped_key, {"t": self._tenant, "s": space})
            if row is None or row[0] is None:
                raise NotFound("this memory was erased, and its key destroyed")
            found = self._ciphers[space] = aes(
                unwrapped(self._tenant_key, bytes(row[0]), self._about_key(space))
            )
        return found

    def forget(self, spaces: Iterable[int]) -> None:
        """Their keys are destroyed; this process has to forget them too."""
        for space in spaces:
            self._ciphers.pop(space, None)

    def sealed(
        self, transaction: Transaction, ins: Sequence[In], params: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Parameters of a statement with what is to be sealed, sealed."""
        out = dict(params)
        for one in ins:
            value = out.get(one.param)
            if value is None:
                continue
            space = TENANT if one.space is None else out[one.space]
            head = _HEAD.pack(_FORM, space, out[one.row] if one.row else 0)
            nonce = secrets.token_bytes(NONCE_BYTES)
            cipher = self.cipher(transaction, space)
            out[one.param] = head + nonce + cipher.encrypt(nonce, bytes(value), self._about(one.column, head))
        return out

    def opened(
        self, transaction: Transaction, outs: Sequence[Out], rows: Sequence[Row], space: int | None
    ) -> list[Row]:
        """Rows of a result with what is sealed, opened. space: of all rows, where the statement names it.

        Raises VaultError where something was altered, or moved to another row or space.
        """
        out = []
        for row in rows:
            values = list(row)
            for position, column, number, where in outs:
                if values[position] is not None:
                    belongs = (
                        space if where is None else row[where],
                        None if number is None else row[number],
                    )
                    values[position] = self._open(transaction, column, bytes(values[position]), *belongs)
            out.append(tuple(values))
        return out

    def _open(
        self, transaction: Transaction, column: str, value: bytes, wanted: int | None, row: int | None
    ) -> bytes:
        head = value[: _HEAD.size]
        if len(value) < _HEAD.size + NONCE_BYTES + _TAG or value[0] != _FORM:
            raise VaultError(f"a value of {column} is damaged: it was not sealed by mnemic")
        _, space, of = _HEAD.unpack(head)
        start = _HEAD.size + NONCE_BYTES
        try:
            if row not in (None, of) or (space != TENANT and wanted not in (None, space)):
                raise ValueError
            cipher = self.cipher(transaction, space)
            return bytes(cipher.decrypt(value[_HEAD.size : start], value[start:], self._about(column, head)))
        except (ValueError, WrongKey, invalid_tag()) as error:
            raise VaultError(f"a value of {column} was altered or moved: it does not open") from error

    def _about(self, column: str, head: bytes) -> bytes:
        return b"%s\x00%s\x00%s" % (self._tenant.encode(), column.encode(), head)

    def _about_key(self, space: int) -> bytes:
        return b"%s\x00space\x00%d" % (self._tenant.encode(), space)

    # --- large payloads: pieces of 1 MiB, each with its number and whether it is the last (Hoang et al. 2015,
    # "Online authenticated encryption", STREAM)

    def seal_stream(self, cipher: Any, space: int, source: Iterable[bytes | memoryview]) -> Iterator[bytes]:
        """A large payload, sealed piece by piece with the cipher of its space."""
        prefix = secrets.token_bytes(8)
        head = _BLOB_HEAD.pack(_BLOB_MAGIC, space, prefix)
        yield head
        held = bytearray()
        number = 0
        for piece in source:
            held += piece
            while len(held) > PIECE:
                yield self._seal_piece(cipher, head, prefix, number, bytes(held[:PIECE]), last=False)
                del held[:PIECE]
                number += 1
        yield self._seal_piece(cipher, head, prefix, number, bytes(held), last=True)

    def open_stream(self, transaction: Transaction, file: BinaryIO) -> BinaryIO:
        """A large payload as it was, readable and seekable. Raises VaultError where it was altered."""
        head = file.read(_BLOB_HEAD.size)
        magic, space, prefix = _BLOB_HEAD.unpack(head.ljust(_BLOB_HEAD.size, b"\x00"))
        if magic != _BLOB_MAGIC:
            raise VaultError("a large payload is damaged: it was not sealed by mnemic")
        return io.BufferedReader(_Opened(self, self.cipher(transaction, space), file, head, prefix), PIECE)

    def _seal_piece(
        self, cipher: Any, head: bytes, prefix: bytes, number: int, piece: bytes, *, last: bool
    ) -> bytes:
        return bytes(cipher.encrypt(prefix + number.to_bytes(4, "big"), piece, self._about_piece(head, last)))

    def _about_piece(self, head: bytes, last: bool) -> bytes:
        return self._about("blob", head + (b"\x01" if last else b"\x00"))


class _Opened(io.RawIOBase):
    """The content of a sealed file, a piece at a time."""

    def __init__(self, seals: Seals, cipher: Any, file: BinaryIO, head: bytes, prefix: bytes) -> None:
        self._seals, self._cipher, self._file, self._head, self._prefix = seals, cipher, file, head, prefix
        sealed = file.seek(0, io.SEEK_END) - len(head)
        self._pieces = max(1, -(-sealed // (PIECE + _TAG)))
        self._size = sealed - _TAG * self._pieces
        last = sealed - (self._pieces - 1) * (PIECE + _TAG)
        if last < _TAG or (last == _TAG and self._pieces > 1):  # only an empty payload has an empty piece
            raise VaultError("a large payload was cut short: it does not open")
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        number, start = divmod(self._position, PIECE)
        if number >= self._pieces or self._position >= max(self._size, 1):
            return 0
        self._file.seek(len(self._head) + number * (PIECE + _TAG))
        about = self._seals._about_piece(self._head, number == self._pieces - 1)
        nonce = self._prefix + number.to_bytes(4, "big")
        try:
            piece = self._cipher.decrypt(nonce, self._file.read(PIECE + _TAG), about)[start:]
        except (ValueError, invalid_tag()) as error:
            raise VaultError("a large payload was altered or cut short: it does not open") from error
        taken = piece[: len(buffer)]
        buffer[: len(taken)] = taken
        self._position += len(taken)
        return len(taken)

    def close(self) -> None:
        self._file.close()
        super().close()
