"""Ballet (Lampinen et al. 2021): watch dancers one after another, then go to the one who did the dance named.

Everyone dances once, 16 moves, with a delay of nothing after each. While one watches, actions do nothing.
Then the name of a dance is told; the agent walks in eight directions and the episode ends at any dancer:
reward 1 if it is the right one. Pure numpy, seeded; `gym.py` has it as a gymnasium environment.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mnemic.bench.worlds.ballet_dances import (
    COLOURS,
    DANCES,
    DIRECTIONS,
    LENGTH,
    PLACES,
    ROOM,
    SHAPES,
    START,
    STEPS,
)
from mnemic.cube.errors import InvalidOption

NAMES: Final = tuple(DANCES)
WATCH: Final = "watch"
SQUARE: Final = 9  # pixels
MOVES, AT, TOLD = len(DIRECTIONS), len(PLACES), 1 + len(NAMES)
FEATURES: Final = MOVES + 2 * AT + TOLD + 2 * ROOM
"""Of the symbolic observation, one-hot each: the move that is made, where its dancer belongs, where dancers
belong (many), what is told, the agent's row and column."""
FLOOR, WALL, AGENT = 0.0, 0.5, 1.0  # greys; ours, as are the bitmaps of the shapes
FloatArray = NDArray[np.float32]


class Ballet:
    """One episode. `dancers` 2 to 8 at distinct places, with distinct dances, shapes and colours.

    `limit`: steps after which it ends without a reward, 320 with delay 16, else 1,024. Raises InvalidOption.
    """

    def __init__(self, *, dancers: int, delay: int, draws: np.random.Generator) -> None:
        if not 1 <= dancers <= len(PLACES):
            raise InvalidOption(f"dancers must be 1 to {len(PLACES)}, one a place, got {dancers}")
        if delay < 0:
            raise InvalidOption(f"delay must be at least 0 steps, got {delay}")
        self.dancers, self.delay = dancers, delay
        self.places = draws.permutation(len(PLACES))[:dancers]
        self.dances = draws.permutation(len(NAMES))[:dancers]
        self.shapes = draws.permutation(len(SHAPES))[:dancers]
        self.colours = draws.permutation(len(COLOURS))[:dancers]
        self.target = int(draws.integers(dancers))
        self.limit = 320 if delay == 16 else 1024
        self.time, self.agent, self.done = 0, START, False

    @property
    def watching(self) -> int:
        """Steps before the choice: 1 + dancers · (16 + delay)."""
        return 1 + self.dancers * (LENGTH + self.delay)

    @property
    def told(self) -> str:
        """The instruction: "watch", then the name of a dance."""
        return WATCH if self.time < self.watching else NAMES[self.dances[self.target]]

    def act(self, action: int) -> float:
        """One step, and its reward. The action, 0 to 7, is one of DIRECTIONS; while watching it does nothing.

        Raises InvalidOption for another action or after the end.
        """
        if self.done:
            raise InvalidOption("the episode is over: begin another")
        if not 0 <= action < MOVES:
            raise InvalidOption(
                f"an action is 0 to {MOVES - 1}, one of {', '.join(DIRECTIONS)}; got {action}"
            )
        reward = 0.0
        if self.time >= self.watching:
            rows, columns = STEPS[DIRECTIONS[action]]
            there = self.agent[0] + rows, self.agent[1] + columns
            if all(0 < one < ROOM - 1 for one in there):
                self.agent = there
            reached = [n for n, place in enumerate(self.places) if PLACES[place] == self.agent]
            self.done, reward = bool(reached), float(reached == [self.target])
        self.time += 1
        self.done = self.done or self.time >= self.limit
        return reward

    def right_action(self) -> int:
        """What an expert does: straight to the right dancer; 0 while watching."""
        if self.time < self.watching:
            return 0
        goal = PLACES[self.places[self.target]]
        way = tuple(int(np.sign(to - at)) for to, at in zip(goal, self.agent, strict=True))
        return next(n for n, name in enumerate(DIRECTIONS) if STEPS[name] == way)

    def symbolic(self) -> FloatArray:
        """(FEATURES,) what is seen and told now."""
        out = np.zeros(FEATURES, np.float32)
        who, move = self._dancing()
        if move is not None:
            out[DIRECTIONS.index(move)] = 1
            out[MOVES + self.places[who]] = 1
        out[MOVES + AT + self.places] = 1
        told = self.told
        out[MOVES + 2 * AT + (0 if told == WATCH else 1 + NAMES.index(told))] = 1
        out[[FEATURES - 2 * ROOM + self.agent[0], FEATURES - ROOM + self.agent[1]]] = 1
        return out

    def watched(self) -> FloatArray:
        """(watching, FEATURES) what is seen until the choice, whatever one does, and goes there."""
        if self.time:
            raise InvalidOption("the watching has begun: take it step by step")
        seen = np.tile(self.symbolic(), (self.watching, 1))
        for n in range(self.dancers):
            made = 1 + n * (LENGTH + self.delay) + np.arange(LENGTH)
            seen[made, [DIRECTIONS.index(move) for move in DANCES[NAMES[self.dances[n]]]]] = 1
            seen[made, MOVES + self.places[n]] = 1
        self.time = self.watching
        return seen

    def pixels(self) -> FloatArray:
        """(99, 99, 3) in [0, 1]: the 11 x 11 squares around the agent, 9 pixels a square."""
        room = np.full((3 * ROOM, 3 * ROOM, SQUARE, SQUARE, 3), FLOOR, np.float32)  # nothing lies beyond
        room[ROOM : 2 * ROOM, ROOM : 2 * ROOM] = WALL
        room[ROOM + 1 : 2 * ROOM - 1, ROOM + 1 : 2 * ROOM - 1] = FLOOR
        for n in range(self.dancers):
            row, column = self.standing(n)
            colour = np.array(list(COLOURS.values())[self.colours[n]], np.float32) / 255
            room[ROOM + row, ROOM + column] = bitmap(SHAPES[self.shapes[n]])[..., None] * colour
        room[ROOM + self.agent[0], ROOM + self.agent[1], 1:-1, 1:-1] = AGENT
        half = ROOM // 2
        top, left = ROOM + self.agent[0] - half, ROOM + self.agent[1] - half
        seen = room[top : top + ROOM, left : left + ROOM]
        return seen.transpose(0, 2, 1, 3, 4).reshape(ROOM * SQUARE, ROOM * SQUARE, 3)

    def standing(self, dancer: int) -> tuple[int, int]:
        """Row and column of a dancer now: its place, unless it dances."""
        row, column = PLACES[self.places[dancer]]
        begun = self.time - 1 - dancer * (LENGTH + self.delay)
        for move in DANCES[NAMES[self.dances[dancer]]][: max(0, min(begun + 1, LENGTH))]:
            row, column = row + STEPS[move][0], column + STEPS[move][1]
        return row, column

    def _dancing(self) -> tuple[int, str | None]:
        """Who dances now, and the move that was just made; None where nobody does."""
        who, step = divmod(self.time - 1, LENGTH + self.delay)
        if self.time < 1 or who >= self.dancers or step >= LENGTH:
            return 0, None
        return who, DANCES[NAMES[self.dances[who]]][step]


