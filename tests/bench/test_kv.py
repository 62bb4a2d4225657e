"""`mnemic bench kv` on small models and made-up data: the numbers mean what the tables say."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from activation.tiny import llama, text
from language_models import tiny_llama
from mnemic.activation.full import FullCache
from mnemic.activation.h2o import H2O
from mnemic.activation.lazy import LazyEviction
from mnemic.activation.streaming import StreamingLLM
from mnemic.bench.kv.acceptance import CACHE_TESTS, LAZY_TESTS, TASK_TESTS, page, rhythm
from mnemic.bench.kv.heads import task_dependence
from mnemic.bench.kv.items import FAMILIES, Item, Sources, make_items, write_items
from mnemic.bench.kv.measure import answer_logits, call, measure
from mnemic.bench.kv.peer import agreement, read_kvpress, run_kvpress
from mnemic.bench.kv.plot import Line, lines_svg, map_svg
from mnemic.bench.kv.reasoning import attention_rows
from mnemic.bench.kv.report import markdown, quality_svg, summarise
from mnemic.bench.kv.rhythm import BUDGET, WINDOW, conditions, looks, rows, score
from mnemic.bench.kv.simulate import retained
from mnemic.bench.kv.speed import decode
from mnemic.cli.app import bench  # where its commands are put together
from mnemic.cube.errors import InvalidFile, InvalidOption, ModelError

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def encode(said: str) -> list[int]:
    return [1 + ord(c) % 99 for c in said]


@pytest.fixture
def data(tmp_path: Path) -> Sources:
    words = "the boat left the harbour before the storm and came back with the morning tide " * 40
    files = {
        "wikitext2_small/test.txt": "\n".join([words] * 3),
        "pi-llm/dict_category_46x400.json": json.dumps(
            {f"key {k}": [f"value {v}" for v in range(9)] for k in "abcdef"}
        ),
        "lazyeviction_reasoning/math500_test.jsonl": "\n".join(
            json.dumps({"problem": "What is 2 + 2?", "solution": "It is 4. " * n}) for n in (20, 30, 40)
        ),
        "locomo/locomo5.json": json.dumps(
            [
                {
                    "conversation": {
                        "session_1": [
                            {"speaker": "Ana", "text": f"fact number {i}", "dia_id": f"D1:{i}"}
                            for i in range(60)
                        ]
                    },
                    "qa": [
                        {"question": "Which?", "answer": "number 30", "category": 4, "evidence": ["D1:30"]},
                        {
                            "question": "?",
                            "adversarial_answer": "a trap",
                            "category": 5,
                            "evidence": ["D1:1"],
                        },
                    ],
                }
            ]
        ),
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text(content)
    return Sources(folder=tmp_path)


def test_items_are_what_they_say(data: Sources, tmp_path: Path) -> None:
    items = make_items(data, encode, families=list(FAMILIES), length=300, count=2)
    assert items == make_items(data, encode, families=list(FAMILIES), length=300, count=2)
    assert {item.family for item in items} == set(FAMILIES)
    for item in items:
        assert 100 <= len(item.prompt) + len(item.answer) <= 600
        assert len(item.answer) >= 3
        assert item.decode == (item.family == "reasoning")
    needle = next(item for item in items if item.family == "needle")
    spoken = encode(" secret code of the")
    starts = [i for i in range(len(needle.prompt)) if needle.prompt[i : i + len(spoken)] == spoken]
    assert starts[0] < len(needle.prompt) / 2  # in no recent half
    reread = next(item for item in items if item.family == "re-read")
    assert reread.prompt[40:120] == reread.answer
    write_items(items, tmp_path / "items.json")
    order = [item["family"] for item in json.loads((tmp_path / "items.json").read_text())]
    assert order[: len(FAMILIES)] == list(FAMILIES)
    with pytest.raises(InvalidOption, match="needle"):
        make_items(data, encode, families=["haystack"], length=300, count=1)
    with pytest.raises(InvalidFile, match="--data"):
        make_items(Sources(folder=tmp_path / "none"), encode, families=["needle"], length=300, count=1)


def test_measuring_goes_on_where_it_ended_and_full_budgets_cost_nothing(tmp_path: Path) -> None:
    model, out = llama(), tmp_path / "kv.jsonl"
    prompt, answer = text(1, 120)[0].tolist(), text(1, 60, seed=2)[0].tolist()
    items = [
        Item(family="text", name="a", prompt=prompt, answer=answer[:20]),
        Item(family="steps", name="b", prompt=prompt[:40], answer=answer, decode=True),
    ]
    seen: list[str] = []
    found = measure(model, items, [1.0, 0.5], out, seen.append)
    assert seen == ["a", "b"]
    for row in found:
        if row["budget"] == 1.0 and row["policy"] != "full":
            assert row["kl"] < 1e-6
        if row["budget"] == 0.5 and row["name"] == "a":
            assert row["kl"] > 1e-4
    full = {row["name"]: row["bytes"] for row in found if row["policy"] == "full"}
    assert all(row["bytes"] < full["a"] for row in found if row["budget"] == 0.5 and row["name"] == "a")
    again = measure(model, items, [1.0, 0.5], out, seen.append)
    assert (sorted(map(json.dumps, again)), seen) == (sorted(map(json.dumps, found)), ["a", "b"])
    peers = [{**row, "policy": "SnapKVPress"} for row in found if row["policy"] == "snapkv"]
    for row in peers:
        del row["tokens"]
    summary = summarise(found, peers)
    page = markdown(summary, command="mnemic bench kv quality", notes=["a note"])
    assert "kvpress SnapKVPress" in page
    assert "| yes |" in page
    assert quality_svg(summary).count("<polyline") >= 7


def test_the_command_goes_on_where_it_was_and_reports_what_is_there(data: Sources, tmp_path: Path) -> None:
    made, out = tiny_llama(), tmp_path / "out"
    made.model.save_pretrained(tmp_path / "tiny")
    made.tokenizer.save_pretrained(tmp_path / "tiny")
    words = ["quality", "--model", str(tmp_path / "tiny"), "--data", str(data.folder), "--out", str(out)]
    words += ["--family", "re-read", "--length", "128", "--items", "2", "--budget", "0.5"]

    def run(*more: str) -> str:
        return CliRunner().invoke(bench.app, ["kv", *words, *more], catch_exceptions=False).stdout

    assert "| kvzip | 1 |" in run("--at-most", "1")
    assert "| kvzip | 2 |" in run()
    rows = (out / "kv.jsonl").read_text()
    told = run("--report-only")
    assert (told, (out / "kv.jsonl").read_text()) == ((out / "kv.md").read_text() + "\n", rows)
    for name in ("kv-rhythm", "kv-heads"):
        (out / f"{name}.json").write_text((RESULTS / f"{name}.json").read_text())
    asked = CliRunner().invoke(bench.app, ["kv", "tables", str(out)], catch_exceptions=False)
    assert asked.stdout == (out / "kv-acceptance.md").read_text() + "\n"
    assert "kv-speed.json is missing" in asked.stdout
    with pytest.raises(InvalidOption, match=r"kv-rhythm\.json"):
        CliRunner().invoke(bench.app, ["kv", "tables", str(tmp_path / "none")], catch_exceptions=False)


def test_windows_fed_at_once_are_tokens_fed_one_by_one() -> None:
    model, prompt, answer = llama(layers=1), text(1, 30), text(1, 66, seed=2)
    for policy in (
        LazyEviction(budget=40, window=32),
        H2O(budget=40, window=32),
        StreamingLLM(budget=40, window=32),
    ):
        logits = []
        for step in (32, 1):
            cache = policy.cache(model)
            with torch.no_grad():
                call(model, prompt, cache)
                logits.append(answer_logits(model, answer, cache, step=step))
        assert torch.allclose(*logits, atol=1e-4)


def test_two_environments_must_agree_first(tmp_path: Path) -> None:
    model, item = llama(), Item(family="f", name="a", prompt=text(1, 30)[0].tolist(), answer=[3, 4, 5])
    assert agreement(model, [item], tmp_path)[0] is False
    cache = FullCache().cache(model)
    with torch.no_grad():
        call(model, torch.tensor([item.prompt]), cache)
        logits = answer_logits(model, torch.tensor([item.answer]), cache, step=3)
    save_file({"a": logits + 1e-5}, tmp_path / "full.safetensors")
    assert agreement(model, [item], tmp_path)[0] is True
    save_file({"a": logits + 1e-2}, tmp_path / "full.safetensors")
    agreed, said = agreement(model, [item], tmp_path)
    assert (agreed, "void" in said) == (False, True)
    assert agreement(model, [], tmp_path)[0] is False


def test_every_demand_is_beside_what_was_measured() -> None:
    """On the results that are recorded; and the tests that rows name are there."""
    root = Path(__file__).parents[2]
    recorded = {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("kv-*.json")}
    text = page(recorded, command="mnemic bench kv tables DIR")
    assert text == (RESULTS / "kv-acceptance.md").read_text(), "mnemic bench kv tables docs/results"
    for _, _, test in (*LAZY_TESTS, *TASK_TESTS, *CACHE_TESTS):
        file, _, name = test.partition("::")
        assert f"\ndef {name}(" in (root / file).read_text(), test
    worse = json.loads(json.dumps(recorded["kv-rhythm"]))
    worse["lazy, gated"]["burst stationary"] = [0.5, 0.5]
    demands = {one.what: one for one in rhythm(worse)}
    assert demands["held, gated, least of four columns >= 0.9"].met is False
    assert demands["held, gated, least of four columns >= 0.9"].measured == "0.500"
    alone = page({"kv-rhythm": worse}, command="c")
    assert "kv-heads.json is missing" in alone
    assert "**not met**" in alone


def row_of(name: str, policy: str, kl: float = 0.1, **more: Any) -> dict[str, Any]:
    told = {"family": "f", "name": name, "policy": policy, "budget": 0.5, "nll": 1.0 + kl, "kl": kl}
    return {**told, "agree": 1.0, "correct": 1.0, "bytes": 5, **more}


def test_presses_are_compared_on_the_items_that_all_of_them_have(tmp_path: Path) -> None:
    """A run that was cut short, and a press that broke half-way, change neither side's items."""
    model, items = llama(), [Item(family="f", name=name, prompt=[1, 2, 3], answer=[4, 5]) for name in "abc"]
    with torch.no_grad():
        cache = FullCache().cache(model)
        call(model, torch.tensor([items[0].prompt]), cache)
        logits = answer_logits(model, torch.tensor([items[0].answer]), cache, step=2)
    save_file({"a": logits}, tmp_path / "full.safetensors")
    theirs = [row_of(name, "OnePress", 0.2) for name in "ab"] + [row_of("a", "TwoPress", 0.3)]
    theirs += [row_of("a", "BrokenPress", 0.0)]
    (tmp_path / "kvpress.jsonl").write_text("\n".join(map(json.dumps, theirs)))
    (tmp_path / "broken.json").write_text(json.dumps({"BrokenPress": "RuntimeError: sizes differ"}))
    peer = read_kvpress(model, items, tmp_path)
    assert {row["policy"] for row in peer.rows} == {"OnePress", "TwoPress"}
    assert any("BrokenPress (RuntimeError)" in note for note in peer.notes)
    ours = [row_of(name, "full", 0.0, tokens=5) for name in "abc"]
    ours += [row_of(name, "snapkv", kl, tokens=5) for name, kl in zip("abc", (0.1, 9.0, 9.0), strict=True)]
    ours += [row_of("d", policy, family="reasoning", tokens=5) for policy in ("full", "lazy")]
    ours += [row_of("e", policy, family="half", tokens=5) for policy in ("full", "snapkv")]
    peer.rows.append(row_of("e", "OnePress", family="half"))
    ours += [row_of("g", policy, family="grows", tokens=5) for policy in ("full", "h2o-all")]
    peer.rows.append(row_of("g", "DecodingPress/OnePress", family="grows"))
    found = summarise(ours, peer.rows)
    assert {name: of["items"] for name, of in found["f"]["0.5"].items()} == {
        "snapkv": 1, "kvpress OnePress": 1, "kvpress TwoPress": 1,
    }  # fmt: skip
    assert "| f | 50% | 1 | snapkv 0.1000 (0.1000) | kvpress OnePress 0.2000 (0.2000) | yes |" in markdown(
        found, command="c", notes=peer.notes
    )
    assert set(found["reasoning"]["0.5"]) == {"lazy"}, "no press was asked there"
    assert set(found["half"]["0.5"]) == {"snapkv"}, "not all presses have an item there"
    assert set(found["grows"]["0.5"]) == {"h2o-all", "kvpress DecodingPress/OnePress"}, "all of its kind"
    save_file({"a": logits + 0.1}, tmp_path / "full.safetensors")
    assert read_kvpress(model, items, tmp_path).rows == []


