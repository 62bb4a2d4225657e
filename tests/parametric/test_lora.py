"""LoRA adapters: they learn, PEFT agrees, the model is not touched, and a file is checked to the last bit."""

from __future__ import annotations

import io
import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from learners import facts, gate, learner, recipe, trained

from language_models import needs_torch, tiny_llama
from mnemic.cube.errors import IncompatibleMemory, InvalidFile, InvalidOption

pytestmark = needs_torch
pytest.importorskip("peft")


def state(model: Any) -> list[Any]:
    """All that has to be the same after a training or a mount."""
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    weights = [
        (name, id(one), one.data_ptr(), one._version, one.requires_grad, one.grad)
        for name, one in model.named_parameters()
    ]
    modules = [(name, id(module), module.training) for name, module in model.named_modules()]
    return [hooks, weights, modules, model.config.to_dict()]


def logits(local: Any, text: str = "The code of Ida is") -> Any:
    import torch

    with torch.no_grad():
        return local.model(torch.tensor([local.encode(text)])).logits


def test_it_learns_what_it_was_told_in_other_words_and_leaves_the_model_alone() -> None:
    import torch

    from mnemic.parametric.gate import first, ranks
    from mnemic.parametric.questions import choices

    local = learner()
    before, said = state(local.model), logits(local)
    draws = torch.random.get_rng_state()
    lora = trained()
    assert torch.equal(torch.random.get_rng_state(), draws)
    among = choices(facts(), 10)
    alone = first(ranks(local, facts(), among))
    with lora.applied(local):
        assert not torch.equal(logits(local), said)
        assert first(ranks(local, facts(), among, trained=True)) == 1
        assert first(ranks(local, facts(), among)) >= max(0.5, 3 * alone)
    assert state(local.model) == before
    assert torch.equal(logits(local), said)


def test_a_training_that_is_stopped_leaves_the_model_alone() -> None:
    from mnemic.parametric.lora_training import examples, train

    local = learner()
    before = state(local.model)

    def stop(what: str, done: int, total: int) -> None:
        assert (what, total) == ("training", 40)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(local, examples(local, facts()), recipe(), progress=stop)
    assert state(local.model) == before


def test_training_is_repeatable_by_seed() -> None:
    import torch

    from mnemic.parametric.lora_training import examples, train

    taught = examples(learner(), facts())
    one, two, other = (train(learner(), taught, recipe(epochs=2, seed=seed)) for seed in (5, 5, 6))
    name = next(iter(one.up))
    assert torch.equal(one.up[name], two.up[name])
    assert not torch.equal(one.up[name], other.up[name])


def test_its_loss_is_that_of_the_plain_forward() -> None:
    """The shared beginning read once, padding on the left and few logits change nothing."""
    import torch

    from mnemic.models.hf import cache_keyword
    from mnemic.parametric.lora_training import answer_loss, examples

    local = learner()
    taught = examples(local, facts())[:6]
    assert len({len(one.prompt) for one in taught}) > 2
    wanted, count = 0.0, 0
    for prompt, answer in taught:
        with torch.no_grad():
            told = (
                local.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            )
        wanted -= float(told.gather(1, torch.tensor(answer)[:, None]).sum())
        count += len(answer)
    loss, counted = answer_loss(local.model, taught, cache_keyword(local.model))
    assert counted == count
    assert loss.item() == pytest.approx(wanted, rel=1e-4)


