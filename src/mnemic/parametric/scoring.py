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
from mnemic.models.hf import cache_keyword, layer_types
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
    all answers in one row, each seeing the prompt and itself. O(prompt + answers · longest).
    """
    from transformers import DynamicCache

    keyword, model = cache_keyword(local.model), local.model
    held = 0 if cache is None else cache.get_seq_length()
    cache = DynamicCache(config=model.config) if cache is None else cache
    with torch.no_grad():
        feed = torch.tensor([list(prompt[held:])])
        first = model(feed, use_cache=True, logits_to_keep=1, **{keyword: cache}).logits[0, -1]
        told = [first.float().log_softmax(-1)[torch.tensor([one[0] for one in answers])]]
        fed = [list(one[:-1]) for one in answers]
        if any(fed):
            logits = _beside(model, fed, len(prompt), {keyword: cache})
            following = torch.tensor([token for one in answers for token in one[1:]])
            said = logits.float().log_softmax(-1).gather(1, following[:, None])[:, 0]
            whose = torch.tensor([place for place, one in enumerate(fed) for _ in one])
            told.append(torch.zeros(len(answers)).index_add_(0, whose, said))
    return torch.stack(told).sum(0)


def _beside(model: Any, rows: Sequence[Sequence[int]], seen: int, options: dict[str, Any]) -> Tensor:
    """Logits after every token of every row, which all follow the same `seen` tokens: (tokens, vocabulary).

    The rows lie in one, so that the cache is not copied for each; the mask keeps them apart. Where layers
    look back over a window only, each row gets a copy of the cache.
    """
    if set(layer_types(model.config)) != {"full_attention"}:
        cache = next(one for one in options.values())
        longest = max(map(len, rows))
        cache.batch_repeat_interleave(len(rows))
        feed = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        logits = model(feed, use_cache=True, **options).logits
        return torch.cat([one[: len(row)] for one, row in zip(logits, rows, strict=True)])
    whose = torch.tensor([place for place, row in enumerate(rows) for _ in row])
    places = torch.tensor([place for row in rows for place in range(len(row))])
    own = (whose[:, None] == whose) & (places[:, None] >= places)
    mask = torch.cat([torch.ones(len(whose), seen, dtype=torch.bool), own], dim=1)
    floor = torch.finfo(model.dtype).min
    return model(  # type: ignore[no-any-return]
        torch.tensor([[token for row in rows for token in row]]),
        attention_mask=torch.zeros(mask.shape, dtype=model.dtype).masked_fill(~mask, floor)[None, None],
        position_ids=(seen + places)[None],
        use_cache=True,
        **options,
    ).logits[0]


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
