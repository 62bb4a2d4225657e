"""Cubes to a memory of next tokens: in all three forms, tuned, made again, and never after their sources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from learners import STATEMENTS, learner

import mnemic
from language_models import needs_torch, tiny_llama
from mnemic.cube.errors import IncompatibleMemory, InvalidFile, InvalidOption, StaleMemory

pytestmark = needs_torch
pytest.importorskip("faiss")
pytest.importorskip("peft")
FORMS = ("exact", "ivfpq", "mlp")
QUESTION = "What is the code of Ida?"


def options(form: str, **more: Any) -> Any:
    from mnemic.parametric.datastore import Taps
    from mnemic.parametric.mlp import Compile
    from mnemic.parametric.nearest import Search
    from mnemic.transform.text_to_memory import Options

    return Options(
        form=form,
        taps=Taps(block=64),
        search=Search(k=4, temperature=0.1, centroids=4, codes=16, probes=4),
        compile=Compile(blocks=2, widen=2.0, epochs=80, batch=32, learning_rate=5e-3),
        **more,
    )


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[mnemic.Memory]:
    with mnemic.open(tmp_path / "ana.db") as made:
        for text in STATEMENTS:
            made.add(text, user="ana")
        yield made


def enough(memory: mnemic.Memory, form: str) -> None:
    """IVF-PQ needs more keys than a few answers have."""
    for number in range(8 if form == "ivfpq" else 0):
        memory.add(f"The locker of Number {number} is {number * 37 + 12}.", user="ana")


@pytest.mark.parametrize("form", FORMS)
def test_the_model_answers_from_it_until_a_source_changes(memory: mnemic.Memory, form: str) -> None:
    local = learner()
    enough(memory, form)
    ids = [one.id for one in memory.list(user="ana")]
    cube = memory.as_memory(ids, local, options=options(form, lam=0.9), title="codes")
    assert local.complete([{"role": "user", "content": QUESTION}], max_tokens=6).text[:4] != "2839"
    with memory.mount(local, cube) as mounted:
        assert mounted.answer(QUESTION, max_tokens=12).text == "2839"
        assert mounted.report().parts[0].point == "LOGITS"
        memory.update(ids[0], "The code of Ida is 5501.")
        with pytest.raises(StaleMemory, match="was updated"):
            mounted.answer(QUESTION)
    with pytest.raises(StaleMemory), memory.mount(local, cube):
        pass
    again = memory.retrain(cube, local)
    with memory.mount(local, again) as mounted:
        assert mounted.answer(QUESTION, max_tokens=12).text == "5501"
    (kept,) = memory.list(user="ana", where={"kind": "parametric"})
    assert kept.id == again.id
    folder = memory._parts.vault.blobs.folder
    assert folder is not None
    memory.erase(ids[1], reason="she asked")
    memory.flush()
    assert list(folder.iterdir()) == []
    with pytest.raises(StaleMemory, match="erased"), memory.mount(local, again):
        pass


@pytest.mark.parametrize("form", FORMS)
def test_what_is_read_back_says_the_same(memory: mnemic.Memory, form: str) -> None:
    from mnemic.parametric.blend_cube import load

    local = learner()
    enough(memory, form)
    cube = memory.as_memory(memory.list(user="ana"), local, options=options(form))
    one, two = (load(memory._parts.vault, cube) for _ in range(2))
    state = local.model.get_input_embeddings().weight[:5].detach()
    assert one.memory.log_probs(state).equal(two.memory.log_probs(state))
    assert one.memory.form == form
    assert one.lam == 0.25
    said = one.explain(local, "The code of Ida is")
    assert bool(said.evidence) is (form != "mlp")
    if said.evidence:
        assert said.evidence[0].source in range(60)
    assert cube.blob is not None
    folder = memory._parts.vault.blobs.folder
    assert folder is not None
    path = folder / cube.blob.id
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InvalidFile, match="SHA-256"), memory.mount(local, cube):
        pass
    path.write_bytes(content)
    with pytest.raises(IncompatibleMemory, match="weights"), memory.mount(tiny_llama(seed=2), cube):
        pass


def test_a_compiled_memory_that_is_read_back_speaks_where_it_did(memory: mnemic.Memory) -> None:
    from mnemic.parametric.blend_cube import load
    from mnemic.parametric.mlp import network_of
    from mnemic.parametric.nearest import Search
    from mnemic.transform.text_to_memory import make_memory

    local, chosen = learner(), replace(options("mlp"), search=Search(k=4, temperature=0.1, reach=1.5))
    ids = [one.id for one in memory.list(user="ana")]
    found = load(memory._parts.vault, memory.as_memory(ids, local, options=chosen))
    assert found.lam == 0.8
    made = make_memory(local, list(STATEMENTS), chosen)
    tensors = dict(made.network.state_dict())
    back = replace(made, network=network_of(tensors, made.vocabulary))
    states = local.model.get_input_embeddings().weight.detach()
    for one, two in zip(made.say(states), back.say(states), strict=True):
        assert one.equal(two)
    assert back.nbytes == made.nbytes
    words = tensors["words"]
    for wrong in (words.flip(0), words + made.vocabulary, words - words[0] - 1, words[:0]):
        with pytest.raises(ValueError, match="words"):
            network_of({**tensors, "words": wrong}, made.vocabulary)
    with pytest.raises(KeyError):
        network_of({name: one for name, one in tensors.items() if name != "words"}, made.vocabulary)
    with pytest.raises(ValueError, match="size mismatch"):
        network_of({**tensors, "words": words[:-1]}, made.vocabulary)


def test_lambda_is_chosen_on_a_text_with_zero_among_the_choices(memory: mnemic.Memory) -> None:
    from mnemic.parametric.keeping import look
    from mnemic.transform.text_to_memory import tune

    local, vault = learner(), memory._parts.vault
    ids = [one.id for one in memory.list(user="ana")]
    cube = memory.as_memory(ids, local, options=options("exact"), tune_on=" ".join(STATEMENTS))
    report = look(vault, cube.id).described.report
    assert report["lam"] > 0  # it has read this text
    assert report["curve"]["perplexities"][0][0] == 0.0
    tuned = tune(vault, cube.id, local, "xyz zyx qqq jjj www vvv kkk. " * 4)
    assert look(vault, tuned.id).described.report["lam"] < report["lam"]  # this one it has not
    assert tuned.blob == cube.blob  # the same file
    with memory.mount(local, tuned) as mounted:
        mounted.answer(QUESTION, max_tokens=2)
    with pytest.raises(StaleMemory, match="dropped"), memory.mount(local, cube):
        pass


def test_two_memories_mix_and_one_under_an_adapter_is_refused(memory: mnemic.Memory) -> None:
    import torch
    from learners import trained

    local = learner()
    ids = [one.id for one in memory.list(user="ana")]
    one = memory.as_memory(ids[:2], local, options=options("exact", lam=0.5))
    two = memory.as_memory(ids[2:], local, options=options("exact", lam=0.5))
    feed = torch.tensor([local.encode("The code of Ida is")])
    with memory.mount(local, [one, two]) as mounted:
        assert mounted.stack == (one.id, two.id)
        assert mounted(feed).logits.exp().sum(-1).allclose(torch.ones(feed.shape), atol=1e-4)
    refusal = pytest.raises(IncompatibleMemory, match="what the model alone has in mind")
    with refusal as refused, memory.mount(local, [one, trained()]):
        pass
    assert refused.value.part == "stack"
    with memory.mount(local, trained()), pytest.raises(IncompatibleMemory), memory.mount(local, one):
        pass


def test_a_memory_helps_a_model_that_has_read_something_before(memory: mnemic.Memory) -> None:
    import torch

    local = learner()
    ids = [one.id for one in memory.list(user="ana")]
    kv = memory.as_kv(ids[:1], local)
    cube = memory.as_memory(ids, local, options=options("exact", lam=0.9))
    with memory.mount(local, cube) as mounted:
        alone = [one for one in mounted.report().parts if one.point == "LOGITS"]
    with memory.mount(local, [kv, cube]) as mounted:
        assert mounted.stack == (kv.id, cube.id)
        asked = [{"role": "user", "content": QUESTION}]
        feed = torch.tensor([mounted.prompt_ids(asked)])
        mixed = mounted(feed).logits
        assert mixed.shape[1] == feed.shape[1] - mounted.kv.tokens
        assert mixed.exp().sum(-1).allclose(mixed.new_ones(mixed.shape[:2]), atol=1e-4)
        assert [one for one in mounted.report().parts if one.point == "LOGITS"] == alone


def test_few_facts_are_learned_in_as_many_steps_as_they_need(memory: mnemic.Memory) -> None:
    """Eight passes over six facts are eight steps: one answer for all of them."""
    from mnemic.transform.text_to_memory import Options

    def steps_of(options: Options) -> int:
        seen: list[int] = []

        def progress(stage: str, _: int, of: int) -> None:
            if stage == "compiling":
                seen.append(of)

        memory.as_memory(memory.list(user="ana"), tiny_llama(), options=options, progress=progress)
        return seen[-1]

    options = Options(form="mlp")
    assert steps_of(options) >= options.compile.least == 100
    assert steps_of(replace(options, compile=replace(options.compile, epochs=3, least=1))) < 30


def test_options_that_cannot_be_are_refused(memory: mnemic.Memory) -> None:
    with pytest.raises(InvalidOption, match="exact, ivfpq, mlp"):
        options("lsh")
    with pytest.raises(InvalidOption, match="lam="):
        options("mlp", lam=2.0)
    with pytest.raises(InvalidOption, match="say which cubes"):
        memory.as_memory([], learner())
    assert memory.list(user="ana", where={"kind": "parametric"}) == []
