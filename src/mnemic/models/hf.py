"""What differs between the versions of transformers that mnemic runs on. Everything of that kind is here."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def cache_keyword(model: Any) -> str:
    """What the forward of this model calls its cache: "cache" since transformers 5.24, "past_key_values"
    before.
    """
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def cache_of(output: Any) -> Any:
    """The cache that a forward returned."""
    return output["cache"] if "cache" in output else output["past_key_values"]


def layer_types(config: Any) -> list[str]:
    """What each layer of the text model attends to: "full_attention", "sliding_attention" and others."""
    from transformers.cache_utils import get_layer_types_and_kwargs

    types, _ = get_layer_types_and_kwargs(config.get_text_config(decoder=True))
    return list(types)


@contextmanager
def quietly() -> Iterator[None]:
    """No progress bars and no warnings of transformers inside; as it was afterwards."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
