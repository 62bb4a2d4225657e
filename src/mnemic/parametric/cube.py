"""A parametric memory as a cube: its description in the payload, its tensors in the blob, its sources cited.

Because it cites them, the vault itself marks it stale in the transaction that changes one; see
`mnemic.vault.currency`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from mnemic.cube.errors import IncompatibleMemory, InvalidFile, StaleMemory
from mnemic.cube.model import Kind, MemCube, Origin, Scope, Source
from mnemic.models.fingerprint import Fingerprint, library_version
from mnemic.models.tensor_file import Form, TensorFile, chunks, decode, encode, to_json
from mnemic.parametric.description import Description
from mnemic.vault.codec import Draft
from mnemic.vault.vault import Vault

FIELDS: Final = frozenset({"kind", "fingerprint", "stack", "sources", "recipe", "made_with"})


def file_form(form: str, *, what: str) -> Form:
    """What files of this form are like."""
    return Form(
        format=f"mnemic-{form}-1",
        fields=FIELDS,
        what=what,
        advice="Train it again from its sources: mnemic memory compile",
    )


def header(
    form: str, *, fingerprint: Fingerprint, stack: str, recipe: Mapping[str, Any], sources: Sequence[str] = ()
) -> dict[str, str]:
    """What the header of such a file says."""
    return {
        "kind": f"parametric/{form}",
        "fingerprint": to_json(fingerprint.as_dict()),
        "stack": stack,
        "sources": to_json(list(sources)),
        "recipe": to_json(dict(recipe)),
        "made_with": library_version(),
    }


def store(
    vault: Vault,
    scope: Scope,
    form: str,
    file: Form,
    tensors: Mapping[str, torch.Tensor],
    sources: Sequence[Source],
    *,
    fingerprint: Fingerprint,
    stack: str,
    model: str,
    recipe: Mapping[str, Any],
    report: Mapping[str, Any],
    method: str,
    title: str | None = None,
    expires_at: int | None = None,
) -> MemCube:
    """Keep a parametric memory: its tensors first, then, in one transaction, the cube that names them and
    cites its sources.

    A source that changed since it was read makes it stale at once, and that is StaleMemory. O(bytes).
    """
    said = header(
        form,
        fingerprint=fingerprint,
        stack=stack,
        recipe=recipe,
        sources=[one.version_id for one in sources],
    )
    sha256, pieces = encode(file, said, tensors)
    blob = vault.put_blob(scope, chunks(pieces))
    described = Description(
        form=form,
        model=model,
        numbers=sum(one.numel() for one in tensors.values()),
        fingerprint=fingerprint.as_dict(),
        made_with=said["made_with"],
        sha256=sha256,
        size=blob.size,
        recipe=recipe,
        report=report,
        title=title,
    )
    draft = Draft(
        payload=described.payload(),
        kind=Kind.parametric,
        origin=Origin.derived,  # readers and rights go by its sources, as with all that is derived
        sources=tuple(sources),
        blob=blob,
        expires_at=expires_at,
        method=method,
    )
    (outcome,) = vault.append(scope, [draft], op="derive", reason=method).outcomes
    if outcome.row is None:
        raise StaleMemory("the memory was not stored; train it again")
    return outcome.row.cube_in(scope)


def read_file(vault: Vault, cube: MemCube, file: Form) -> TensorFile:
    """The tensors of a parametric cube, every byte checked. O(bytes).

    Raises InvalidOption when it is none, NotFound when its file is gone, InvalidFile when that is damaged,
    another's, or not the one that the cube describes.
    """
    import json

    told = Description.of(cube)
    name = f"the file of cube {cube.id}"
    with vault.open_blob(cube) as source:
        read = decode(source, file, name=name)
    cited = [one.version_id for one in cube.header.sources]
    if read.sha256 != told.sha256 or json.loads(read.said["sources"]) != cited:
        raise InvalidFile(
            f"{name} is a sound {file.what}, but another one than the cube describes: files were renamed or "
            f"exchanged. It was not used. {file.advice}"
        )
    return read


def check_fingerprint(what: str, wanted: Fingerprint, here: Fingerprint, name: str) -> None:
    """Raises IncompatibleMemory, naming the part that differs, before anything is touched."""
    if parts := wanted.differing(here):
        part = parts[0]
        raise IncompatibleMemory(
            f"{what} was trained for another model than {name}, with other {' and '.join(parts)} ({part}: "
            f"{getattr(wanted, part)[:12]}… then, {getattr(here, part)[:12]}… now). Name the model that it "
            "was trained for, or train one for this model: mnemic memory compile",
            part=part,
            expected=getattr(wanted, part),
            found=getattr(here, part),
        )
