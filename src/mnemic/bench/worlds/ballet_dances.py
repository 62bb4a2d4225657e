"""Moves, places and looks of Ballet.

Values from google-deepmind/deepmind-research, folder hierarchical_transformer_memory/pycolab_ballet,
copyright DeepMind Technologies Limited, Apache License 2.0; no program text of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

DIRECTIONS: Final = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")  # also the actions, 0 to 7
STEPS: Final[Mapping[str, tuple[int, int]]] = {
    "N": (-1, 0), "NE": (-1, 1), "E": (0, 1), "SE": (1, 1),
    "S": (1, 0), "SW": (1, -1), "W": (0, -1), "NW": (-1, -1),
}  # fmt: skip  # rows, columns
DANCES: Final[Mapping[str, tuple[str, ...]]] = {
    name: tuple(moves.split())
    for name, moves in {
        "circle_cw": "N E S S W W N N E E S S W W N E",
        "circle_ccw": "N W S S E E N N W W S S E E N W",
        "up_and_down": "N S S N N S S N N S S N N S S N",
        "left_and_right": "E W W E E W W E E W W E E W W E",
        "diagonal_uldr": "NW SE SE NW NW SE SE NW NW SE SE NW NW SE SE NW",
        "diagonal_urdl": "NE SW SW NE NE SW SW NE NE SW SW NE NE SW SW NE",
        "plus_cw": "N S E W S N W E N S E W S N W E",
        "plus_ccw": "N S W E S N E W N S W E S N E W",
        "times_cw": "NE SW SE NW SW NE NW SE NE SW SE NW SW NE NW SE",
        "times_ccw": "NW SE SW NE SE NW NE SW NW SE SW NE SE NW NE SW",
        "zee": "NE W W E E SW NE SW SW E E W W NE SW NE",
        "chevron_down": "NW S SE NE N SW NE SW NE S SW NW N SE NW SE",
        "chevron_up": "SE N NW SW S NE SW NE SW N NE SE S NW SE NW",
    }.items()
}
LENGTH: Final = 16  # moves of a dance
PLACES: Final = ((2, 2), (2, 5), (2, 8), (5, 2), (5, 8), (8, 2), (8, 5), (8, 8))  # row, column
START: Final = (5, 5)
ROOM: Final = 11  # squares a side, walls included
COLOURS: Final[Mapping[str, tuple[int, int, int]]] = {
    "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "purple": (128, 0, 128),
    "orange": (255, 165, 0), "yellow": (255, 255, 0), "brown": (128, 64, 0), "pink": (255, 64, 255),
    "cyan": (0, 255, 255), "dark_green": (0, 100, 0), "dark_red": (100, 0, 0), "dark_blue": (0, 0, 100),
    "olive": (100, 100, 0), "teal": (0, 100, 100), "lavender": (215, 200, 255), "peach": (255, 210, 170),
    "rose": (255, 205, 230), "light_green": (200, 255, 200), "light_yellow": (255, 255, 200),
}  # fmt: skip
SHAPES: Final = (
    "triangle", "empty_square", "plus", "inverse_plus", "ex", "inverse_ex", "circle", "empty_circle", "tee",
    "upside_down_tee", "h", "u", "upside_down_u", "vertical_stripes", "horizontal_stripes",
)  # fmt: skip
