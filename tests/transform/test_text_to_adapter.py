"""Text to adapter and back: gated, cited, trained again or dropped, and asked what it still says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from learners import STATEMENTS, facts, gate, learner, recipe

import mnemic
from language_models import needs_torch
from mnemic.cube.errors import InvalidOption, NotLearned, StaleMemory

pytestmark = needs_torch
pytest.importorskip("peft")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[mnemic.Memory]:
    with mnemic.open(tmp_path / "ana.db") as made:
        for text in STATEMENTS:
            made.add(text, user="ana", agent="desk")
        yield made


def test_from_statements_to_an_adapter_that_is_trained_again_when_they_change(memory: mnemic.Memory) -> None:
    local, seen = learner(), set()
    ids = [one.id for one in memory.list(user="ana")]
    adapter = memory.as_adapter(
        ids,
        local,
        recipe=recipe(),
        gate=gate(control=True),
        title="codes",
        progress=lambda what, done, total: seen.add((what, done == total)),
    )
    assert {what for what, ended in seen if ended} >= {
        "training", "training the control", "testing the model alone", "testing the adapter",
        "testing the control",
    }  # fmt: skip
    assert adapter.kind.name == "parametric"
    assert adapter.header.origin.name == "derived"
    assert adapter.header.scope.agent == "desk"
    assert {one.cube_id for one in adapter.header.sources} == set(ids)

    spoken = memory.as_text(adapter, local)
    report = spoken.learned.described.report
    assert report["right"] > report["right_base"]
    assert report["right_control"] <= 0.5
    assert [one.text for one in spoken.texts] == list(STATEMENTS)
    assert sum(probe.holds for probe in spoken.probes) >= 3

    memory.update(ids[0], "The code of Ida is 5501.")
    memory.delete(ids[3])
    spoken = memory.as_text(adapter, local)
    assert spoken.learned.why_not is not None
    assert spoken.gone == (ids[3],)
    assert spoken.probes[0].text == "5501"
    assert "2839" in spoken.probes[0].said  # the weights lag behind, and say so
    with pytest.raises(StaleMemory), memory.mount(local, adapter):
        pass
    again = memory.retrain(adapter, local, gate=gate())
    assert {one.cube_id for one in again.header.sources} == set(ids[:3])
    assert memory.list(user="ana", where={"kind": "parametric"})[0].id == again.id
    with memory.mount(local, again) as mounted:
        assert mounted.answer("What is the code of Ida?", max_tokens=12).text == "5501"
    with pytest.raises(StaleMemory, match="dropped"), memory.mount(local, adapter):
        pass
    memory.delete(ids[:3])
    with pytest.raises(StaleMemory, match="Drop it"):
        memory.retrain(again, local)


def test_one_that_did_not_learn_is_refused_with_its_report_and_leaves_nothing(memory: mnemic.Memory) -> None:
    ids = [one.id for one in memory.list(user="ana")]
    with pytest.raises(NotLearned, match="held-out questions are right") as refused:
        memory.as_adapter(ids, learner(), recipe=recipe(epochs=1, learning_rate=1e-6), gate=gate())
    report = refused.value.report
    assert not report.passed
    assert report.right < 0.5
    assert "chance 10%" in str(report)
    with pytest.raises(NotLearned, match="perplexity of unrelated text"):
        memory.as_adapter(
            ids,
            learner(),
            recipe=recipe(epochs=4, learning_rate=0.3),
            gate=gate(learned=0.0, perplexity=1.01),
        )
    assert memory.list(user="ana", where={"kind": "parametric"}) == []
    folder = memory._parts.vault.blobs.folder
    assert folder is not None
    assert not list(folder.glob("*")) if folder.exists() else True


def test_questions_that_give_their_answers_away_are_found_by_the_control() -> None:
    """A leak on purpose: the other candidates are so long that any model prefers the right one."""
    from mnemic.parametric.gate import examine
    from mnemic.parametric.lora_training import examples, train
    from mnemic.parametric.questions import shuffled

    local = learner()
    taught = facts()
    leaking = [[one.answer, *(f"{one.answer} {'x' * 30} {n}" for n in range(9))] for one in taught]
    wrong = shuffled(taught, leaking)
    control = train(local, examples(local, wrong), recipe(epochs=1))
    found = examine(local, control, control, taught, leaking, gate(learned=0.0))
    assert found.right_control == 1.0
    assert any("give their answers away" in one for one in found.failed)


def test_a_source_that_changes_during_training_makes_it_stale(memory: mnemic.Memory) -> None:
    ids = [one.id for one in memory.list(user="ana")]

    def change(what: str, done: int, total: int) -> None:
        if (what, done) == ("training", total):
            memory.update(ids[0], "The code of Ida is 1111.")

    with pytest.raises(StaleMemory, match="was updated"):
        memory.as_adapter(ids, learner(), recipe=recipe(epochs=2), gate=gate(learned=0.0), progress=change)


def test_what_states_nothing_and_cubes_of_two_users_are_refused(memory: mnemic.Memory) -> None:
    hello = memory.add("Hello there!", user="ana")[0].id
    other = memory.add("Bo likes tea.", user="bo")[0].id
    with pytest.raises(InvalidOption, match="state nothing"):
        memory.as_adapter([hello], learner())
    with pytest.raises(InvalidOption, match="2 users"):
        memory.as_adapter([hello, other], learner())
    with pytest.raises(InvalidOption, match="say which cubes"):
        memory.as_adapter([], learner())
