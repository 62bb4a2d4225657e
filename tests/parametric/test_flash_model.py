"""A whole model with its feed-forward weights on disk, and a table on disk that is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from language_models import needs_torch, tiny_llama
from mnemic.cube.errors import BudgetTooSmall, InvalidFile, InvalidInput, InvalidOption, UnsupportedModel

pytestmark = needs_torch
PROMPT = "The code of Ida is"


def relu_model() -> Any:
    return tiny_llama(hidden_act="relu", intermediate_size=512)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model packed with predictors that name every neuron."""
    import torch

    from mnemic.parametric.flash_mlp import LowRank
    from mnemic.parametric.flash_model import pack_model

    folder = tmp_path_factory.mktemp("flash")
    predictors = {n: LowRank(32, 512, rank=2) for n in range(4)}
    for one in predictors.values():
        torch.nn.init.constant_(one.up.bias, 100.0)
    pack_model(relu_model(), folder, predictors=predictors)
    return folder


def least(folder: Path) -> int:
    from mnemic.parametric.flash_model import FlashModel

    with pytest.raises(BudgetTooSmall, match="at least, of which weights") as refused:
        FlashModel.open(folder, budget=1000, tokens=64)
    return int(str(refused.value).split(": ")[1].split(" at least")[0].replace(",", ""))


def test_it_says_what_the_model_in_memory_says_within_any_budget(packed: Path) -> None:
    import torch

    from mnemic.bench.flash.whole import watched
    from mnemic.parametric.flash_mlp import Recorded, pack_bits
    from mnemic.parametric.flash_model import FlashModel

    local = relu_model()
    ids = local.encode(PROMPT)
    with watched(local.model) as seen:
        said = list(local.answer_tokens(ids, max_tokens=12))
    trace = [pack_bits(torch.cat([fired for _, fired in one])) for one in seen]
    smallest = least(packed)
    weights = 4 * 3 * 512 * 32 * 4
    read = []
    for budget in (smallest, smallest + 100_000, smallest + 2_000_000):
        for predictor in (None, lambda layer: Recorded(trace[layer], 512)):
            with FlashModel.open(packed, budget=budget, tokens=64, predictor=predictor) as flash:
                assert list(flash.local.answer_tokens(ids, max_tokens=12)) == said
                assert flash.held.total <= budget
                assert flash.local.context_tokens == 64
                read.append(flash.traffic.bytes_read)
                assert flash.traffic.bytes_read == flash.traffic.asked * 384 - flash.traffic.hits * 384
    assert smallest < weights
    assert read[1] < read[0]  # what fires is less than everything
    assert read[4] <= weights < read[0]  # with room for all, each neuron is read once


def test_direct_reads_and_threads_give_the_same(packed: Path) -> None:
    from mnemic.parametric.flash_model import FlashModel

    ids = relu_model().encode(PROMPT)
    said = list(relu_model().answer_tokens(ids, max_tokens=6))
    with FlashModel.open(packed, budget=3_000_000, tokens=64, uncached=True, threads=3) as flash:
        assert flash.cold_by in ("O_DIRECT", "DONTNEED")
        assert list(flash.local.answer_tokens(ids, max_tokens=6)) == said
        assert flash.held.total <= 3_000_000