def test_an_environment_without_kvpress_is_refused_by_name(tmp_path: Path) -> None:
    model = llama()
    with pytest.raises(InvalidOption, match=r"no Python interpreter; docs/bench\.md"):
        run_kvpress(tmp_path / "python", model, [], tmp_path, [0.5])
    with pytest.raises(ModelError, match="No module named 'kvpress'"):
        run_kvpress(Path(sys.executable), model, [], tmp_path, [0.5])


@pytest.mark.slow
def test_kvpress_in_its_own_environment_computes_the_same(tmp_path: Path) -> None:
    """`MNEMIC_KVPRESS=/venvs/kvpress/bin/python pytest -m slow tests/bench/test_kv.py`"""
    if not (python := os.environ.get("MNEMIC_KVPRESS")):
        pytest.skip("MNEMIC_KVPRESS names no interpreter that has kvpress")
    llama().save_pretrained(tmp_path / "model")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    prompt, answer = text(1, 120)[0].tolist(), text(1, 20, seed=2)[0].tolist()
    items = [Item(family="f", name="a", prompt=prompt, answer=answer)]
    write_items(items, tmp_path / "items.json")
    peer = run_kvpress(Path(python), model, items, tmp_path, [0.5, 0.25])
    assert "differ by at most" in peer.notes[0]
    assert len({row["policy"] for row in peer.rows}) >= 15
    assert all(row["kl"] > 0 for row in peer.rows)


