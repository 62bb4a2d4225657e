"""What is particular to HCAM; the laws of the protocol are in test_layer_laws.py."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mnemic.cube.errors import IncompatibleMemory, InvalidInput, InvalidOption
from mnemic.layers import hcam
from mnemic.layers.hcam import HCAM, HCAMState, places
from mnemic.layers.layer import Forgettable, Inspectable, Writable
from mnemic.layers.table import make

DIM, QUERIES, CHUNKS, CHUNK, TOPK, HEADS = 12, 9, 7, 5, 4, 3


def layer(seed: int = 0, **options: Any) -> HCAM:
    torch.manual_seed(seed)
    made = make("hcam", **{"dim": DIM, "heads": HEADS, "chunk": CHUNK, "topk": TOPK, **options})
    assert isinstance(made, HCAM)
    return made


def stream(time: int, *, batch: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(batch, time, DIM, generator=torch.Generator().manual_seed(seed))


def inside(made: HCAM, q: Tensor, chunk: Tensor) -> Tensor:
    """Attention of one query (dim,) within one chunk (chunk, dim), head by head, the loops written out."""
    place = [[0.0] * DIM for _ in range(len(chunk))]
    for i in range(len(chunk)):
        for j, f in enumerate(range(0, DIM, 2)):
            angle = (len(chunk) - 1 - i) * 10_000 ** (-f / DIM)
            place[i][j], place[i][DIM // 2 + j] = math.sin(angle), math.cos(angle)
    known = chunk + torch.tensor(place)
    heads = []
    for h in range(HEADS):
        part = slice(h * DIM // HEADS, (h + 1) * DIM // HEADS)
        query, keys = made.q.weight[part] @ q, known @ made.k.weight[part].T
        weights = torch.softmax(keys @ query / math.sqrt(DIM / HEADS), 0)
        heads.append(weights @ (known @ made.v.weight[part].T))
    return made.out.weight @ torch.cat(heads)


@torch.no_grad()
def test_recall_equals_a_loop_over_batch_query_and_chunk() -> None:
    made, q = layer(), stream(QUERIES, seed=2)
    state = made.write(made.init_state(2), stream(CHUNKS * CHUNK))
    found = made.recall(state, q)
    for row in range(2):
        for n in range(QUERIES):
            asked = made.ask.weight @ q[row, n]
            logits = torch.stack(
                [asked @ (made.answer.weight @ state.contents[row, m].mean(0)) for m in range(CHUNKS)]
            ) / math.sqrt(DIM)
            order = logits.argsort(descending=True)[:TOPK]
            weights = torch.softmax(logits[order], 0)
            expected = sum(
                w * inside(made, q[row, n], state.contents[row, m])
                for w, m in zip(weights, order, strict=True)
            )
            assert found.chunks[row, n].tolist() == order.tolist()
            torch.testing.assert_close(found.weights[row, n], weights, atol=1e-6, rtol=1e-5)
            assert isinstance(expected, Tensor)
            torch.testing.assert_close(found.output[row, n], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(2, QUERIES))
    torch.testing.assert_close(found.attention.sum(-1), torch.ones(2, QUERIES, TOPK, HEADS))


@torch.no_grad()
def test_all_chunks_of_equal_relevance_are_the_mean_of_their_attentions() -> None:
    made, q = layer(topk=CHUNKS), stream(QUERIES, seed=2)
    torch.nn.init.zeros_(made.ask.weight)
    state = made.write(made.init_state(2), stream(CHUNKS * CHUNK))
    mean = torch.stack([inside(made, q[0, 0], chunk) for chunk in state.contents[0]]).mean(0)
    torch.testing.assert_close(made.read(state, q)[0, 0], mean, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_masked_chunks_have_no_influence_and_too_few_chunks_are_not_filled_up() -> None:
    made, q = layer(), stream(QUERIES, seed=2)
    state = made.write(made.init_state(2), stream(CHUNKS * CHUNK))
    for allowed in ([1, 3, 4, 5, 6], [2, 5], [0], []):
        mask = torch.zeros(2, CHUNKS, dtype=torch.bool)
        mask[:, allowed] = True
        shaken = replace(
            state,
            contents=torch.where(mask[..., None, None], state.contents, state.contents + 1e6),
            summaries=torch.where(mask[..., None], state.summaries, state.summaries + 1e6),
        )
        found, again = made.recall(state, q, mask=mask), made.recall(shaken, q, mask=mask)
        assert torch.equal(found.output, again.output)
        assert torch.equal(found.weights, again.weights)
        used = min(TOPK, len(allowed))
        assert bool(((found.chunks >= 0).sum(-1) == used).all())
        assert set(found.chunks.flatten().tolist()) <= {*allowed, -1}
        torch.testing.assert_close(found.weights.sum(-1), torch.full((2, QUERIES), float(used > 0)))
        assert bool(found.empty.all()) is (not allowed)
        assert bool((found.output == 0).all()) is (not allowed)


@torch.no_grad()
def test_an_empty_memory_says_zero_and_that_it_is_empty() -> None:
    made, q = layer(), stream(3)
    found = made.recall(made.init_state(2), q)
    assert bool(found.empty.all())
    assert bool((found.output == 0).all())
    whole = layer(unfinished=False)
    y, state = whole(stream(CHUNK + 1))
    assert bool((y[:, :CHUNK] == 0).all())  # nothing whole to read yet
    assert bool((y[:, CHUNK] != 0).any())
    assert bool(whole.recall(whole.write(whole.init_state(2), q), q).empty.all())
    assert not bool(made.recall(made.write(made.init_state(2), q), q).empty.any())
    assert state.numbers.tolist() == [[0], [0]]


@pytest.mark.parametrize("topk", [1, 2])
def test_relevance_learns_from_two_chunks_on_and_nothing_reaches_what_is_stored(topk: int) -> None:
    made = layer(topk=topk)
    told = stream(CHUNKS * CHUNK + 2).requires_grad_()
    state = made.write(made.init_state(2), told)
    assert not any(t.requires_grad for t in state.tensors().values())
    watched = state.map(lambda t: t.clone().requires_grad_(t.is_floating_point()))
    made.read(watched, stream(QUERIES, seed=2)).square().sum().backward()
    for weights in (made.ask.weight, made.answer.weight):
        assert weights.grad is not None
        assert (float(weights.grad.abs().max()) > 1e-8) is (topk > 1)
    assert all(float(w.grad.abs().max()) > 1e-8 for w in (made.q.weight, made.k.weight, made.v.weight))  # type: ignore[union-attr]
    assert told.grad is None
    assert all(t.grad is None for t in watched.tensors().values())
    flowing = layer(topk=2 * CHUNKS, stop_gradient=False)
    flowing(told)[0][:, -1].sum().backward()
    assert told.grad is not None
    assert float(told.grad[:, :CHUNK].abs().max()) > 0  # what was told long ago is trained too


@torch.no_grad()
def test_the_oldest_chunk_makes_room_and_the_state_stops_growing() -> None:
    made, q = layer(max_chunks=3, topk=8), stream(1, seed=2)
    x = stream(6 * CHUNK + 2)
    state = made.write(made.init_state(2), x)
    assert sorted(state.numbers[0].tolist()) == [3, 4, 5]
    found = made.recall(state, q)
    assert sorted(n for n in found.chunks[0, 0].tolist() if n >= 0) == [3, 4, 5, 6]  # 6 is unfinished
    for number in (3, 4, 5):
        (slot,) = (state.numbers[0] == number).nonzero().flatten().tolist()
        assert torch.equal(state.contents[0, slot], x[0, number * CHUNK : (number + 1) * CHUNK])
    sizes = [made.options.state_bytes(tokens) for tokens in (0, 5, 10, 15, 20, 10**6)]
    assert sizes == sorted(sizes)
    assert sizes[3] == sizes[4] == sizes[5]
    assert state.size_bytes() == made.options.state_bytes(6 * CHUNK + 2, batch=2)
    assert layer(max_chunks=None).options.state_bytes(10**6) > 10**6 * DIM * 4


@torch.no_grad()
def test_a_forgotten_chunk_leaves_no_trace() -> None:
    made, q = layer(topk=8), stream(QUERIES, seed=2)
    x = stream(CHUNKS * CHUNK + 3)
    state = made.write(made.init_state(2), x)
    without = made.forget(state, [2, 4])
    mask = torch.ones(2, CHUNKS, dtype=torch.bool)
    mask[:, [2, 4]] = False
    torch.testing.assert_close(made.read(without, q), made.recall(state, q, mask=mask).output)
    for secret in (x[0, 2 * CHUNK].numpy().tobytes(), state.summaries[1, 4].numpy().tobytes()):
        assert secret in state.to_bytes()
        assert secret not in without.to_bytes()
    again = made.write(without, stream(20, seed=5))
    assert again.numbers[0].tolist() == [0, 1, -1, 3, -1, 5, 6, 7, 8, 9, 10]
    assert torch.equal(made.forget(made.forget(state, 4), 2).contents, without.contents)
    for unknown in (7, -1):
        with pytest.raises(InvalidInput, match=f"chunk {unknown}; there are 7 chunks: 0 to 6"):
            made.forget(state, unknown)
    with pytest.raises(InvalidInput):
        made.forget(without, 2)


@torch.no_grad()
def test_a_stream_tells_which_chunks_it_looks_into() -> None:
    made, x = layer(topk=2), stream(4 * CHUNK)
    chunks, weights = made.routing(x)
    assert chunks.shape == weights.shape == (2, 4 * CHUNK, 2)
    now = torch.arange(4 * CHUNK) // CHUNK
    assert bool((chunks <= now.view(1, -1, 1)).all())
    assert bool((chunks[:, 0] == -1).all())
    state = made.write(made.init_state(2), x[:, :13])
    found = made.recall(state, x[:, 13:14])
    assert torch.equal(found.chunks[:, 0], chunks[:, 13])
    torch.testing.assert_close(found.weights[:, 0], weights[:, 13])
    torch.testing.assert_close(found.output[:, 0], made(x)[0][:, 13], atol=1e-6, rtol=1e-5)
    assert isinstance(made, Writable)
    assert isinstance(made, Inspectable)
    assert isinstance(made, Forgettable)


@torch.no_grad()
def test_a_long_read_in_parts_is_the_same_read(monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = layer(), stream(40)
    whole = made(x)[0]
    monkeypatch.setattr(hcam, "GATHERED", 7 * 2 * TOPK * CHUNK * DIM)
    torch.testing.assert_close(made(x)[0], whole, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_one_token_more_copies_nothing_of_the_past() -> None:
    made = layer()
    state = made.write(made.init_state(2), stream(40 * CHUNK + 2))
    x = stream(CHUNK, seed=3)
    for t in range(2):
        y, state_after = made.step(x[:, t], state)
        assert state_after.contents.data_ptr() == state.contents.data_ptr()
        state = state_after
        assert y.shape == (2, DIM)
    full = made.step(x[:, 2], state)[1]  # now a chunk gets whole
    assert full.contents.data_ptr() != state.contents.data_ptr()
    assert full.slots == 41


def test_places_count_from_the_end() -> None:
    assert torch.equal(places(5, 6)[-1], torch.tensor([0.0, 0, 0, 1, 1, 1]).double())
    assert torch.equal(places(5, 6)[1:], places(4, 6))
    assert places(3, 7).shape == (3, 7)


def test_what_is_written_by_parts_is_what_was_written_at_once() -> None:
    made, x = layer(max_chunks=3), stream(33)
    at_once = made.write(made.init_state(2), x)
    by_parts: HCAMState = made.init_state(2)
    for part in x.split(7, 1):
        by_parts = made.write(by_parts, part)
    for name, tensor in made(x)[1].tensors().items():
        assert torch.equal(at_once.tensors()[name], by_parts.tensors()[name]), name
        assert torch.equal(at_once.tensors()[name], tensor), name


@pytest.mark.parametrize(
    "wrong",
    [{"heads": 5}, {"chunk": 0}, {"topk": 0}, {"max_chunks": 0}, {"summary": "median"}, {"relevance": "2"}],
    ids=str,
)
def test_wrong_options_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        layer(**wrong)


def test_wrong_queries_and_masks_are_refused() -> None:
    made = layer()
    state = made.write(made.init_state(2), stream(11))
    for use in (made.read, made.write, made.recall):
        for wrong in (stream(3)[..., :-1], torch.full((2, 1, DIM), torch.nan), stream(3, batch=3)):
            args = (state, wrong)
            with pytest.raises(InvalidInput):
                use(*args)
        with pytest.raises(IncompatibleMemory, match="chunk"):
            use(layer(chunk=4).init_state(2), stream(2))
    for mask in (torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 2)):
        with pytest.raises(InvalidInput, match="mask"):
            made.recall(state, stream(1), mask=mask)