def bitmap(shape: str) -> FloatArray:
    """(9, 9) of zeros and ones."""
    row, column = np.mgrid[0:SQUARE, 0:SQUARE]
    middle = SQUARE // 2
    apart = np.hypot(row - middle, column - middle)
    edge = (np.minimum(row, column) == 0) | (np.maximum(row, column) == SQUARE - 1)
    plus = (abs(row - middle) <= 1) | (abs(column - middle) <= 1)
    ex = (abs(row - column) <= 1) | (abs(row + column - SQUARE + 1) <= 1)
    left_right = (column <= 1) | (column >= SQUARE - 2)
    drawn: dict[str, Any] = {
        "triangle": abs(column - middle) <= row / 2,
        "empty_square": edge,
        "plus": plus,
        "inverse_plus": ~plus,
        "ex": ex,
        "inverse_ex": ~ex,
        "circle": apart <= middle,
        "empty_circle": (apart <= middle) & (apart > middle - 1.5),
        "tee": (row <= 1) | (abs(column - middle) <= 1),
        "upside_down_tee": (row >= SQUARE - 2) | (abs(column - middle) <= 1),
        "h": left_right | (abs(row - middle) <= 1),
        "u": left_right | (row >= SQUARE - 2),
        "upside_down_u": left_right | (row <= 1),
        "vertical_stripes": column % 2 == 0,
        "horizontal_stripes": row % 2 == 0,
    }
    found: FloatArray = drawn[shape].astype(np.float32)
    return found
