"""A KV as a cube: its description in the payload, its tensors in the blob, its sources cited.

Because it cites them, the vault itself marks it stale in the transaction that changes one; see
`mnemic.vault.currency`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from mnemic.activation.kv import KV
from mnemic.activation.kv_description import Description
from mnemic.activation.kv_file import decode, encode
from mnemic.cube.errors import IncompatibleMemory, InvalidFile, StaleMemory
from mnemic.cube.model import Kind, MemCube, Origin, Scope, Source
from mnemic.models.fingerprint import Fingerprint
from mnemic.models.tensor_file import chunks
from mnemic.vault.codec import Draft
from mnemic.vault.vault import Vault

METHOD: Final = "text_to_kv"


def store(
    vault: Vault,
    scope: Scope,
    kv: KV,
    sources: Sequence[Source],
    *,
    model: str,
    storage: str = "exact",
    title: str | None = None,
    expires_at: int | None = None,
) -> MemCube:
    """Keep a KV: its tensors first, then, in one transaction, the cube that names them and cites its sources.

    A source that changed since it was read makes it stale at once, and that is StaleMemory. O(bytes).
    """
    sha256, pieces = encode(kv, storage=storage, sources=tuple(one.version_id for one in sources))
    blob = vault.put_blob(scope, chunks(pieces))
    described = Description(
        model=model,
        tokens=kv.tokens,
        storage=storage,
        label=kv.label,
        form=kv.form,
        fingerprint=kv.fingerprint.as_dict(),
        stack=kv.stack,
        made_with=kv.made_with,
        sha256=sha256,
        size=blob.size,
        error=None if kv.error is None else asdict(kv.error),
        title=title,
    )
    draft = Draft(
        payload=described.payload(),
        kind=Kind.activation,
        origin=Origin.derived,
        sources=tuple(sources),
        blob=blob,
        expires_at=expires_at,
        method=METHOD,
    )
    (outcome,) = vault.append(scope, [draft], op="derive", reason=METHOD).outcomes
    if outcome.row is None:
        raise StaleMemory("the KV memory was not stored; build it again")
    return outcome.row.cube_in(scope)


def load(vault: Vault, cube: MemCube) -> KV:
    """The tensors of a KV cube, every byte checked. O(bytes).

    Raises InvalidOption when it is no KV, NotFound when its file is gone, InvalidFile when that is damaged,
    another's, or not the one that the cube describes.
    """
    told = Description.of(cube)
    with vault.open_blob(cube) as source:
        read = decode(source, name=f"the file of cube {cube.id}")
    cited = tuple(one.version_id for one in cube.header.sources)
    if read.sha256 != told.sha256 or read.sources != cited:
        raise InvalidFile(
            f"the file of cube {cube.id} is a sound KV memory, but another one than the cube describes: "
            "files were renamed or exchanged. It was not used. Build it again: mnemic kv build"
        )
    return read.kv


def check_description(cube: MemCube, here: Fingerprint, name: str) -> None:
    """Raises IncompatibleMemory before a tensor is read, when its description names another model."""
    told = Fingerprint.of_dict(Description.of(cube).fingerprint)
    if parts := told.differing(here):
        part = parts[0]
        raise IncompatibleMemory(
            f"cube {cube.id} was made by another model than {name}: {' and '.join(parts)} "
            f"differ{'s' * (len(parts) == 1)} ({part}: {getattr(told, part)[:12]}… then, "
            f"{getattr(here, part)[:12]}… now). Build it again for this model: mnemic kv build",
            part=part,
            expected=getattr(told, part),
            found=getattr(here, part),
        )