def test_a_simulation_holds_what_a_cache_holds() -> None:
    """On one head: the slots a policy keeps of given rows are those it keeps in a model with those rows."""
    model, ids = llama(layers=1, heads=2, kv=1), text(1, 90)
    attention = attention_rows(model, ids)
    for policy in (
        StreamingLLM(budget=24, window=8, protect_prompt=False),
        LazyEviction(budget=24, window=8, alpha=0.05, protect_prompt=False),
    ):
        mass = retained(policy, attention, prompt=40)
        assert mass.shape == (2, 50)
        assert ((mass > 0) & (mass <= 1 + 1e-5)).all()
    whole = retained(StreamingLLM(budget=500, window=8, protect_prompt=False), attention, prompt=40)
    assert torch.allclose(whole, torch.ones_like(whole), atol=1e-5)


def test_synthetic_attention_is_as_described() -> None:
    plan = conditions(0, phase=True)
    assert sum(token < 64 for token in plan) == 40
    assert sum(token >= 64 for token in plan) == 40
    for step, row in zip(range(1, 200), rows(plan, "irregular"), strict=False):
        assert len(row) == 64 + step
        assert abs(float(row.sum()) - 1) < 0.1
        assert all(row[token] >= 0.02 for token in looks(plan, step))


@pytest.mark.slow
def test_the_gated_score_holds_what_comes_back_and_the_published_one_does_not() -> None:
    lazy = {"budget": BUDGET, "window": WINDOW, "alpha": 5e-3, "protect_prompt": False}
    gated = score(LazyEviction(**lazy), 0, "burst", phase=False)
    code = score(LazyEviction(**lazy, score="code"), 0, "burst", phase=False)
    assert gated["all"] >= 0.9
    assert code["all"] <= 0.15
    assert gated["peak"] == BUDGET + WINDOW


def test_heads_and_speed_run_on_any_model() -> None:
    model = llama()
    prompts = {
        "one": [text(1, 90, seed=s)[0].tolist() for s in (1, 2)],
        "two": [text(1, 90, seed=3)[0].tolist()] * 2,
    }
    found = task_dependence(model, prompts)
    assert len(found["layers"]) == 3
    assert 0 <= found["between"] <= 1
    assert len(found["how often full"][0]) == 6
    ran: list[str] = []
    rates = decode(model, [300], steps=2, rounds=2, report=ran.append, vocabulary=99)
    assert all(len(cells["tokens_per_s"]) == 2 for cells in rates["300"].values())
    assert rates["300"]["snapkv"]["mb"][0] < rates["300"]["stock"]["mb"][0]


def test_pictures_hold_their_numbers() -> None:
    picture = lines_svg([Line(name="a<b", points=[(0, 1), (2, 3)])], x="bytes", y="loss")
    assert "a&lt;b" in picture
    assert picture.count("<circle") == 2
    assert map_svg([[0.0, 1.0], [0.5, 0.5]], x="head", y="layer").count("<title>") == 4
