"""Product keys and UltraMemV2: what the search finds, what a table is, how it begins, what is read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mnemic.cube.errors import InvalidInput, InvalidOption
from mnemic.layers.product_keys import Peer, PeerOptions, ProductKeyOptions, ProductKeys, best_sums
from mnemic.layers.rows import MemoryRows
from mnemic.layers.slots import SlotMemory, SlotTable, highest, specific_slots, usage_of
from mnemic.layers.table import make
from mnemic.layers.ultramem import UltraMem, UltraMemOptions


def ultramem(seed: int = 0, **options: Any) -> UltraMem:
    torch.manual_seed(seed)
    return UltraMem(UltraMemOptions.read({"dim": 32, "keys": 16, "topm": 4, **options})).double()


def inputs(count: int, dim: int = 32, seed: int = 1) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# searching


@pytest.mark.parametrize("m", [1, 8, 32])
def test_product_keys_find_what_scoring_all_slots_finds(m: int) -> None:
    rows, columns = torch.randn(2, 1000, 64, generator=torch.Generator().manual_seed(m), dtype=torch.float64)
    found, sums = best_sums(rows, columns, m)
    everything = (rows.unsqueeze(-1) + columns.unsqueeze(-2)).flatten(1)
    expected = everything.topk(m)
    assert torch.equal(found.sort(-1).values, expected.indices.sort(-1).values)
    torch.testing.assert_close(sums, expected.values, atol=0, rtol=0)


def dense_scores(layer: UltraMem, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of all virtual slots, and which of them lie in the quadrant where both projections are positive."""
    rows, columns = layer._axis_scores(x)
    u, v = layer._directions()
    scores = torch.einsum("tai,kab,tbj->tij", rows, layer.core, columns)
    return scores, ((u @ rows) > 0).unsqueeze(2) & ((v @ columns) > 0).unsqueeze(1)


def recall(layer: UltraMem, x: Tensor, *, everywhere: bool = False) -> float:
    """Share of the best slots, of the positive quadrant or of all, that the search finds."""
    m, axis = layer.options.topm, layer.options.axis
    scores, quadrant = dense_scores(layer, x)
    wanted = scores.masked_fill(~quadrant, -torch.inf) if not everywhere else scores
    best = torch.zeros_like(scores.flatten(1)).scatter(1, wanted.flatten(1).topk(m).indices, 1.0)
    found = torch.zeros_like(best).scatter(1, layer._search(x)[0], 1.0)
    assert found.sum(1).eq(m).all()
    assert axis**2 == found.shape[1]
    return float((best * found).sum() / best.sum())


