"""Every error mnemic raises on purpose. Each message says what was wrong, what is allowed and what to do
next.

MnemicError
├── InvalidInput              a value handed in cannot be used; nothing was written
│   ├── InvalidOption         an option or argument is unknown, missing or out of range
│   │   └── BudgetTooSmall    a token budget cannot hold even one short line
│   ├── InvalidText           text is empty, too long, or not valid Unicode
│   ├── InvalidVector         a vector has the wrong shape, or holds NaN or infinity
│   ├── InvalidTime           a time could not be read
│   ├── InvalidFilter         `where` names an unknown field or operator
│   ├── ScopeRequired         a read or write names no user and no agent
│   ├── InvalidFile           a file is not what it was said to be, or is damaged
│   ├── IncompatibleMemory    a memory belongs to another model, layer or configuration
│   └── PromptMismatch        a prompt does not begin with the memory that is mounted
├── DumpError                 a dump cannot be read; nothing was loaded
│   ├── DumpDamaged           it was cut short, altered, or is something else
│   └── DumpTooNew            written by a later mnemic
├── IdempotencyConflict       the caller's id is taken by other content
├── NotFound                  no such cube, version, change or file
│   └── Expired               it was kept for as long as it was to be kept
├── AccessDenied              the principal has no grant for this
├── LegalHold                 it may not go while a legal hold is on it
├── StaleMemory               what a memory was made from was changed, deleted, erased or has expired
├── Frozen                    the cube may not be changed until it is thawed
├── ChangedSince              an undo would take back more than it was asked to
├── VaultError                the vault cannot be opened or written
│   ├── NotAVault             the file exists and is something else, or is damaged
│   ├── VaultTooNew           written by a later mnemic
│   ├── VaultReadOnly         the file or folder may not be written
│   ├── VaultFull             the disk is full; what was acknowledged is safe
│   ├── VaultBusy             another process held the write lock for too long
│   ├── VaultClosed           used after close()
│   ├── KeyRequired           the vault is encrypted, and no key was given
│   ├── WrongKey              the key given does not open this vault
│   └── NetworkFileSystem     SQLite is not safe there
├── EmbedderMismatch          the vault's vectors come from another embedder
├── ModelError                an embedder or language model failed or answered badly
│   ├── UnusableAnswer        it answered, and not in the form that was asked for
│   └── TextsRefused          an embedder fails on these texts and answers others
├── MemoryDivergedError       a memory that learns while it reads went wrong; it brings back a good state
├── NotLearned                a trained memory failed its tests and was not stored; it brings their report
├── ModelBusy                 another thread has memories mounted on this model
├── Unsupported               a model, or a way of running it, that cannot be served exactly
│   ├── UnsupportedModel      a kind of layer, or of positions, or a compiled model
│   ├── UnsupportedAttention  an attention implementation other than sdpa
│   └── UnsupportedGeneration a way of generating that rolls the cache back, or trains through it
└── MissingExtra              an optional part is not installed
"""

from collections.abc import Sequence
from typing import Any


class MnemicError(Exception):
    """Base of every error that mnemic raises on purpose. `chained`: the audit log has it."""

    chained = False


class InvalidInput(MnemicError, ValueError):
    """A value handed in cannot be used; nothing was written."""


class InvalidOption(InvalidInput):
    """An option or argument is unknown, missing or out of range."""


class BudgetTooSmall(InvalidOption):
    """A token budget cannot hold even one short line."""


class InvalidText(InvalidInput):
    """Text is empty, too long, or not valid Unicode."""


class InvalidVector(InvalidInput):
    """A vector has the wrong shape, or holds NaN or infinity."""


class InvalidTime(InvalidInput):
    """A time could not be read."""


class InvalidFilter(InvalidInput):
    """`where` names an unknown field or operator."""


class ScopeRequired(InvalidInput):
    """A read or write names no user and no agent."""


class InvalidFile(InvalidInput):
    """A file is not what it was said to be, or is damaged."""


