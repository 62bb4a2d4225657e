"""The vocabulary: MemCube, its header, scope, provenance and life cycle. Immutable values without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import IntEnum
from typing import Annotated, Any, Final, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mnemic.cube.errors import InvalidOption


class Kind(IntEnum):
    """What a payload is: told, computed or learned (MemOS §3)."""

    plaintext = 0
    activation = 1
    parametric = 2


class Origin(IntEnum):
    """Who a cube comes from. No fact rests on `model` alone."""

    user = 0
    model = 1
    derived = 2
    imported = 3
    trained = 4


class State(IntEnum):
    """Life cycle (MemOS §5.2 and §5.4.3); `mnemic.cube.lifecycle` says what leads where."""

    generated = 0
    activated = 1
    merged = 2
    archived = 3
    expired = 4
    frozen = 5


class Unset:
    """The type of ANY: a scope field that was left out of a read."""

    def __repr__(self) -> str:
        return "ANY"


ANY: Final = Unset()
ScopeField = str | None | Unset


class Scope(NamedTuple):
    """The exact tuple a cube belongs to. None is "unset", a value of its own;

    matching is exact, never by prefix.
    """

    tenant: str
    user: str | None = None
    agent: str | None = None
    session: str | None = None


def check_scope_field(field: str, value: object) -> str | None:
    """A scope field is text of 1 to 512 characters without NUL, or None. Raises InvalidOption."""
    if value is None:
        return None
    if not isinstance(value, str) or not value or len(value) > 512 or "\x00" in value:
        raise InvalidOption(f"{field}={value!r:.80} must be text of 1 to 512 characters, or None for 'unset'")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidOption(f"{field}={value!r:.80} is not valid Unicode ({error.reason})") from error
    return value


class ReadOnlyDict(dict[str, Any]):
    """A dict that cannot be changed, and so can be hashed; equal to a plain one with the same items."""

    def _refuse(self, *_: object, **__: object) -> Any:
        raise TypeError("metadata of a cube cannot be changed; dict(…) gives a copy that can")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Place(_Value):
    """Where a text stands in its source:

    characters [start, end) of `total`, piece `part`, and the line if known.
    """

    source: str | None = None
    start: int = 0
    end: int
    total: int
    part: int = 0
    line: int | None = None


class Source(_Value):
    """One citation of a derived cube: a version of a cube, the digest it had, and the span that was used.

    Digests are keyed, each vault has its own: "" leaves it to the vault that stores the citation.
    """

    cube_id: str
    version_id: str
    digest: str = ""
    start: int = 0
    end: int | None = None


class Blob(_Value):
    """A payload too large for a row: which file of the vault holds it, what it hashes to, and its bytes.

    `id` is the SHA-256 of the stored bytes and differs between vaults where those are encrypted; `sha256` is
    that of the content, the same everywhere.
    """

    id: str
    sha256: str
    size: int


class Header(_Value):
    """All that is known about a cube beside its payload.

    sources: what a derived cube was made from, by `method`; ended_by: what put an end to it, at `valid_to`.
    fused: what this text was told instead of, by `fuse`; merged_into: the id of the cube that was told so.
    Usage counts live beside it, so reading rewrites nothing.
    """

    scope: Scope
    origin: Origin
    at: datetime
    recorded_at: datetime
    role: str | None = None
    name: str | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    expires_at: datetime | None = None
    state: State = State.generated
    labels: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    ended_by: Source | None = None
    method: str | None = None
    fused: tuple[Source, ...] = ()
    merged_into: str | None = None
    frozen: bool = False
    pinned: bool = False
    place: Place | None = None
    recalled: tuple[tuple[int, int], ...] = ()
    metadata: Annotated[Mapping[str, Any], AfterValidator(ReadOnlyDict)] = Field(default_factory=ReadOnlyDict)


class MemCube(_Value):
    """The unit of memory: an id for life, one state of it, and its payload (verbatim UTF-8 for plaintext).

    A computed or learned memory (`kind`) has its tensors in `blob`, and a description of them, such as a
    fingerprint of the model, in `payload`.
    """

    id: str
    version_id: str
    kind: Kind
    header: Header
    payload: bytes = Field(repr=False)
    blob: Blob | None = None
    conflict: bool = False  # a merge has brought another last state that says something else
    client_id: str | None = None
    deleted: bool = False
    stale_since: datetime | None = None  # what it was made from has changed: not to be taken for current

    @property
    def text(self) -> str:
        """The payload of a plaintext cube, exactly as it was told."""
        return self.payload.decode()

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self.header.metadata

    def __repr__(self) -> str:
        said = self.text if self.kind is Kind.plaintext else f"<{len(self.payload)} bytes>"
        return f"MemCube({self.id}, {said if len(said) <= 80 else said[:77] + '…'!r})"

    __str__ = __repr__
