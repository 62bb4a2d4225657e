"""The table names layers, and their options say what is wrong with themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from mnemic.cube.errors import InvalidOption
from mnemic.layers.options import LayerOptions, option
from mnemic.layers.table import LAYERS, layer_class, make


@pytest.mark.parametrize("name", LAYERS)
def test_each_row_is_a_layer_of_that_name(name: str) -> None:
    found = layer_class(name)
    assert found.name == name
    assert found.__doc__
    assert found.small
    assert make(name, dim=16).spec.options["dim"] == 16
    with pytest.raises(InvalidOption, match="colour"):
        make(name, dim=16, colour="red")
    with pytest.raises(InvalidOption, match="dim"):
        make(name)
    with pytest.raises(InvalidOption, match="dim"):
        make(name, dim=0)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidOption, match="attention"):
        layer_class("atention")


@dataclass(frozen=True, kw_only=True)
class Some(LayerOptions):
    count: int = 3
    from_zero: int = option(0, low=0)
    share: float = option(0.5, low=0.0, high=1.0)
    kind: Literal["a", "b"] = "a"
    on: bool = True
    width: int | None = None
    speed: int = option(8, meaning=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": 0}, {"count": 2.5}, {"count": True}, {"from_zero": -1}, {"share": 1.5},
        {"share": float("nan")}, {"share": "1"}, {"kind": "c"}, {"on": 1}, {"width": 0}, {"dim": "8"},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_options_are_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(wrong))):
        Some.read({"dim": 8, **wrong})


def test_only_what_changes_a_state_is_its_meaning() -> None:
    some = Some.read({"dim": 8, "width": 4, "speed": 2})
    assert "speed" not in some.meaning()
    assert some.meaning()["width"] == 4
