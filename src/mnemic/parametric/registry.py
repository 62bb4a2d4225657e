"""Forms of parametric memory by name: the one place where a string names their code."""

from __future__ import annotations

import importlib
from typing import Any, Final

from mnemic.cube.errors import InvalidOption
from mnemic.cube.model import MemCube
from mnemic.models.local import LocalModel
from mnemic.parametric.description import Description
from mnemic.vault.vault import Vault

FORMS: Final[dict[str, str]] = {  # what opens a cube for a mount
    "lora": "mnemic.parametric.lora_cube:open_for",
    "exact": "mnemic.parametric.blend_cube:open_for",
    "ivfpq": "mnemic.parametric.blend_cube:open_for",
    "mlp": "mnemic.parametric.blend_cube:open_for",
}


def open_parametric(vault: Vault, cube: MemCube, local: LocalModel) -> Any:
    """What a parametric cube mounts. O(bytes).

    Raises InvalidOption for a cube that is none, or of a form that this mnemic does not know;
    IncompatibleMemory, NotFound, InvalidFile.
    """
    form = Description.of(cube).form
    if form not in FORMS:
        raise InvalidOption(
            f"cube {cube.id} is a parametric memory of the form {form!r:.40}; this mnemic mounts "
            f"{', '.join(FORMS)}"
        )
    module, _, name = FORMS[form].partition(":")
    return getattr(importlib.import_module(module), name)(vault, cube, local)
