"""A small language model with ReLU, trained here from scratch: nothing else to be had here is sparse."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from mnemic.models.local import LocalModel

MARKS: Final = ("<|endoftext|>",)
Step = Callable[[str, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiny:
    """Its shape and training. Most of its weights are feed-forward, as in large models.

    share: of neurons that are to fire at a token; the weight of an L1 penalty on what fires is moved until
    they do.
    """

    vocabulary: int = 2048
    width: int = 192
    neurons: int = 8192
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    steps: int = 450
    batch: int = 8
    length: int = 128
    learning_rate: float = 1e-3
    share: float = 0.03
    seed: int = 0


def tiny(corpus: str, folder: Path, options: Tiny, *, step: Step = lambda *_: None) -> LocalModel:
    """The model in `folder`, trained if it is not there yet. Minutes of one processor."""
    place = folder / "relu"
    if not (place / "trained").exists():
        made = train(corpus, options, step=step)
        made.model.save_pretrained(place)
        made.tokenizer.save_pretrained(place)
        (place / "trained").write_text(repr(asdict(options)))
    return LocalModel.read(place, name="relu")


def train(corpus: str, options: Tiny, *, step: Step = lambda *_: None) -> LocalModel:
    """AdamW in bfloat16 products, linear decay; the penalty's weight follows the share that fires."""
    from transformers import LlamaConfig, LlamaForCausalLM

    started = time.process_time()
    tokenizer = _tokenizer(corpus, options.vocabulary)
    ids = torch.tensor(tokenizer.encode(corpus, add_special_tokens=False))
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=options.width, intermediate_size=options.neurons,
        num_hidden_layers=options.layers, num_attention_heads=options.heads,
        num_key_value_heads=options.kv_heads, hidden_act="relu", tie_word_embeddings=True,
        max_position_embeddings=1024, eos_token_id=0, bos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = LlamaForCausalLM(config)
        fired: list[Tensor] = []
        for layer in model.model.layers:
            layer.mlp.gate_proj.register_forward_hook(lambda _m, _a, out: fired.append(out.relu()))
        optimiser = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=0.01)
        penalty = 1e-3
        for number in range(options.steps):
            rate = min((number + 1) / 20, (options.steps - number) / (options.steps - 20))
            for group in optimiser.param_groups:
                group["lr"] = options.learning_rate * rate
            starts = torch.randint(0, len(ids) - options.length - 1, (options.batch,))
            rows = torch.stack([ids[start : start + options.length] for start in starts])
            fired.clear()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(rows, labels=rows, use_cache=False).loss
            shares = torch.stack([(one > 0).float().mean() for one in fired])
            quiet = sum(one.float().sum(-1).mean() for one in fired) / len(fired)
            optimiser.zero_grad(set_to_none=True)
            (loss + penalty * quiet).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            penalty *= 1.03 if shares.mean() > options.share else 0.97
            if number % 25 == 24:
                step(
                    "model",
                    f"step {number + 1}: loss {float(loss.detach()):.3f}, {float(shares.mean()):.1%} fire, "
                    f"{time.process_time() - started:.0f} s",
                )
        for layer in model.model.layers:
            layer.mlp.gate_proj._forward_hooks.clear()
    return LocalModel(model.eval(), tokenizer, name="relu")


def _tokenizer(corpus: str, size: int) -> Any:
    """Byte-level BPE, trained on the corpus."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(corpus.splitlines(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=MARKS[0], bos_token=MARKS[0])
