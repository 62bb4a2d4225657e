"""Training a LoRA on questions and answers, with PEFT, beside the model and not in it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnemic.cube.checks import require_count, require_extra, require_positive
from mnemic.cube.errors import InvalidOption, ModelError
from mnemic.models.fingerprint import fingerprint
from mnemic.models.hf import cache_keyword, quietly
from mnemic.models.local import LocalModel
from mnemic.models.sharing import shared_copy
from mnemic.parametric.bare import require_bare
from mnemic.parametric.lora import LoRA, is_finite, of_tensors
from mnemic.parametric.neutral import KEPT, REHEARSED
from mnemic.parametric.questions import Fact
from mnemic.parametric.scoring import answer_ids, question_ids

Progress = Callable[[str, int, int], None]  # what, done, total
REHEARSED_TOKENS: Final = 12
KEPT_TOKENS: Final = 32  # of unrelated text a step
PRECISIONS: Final = {"float32": None, "bfloat16": torch.bfloat16}


def silent(what: str, done: int, total: int) -> None:
    """No progress is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How an adapter is trained: AdamW on the answer's tokens, linear decay after a short warm-up.

    rank, alpha, targets: of the adapter (LoRA §4.1; targets by the end of a module's name). epochs: at most;
    training ends when an epoch's mean loss falls below `enough` nats a token. rehearsed: general questions
    that are trained with the model's own answers, so that facts are not learned as the answer to everything;
    0: none. keep: weight of the Kullback-Leibler divergence from the model alone on text that has nothing to
    do with the facts (and is not that of the gate); 0: none. precision: "bfloat16" trains against a rounded
    copy of the weights, 2.7 times as fast where the processor has instructions for it.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    learning_rate: float = 2e-3
    epochs: int = 12
    batch: int = 8
    enough: float = 0.02
    rehearsed: int = 12
    keep: float = 3.0
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InvalidOption(f"precision={self.precision!r:.80} must be one of {', '.join(PRECISIONS)}")
        if not 0 <= self.keep < 1e6:
            raise InvalidOption(f"keep={self.keep!r:.80} must be a number of at least 0")
        require_count(rank=self.rank, epochs=self.epochs, batch=self.batch)
        require_count(minimum=0, rehearsed=self.rehearsed, seed=self.seed)
        require_positive(alpha=self.alpha, learning_rate=self.learning_rate, enough=self.enough)
        if isinstance(self.targets, str) or not self.targets:
            raise InvalidOption("targets must name modules, such as ('q_proj', 'v_proj')")


class Example(NamedTuple):
    """Token ids; loss is on the answer's."""

    prompt: list[int]
    answer: list[int]


def examples(local: LocalModel, facts: Sequence[Fact]) -> list[Example]:
    """Each training wording with its answer and the end of a turn."""
    end = local.tokenizer.eos_token_id
    tail = [] if end is None else [end]
    return [
        Example(question_ids(local, question), answer_ids(local, fact.answer) + tail)
        for fact in facts
        for question in fact.train
    ]


def rehearsal(local: LocalModel, count: int) -> list[Example]:
    """General questions with the beginnings of the model's own answers. A short generation each."""
    out = []
    for question in REHEARSED[:count]:
        prompt = question_ids(local, question)
        said = list(local.answer_tokens(prompt, max_tokens=REHEARSED_TOKENS))
        if said:
            out.append(Example(prompt, said))
    return out


def train(
    local: LocalModel, trained: Sequence[Example], recipe: Recipe, *, progress: Progress = silent
) -> LoRA:
    """An adapter that gives these answers. O(epochs · tokens) forward and backward.

    The model is not touched: PEFT works on other modules over the same weights. Raises InvalidOption when
    there is nothing to train or no module of the named kind, or something is mounted; ModelError when the
    loss is no number.
    """
    require_extra("peft", extra="parametric")
    require_bare(local)
    if not trained:
        raise InvalidOption("there is nothing to train: no statement gave a question")
    made = fingerprint(local)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model, tensors = _with_adapter(local, recipe)
        kept = _kept(model, local.encode(KEPT)) if recipe.keep else []
        _fit(model, trained, kept, recipe, cache_keyword(local.model), progress)
        lora = of_tensors(tensors(), alpha=recipe.alpha, fingerprint=made)
    if not is_finite(lora):
        raise ModelError("training went wrong: the adapter holds no finite numbers. Lower learning_rate")
    return lora


def _with_adapter(local: LocalModel, recipe: Recipe) -> tuple[Any, Callable[[], dict[str, Tensor]]]:
    """A trainable model on the same weights, and a function that gives the adapter's tensors."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    names = [name for name, module in local.model.named_modules() if isinstance(module, nn.Linear)]
    chosen = [name for name in names if name.rpartition(".")[2] in recipe.targets]
    if not chosen:
        there = sorted({name.rpartition(".")[2] for name in names})
        raise InvalidOption(
            f"targets={recipe.targets!r:.80}: {local.name} has no such linear map. It has "
            f"{', '.join(there) or 'none'}"
        )
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=chosen,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    base = shared_copy(local.model)
    if (dtype := PRECISIONS[recipe.precision]) is not None:
        base = base.to(dtype)
    with quietly(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an older name
        model = get_peft_model(base, config)

    def tensors() -> dict[str, Tensor]:
        found = get_peft_model_state_dict(model, save_embedding_layers=False)
        return {name: one.detach().clone().contiguous() for name, one in found.items()}

    return model, tensors


def _kept(model: Any, ids: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Pieces of unrelated text, and what the model says of them before it is trained: an adapter begins with
    B = 0, so this is the model alone.
    """
    out = []
    for start in range(0, len(ids) - KEPT_TOKENS + 1, KEPT_TOKENS):
        piece = torch.tensor([list(ids[start : start + KEPT_TOKENS])])
        with torch.no_grad():
            out.append((piece, model(piece, use_cache=False).logits.float().log_softmax(-1)))
    return out


def _fit(
    model: Any,
    trained: Sequence[Example],
    kept: Sequence[tuple[Tensor, Tensor]],
    recipe: Recipe,
    keyword: str,
    progress: Progress,
) -> None:
    trainable = [one for one in model.parameters() if one.requires_grad]
    steps = recipe.epochs * -(-len(trained) // recipe.batch)
    optimiser = torch.optim.AdamW(trainable, lr=recipe.learning_rate, weight_decay=0.0)
    warm = max(1, steps // 20)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    model.train()
    step = 0
    for _ in range(recipe.epochs):
        order = torch.randperm(len(trained)).tolist()
        losses, tokens = 0.0, 0
        for start in range(0, len(order), recipe.batch):
            batch = [trained[place] for place in order[start : start + recipe.batch]]
            loss, count = answer_loss(model, batch, keyword)
            if not bool(torch.isfinite(loss)):
                raise ModelError("training went wrong: the loss is no number. Lower learning_rate")
            optimiser.zero_grad(set_to_none=True)
            (loss / count).backward()
            if kept:
                piece, told = kept[step % len(kept)]
                now = model(piece, use_cache=False).logits.float().log_softmax(-1)
                drift = F.kl_div(now, told, reduction="none", log_target=True).sum(-1).mean()
                (recipe.keep * drift).backward()
            nn.utils.clip_grad_norm_(trainable, 1.0)
            optimiser.step()
            rate.step()
            losses, tokens, step = losses + float(loss.detach()), tokens + count, step + 1
            progress("training", step, steps)
        if losses / tokens < recipe.enough:
            break
    progress("training", steps, steps)


def answer_loss(model: Any, batch: Sequence[Example], keyword: str) -> tuple[Tensor, int]:
    """Summed cross-entropy of the answers' tokens, and how many these are.

    What all prompts begin with is read once (it is most of a chat template), the rest padded on the left with
    true positions, so that only logits of answers are computed.
    """
    from transformers import DynamicCache

    shared = _shared(batch)
    rest = [(one.prompt[shared:], one.answer) for one in batch]
    longest = max(len(prompt) + len(answer) for prompt, answer in rest)
    kept = max(len(answer) for _, answer in rest) + 1
    ids, mask, labels = [], [], []
    for prompt, answer in rest:
        gap = longest - len(prompt) - len(answer)
        ids.append([0] * gap + prompt + answer)
        mask.append([1] * shared + [0] * gap + [1] * (longest - gap))
        labels.append([-100] * (kept - 1 - len(answer)) + answer)
    seen = torch.tensor(mask)
    options: dict[str, Any] = {"use_cache": False}
    if shared:
        cache = DynamicCache(config=model.config)
        model(
            torch.tensor([batch[0].prompt[:shared]]),
            use_cache=True,
            logits_to_keep=torch.tensor([0]),
            **{keyword: cache},
        )
        cache.batch_repeat_interleave(len(batch))
        options = {"use_cache": True, keyword: cache}
    logits = model(
        torch.tensor(ids),
        attention_mask=seen,
        position_ids=(seen.cumsum(1) - 1).clamp(min=0)[:, shared:],
        logits_to_keep=torch.arange(longest - kept, longest - 1),  # a slice would copy the head a row
        **options,
    ).logits
    target = torch.tensor(labels)
    loss = F.cross_entropy(logits.flatten(0, 1).float(), target.flatten(), ignore_index=-100, reduction="sum")
    return loss, int((target != -100).sum())


def _shared(batch: Sequence[Example]) -> int:
    """How many tokens all prompts begin with; at least one of each is left."""
    shortest = min(len(one.prompt) for one in batch) - 1
    first = batch[0].prompt
    for place in range(shortest):
        if any(one.prompt[place] != first[place] for one in batch):
            return place
    return max(0, shortest)
