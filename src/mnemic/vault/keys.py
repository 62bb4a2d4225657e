"""The master key of an encrypted vault: a passphrase, a key file, or a key management service.

A master key wraps the keys of tenants and the key of all look-ups, nothing else; so it can be changed without
rewriting the vault. The vault keeps what is needed to find it again (which kind, salt, cost), never the key.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

from mnemic.cube.checks import require_extra
from mnemic.cube.errors import InvalidOption, KeyRequired, NotFound, WrongKey

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
SHORTEST_PASSPHRASE: Final = 8
# RFC 9106 §4, the second recommended option: 64 MiB, three passes, four lanes.
ARGON2: Final[Mapping[str, int]] = {"memory_kib": 65_536, "iterations": 3, "lanes": 4}


@runtime_checkable
class KeyService(Protocol):
    """A key that never leaves its service, such as a cloud's KMS or an HSM: it wraps and unwraps ours.

    `unwrap` raises WrongKey for what it did not wrap. `name` is kept in clear, to tell which key it is.
    """

    @property
    def name(self) -> str: ...

    def wrap(self, key: bytes) -> bytes: ...

    def unwrap(self, wrapped: bytes) -> bytes: ...


KeyLike = str | os.PathLike[str] | KeyService


@dataclass(frozen=True, slots=True, repr=False)
class LocalKey:
    """32 bytes in this process that wrap others with AES-GCM."""

    name: str
    raw: bytes

    def wrap(self, key: bytes) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + bytes(aes(self.raw).encrypt(nonce, key, b"mnemic key"))

    def unwrap(self, wrapped: bytes) -> bytes:
        return unwrapped(self.raw, wrapped)


def aes(key: bytes) -> Any:
    """AES-256-GCM with one key. Raises MissingExtra."""
    return require_extra("cryptography.hazmat.primitives.ciphers.aead", extra="crypto").AESGCM(key)


def invalid_tag() -> type[Exception]:
    """What is raised for a value that was not sealed with this key, or was altered."""
    found: type[Exception] = require_extra("cryptography.exceptions", extra="crypto").InvalidTag
    return found


def unwrapped(key: bytes, wrapped: bytes, about: bytes = b"mnemic key") -> bytes:
    """Raises WrongKey."""
    try:
        return bytes(aes(key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], about))
    except (invalid_tag(), ValueError) as error:
        raise WrongKey("the key given does not open this vault. Nothing was read or changed") from error


def new_master(key: KeyLike) -> tuple[KeyService, bytes]:
    """A master key for a new vault, and the description (JSON) by which `master` finds it again."""
    if isinstance(key, str):
        if len(key) < SHORTEST_PASSPHRASE:
            raise InvalidOption(
                f"a passphrase needs at least {SHORTEST_PASSPHRASE} characters; use a sentence"
            )
        how: dict[str, Any] = {"kind": "passphrase", "salt": secrets.token_hex(16), **ARGON2}
    elif isinstance(key, os.PathLike):
        how = {"kind": "file"}
    elif isinstance(key, KeyService):
        how = {"kind": "service", "name": str(key.name)}
    else:
        raise InvalidOption(
            "key must be a passphrase (text), a key file (pathlib.Path) or an object with wrap and unwrap"
        )
    return _master(key, how), json.dumps(how).encode()


def master(key: KeyLike | None, described: bytes) -> KeyService:
    """The master key of a vault. Raises KeyRequired, WrongKey for another kind, NotFound, InvalidOption."""
    how = json.loads(described)
    wanted = {"passphrase": "a passphrase", "file": "a key file"}.get(
        how["kind"], f"the key service {how.get('name')!r}"
    )
    if key is None:
        raise KeyRequired(
            f"this vault is encrypted with {wanted}: mnemic.open(…, key=…); for the command line set "
            "MNEMIC_PASSPHRASE or MNEMIC_KEY_FILE"
        )
    kind = "passphrase" if isinstance(key, str) else "file" if isinstance(key, os.PathLike) else "service"
    if kind != how["kind"]:
        raise WrongKey(f"this vault is encrypted with {wanted}, not with what was given. Nothing was read")
    return _master(key, how)


def _master(key: KeyLike, how: Mapping[str, Any]) -> KeyService:
    if isinstance(key, str):
        kdf = require_extra("cryptography.hazmat.primitives.kdf.argon2", extra="crypto").Argon2id(
            salt=bytes.fromhex(how["salt"]),
            length=KEY_BYTES,
            iterations=how["iterations"],
            lanes=how["lanes"],
            memory_cost=how["memory_kib"],
        )
        return LocalKey("passphrase", kdf.derive(key.encode()))
    if isinstance(key, os.PathLike):
        return LocalKey("file", read_key_file(Path(key)))
    return key


def read_key_file(path: Path) -> bytes:
    """64 hexadecimal digits. Raises NotFound, InvalidOption."""
    if not path.is_file():
        raise NotFound(f"there is no key file {path}")
    text = path.read_text(encoding="ascii", errors="replace").strip()
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != KEY_BYTES:
        raise InvalidOption(
            f"{path} is no key file: it must hold 64 hexadecimal digits (mnemic key new FILE)"
        )
    return raw


def write_key_file(path: Path) -> None:
    """A new random key in a new file that only its owner may read. Raises InvalidOption where it exists."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR)
    except FileExistsError as error:
        raise InvalidOption(f"{path} exists; a key that is overwritten is a vault that is lost") from error
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(KEY_BYTES) + "\n")
