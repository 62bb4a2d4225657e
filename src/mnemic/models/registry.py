"""Embedders and language models by name: the one place where a string names their code."""

from __future__ import annotations

import importlib
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mnemic.cube.checks import require_extra
from mnemic.cube.errors import InvalidOption
from mnemic.models.base import Embedder

if TYPE_CHECKING:
    from mnemic.models.local import LocalModel

EMBEDDERS: Final[dict[str, str]] = {
    "static": "mnemic.models.static:StaticEmbedder",
    "minilm": "mnemic.models.minilm:MiniLM",
    "openai": "mnemic.models.openai_embedder:OpenAIEmbedder",
}
LANGUAGE_MODELS: Final[dict[str, str]] = {  # that run in this process: where each one's folder is
    "smollm2": "mnemic.models.smollm2:folder",
}


def load_embedder(
    spec: str | Embedder = "static", *, base_url: str | None = None, api_key: str | None = None
) -> Embedder:
    """The embedder that `spec` names: "static", "minilm", "openai:<model>", or an Embedder, which is checked.

    `base_url` and `api_key` belong to "openai:<model>" and are refused with anything else. No environment
    variable is read and no weight is loaded. Raises InvalidOption that lists what there is.
    """
    if not isinstance(spec, str):
        _refuse_endpoint(repr(type(spec).__name__), base_url, api_key)
        return check_embedder(spec)
    name, _, model = spec.partition(":")
    if name not in EMBEDDERS or (name == "openai") != bool(model.strip()):
        raise InvalidOption(
            f"embedder={spec!r:.80} is unknown. There are: {_choices()}, or an Embedder object"
        )
    if name == "openai":
        options = {"base_url": base_url} if base_url is not None else {}
        return check_embedder(_resolve(name)(model=model, api_key=api_key, **options))
    _refuse_endpoint(repr(spec), base_url, api_key)
    return check_embedder(_built_in(name))


def check_embedder(embedder: Any) -> Embedder:
    """`embedder` itself, if it has what `Embedder` asks for. Raises InvalidOption that says what it lacks.

    A remote embedder may learn its dimension from the first answer; it is not asked for it here.
    """
    if isinstance(embedder, type):
        raise InvalidOption(
            f"embedder is the class {embedder.__name__}; hand over an object: {embedder.__name__}()"
        )
    lacking = [field for field in ("name", "dim", "inline", "embed") if not _has(embedder, field)]
    if lacking:
        raise InvalidOption(
            f"{type(embedder).__name__} is not an embedder: it has no {', '.join(lacking)}. Give it name: "
            "str, "
            f"dim: int, inline: bool and embed(texts); or use one of {_choices()}"
        )
    if not isinstance(embedder.name, str) or not embedder.name:
        raise InvalidOption(
            f"{type(embedder).__name__}.name must be text that names its weights, got {embedder.name!r}"
        )
    if not isinstance(embedder.inline, bool):
        raise InvalidOption(
            f"{type(embedder).__name__}.inline must be True or False, got {embedder.inline!r}"
        )
    if not callable(embedder.embed):
        raise InvalidOption(f"{type(embedder).__name__}.embed must be a method, got {embedder.embed!r:.80}")
    if embedder.inline or not isinstance(getattr(type(embedder), "dim", None), property):
        _check_dim(embedder)
    return embedder  # type: ignore[no-any-return]  # checked by hand above


def _check_dim(embedder: Any) -> None:
    dim = embedder.dim
    if isinstance(dim, bool) or not isinstance(dim, int) or dim <= 0:
        raise InvalidOption(f"{type(embedder).__name__}.dim must be a whole number above 0, got {dim!r}")


def _has(thing: Any, field: str) -> bool:
    return hasattr(type(thing), field) or field in getattr(thing, "__dict__", ())


@cache
def _built_in(name: str) -> Any:
    """One for the whole process: weights are read once, however many memories are open."""
    return _resolve(name)()


def runs_here(spec: str) -> bool:
    """Whether `spec` is a language model that `load_model` loads: one of the table, or a model's folder."""
    return spec in LANGUAGE_MODELS or (Path(spec).expanduser() / "config.json").is_file()


def load_model(spec: str | os.PathLike[str] = "smollm2", *, dtype: str = "float32") -> LocalModel:
    """A language model in this process, with its tokenizer: "smollm2", or a transformers folder by path.

    dtype: float32 (exact, the default), bfloat16 or float16 (half the memory). A new object at each call.
    Costs: importing torch (seconds), then under a second for SmolLM2, half a minute the first time ever.
    Raises MissingExtra with the pip command, InvalidOption that lists what there is, ModelError.
    """
    if isinstance(spec, str) and spec not in LANGUAGE_MODELS and not runs_here(spec):
        raise InvalidOption(
            f"model={spec!r:.80} is unknown. There are: "
            f"{', '.join(map(repr, LANGUAGE_MODELS))}, or the folder of a transformers model"
        )
    for module in ("torch", "transformers"):
        require_extra(module, extra="torch")
    from mnemic.models.local import LocalModel

    if isinstance(spec, str) and spec in LANGUAGE_MODELS:
        return LocalModel.read(_named(LANGUAGE_MODELS[spec])(), name=spec, dtype=dtype)
    return LocalModel.read(spec, dtype=dtype)


def _resolve(name: str) -> Any:
    return _named(EMBEDDERS[name])


def _named(code: str) -> Any:
    module, _, attribute = code.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _choices() -> str:
    return ", ".join(f'"{name}:<model>"' if name == "openai" else f'"{name}"' for name in EMBEDDERS)


def _refuse_endpoint(what: str, base_url: str | None, api_key: str | None) -> None:
    if base_url is not None or api_key is not None:
        raise InvalidOption(f'base_url and api_key belong to embedder="openai:<model>", not to {what}')