def test_peft_reads_the_same_adapter(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    import mnemic
    from mnemic.models.sharing import shared_copy
    from mnemic.parametric.gate import GateReport
    from mnemic.parametric.lora_cube import export, store

    local, lora = learner(), trained()
    report = GateReport(
        questions=8, candidates=10, chance=0.1, right=1, right_base=0, right_control=None, perplexity=1,
        perplexity_base=1,
    )  # fmt: skip
    with mnemic.open(tmp_path / "ana.db") as memory:
        vault = memory._parts.vault
        id = memory.add("The code of Ida is 2839.", user="ana")[0].id
        with vault.snapshot() as snapshot:
            sources, scope = snapshot.citations([id]), snapshot.head(id).header.scope
        cube = store(vault, scope, lora, sources, model=local, recipe=recipe(), report=report)
        export(vault, cube, tmp_path / "peft")
    theirs = PeftModel.from_pretrained(shared_copy(local.model), str(tmp_path / "peft")).eval()
    ids = torch.tensor([local.encode("Ana moved to")])
    with lora.applied(local), torch.no_grad():
        assert torch.equal(local.model(ids).logits, theirs(ids).logits)


def test_two_adapters_add_whatever_the_order() -> None:
    import torch

    local = learner()
    one, two = trained(), replace(trained(1), id="other")
    alone = logits(local)
    found = []
    for pair in ((one, two), (two, one)):
        with ExitStack() as undo:
            for lora in pair:
                lora.install(local, undo)
            found.append(logits(local))
    assert torch.allclose(found[0], found[1], atol=1e-4)
    assert not torch.allclose(found[0], alone, atol=1e-2)
    with pytest.raises(InvalidOption, match="mounted already"):
        one.check(local, (one.id,))
    assert trained().id == one.id != trained(1).id  # what computes otherwise is called otherwise


def test_another_model_is_refused_by_the_part_that_differs() -> None:
    lora = trained()
    with pytest.raises(IncompatibleMemory, match="weights") as refused:
        lora.check(tiny_llama(seed=1, initializer_range=0.15), ())
    assert refused.value.part == "weights"
    name = next(iter(lora.down))
    odd = replace(lora, down={**lora.down, name: lora.down[name][:, :-1]})
    with pytest.raises(IncompatibleMemory, match="linear map of 31 to"):
        odd.check(learner(), ())


def test_options_that_cannot_be_are_refused() -> None:
    from mnemic.parametric.lora_training import examples, train

    for options in (
        {"rank": 0},
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"targets": ()},
        {"targets": "q_proj"},
    ):
        with pytest.raises(InvalidOption):
            recipe(**options)
    for options in ({"candidates": 1}, {"learned": 2.0}, {"perplexity": 0.0}):
        with pytest.raises(InvalidOption):
            gate(**options)
    with pytest.raises(InvalidOption, match="nothing to train"):
        train(learner(), [], recipe())
    with pytest.raises(InvalidOption, match=r"It has .*down_proj"):
        train(learner(), examples(learner(), facts()), recipe(targets=("c_attn",)))


# --- files


def file_of(lora: Any) -> bytes:
    from mnemic.models.tensor_file import encode
    from mnemic.parametric.cube import header
    from mnemic.parametric.lora_cube import FILE

    said = header("lora", fingerprint=lora.fingerprint, stack="0" * 64, recipe={"alpha": 16.0})
    return b"".join(encode(FILE, said, lora.tensors())[1])


def test_a_file_gives_back_every_bit_and_is_safetensors() -> None:
    import torch
    from safetensors.torch import load

    from mnemic.models.tensor_file import decode
    from mnemic.parametric.lora_cube import FILE

    lora = trained()
    content = file_of(lora)
    read = decode(io.BytesIO(content), FILE)
    assert read.tensors.keys() == lora.tensors().keys()
    assert all(torch.equal(read.tensors[name], one) for name, one in lora.tensors().items())
    theirs = load(content)
    assert all(torch.equal(theirs[name], one) for name, one in lora.tensors().items())
    assert json.loads(read.said["recipe"]) == {"alpha": 16.0}


def test_a_file_that_was_cut_changed_or_is_another_is_refused() -> None:
    from mnemic.models.tensor_file import decode
    from mnemic.parametric.lora_cube import FILE

    content = file_of(trained())
    wrong = {
        "tensors take": content[:-3],
        "and there are more": content + b"\0",
        "does not match its SHA-256": content[:-1] + bytes([content[-1] ^ 1]),
        "does not begin as": b"\x80\x04",
        "ends within its header": content[:40],
        "header is not JSON": (64).to_bytes(8, "little") + b"x" * 64,
        "this mnemic reads mnemic-lora-1": content.replace(b"mnemic-lora-1", b"mnemic-mlp-12", 1),
        "header does not say where": content.replace(b'"data_offsets":[0,', b'"data_offsets":[8,', 1),
    }
    for why, damaged in wrong.items():
        with pytest.raises(InvalidFile, match=why):
            decode(io.BytesIO(damaged), FILE)
    huge = json.dumps(
        {"a": {"dtype": "F32", "shape": [1 << 39], "data_offsets": [0, 1 << 41]}, "__metadata__": {
            "format": "mnemic-lora-1", "kind": "", "fingerprint": "", "stack": "", "sources": "",
            "recipe": "", "made_with": "", "sha256": ""}}
    ).encode()  # fmt: skip
    with pytest.raises(InvalidFile, match="tensors take"):
        decode(io.BytesIO(len(huge).to_bytes(8, "little") + huge), FILE)