class IncompatibleMemory(InvalidInput):
    """A state, cache or adapter belongs to another model, layer or configuration.

    part: what differs ("weights", "tokenizer", "stack" …); expected: what it was made with; found: what is
    here.
    """

    def __init__(self, message: str, *, part: str = "", expected: str = "", found: str = "") -> None:
        super().__init__(message)
        self.part, self.expected, self.found = part, expected, found


class PromptMismatch(InvalidInput):
    """A prompt does not begin with the memory that is mounted."""


class DumpError(MnemicError):
    """A dump cannot be read; nothing was loaded."""


class DumpDamaged(DumpError):
    """The dump was cut short, altered, or is something else."""


class DumpTooNew(DumpError):
    """The dump was written by a later mnemic."""


class IdempotencyConflict(MnemicError):
    """The caller's id is taken by other content."""


class NotFound(MnemicError, LookupError):
    """No such cube, version, change or file."""


class StaleMemory(MnemicError):
    """What a memory was made from was changed, deleted, erased or has expired; it is not served any more."""


class Frozen(MnemicError):
    """The cube may not be changed until it is thawed."""


class ChangedSince(MnemicError):
    """What a change left has been changed again: an undo would take back more than it was asked to."""


class Expired(NotFound):
    """It was kept for as long as it was to be kept, and is not served any more; `restorable` for a while."""

    def __init__(self, message: str, *, restorable: bool = False) -> None:
        super().__init__(message)
        self.restorable = restorable


class AccessDenied(MnemicError, PermissionError):
    """The principal has no grant for this. `target` is an opaque id for the audit log."""

    def __init__(self, message: str, target: bytes = b"") -> None:
        super().__init__(message)
        self.target = target


class LegalHold(MnemicError):
    """It may not go while a legal hold is on it."""


class VaultError(MnemicError):
    """The vault cannot be opened or written."""


class NotAVault(VaultError):
    """The file exists and is something else, or is damaged."""


class VaultTooNew(VaultError):
    """The vault was written by a later mnemic."""


class VaultReadOnly(VaultError):
    """The file or its folder may not be written."""


class VaultFull(VaultError):
    """The disk is full; what was acknowledged before is safe."""


class VaultBusy(VaultError):
    """Another process held the write lock for too long."""


class VaultClosed(VaultError):
    """Used after close()."""


class KeyRequired(VaultError):
    """The vault is encrypted, and no key was given."""


class WrongKey(VaultError):
    """The key given does not open this vault."""


class NetworkFileSystem(VaultError):
    """SQLite's locks and shared memory are not safe on a network file system."""


class EmbedderMismatch(MnemicError):
    """The vault's vectors come from another embedder."""


class ModelError(MnemicError):
    """An embedder or language model failed or answered badly."""


class UnusableAnswer(ModelError):
    """A model answered, and not in the form that was asked for."""


class TextsRefused(ModelError):
    """An embedder fails on these texts and answers others: they wait without a vector, found by their words.

    `cubes` are their ids.
    """

    def __init__(self, message: str, *, cubes: Sequence[str]) -> None:
        super().__init__(message)
        self.cubes = tuple(cubes)


class MemoryDivergedError(MnemicError, ArithmeticError):
    """The weights of a memory that learns while it reads are no longer finite, or too large.

    `state` is the last one that was well, `tokens` how many of the input's tokens it has read.
    """

    def __init__(self, message: str, *, state: Any, tokens: int) -> None:
        super().__init__(message)
        self.state, self.tokens = state, tokens


class NotLearned(MnemicError):
    """A trained memory failed its tests, and was not stored. `report` holds what was measured."""

    def __init__(self, message: str, *, report: Any) -> None:
        super().__init__(message)
        self.report = report


class ModelBusy(MnemicError):
    """Another thread has memories mounted on this model."""


class Unsupported(MnemicError):
    """A model, or a way of running it, that cannot be served exactly."""


class UnsupportedModel(Unsupported):
    """A kind of layer, or of positions, that is not known here, or a compiled model."""


class UnsupportedAttention(Unsupported):
    """Keys and values under a policy may only go into scaled_dot_product_attention."""


class UnsupportedGeneration(Unsupported):
    """A way of generating that rolls an evicting cache back, or trains through it."""


class MissingExtra(MnemicError, ImportError):
    """An optional part is not installed."""
