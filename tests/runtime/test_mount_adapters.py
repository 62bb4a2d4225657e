"""Adapters in a memory: mounted exactly, several at once, under KV memories, never after their sources."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from learners import STATEMENTS, gate, learner, recipe, trained

import mnemic
from language_models import needs_torch, tiny_llama
from mnemic.cube.errors import (
    AccessDenied,
    IncompatibleMemory,
    InvalidFile,
    InvalidOption,
    NotFound,
    StaleMemory,
)
from mnemic.models.stack import Point

pytestmark = needs_torch
pytest.importorskip("peft")


class Kept(NamedTuple):
    memory: mnemic.Memory
    ids: list[str]
    adapters: list[mnemic.MemCube]  # two that were trained with different seeds


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    from mnemic.parametric.gate import GateReport
    from mnemic.parametric.lora_cube import store

    report = GateReport(
        questions=8, candidates=10, chance=0.1, right=1, right_base=0, right_control=None, perplexity=1,
        perplexity_base=1,
    )  # fmt: skip
    with mnemic.open(tmp_path / "ana.db") as memory:
        ids = [memory.add(text, user="ana")[0].id for text in STATEMENTS]
        vault = memory._parts.vault
        with vault.snapshot() as snapshot:
            sources, scope = snapshot.citations(ids), snapshot.head(ids[0]).header.scope
        adapters = [
            store(vault, scope, trained(seed), sources, model=learner(), recipe=recipe(), report=report)
            for seed in (0, 1)
        ]
        yield Kept(memory, ids, adapters)


def state(model: Any) -> list[Any]:
    return [
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        [
            (name, id(one), one.data_ptr(), one._version, one.requires_grad)
            for name, one in model.named_parameters()
        ],
        [(name, id(module), module.training) for name, module in model.named_modules()],
        model.config.to_dict(),
    ]


def bits(model: Any) -> list[Any]:
    return [one.detach().clone() for one in model.parameters()]


class Broken:
    """Fails half-way through its installation."""

    id, point = "broken", Point.LOGITS

    def check(self, local: Any, stack: tuple[str, ...]) -> None: ...

    def install(self, local: Any, undo: ExitStack) -> None:
        undo.callback(local.model.lm_head.register_forward_hook(lambda *_: None).remove)
        raise RuntimeError("half-way")


def test_everything_is_as_before_after_a_mount_however_it_ends(kept: Kept) -> None:
    import torch

    local = learner()
    ids = torch.tensor([local.encode("The code of Ida is")])
    before, weights, said = state(local.model), bits(local.model), local.model(ids).logits

    def same() -> bool:
        return (
            state(local.model) == before
            and all(torch.equal(one, two) for one, two in zip(weights, bits(local.model), strict=True))
            and torch.equal(local.model(ids).logits, said)
        )

    with kept.memory.mount(local, kept.adapters[0]) as mounted:
        assert mounted.stack == (kept.adapters[0].id,)
        changed = mounted(ids).logits
        assert not torch.equal(changed, said)
        assert torch.equal(local.model(ids).logits, changed)  # hooks act on the model itself
    assert same()
    with pytest.raises(KeyError), kept.memory.mount(local, kept.adapters[0]):
        raise KeyError
    assert same()
    with (
        pytest.raises(RuntimeError, match="half-way"),
        kept.memory.mount(local, [kept.adapters[0], Broken()]),
    ):
        pass
    assert same()


def test_it_answers_what_it_was_taught(kept: Kept) -> None:
    with kept.memory.mount(learner(), kept.adapters[0]) as mounted:
        assert mounted.answer("What is the code of Ida?", max_tokens=12).text == "2839"
        (part,) = mounted.report().parts
        assert (part.id, part.point) == (kept.adapters[0].id, "WEIGHT")
        assert part.bytes == trained().nbytes
    assert (
        learner().complete([{"role": "user", "content": "What is the code of Ida?"}], max_tokens=12).text
        != "2839"
    )


def test_several_at_once_in_beams_and_batches(kept: Kept) -> None:
    import torch

    local = learner()
    with kept.memory.mount(local, kept.adapters) as mounted:
        assert mounted.stack == tuple(one.id for one in kept.adapters)
        both = mounted(torch.tensor([local.encode("code")])).logits
        ids = torch.tensor([mounted.prompt_ids([{"role": "user", "content": "What is the code of Bo?"}])] * 2)
        made = mounted.generate(ids, num_beams=2, max_new_tokens=6, min_new_tokens=6, do_sample=False)
        assert made.shape == (2, ids.shape[1] + 6)
    with kept.memory.mount(local, kept.adapters[0]), kept.memory.mount(local, kept.adapters[1]) as inner:
        assert torch.equal(inner(torch.tensor([local.encode("code")])).logits, both)
        with (
            pytest.raises(InvalidOption, match="mounted already"),
            kept.memory.mount(local, kept.adapters[0]),
        ):
            pass
    with kept.memory.mount(local, kept.adapters, order=[1, 0]) as mounted:
        assert mounted.stack == tuple(one.id for one in reversed(kept.adapters))


def test_a_source_that_changes_ends_every_use_at_once(kept: Kept) -> None:
    local = learner()
    kv = kept.memory.as_kv([kept.memory.add("Bo likes tea.", user="ana")[0].id], local)
    with kept.memory.mount(local, kept.adapters[0]) as mounted:
        mounted.answer("What is the code of Ida?", max_tokens=2)
        kept.memory.update(kept.ids[0], "The code of Ida is 1111.")
        with pytest.raises(StaleMemory, match="was updated"):
            mounted.answer("What is the code of Ida?")
        with pytest.raises(StaleMemory), kept.memory.mount(local, kept.adapters[1]) as inner:
            inner.answer("Who?")
        kept.memory.update(kept.ids[0], STATEMENTS[0])
        mounted.answer("What is the code of Ida?", max_tokens=2)
        with kept.memory.mount(local, Quiet()) as inner:  # what is mounted around it counts too
            kept.memory.delete(kept.ids[1])
            with pytest.raises(StaleMemory, match="was deleted"):
                inner.answer("Who?")
    with pytest.raises(StaleMemory), kept.memory.mount(local, kept.adapters[0]):
        pass
    with kept.memory.mount(local, kv):
        pass


class Quiet:
    id, point = "quiet", Point.LOGITS

    def check(self, local: Any, stack: tuple[str, ...]) -> None: ...

    def install(self, local: Any, undo: ExitStack) -> None: ...


def test_erasing_a_source_takes_the_adapter_its_file_and_what_was_read_under_it(kept: Kept) -> None:
    local = learner()
    tea = kept.memory.add("Bo likes tea.", user="ana")[0].id
    with kept.memory.mount(local, kept.adapters[0]):
        under = kept.memory.as_kv([tea], local)
    folder = kept.memory._parts.vault.blobs.folder
    assert folder is not None
    files = [folder / one.blob.id for one in (*kept.adapters, under) if one.blob is not None]
    assert all(path.exists() for path in files)
    with kept.memory.mount(local, kept.adapters[0]) as mounted:
        kept.memory.erase(kept.ids[2], reason="she asked")
        with pytest.raises(StaleMemory, match="it was erased"):
            mounted.answer("Who?")
        kept.memory.flush()
    assert not any(path.exists() for path in files)
    assert kept.memory.list(user="ana", where={"kind": "parametric"}) == []
    assert kept.memory.list(user="ana", where={"kind": "activation"}) == []


def test_kv_memory_is_bound_to_the_adapter_it_was_read_under(kept: Kept) -> None:
    local = learner()
    tea = kept.memory.add("Bo likes tea.", user="ana")[0].id
    alone = kept.memory.as_kv([tea], local)
    with kept.memory.mount(local, kept.adapters[0]):
        with pytest.raises(IncompatibleMemory) as refused, kept.memory.mount(local, alone):
            pass
        assert refused.value.part == "stack"
        under = kept.memory.as_kv([tea], local)
        assert {one.cube_id for one in under.header.sources} == {tea, kept.adapters[0].id}
    with pytest.raises(IncompatibleMemory), kept.memory.mount(local, under):
        pass
    with kept.memory.mount(local, [under, kept.adapters[0]]) as mounted:
        mounted.answer("Who?", max_tokens=2)
    with pytest.raises(IncompatibleMemory), kept.memory.mount(local, [under, kept.adapters[1]]):
        pass
    with (
        kept.memory.mount(local, alone),
        pytest.raises(IncompatibleMemory, match="under a KV memory"),
        kept.memory.mount(local, kept.adapters[0]),
    ):
        pass
    kept.memory.update(kept.ids[0], "The code of Ida is 1111.")  # a source of the adapter alone
    with pytest.raises(StaleMemory), kept.memory.mount(local, [under, kept.adapters[0]]):
        pass
    with pytest.raises(StaleMemory), kept.memory.mount(local, under):
        pass


def test_another_model_and_damaged_or_exchanged_files_are_refused(kept: Kept) -> None:
    local = learner()
    with (
        pytest.raises(IncompatibleMemory, match="weights"),
        kept.memory.mount(tiny_llama(seed=3, initializer_range=0.15), kept.adapters[0]),
    ):
        pass
    folder = kept.memory._parts.vault.blobs.folder
    assert folder is not None
    one, two = (folder / adapter.blob.id for adapter in kept.adapters if adapter.blob is not None)
    content = one.read_bytes()
    for damaged, why in (
        (content[:-1], "tensors take"), (content[:-1] + bytes([content[-1] ^ 1]), "SHA-256"),
        (two.read_bytes(), "renamed or exchanged"),
    ):  # fmt: skip
        one.write_bytes(damaged)
        with pytest.raises(InvalidFile, match=why), kept.memory.mount(local, kept.adapters[0]):
            pass
    one.unlink()
    with pytest.raises(NotFound), kept.memory.mount(local, kept.adapters[0]):
        pass


def test_an_adapter_is_not_trained_or_tested_under_another(kept: Kept) -> None:
    with kept.memory.mount(learner(), kept.adapters[0]):
        with pytest.raises(InvalidOption, match="on the model alone"):
            kept.memory.as_adapter(kept.ids, learner(), recipe=recipe(epochs=1), gate=gate())
        with pytest.raises(InvalidOption, match="on the model alone"):
            kept.memory.as_text(kept.adapters[0], learner())


def test_who_may_not_read_the_sources_gets_nothing_of_what_was_learned(kept: Kept) -> None:
    from mnemic.upkeep import drop_learned, drop_stale_learned, learned_memories, learned_memory

    id = kept.adapters[0].id
    kept.memory.governance.add_principal("bo", owns="bo")
    kept.memory.governance.add_principal("ana", owns="ana")
    bo = kept.memory.as_principal("bo")
    assert learned_memories(bo) == []
    for attempt in (
        lambda: learned_memory(bo, id),
        lambda: drop_learned(bo, id),
        lambda: bo.as_text(id, learner()),
        lambda: bo.retrain(id, learner()),
        lambda: bo.as_adapter(kept.ids, learner()),
        lambda: bo.as_memory(kept.ids, learner()),
        lambda: bo.mount(learner(), id).__enter__(),
    ):
        with pytest.raises((AccessDenied, NotFound)):
            attempt()
    kept.memory.delete(kept.ids[0])
    assert drop_stale_learned(bo) == (0, 0)
    assert len(learned_memories(kept.memory)) == 2
    ana = kept.memory.as_principal("ana")
    assert len(learned_memories(ana)) == 2
    assert drop_stale_learned(ana)[0] == 2


def test_an_adapter_is_no_text_and_is_dropped_with_its_file(kept: Kept) -> None:
    from mnemic.parametric.keeping import drop, drop_stale, listing, look, stale_share

    vault = kept.memory._parts.vault
    assert [one.id for one in kept.memory.list(user="ana")] == kept.ids
    assert {one.cube.id for one in listing(vault, user="ana")} == {one.id for one in kept.adapters}
    assert kept.adapters[0].id in kept.memory.explain(kept.ids[0]).used_by
    described = look(vault, kept.adapters[0].id).described
    assert (described.form, described.recipe["rank"]) == ("lora", 8)
    assert drop(vault, kept.adapters[0].id) == described.size
    with pytest.raises(StaleMemory, match="dropped"), kept.memory.mount(learner(), kept.adapters[0]):
        pass
    assert stale_share(vault, kept.adapters[1]) == 0
    kept.memory.update(kept.ids[0], "The code of Ida is 1111.")
    kept.memory.delete(kept.ids[1])
    assert stale_share(vault, kept.adapters[1]) == 0.5
    assert drop_stale(vault)[0] == 1
    assert listing(vault) == []
    with pytest.raises(NotFound, match="was dropped"):
        look(vault, kept.adapters[1].id)
    with pytest.raises(InvalidOption, match="not a parametric memory"):
        look(vault, kept.ids[0])