def test_what_cannot_be_packed_or_opened_is_refused(packed: Path, tmp_path: Path) -> None:
    from mnemic.parametric.flash_model import MANIFEST, FlashModel, pack_model, remove

    with pytest.raises(UnsupportedModel, match="'silu'"):
        pack_model(tiny_llama(), tmp_path / "silu")
    with pytest.raises(InvalidOption, match="all 4 layers"):
        pack_model(relu_model(), tmp_path / "some", predictors={})
    pack_model(relu_model(), tmp_path / "none")
    with pytest.raises(InvalidOption, match="packed without predictors"):
        FlashModel.open(tmp_path / "none", budget=3_000_000)
    with pytest.raises(InvalidFile, match="no whole model"):
        FlashModel.open(tmp_path, budget=3_000_000)
    for name, options in (("tokens", {"tokens": 0}), ("window", {"window": 0}), ("piece", {"piece": 0})):
        with pytest.raises(InvalidOption, match=name):
            FlashModel.open(packed, budget=3_000_000, **options)
    broken = tmp_path / "broken"
    shutil.copytree(packed, broken)
    content = (broken / "layer-001.rows").read_bytes()
    (broken / "layer-001.rows").write_bytes(content[:-1])
    with pytest.raises(InvalidFile, match="and it has"):
        FlashModel.open(broken, budget=3_000_000)
    (broken / "layer-001.rows").write_bytes(content)
    (broken / "resident.safetensors").write_bytes((packed / "resident.safetensors").read_bytes()[:-9])
    with pytest.raises(InvalidFile, match="not a sound file"):
        FlashModel.open(broken, budget=3_000_000)
    told = json.loads((broken / MANIFEST).read_text())
    (broken / MANIFEST).write_text(json.dumps({**told, "format": "other"}))
    with pytest.raises(InvalidFile, match="format"):
        FlashModel.open(broken, budget=3_000_000)
    with pytest.raises(InvalidFile):
        remove(tmp_path)
    remove(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_longer_conversation_than_there_is_room_for_is_refused(packed: Path) -> None:
    from mnemic.cube.errors import ModelError
    from mnemic.parametric.flash_model import FlashModel

    with FlashModel.open(packed, budget=3_000_000, tokens=40) as flash:
        with pytest.raises(ModelError, match="reads 40"):
            flash.local.complete([{"role": "user", "content": "word " * 60}])
        ids = flash.local.encode(PROMPT)
        assert len(list(flash.local.answer_tokens(ids, max_tokens=100))) <= 40 - len(ids)


def test_bits_come_back_and_a_record_ends() -> None:
    import torch

    from mnemic.parametric.flash_mlp import Recorded, pack_bits, unpack_bits

    active = torch.rand(5, 19, generator=torch.Generator().manual_seed(0)) > 0.5
    bits = pack_bits(active)
    assert bits.shape == (5, 3)
    assert torch.equal(unpack_bits(bits, 19), active)
    record = Recorded(bits, 19)
    x = torch.zeros(3, 4)
    assert torch.equal(record(x), active[:3])
    with pytest.raises(InvalidInput, match="of 5 tokens, and 6"):
        record(x)


# --- rows in pieces, and rows that learn


def test_pieces_are_one_read_of_the_window(tmp_path: Path) -> None:
    import torch

    from mnemic.parametric.disk_rows import DiskRows, pack_rows

    rows = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    pack_rows(tmp_path / "rows", iter([rows]), shape=(60, 8), dtype="float32")
    draw = torch.Generator().manual_seed(1)
    for budget in (60 * (32 + 24) + 600, 14 * (32 + 24) + 600):  # for all rows, and for fourteen
        with (
            DiskRows(tmp_path / "rows", budget=budget, window=2) as whole,
            DiskRows(tmp_path / "rows", budget=budget, window=2) as pieces,
        ):
            for _ in range(30):
                ids = torch.randint(0, 60, (9,), generator=draw)
                whole.get(ids)
                got = list(pieces.pieces(ids, 4))
                assert all(len(one) <= 4 for one, _ in got)
                found = torch.cat([one for one, _ in got])
                assert torch.equal(found, ids.unique())
                assert torch.equal(torch.cat([some for _, some in got]), rows[found])
                assert pieces.resident == whole.resident
            assert pieces.traffic.bytes_read == whole.traffic.bytes_read
            pieces.forget()
            assert pieces.resident == []
            assert torch.equal(pieces.get(torch.tensor([5])), rows[5:6])


@pytest.mark.parametrize("rowwise", [False, True])
def test_a_table_on_disk_trains_as_one_in_memory(tmp_path: Path, rowwise: bool) -> None:
    """The same rows, also where a row is read twice in a step (its gradients are added), and after a stop."""
    import torch

    from mnemic.layers.rows import MemoryRows, RowTable
    from mnemic.parametric.disk_rows import DiskRows, pack_rows
    from mnemic.parametric.row_training import DiskAdam, LearningRows
    from mnemic.training.row_adam import RowAdam

    torch.manual_seed(0)
    held = MemoryRows(50, 6)
    start = held.weight.detach().clone()
    pack_rows(tmp_path / "rows", iter([start]), shape=(50, 6), dtype="float32")
    options: dict[str, Any] = {"lr": 0.05, "weight_decay": 0.1, "rowwise": rowwise}
    adam = RowAdam([held.weight], **options)
    draw = torch.Generator().manual_seed(1)
    batches = [torch.randint(0, 50, (2, 4, 3), generator=draw) for _ in range(8)]
    goal = torch.randn(3, 6, generator=draw)

    def loss(table: RowTable, ids: Any) -> Any:
        one, other = ids
        return (table.get(one) - goal).square().sum() + (table.get(other) * goal).sum()

    for ids in batches:
        adam.zero_grad()
        loss(held, ids).backward()
        adam.step()
    for part in (batches[:5], batches[5:]):  # closed and opened between
        with DiskRows(tmp_path / "rows", budget=12 * (24 + 40) + 500, writable=True) as table:
            learning = LearningRows(table)
            assert isinstance(learning, RowTable)
            disk = DiskAdam(learning, tmp_path / "moments", budget=4000, **options)
            for ids in part:
                value = loss(learning, ids)
                disk.zero_grad()
                value.backward()
                assert disk.step() == len(ids.unique())
            assert disk.step() == 0
            with torch.no_grad():
                assert not learning.get(torch.tensor([1])).requires_grad
            disk.close()
    with DiskRows(tmp_path / "rows", budget=4000, writable=True) as table:
        trained = table.get(torch.arange(50))
        assert torch.allclose(trained, held.weight.detach(), atol=1e-6)
        assert not torch.allclose(trained, start, atol=1e-2)
        learning = LearningRows(table)
        with pytest.raises(InvalidInput, match="holds the moments of"):
            DiskAdam(learning, tmp_path / "moments", budget=9000, lr=0.1, rowwise=not rowwise)
        with pytest.raises(InvalidOption):
            DiskAdam(learning, tmp_path / "other", budget=9000, lr=0.0)
        disk = DiskAdam(learning, tmp_path / "moments", budget=4000, **options)
        (learning.get(torch.tensor([3])) * float("nan")).sum().backward()
        with pytest.raises(InvalidInput, match="no finite number"):
            disk.step()
        assert torch.equal(table.get(torch.tensor([3])), trained[3:4])
        disk.close()
