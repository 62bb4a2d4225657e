"""A causal LM from layer names: every way to generate equals the run without a cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from layer_matrix import CASES, Case
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from mnemic.cube.errors import IncompatibleMemory, InvalidFile, InvalidInput, InvalidOption
from mnemic.layers.stack import StackConfig, StackForCausalLM
from mnemic.layers.stack_cache import CACHE_NAME, StateCache, load_cache

NEW = 9


def model_of(layers: list[Any], seed: int = 0) -> StackForCausalLM:
    torch.manual_seed(seed)
    config = StackConfig(
        layers=layers, dim=8, vocab_size=31, mlp_ratio=2, bos_token_id=1, eos_token_id=None, pad_token_id=0
    )
    model: StackForCausalLM = StackForCausalLM(config).double().eval()
    torch.nn.init.normal_(model.embed.weight)  # apart enough that no two logits tie
    return model


def entry(case: Case) -> dict[str, Any]:
    return {"layer": case.name, **case.options}


MIXED = ["base-conv", {"layer": "window", "window": 4}, "based", {"layer": "mom", "heads": 2}, "attention"]
STACKS = [pytest.param([entry(case), entry(case)], id=str(case)) for case in CASES]
STACKS.append(pytest.param(MIXED, id="mixed"))


def ids(seed: int = 3, *, batch: int = 2, time: int = 11) -> Tensor:
    return torch.randint(2, 31, (batch, time), generator=torch.Generator().manual_seed(seed))


def cache_free(model: StackForCausalLM, prompt: Tensor, new: int = NEW) -> Tensor:
    """Greedy, each token from the whole text anew: no generate, no cache, no mask."""
    for _ in range(new):
        logits = model(prompt, use_cache=False).logits[:, -1]
        prompt = torch.cat([prompt, logits.argmax(-1, keepdim=True)], 1)
    return prompt


@torch.no_grad()
@pytest.mark.parametrize("layers", STACKS)
def test_generation_equals_the_run_without_a_cache(layers: list[Any], tmp_path: Path) -> None:
    model, prompt = model_of(layers), ids()
    expected = cache_free(model, prompt)
    greedy: dict[str, Any] = {"do_sample": False, "max_new_tokens": NEW}
    whole = {"attention_mask": torch.ones_like(prompt)}  # else a generated 0 would be taken for padding
    out = model.generate(prompt, return_dict_in_generate=True, **greedy, **whole)
    assert torch.equal(out.sequences, expected)
    assert torch.equal(model.generate(prompt, use_cache=False, **greedy, **whole), expected)

    # going on with the cache that was returned
    more = cache_free(model, expected, 5)
    going_on = {"attention_mask": torch.ones_like(expected), CACHE_NAME: out[CACHE_NAME]}
    again = model.generate(expected, do_sample=False, max_new_tokens=5, **going_on)
    assert torch.equal(again, more)

    # beams
    beams: dict[str, Any] = {"num_beams": 3, "do_sample": False, "max_new_tokens": NEW}
    alone = model.generate(prompt, use_cache=False, **beams, **whole)
    assert torch.equal(model.generate(prompt, **beams, **whole), alone)

    # rows of different lengths, padded on the left, each as if alone
    mask = torch.ones_like(prompt)
    mask[0, :4] = 0
    padded = model.generate(torch.where(mask.bool(), prompt, 0), attention_mask=mask, **greedy)
    assert torch.equal(padded[0, 4:], cache_free(model, prompt[:1, 4:])[0])
    assert torch.equal(padded[1], expected[1])

    # saved and loaded
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert type(loaded) is StackForCausalLM
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert torch.equal(loaded.generate(prompt, **greedy, **whole), expected)
    assert AutoConfig.from_pretrained(tmp_path).layers == model.config.layers


@torch.no_grad()
def test_a_text_goes_on_from_a_saved_cache_in_another_process(tmp_path: Path) -> None:
    model, prompt = model_of(MIXED), ids(batch=1)
    cache = model(prompt[:, :-1])[CACHE_NAME]
    cache.save(tmp_path / "state", model, token_ids=prompt[:, :-1])
    model.save_pretrained(tmp_path / "model")
    code = (
        "import sys, torch; from pathlib import Path\n"
        "from transformers import AutoModelForCausalLM\n"
        "import mnemic.layers.stack\n"
        "from mnemic.layers.stack_cache import CACHE_NAME, load_cache\n"
        "folder = Path(sys.argv[1])\n"
        "model = AutoModelForCausalLM.from_pretrained(folder / 'model', dtype=torch.float64)\n"
        "cache = load_cache(folder / 'state', model)\n"
        "ids = torch.tensor([[int(i) for i in sys.argv[2].split(',')]])\n"
        "out = model.generate(ids, do_sample=False, max_new_tokens=9, "
        "attention_mask=torch.ones_like(ids), **{CACHE_NAME: cache})\n"
        "print('ids', *out[0].tolist())"
    )
    text = ",".join(str(i) for i in prompt[0].tolist())
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), text], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("ids ")[1].split() == [str(i) for i in cache_free(model, prompt)[0].tolist()]

    with pytest.raises(IncompatibleMemory, match="weights"):
        load_cache(tmp_path / "state", model_of(MIXED, seed=1))
    data = bytearray((tmp_path / "state").read_bytes())
    data[-1] ^= 1
    (tmp_path / "state").write_bytes(bytes(data))
    with pytest.raises(InvalidFile, match="damaged"):
        load_cache(tmp_path / "state", model)


@torch.no_grad()
def test_a_cache_can_be_gone_on_from_twice() -> None:
    model, prompt = model_of(MIXED), ids()
    cache = model(prompt)[CACHE_NAME]
    first, second = (
        model(torch.full((2, 1), token), **{CACHE_NAME: cache.clone()}).logits for token in (5, 6)
    )
    again = model(torch.full((2, 1), 5), past_key_values=cache.clone()).logits
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert cache.get_seq_length() == prompt.shape[1]
    assert cache.size_bytes() == model.config.state_bytes(prompt.shape[1], batch=2, element_bytes=8)


def test_the_loss_is_that_of_the_next_token_and_adds_the_routers() -> None:
    model, prompt = model_of(["base-conv", "mom"]), ids()
    labels = prompt.clone()
    labels[0, 5:] = -100
    out = model(prompt, labels=labels)
    expected = torch.nn.functional.cross_entropy(
        out.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
    )
    assert set(model.aux_losses()) == {1}
    expected = expected + model.aux_losses()[1]
    torch.testing.assert_close(out.loss.double(), expected, atol=1e-6, rtol=1e-6)
    out.loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model_of(["window"]).aux_losses() == {}


@torch.no_grad()
def test_a_memory_stands_beside_every_mlp_and_reads_what_it_reads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    memory = {"layer": "ultramem", "keys": 5, "topm": 3}
    config = StackConfig(layers=["window", "linear"], dim=8, vocab_size=31, mlp_ratio=2, memory=memory)
    model = StackForCausalLM(config).eval()
    with_it, prompt = model(ids()).logits, ids()
    assert [one.options.blocks for one in model.slot_memories()] == [2, 2]
    first, x = model.blocks[0], torch.randn(2, 4, 8)
    y, _ = first(x, None, None)
    inner = x + first.layer(first.norm(x))[0]
    normed = first.mlp_norm(inner)
    torch.testing.assert_close(y, inner + first.mlp(normed) + first.memory.read(normed))
    counts = model.parameter_counts()
    assert counts["total"] - counts["active"] == 2 * (25 - 3) * (1 + 2)
    # each way to generate, and saving
    whole = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "max_new_tokens": NEW}
    assert torch.equal(model.generate(prompt, **whole), cache_free(model, prompt))
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(ids()).logits, with_it)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    for wrong in ("window", {"layer": "ultramem", "keys": 1}, {"keys": 4}, "nothing"):
        with pytest.raises(InvalidOption):
            StackConfig(layers=["window"], dim=8, memory=wrong)


def test_tied_weights_are_one_tensor_after_a_reload(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = StackConfig(layers=["linear"], dim=8, vocab_size=31, tie_word_embeddings=True)
    model = StackForCausalLM(config)
    assert model.head.weight is model.embed.weight
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.head.weight is loaded.embed.weight
    assert torch.equal(loaded(ids()).logits, model(ids()).logits)


def test_what_cannot_work_is_refused() -> None:
    for wrong in (
        {"layers": []}, {"layers": ["nothing"]}, {"layers": "window"}, {"layers": [{"window": 3}]},
        {"mlp_ratio": -1},
        {"layers": [{"layer": "window", "windw": 3}]}, {"dim": 0}, {"vocab_size": 0},
    ):  # fmt: skip
        with pytest.raises(InvalidOption):
            StackConfig(**wrong)
    model, prompt = model_of(["linear"]), ids()
    with pytest.raises(InvalidInput, match="StateCache"):
        model(prompt, past_key_values=DynamicCache())
    with pytest.raises(InvalidInput, match="StateCache"):
        model(prompt, past_key_values=StateCache(3))
    with pytest.raises(InvalidInput, match="attention_mask"):
        model(prompt, attention_mask=torch.ones(2, 5))
    with pytest.raises(InvalidInput, match="either"):
        model()
    with pytest.raises(InvalidInput, match="nothing yet"):
        _ = StateCache(1).states
    with pytest.raises(InvalidInput, match="keys and values"):
        StateCache(1).update(prompt, prompt, 0)
    with pytest.raises(ValueError, match="assisted"):
        model.generate(prompt, assistant_model=model, max_new_tokens=2)


def test_a_checkpoint_that_lacks_a_weight_keeps_all_others(tmp_path: Path) -> None:
    """Also where a layer's own initialisation ties weights to one another."""
    from safetensors.torch import load_file, save_file

    model = model_of([{"layer": "mom", "heads": 2}])
    torch.nn.init.normal_(model.blocks[0].layer.kv)  # no two memories alike
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["blocks.0.layer.conv"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    for name, weight in weights.items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    assert loaded.blocks[0].layer.conv.tolist() == [[0, 0, 0, 1]] * 24  # as it begins
