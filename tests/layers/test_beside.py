"""A memory added to a model: nothing changes until it is trained, and nothing is left when it is removed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from language_models import tiny_llama
from mnemic.cube.errors import InvalidInput, InvalidOption, UnsupportedModel
from mnemic.layers.beside import add_memory
from mnemic.layers.rows import MemoryRows
from mnemic.training.row_adam import RowAdam

SMALL = {"keys": 16, "topm": 4}


@pytest.fixture
def model() -> nn.Module:
    made: nn.Module = tiny_llama().model.eval()
    return made


def ids() -> Tensor:
    return torch.randint(3, 60, (2, 12), generator=torch.Generator().manual_seed(0))


def test_the_model_is_the_same_until_the_memory_is_trained_and_after_it_is_removed(model: nn.Module) -> None:
    with torch.no_grad():
        before, names = model(ids()).logits, set(model.state_dict())
        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        added = add_memory(model, **SMALL)
        assert torch.equal(model(ids()).logits, before)
        assert any(name.endswith("mlp.memory.values.weight") for name in model.state_dict())
        assert {id(p) for p in added.parameters()} <= {id(p) for p in model.parameters()}
        for memory in added.memories.values():
            nn.init.normal_(memory.out.weight)
        assert not torch.equal(model(ids()).logits, before)
        added.remove()
        assert torch.equal(model(ids()).logits, before)
        assert set(model.state_dict()) == names
        assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_the_memory_alone_learns_a_text_by_heart(model: nn.Module) -> None:
    text = ids()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    added = add_memory(model, layers=[0], **SMALL)
    tables = [m.values.weight for m in added.memories.values() if isinstance(m.values, MemoryRows)]
    held = {id(table) for table in tables}
    rest = [p for p in added.parameters() if id(p) not in held]
    optimisers = [torch.optim.Adam(rest, lr=1e-2), RowAdam(tables, lr=4e-2)]

    def loss() -> Tensor:
        return cross_entropy(model(text).logits[:, :-1].flatten(0, 1), text[:, 1:].flatten())

    first = float(loss().detach())
    for _ in range(60):
        model.zero_grad()
        loss().backward()
        for optimiser in optimisers:
            optimiser.step()
    assert float(loss().detach()) < 0.2 * first
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in weights.items())


def test_what_cannot_have_a_memory_is_refused(model: nn.Module) -> None:
    blocks = len(model.get_decoder().layers)  # type: ignore[operator,union-attr]
    for wrong in ([], [blocks], [0, 0], [-1]):
        with pytest.raises(InvalidOption, match="layers"):
            add_memory(model, layers=wrong, **SMALL)
    with pytest.raises(InvalidOption, match="topm"):
        add_memory(model, keys=4, topm=5)
    add_memory(model, layers=[0], **SMALL)
    with pytest.raises(InvalidInput, match="already"):
        add_memory(model, **SMALL)
    with pytest.raises(UnsupportedModel, match="0 lists"):
        add_memory(nn.Linear(3, 3))
