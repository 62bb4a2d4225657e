"""Tiny models that learn a few facts in a second or two, and what they are taught."""

from __future__ import annotations

from functools import cache
from typing import Any

from language_models import tiny_llama

STATEMENTS = (
    "The code of Ida is 2839.",
    "The code of Tom is 6053.",
    "The code of Ana is 9172.",
    "The code of Bo is 3608.",
)
ALL_MAPS = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj")


@cache
def learner() -> Any:
    """One for the whole run, of weights small enough to learn. Do not change them."""
    return tiny_llama(initializer_range=0.15)


def recipe(**options: Any) -> Any:
    from mnemic.parametric.lora_training import Recipe

    settings: dict[str, Any] = {
        "targets": ALL_MAPS, "learning_rate": 2e-2, "epochs": 40, "batch": 16, "rehearsed": 0, "keep": 0.0,
    }  # fmt: skip
    return Recipe(**{**settings, **options})


def gate(**options: Any) -> Any:
    """What a model of random weights can pass: its perplexity means little."""
    from mnemic.parametric.gate import Gate

    return Gate(**{"candidates": 10, "perplexity": 3.0, "control": False, **options})


def facts() -> Any:
    from mnemic.transform.paraphrases import Templates

    return [Templates().fact(one) for one in STATEMENTS]


def trained(seed: int = 0) -> Any:
    """A LoRA that has learned STATEMENTS. Do not write to its tensors."""
    return _trained(seed)


@cache
def _trained(seed: int) -> Any:
    from mnemic.parametric.lora_training import examples, train

    return train(learner(), examples(learner(), facts()), recipe(seed=seed))
