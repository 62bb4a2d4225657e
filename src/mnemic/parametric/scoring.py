"""What a model takes for true: how likely answers are to a question, and text as such. Knows no memory.

Whatever is mounted on the model is part of what is measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from mnemic.cube.errors import InvalidOption
from mnemic.models.hf import cache_keyword
from mnemic.models.local import LocalModel

BLOCK: Final = 256  # tokens of a text that are read at once


def question_ids(local: LocalModel, question: str) -> list[int]:
    """A question as this model is asked: in its chat template, or as "Question: … Answer:" without one."""
    if local.tokenizer.chat_template:
        return local.prompt_ids([{"role": "user", "content": question}])
    return local.encode(f"Question: {question}\nAnswer:")


def answer_ids(local: LocalModel, answer: str) -> list[int]:
    """An answer as it follows `question_ids`, without an end."""
    return local.encode(answer if local.tokenizer.chat_template else f" {answer}")


def log_probabilities(
    local: LocalModel, prompt: Sequence[int], answers: Sequence[Sequence[int]], *, cache: Any = None
) -> Tensor:
    """Of each whole answer after `prompt`, in nats: (answers,) float32.

    cache: one that holds a beginning of the prompt, and is written to. Two forwards: the prompt once, then
    all answers beside one another. O(prompt + answers · longest).
    """
    from transformers import DynamicCache

    longest = max(map(len, answers))
    tails = torch.tensor([[*one, *[0] * (longest - len(one))] for one in answers])
    counted = torch.tensor([[1.0] * len(one) + [0.0] * (longest - len(one)) for one in answers])
    keyword, model = cache_keyword(local.model), local.model
    held = 0 if cache is None else cache.get_seq_length()
    cache = DynamicCache(config=model.config) if cache is None else cache
    with torch.no_grad():
        feed = torch.tensor([list(prompt[held:])])
        first = model(feed, use_cache=True, logits_to_keep=1, **{keyword: cache}).logits[:, -1:].float()
        logits = first.expand(len(answers), 1, -1)
        if longest > 1:
            cache.batch_repeat_interleave(len(answers))
            more = model(tails[:, :-1], use_cache=True, **{keyword: cache}).logits.float()
            logits = torch.cat([logits, more], dim=1)
        told = logits.log_softmax(-1).gather(2, tails[..., None])[..., 0]
    return (told * counted).sum(1)  # type: ignore[no-any-return]


def rank(local: LocalModel, question: str, answers: Sequence[str], right: str) -> int:
    """Where the right answer stands among all, 1 for the likeliest; a tie counts against it."""
    return rank_after(local, question_ids(local, question), answers, right)


def rank_after(
    local: LocalModel, prompt: Sequence[int], answers: Sequence[str], right: str, *, cache: Any = None
) -> int:
    """The same after a prompt that is written already."""
    spelt = [answer_ids(local, one) for one in answers]
    scores = log_probabilities(local, prompt, spelt, cache=cache)
    return int((scores >= scores[answers.index(right)]).sum())


def perplexity(local: LocalModel, text: str, *, tokens: int | None = None) -> float:
    """Of a text, read in blocks of BLOCK tokens whose first is given. tokens: at most so many are read.

    Raises InvalidOption for a text of fewer than two tokens.
    """
    ids = local.encode(text)[:tokens]
    if len(ids) < 2:
        raise InvalidOption("the text is too short to measure: give it some sentences")
    loss, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(ids) - 1, BLOCK):
            block = torch.tensor([ids[start : start + BLOCK]])
            if block.shape[1] < 2:
                break
            logits = local.model(block, use_cache=False).logits[0, :-1].float()
            loss += float(torch.nn.functional.cross_entropy(logits, block[0, 1:], reduction="sum"))
            count += block.shape[1] - 1
    return math.exp(min(loss / count, 700.0))