@torch.no_grad()
def test_with_a_core_of_rank_one_the_search_is_exact_on_the_positive_quadrant() -> None:
    layer, x = ultramem(keys=64, topm=16), inputs(400)
    u, v = (torch.rand(2, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (0, 1))
    layer.core.copy_(torch.outer(u, v).unsqueeze(0))
    assert recall(layer, x) == 1.0
    # a product of two negative projections is large as well; those slots are left out, by design
    assert 0.4 < recall(layer, x, everywhere=True) < 0.6


@torch.no_grad()
def test_with_random_cores_the_search_finds_nearly_all_of_the_positive_quadrant() -> None:
    found = [recall(ultramem(seed, keys=64, topm=16), inputs(200, seed=seed)) for seed in range(10)]
    assert sum(found) / 10 >= 0.99  # the worst of them 0.93: its singular values lie near each other
    layer = ultramem(keys=64, topm=16)
    layer.core.copy_(torch.eye(2).unsqueeze(0))  # equal singular values: the leading direction is arbitrary
    assert 0.5 < recall(layer, inputs(300)) < 0.95


@torch.no_grad()
def test_the_leading_direction_keeps_its_sign_while_the_core_moves() -> None:
    layer, x = ultramem().train(), inputs(3)
    layer.core.copy_(torch.tensor([[[0.9, 0.2], [0.1, 0.3]]]))
    layer.direction.copy_(torch.stack(layer._leading(torch.ones(2, 2))))
    before = layer.direction.clone()
    for step in range(20):  # to where the sum of u and v is below 0, in steps that keep it near
        angle = torch.tensor(0.15 * step, dtype=torch.float64)
        turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
        layer.core.copy_((turn @ torch.tensor([[0.9, 0.2], [0.1, 0.3]], dtype=torch.float64)).unsqueeze(0))
        layer(x.unsqueeze(0))
        assert float((layer.direction * before).sum(1).min()) > 0.9
        before = layer.direction.clone()
    assert float(before[0].sum()) < 0
    layer.eval()
    layer.core.mul_(-1)
    layer(x.unsqueeze(0))
    assert torch.equal(layer.direction, before)  # moved in training alone


def test_doubling_the_keys_does_not_quadruple_what_the_search_does() -> None:
    """Counted: the largest tensor made on the way grows with n, that of the dense form with n²."""
    sizes: dict[str, list[int]] = {"read": [], "read_dense": []}
    for keys in (64, 128):
        layer, x = ultramem(keys=keys, topm=4), inputs(8)
        for form, found in sizes.items():
            with Largest() as largest, torch.no_grad():
                getattr(layer, form)(x)
            found.append(largest.numel)
    assert sizes["read"][1] <= 2 * sizes["read"][0]
    assert sizes["read_dense"][1] == 4 * sizes["read_dense"][0]


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """The largest tensor any operation returns, views of parameters aside."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, tuple) else (out,):
            if isinstance(one, Tensor) and one.dim() > 1 and one.shape[0] == 8:  # of the tokens
                self.numel = max(self.numel, one.numel())
        return out


# the table


def test_one_output_map_over_values_equals_a_table_of_mapped_values() -> None:
    """Simplified value expansion: Wₒ after the sum is a virtual table whose rows are as wide as the model."""
    layer, x = ultramem(pre_dim=0, value_dim=6), inputs(20)
    slots, weights = layer.lookup(x)
    virtual = layer.values.get(torch.arange(256)) @ layer.out.weight.T  # (slots, dim)
    expected = (weights.unsqueeze(-1) * virtual[slots]).sum(1)
    torch.testing.assert_close(layer.read(x), expected, atol=1e-12, rtol=1e-12)


def test_expanded_keys_are_a_larger_table_with_tied_rows() -> None:
    """`expand` 2: four virtual slots a row, and equal to a layer of twice the keys whose table repeats."""
    small = ultramem(expand=2)
    assert small.slot_of.bincount().tolist() == [4] * 256
    large = ultramem(keys=32)
    with torch.no_grad():
        for name, tensor in small.named_parameters():
            if name != "values.weight":
                large.get_parameter(name).copy_(tensor)
        large.direction.copy_(small.direction)
        large.values.put(large.slot_of.long(), small.values.get(small.slot_of.long()))
    x = inputs(50)
    torch.testing.assert_close(small.read(x), large.read(x), atol=1e-12, rtol=1e-12)
    assert small.values.shape[0] * 4 == large.values.shape[0]


def test_the_highest_are_those_that_sorting_finds() -> None:
    scores = torch.randn(50, 3, 40, generator=torch.Generator().manual_seed(1))
    for count in (1, 7, 40):
        assert torch.equal(highest(scores, count).sort(-1).values, scores.topk(count).indices.sort(-1).values)


def test_two_cores_weigh_the_halves_of_a_value_apart() -> None:
    layer, x = ultramem(cores=2, pre_dim=0, value_dim=8), inputs(30)
    virtual, scores = layer._search(x)
    rows = layer.values.get(layer.slot_of[virtual].long())
    halves = [(scores[:, k].unsqueeze(-1) * rows[..., 4 * k : 4 * k + 4]).sum(1) for k in (0, 1)]
    torch.testing.assert_close(layer.read(x), torch.cat(halves, 1) @ layer.out.weight.T)
    best_first = scores.sum(1).sort(-1, descending=True).values
    torch.testing.assert_close(layer.lookup(x)[1], best_first)


@pytest.mark.parametrize(
    "layer",
    [
        ultramem(), ultramem(pre_dim=0), ultramem(cores=2, expand=2),
        make("product-keys", dim=32, keys=16, topm=4, heads=2).double(),
        make("peer", dim=32, keys=16, topm=4, heads=2).double(),
    ],
    ids=["ultramem", "plain values", "two cores, expanded", "product-keys", "peer"],
)  # fmt: skip
def test_a_look_up_equals_the_masked_sum_over_the_whole_table_gradients_too(layer: SlotMemory) -> None:
    found = []
    for form in (layer.read, layer.read_dense):
        layer.zero_grad()
        x = inputs(40).requires_grad_()
        y = form(x)
        (y * inputs(40, seed=3)).sum().backward()
        gradients = {name: p.grad for name, p in layer.named_parameters()}
        dense = {n: g.to_dense() if g.is_sparse else g for n, g in gradients.items() if g is not None}
        assert dense.keys() == gradients.keys()
        found.append({"y": y.detach(), "x": x.grad, **dense})
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], atol=1e-10, rtol=1e-8, msg=name)


def test_the_gradient_of_the_table_holds_the_rows_that_were_read() -> None:
    layer, x = ultramem(), inputs(3)
    layer.read(x).sum().backward()
    assert isinstance(layer.values, MemoryRows)
    gradient = layer.values.weight.grad
    assert gradient is not None
    assert gradient.is_sparse
    assert torch.equal(gradient.coalesce().indices()[0], layer.touched_slots(x))


class HalfOnDisk:
    """A table of another kind: float16 where it lies, counted reads. What `values` takes by protocol."""

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.bytes_read = rows.half(), 0

    shape = property(lambda self: tuple(self.rows.shape))
    dtype = torch.float32
    row_bytes = property(lambda self: self.rows.shape[1] * 2)

    def get(self, ids: Tensor) -> Tensor:
        self.bytes_read += ids.numel() * self.row_bytes
        return self.rows[ids].float()

    def put(self, ids: Tensor, rows: Tensor) -> None:
        self.rows[ids] = rows.half()


def test_the_table_may_lie_elsewhere_and_says_what_a_token_reads() -> None:
    layer = ultramem().float()
    there = HalfOnDisk(layer.values.get(torch.arange(256)).detach())
    moved = UltraMem(layer.options, values=there)
    moved.load_state_dict({n: t for n, t in layer.state_dict().items() if n != "values.weight"})
    x = inputs(9).float()
    torch.testing.assert_close(moved.read(x), layer.read(x), atol=1e-3, rtol=1e-2)
    assert moved.bytes_per_token() == 4 * 16 * 2  # four rows of 4 + 12 halves
    assert there.bytes_read == 9 * moved.bytes_per_token()
    assert moved.idle_parameters() == 0
    assert isinstance(moved, SlotTable)
    with pytest.raises(InvalidOption, match="256 rows of 16"):
        UltraMem(layer.options, values=MemoryRows(255, 16))


# beginning


@pytest.mark.parametrize(("keys", "topm"), [(64, 16), (64, 64), (128, 32)])
@torch.no_grad()
def test_the_memory_begins_with_the_variance_of_the_mlp(keys: int, topm: int) -> None:
    torch.manual_seed(keys + topm)
    options = UltraMemOptions(dim=128, keys=keys, topm=topm, blocks=4, mlp_ratio=3.0)
    layer = UltraMem(options)
    mean, deviation = layer.score_statistics()
    assert mean == pytest.approx(1, abs=1e-3)
    assert 0.1 < deviation < 0.5
    x = torch.randn(4_000, 128, generator=torch.Generator().manual_seed(9))
    wanted = 0.064 * 3 / 8
    assert 0.5 <= float(layer.read(x).var()) / wanted <= 2
    layer.values.reset_parameters(std=options.value_deviation(deviation) ** 2)  # the square root
    assert float(layer.read(x).var()) / wanted < 1e-2


@torch.no_grad()
def test_plain_values_begin_with_that_variance_too() -> None:
    torch.manual_seed(0)
    layer = UltraMem(UltraMemOptions(dim=128, keys=64, topm=16, pre_dim=0, blocks=4))
    x = torch.randn(4_000, 128, generator=torch.Generator().manual_seed(9))
    assert 0.5 <= float(layer.read(x).var()) / (0.064 * 3 / 8) <= 2


# which slots


def test_usage_says_how_many_slots_are_read_and_how_evenly() -> None:
    layer, x = ultramem(), inputs(500)
    counts = layer.slot_usage(x)
    assert int(counts.sum()) == 500 * 4
    assert torch.equal(counts.nonzero().flatten(), layer.touched_slots(x))
    usage = usage_of(counts)
    assert usage.used == layer.touched_slots(x).numel()
    assert usage.share == usage.used / 256
    assert not usage.collapsed
    assert usage_of(torch.full((16,), 3)).evenness == pytest.approx(1)
    dead = usage_of(torch.tensor([300, *[0] * 255]))
    assert dead.collapsed
    assert dead.evenness == 0


def test_specific_slots_are_those_the_new_data_reads_and_others_do_not() -> None:
    counts = torch.tensor([9, 3, 0, 1, 0, 0, 0, 0, 0, 0])
    background = torch.zeros(5, 10, dtype=torch.int64)
    background[:, 0] = 7  # read by every batch
    background[0, 3] = 1
    assert specific_slots(counts, background, share=0.2).tolist() == [1, 3]
    assert specific_slots(counts, background, share=1.0).tolist() == [1, 3, 0]  # never one it does not read
    with pytest.raises(InvalidInput, match="batches"):
        specific_slots(counts, background[0], share=0.2)
    with pytest.raises(InvalidOption, match="share"):
        specific_slots(counts, background, share=0.0)


# refusals


@pytest.mark.parametrize(
    "wrong",
    [
        {"keys": 1}, {"topm": 17}, {"topm": 0}, {"cores": 3}, {"cores": 2, "value_dim": 5}, {"rank": 0},
        {"pre_dim": -1}, {"expand": 0},
    ],
    ids=str,
)  # fmt: skip
def test_options_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        UltraMemOptions.read({"dim": 32, "keys": 16, "topm": 4, **wrong})


def test_a_table_larger_than_memory_is_refused_before_it_is_made() -> None:
    with pytest.raises(InvalidOption, match="GB"):
        ProductKeys(ProductKeyOptions(dim=1024, keys=100_000))


def test_weights_that_diverged_are_named() -> None:
    layer = ultramem()
    with torch.no_grad():
        layer.core.fill_(torch.nan)
    with pytest.raises(InvalidInput, match="diverged"):
        layer.read(inputs(2))
    product = Peer(PeerOptions(dim=32, keys=16, topm=4, heads=2))
    with torch.no_grad():
        product.keys.fill_(torch.inf)
    with pytest.raises(InvalidInput, match="diverged"):
        product.read(inputs(2).float())
