"""Weights on flash: the paper's cost model, a table of rows within a budget, and the sparse feed-forward "
"part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from language_models import needs_torch
from mnemic.cube.errors import InvalidFile, InvalidInput, InvalidOption, VaultBusy

pytestmark = needs_torch


# --- what it costs


@pytest.mark.parametrize(
    ("gb", "speed", "published"),
    [(13.4, 6.10, 2196), (6.7, 6.10, 1090), (0.9, 1.25, 738), (0.2, 2.25, 87), (0.2, 1.25, 164)],
)
def test_the_published_rows_come_out(gb: float, speed: float, published: float) -> None:
    """Table 2 of the paper; its own bytes are rounded to a tenth of a GB."""
    from mnemic.parametric.flash_cost import io_ms

    assert io_ms(gb, speed) == pytest.approx(published, rel=0.12)


def test_throughput_grows_with_the_piece_and_is_fitted_back() -> None:
    from mnemic.parametric.flash_cost import Throughput, fit

    true = Throughput(latency_s=1e-4, bandwidth=3e9)
    sizes = (4096, 32_768, 262_144, 1 << 20, 1 << 24)
    grid = {size: true.at(size) for size in sizes}
    assert list(grid.values()) == sorted(grid.values())
    found = fit(grid)
    assert found.latency_s == pytest.approx(1e-4, rel=1e-3)
    assert found.bandwidth == pytest.approx(3e9, rel=1e-3)
    assert found.seconds(10, 40_960) == pytest.approx(10 * 4096 / true.at(4096))
    for wrong in ({}, {4096: 1e9}):
        with pytest.raises(InvalidOption, match="two sizes"):
            fit(wrong)
    with pytest.raises(InvalidOption):
        Throughput(latency_s=-1, bandwidth=1)


def test_measuring_a_file_gives_a_rate_for_each_size(tmp_path: Path) -> None:
    from mnemic.parametric.flash_cost import measure

    path = tmp_path / "file"
    path.write_bytes(b"\1" * (1 << 20))
    grid = measure(path, (4096, 65_536), reads=8)
    assert set(grid) == {4096, 65_536}
    assert min(grid.values()) > 0
    with pytest.raises(InvalidOption, match="cannot be read in pieces"):
        measure(path, (1 << 21,))


def test_a_plan_takes_the_largest_window_that_fits_and_says_when_none_does() -> None:
    from mnemic.parametric.flash_cost import plan

    union = [100, 160, 200, 225, 240]
    options: dict[str, Any] = {"neuron_bytes": 1000, "always_bytes": 50_000}
    found = plan(union, budget=255_000, **options)
    assert (found.window, found.resident_bytes, found.bytes_per_token) == (3, 250_000, 25_000)
    assert not plan(union, budget=100_000, **options).fits
    assert plan(union, budget=10**9, **options).window == 4
    with pytest.raises(InvalidOption, match="none smaller"):
        plan([5, 4], budget=1, **options)


# --- rows on disk


@pytest.fixture
def rows() -> Any:
    import torch

    return torch.randn(40, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def path(tmp_path: Path, rows: Any) -> Path:
    from mnemic.parametric.disk_rows import pack_rows

    pack_rows(tmp_path / "table", iter([rows[:15], rows[15:]]), shape=(40, 8), dtype="float32")
    return tmp_path / "table"


def budget(capacity: int, count: int = 40, row: int = 32, window: int = 4) -> int:
    from mnemic.parametric.disk_rows import ROW_BYTES, slot_bytes

    return capacity * (row + slot_bytes(window)) + ROW_BYTES * count


def test_it_gives_what_a_table_in_memory_gives_within_its_budget(path: Path, rows: Any) -> None:
    import torch

    from mnemic.layers.rows import RowTable
    from mnemic.parametric.disk_rows import DiskRows

    draw = torch.Generator().manual_seed(1)
    for capacity, window in ((3, 4), (12, 2), (40, 4), (1, 1)):
        with DiskRows(path, budget=budget(capacity, window=window), window=window) as table:
            assert isinstance(table, RowTable)
            assert (table.shape, table.dtype, table.row_bytes) == ((40, 8), torch.float32, 32)
            place = table._rows.data_ptr()
            asked: list[set[int]] = []
            for _ in range(60):
                ids = torch.randint(0, 40, (2, 3), generator=draw)
                assert torch.equal(table.get(ids), rows[ids])
                asked.append(set(ids.flatten().tolist()))
                assert len(table.resident) <= capacity
                union = set().union(*asked[-window:])
                assert set(table.resident) <= union
                if len(union) <= capacity:
                    assert set(table.resident) == union
                assert all(
                    torch.equal(table._rows[int(table._places[id])], rows[id]) for id in table.resident
                )
            assert table._rows.data_ptr() == place  # allocated once
            assert table.resident_bytes <= budget(capacity, window=window)
            traffic = table.traffic
            assert traffic.bytes_read == 32 * (traffic.asked - traffic.hits)
            assert traffic.asked == sum(map(len, asked))


def test_a_window_reads_only_what_the_last_tokens_did_not(path: Path) -> None:
    import torch

    from mnemic.parametric.disk_rows import DiskRows

    with DiskRows(path, budget=budget(40, window=2), window=2) as table:
        for ids, fresh, reads in (([1, 2, 3, 7], 4, 2), ([2, 3], 0, 0), ([4, 2], 1, 1), ([1], 1, 1)):
            before = table.traffic
            table.get(torch.tensor(ids))
            assert table.traffic.bytes_read - before.bytes_read == 32 * fresh
            assert table.traffic.reads - before.reads == reads
        assert table.resident == [1, 2, 4]
        assert table.traffic.hit_rate == 3 / 9
        assert table.get(torch.empty(0, dtype=torch.int64)).shape == (0, 8)


def test_rows_are_replaced_on_disk_and_in_memory_and_nothing_else_is(path: Path, rows: Any) -> None:
    import torch

    from mnemic.parametric.disk_rows import DiskRows

    with DiskRows(path, budget=budget(10), writable=True) as table:
        given = table.get(torch.tensor([3, 4]))
        table.put(torch.tensor([4, 30]), torch.ones(2, 8))
        assert torch.equal(given, rows[3:5])  # what was given stays
        assert torch.equal(table.get(torch.tensor([3, 4, 30])), torch.stack([rows[3], *torch.ones(2, 8)]))
        with pytest.raises(InvalidInput):
            table.put(torch.tensor([1, 1]), torch.ones(2, 8))
        with pytest.raises(InvalidInput, match="shape"):
            table.put(torch.tensor([1]), torch.ones(1, 7))
        with pytest.raises(VaultBusy, match="being written"):
            DiskRows(path, budget=budget(10))
    with DiskRows(path, budget=budget(10)) as table, DiskRows(path, budget=budget(10)) as other:
        assert torch.equal(table.get(torch.tensor([30]))[0], torch.ones(8))
        assert torch.equal(other.get(torch.arange(5, 30)), rows[5:30])
        with pytest.raises(InvalidOption, match="writable=True"):
            table.put(torch.tensor([1]), torch.ones(1, 8))
        with pytest.raises(VaultBusy, match="in use"):
            DiskRows(path, budget=budget(10), writable=True)
        for ids in ([40], [-1]):
            with pytest.raises(InvalidInput):
                table.get(torch.tensor(ids))


def test_files_that_are_cut_or_damaged_are_refused_and_leave_the_table_as_it_was(
    path: Path, rows: Any
) -> None:
    import torch

    from mnemic.parametric.disk_rows import DiskRows, pack_rows

    content = path.read_bytes()
    for damaged, why in (
        (content[:-1], "and it has"), (b"{}".ljust(4096), "header"), (b"", "header"),
        (content.replace(b"mnemic-rows-1", b"mnemic-rows-9"), "format"),
    ):  # fmt: skip
        path.write_bytes(damaged)
        with pytest.raises(InvalidFile, match=why):
            DiskRows(path, budget=budget(4))
    at = 4096 + 20 * 32 + 5
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with DiskRows(path, budget=budget(8)) as table:
        table.get(torch.tensor([1, 2]))
        before = (table.resident, table.traffic)
        with pytest.raises(InvalidFile, match="row 20 does not match"):
            table.get(torch.tensor([3, 20]))
        assert (table.resident, table.traffic) == before
        assert torch.equal(table.get(torch.tensor([3, 1])), rows[[3, 1]])
    with pytest.raises(InvalidOption, match="at least"):
        DiskRows(path, budget=100)
    for pieces in ([rows[:3]], [rows, rows], [rows[:, :4]]):
        with pytest.raises(InvalidInput):
            pack_rows(path.with_name("other"), iter(pieces), shape=(40, 8), dtype="float32")
        assert sorted(one.name for one in path.parent.iterdir()) == ["table"]
    with pytest.raises(InvalidOption, match="dtype"):
        pack_rows(path, iter([rows]), shape=(40, 8), dtype="int4")


def test_a_memory_layer_reads_its_values_from_disk(tmp_path: Path) -> None:
    """UltraMem's layer gives the same output whether its table lies in memory or, far larger than what is
    allowed, on disk.
    """
    import torch

    from mnemic.layers.ultramem import UltraMem, UltraMemOptions
    from mnemic.parametric.disk_rows import DiskRows, pack_rows

    torch.manual_seed(0)
    options = UltraMemOptions(dim=256, keys=16)
    held = UltraMem(options).eval()
    table = held.values.get(torch.arange(held.values.shape[0])).detach()
    pack_rows(tmp_path / "values", iter(table.split(50)), shape=held.values.shape, dtype="float32")
    small = budget(len(table) // 4, len(table), table.shape[1] * 4)
    with DiskRows(tmp_path / "values", budget=small) as disk:
        torch.manual_seed(0)
        other = UltraMem(options, values=disk).eval()
        weights = {name: one for name, one in held.state_dict().items() if not name.startswith("values.")}
        other.load_state_dict(weights)
        x = torch.randn(2, 2, 256)
        with torch.no_grad():
            assert torch.allclose(other(x)[0], held(x)[0], atol=1e-6)
        assert disk.traffic.bytes_read > 0
        assert disk.resident_bytes <= small < table.numel() * 4


# --- the feed-forward part


def correlated(count: int, width: int, rho: float = 0.9) -> Any:
    import torch

    draw = torch.Generator().manual_seed(0)
    x = torch.randn(width, generator=draw)
    out = []
    for _ in range(count):
        x = rho * x + (1 - rho**2) ** 0.5 * torch.randn(width, generator=draw)
        out.append(x)
    return torch.stack(out)


def test_it_is_exact_with_an_oracle_and_reads_only_new_neurons(tmp_path: Path) -> None:
    """Experiment A of the specification: d = 256, f = 2048, 200 tokens, window 4."""
    import torch

    from mnemic.parametric.disk_rows import DiskRows
    from mnemic.parametric.flash_mlp import FlashMLP, Oracle, pack_mlp

    width, neurons, window = 256, 2048, 4
    draw = torch.Generator().manual_seed(1)
    up = torch.randn(neurons, width, generator=draw) / width**0.5
    down = torch.randn(width, neurons, generator=draw) / neurons**0.5
    bias = torch.full((neurons,), -1.5)
    pack_mlp(tmp_path / "mlp", up, down)
    union = budget(neurons, neurons, 2 * width * 4, window)
    with DiskRows(tmp_path / "mlp", budget=union, window=window) as table:
        layer = FlashMLP(table, Oracle(up, bias), bias)
        before, active = 0, []
        for x in correlated(200, width):
            wanted = torch.relu(x @ up.T + bias) @ down.T
            assert (layer(x[None])[0] - wanted).abs().max() < 1e-4
            active.append(set((x @ up.T + bias > 0).nonzero()[:, 0].tolist()))
            kept = set().union(*active[-window:])
            assert set(table.resident) == kept
            fresh = active[-1] - set().union(*active[-window - 1 : -1])
            assert table.traffic.bytes_read - before == len(fresh) * 2 * width * 4
            before = table.traffic.bytes_read
        share = sum(map(len, active)) / 200 / neurons
        assert 0.02 < share < 0.2
        naive = 200 * neurons * 2 * width * 4
        assert naive / table.traffic.bytes_read > 1 / share  # the window reads less than the predictor alone
        assert torch.equal(layer(correlated(3, width)), layer(correlated(3, width)))


def test_bundles_halve_the_reads(tmp_path: Path) -> None:
    import torch

    from mnemic.parametric.disk_rows import DiskRows, pack_rows
    from mnemic.parametric.flash_mlp import pack_mlp

    up, down = torch.randn(64, 16), torch.randn(16, 64)
    pack_mlp(tmp_path / "bundled", up, down)
    for name, part in (("up", up), ("down", down.T.contiguous())):
        pack_rows(tmp_path / name, iter([part]), shape=(64, 16), dtype="float32")
    ids = torch.arange(0, 64, 5)
    reads, size = {}, {}
    for name in ("bundled", "up", "down"):
        with DiskRows(tmp_path / name, budget=1 << 20) as table:
            table.get(ids)
            reads[name], size[name] = table.traffic.reads, table.traffic.bytes_read
    assert reads["bundled"] == len(ids) == 0.5 * (reads["up"] + reads["down"])
    assert size["bundled"] == size["up"] + size["down"]
    with pytest.raises(InvalidInput, match="not"):
        pack_mlp(tmp_path / "odd", up, down.T)


def test_a_learned_predictor_finds_most_of_what_fires(tmp_path: Path) -> None:
    import torch

    from mnemic.parametric.disk_rows import DiskRows
    from mnemic.parametric.flash_mlp import FlashMLP, LowRank, Oracle, pack_mlp, train_predictor

    width, neurons = 32, 256
    draw = torch.Generator().manual_seed(2)
    up = torch.randn(neurons, 8, generator=draw) @ torch.randn(8, width, generator=draw) / 8  # of rank 8
    down = torch.randn(width, neurons, generator=draw) / 16
    bias = torch.full((neurons,), -1.0)
    x = torch.randn(1500, width, generator=draw)
    fires = Oracle(up, bias)(x)
    torch.manual_seed(0)
    predictor = LowRank(width, neurons, rank=16)
    train_predictor(predictor, x[:1200], fires[:1200], epochs=20, learning_rate=5e-3)
    with torch.no_grad():
        found = predictor(x[1200:])
    told = fires[1200:]
    assert (found & told).sum() / told.sum() > 0.9
    assert found.float().mean() < 0.6
    assert predictor.nbytes < up.numel() * 4
    pack_mlp(tmp_path / "mlp", up, down)
    with DiskRows(tmp_path / "mlp", budget=1 << 20) as table, torch.no_grad():
        got = FlashMLP(table, predictor, bias)(x[1200:])
        wanted = torch.relu(x[1200:] @ up.T + bias) @ down.T
        assert (got - wanted).norm() / wanted.norm() < 0.3  # what it misses is close to zero


@pytest.mark.skipif(sys.platform != "linux", reason="limits a process's memory as Linux does")
def test_a_table_larger_than_the_memory_of_its_process_is_served(tmp_path: Path) -> None:
    """192 MB of rows in a process that may map 64 MB more than it has after its imports."""
    import torch

    from mnemic.parametric.disk_rows import pack_rows

    count, width = 48_000, 1024
    pieces = (torch.full((1000, width), float(n)) for n in range(count // 1000))
    pack_rows(tmp_path / "big", pieces, shape=(count, width), dtype="float32")
    program = f"""
import resource, torch
from mnemic.parametric.disk_rows import DiskRows
torch.zeros(2).sum()
mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + (64 << 20),) * 2)
with DiskRows({str(tmp_path / "big")!r}, budget=16 << 20) as table:
    for start in range(0, {count}, 1000):
        rows = table.get(torch.arange(start, start + 1000, 7))
        assert rows.unique().tolist() == [start / 1000], rows
    print(table.traffic.bytes_read, table.resident_bytes)
    try:
        torch.empty({count}, {width})
        print("the whole table fits: the limit does not hold")
    except RuntimeError:
        print("bounded")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    read, resident, said = done.stdout.split()
    assert int(read) == 48 * 143 * width * 4
    assert int(resident) <= 16 << 20
    assert said == "bounded"
