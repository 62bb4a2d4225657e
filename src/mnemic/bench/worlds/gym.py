"""Ballet and rapid naming as gymnasium environments: `pip install 'mnemic[gym]'`.

`register()` makes them known as mnemic/Ballet-v0 and mnemic/RapidNaming-v0 to `gymnasium.make`.
"""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Text
from numpy.typing import NDArray

from mnemic.bench.worlds.ballet import FEATURES, NAMES, SQUARE, WATCH, Ballet
from mnemic.bench.worlds.ballet_dances import DIRECTIONS, ROOM
from mnemic.bench.worlds.naming import FEATURES as SYMBOLS
from mnemic.bench.worlds.naming import VALUES, episodes
from mnemic.cube.errors import InvalidOption

Info = dict[str, Any]


class BalletEnv(gymnasium.Env[Any, np.int64]):
    """Ballet with `dancers` and `delay`; levels of the paper have 2, 4 or 8 and 16 or 48.

    `observe="symbols"`: a float32 vector (see `mnemic.bench.worlds.ballet.FEATURES`); "pixels": a dictionary
    of `pixels` (99, 99, 3) in [0, 1] and `told`, the instruction. Reaching a dancer terminates; the limit of
    steps truncates. `info["right_action"]` is what an expert would do. Raises InvalidOption.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  (theirs is so)

    def __init__(
        self,
        *,
        dancers: int = 2,
        delay: int = 16,
        observe: Literal["symbols", "pixels"] = "symbols",
        render_mode: str | None = None,
    ) -> None:
        if observe not in ("symbols", "pixels"):
            raise InvalidOption(f"observe must be symbols or pixels, got {observe!r:.40}")
        self.dancers, self.delay, self.observe, self.render_mode = dancers, delay, observe, render_mode
        self.episode = Ballet(dancers=dancers, delay=delay, draws=np.random.default_rng(0))
        self.action_space = Discrete(len(DIRECTIONS))
        side = ROOM * SQUARE
        longest = max(map(len, (*NAMES, WATCH)))
        self.observation_space = (
            Box(0, 1, (FEATURES,), np.float32)
            if observe == "symbols"
            else Dict(
                {
                    "pixels": Box(0, 1, (side, side, 3), np.float32),
                    "told": Text(longest, charset="abcdefghijklmnopqrstuvwxyz_"),
                }
            )
        )

    def reset(
        self,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> tuple[Any, Info]:
        super().reset(seed=seed)
        self.episode = Ballet(dancers=self.dancers, delay=self.delay, draws=self.np_random)
        return self._seen(), self._info()

    def step(self, action: np.int64 | int) -> tuple[Any, float, bool, bool, Info]:
        reward = self.episode.act(int(action))
        over = self.episode.done and self.episode.time >= self.episode.limit and not self._reached()
        return self._seen(), reward, self.episode.done and not over, over, self._info()

    def render(self) -> NDArray[np.uint8] | None:
        """What the agent sees, (99, 99, 3) bytes; None unless render_mode="rgb_array"."""
        if self.render_mode != "rgb_array":
            return None
        return (255 * self.episode.pixels()).astype(np.uint8)

    def _reached(self) -> bool:
        return any(self.episode.standing(n) == self.episode.agent for n in range(self.dancers))

    def _seen(self) -> Any:
        if self.observe == "symbols":
            return self.episode.symbolic()
        return {"pixels": self.episode.pixels(), "told": self.episode.told}

    def _info(self) -> Info:
        done = self.episode.done
        return {"told": self.episode.told, "right_action": 0 if done else self.episode.right_action()}


class RapidNamingEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """Eight steps about each of `things`, then a question; the action there is the answer, others do nothing.

    Observations are float32 vectors of symbols (`mnemic.bench.worlds.naming`); reward 1 for the right value.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, *, things: int = 4) -> None:
        self.things, self.render_mode = things, None
        episodes(1, things, np.random.default_rng(0))  # things are checked there
        self.action_space = Discrete(VALUES)
        self.observation_space = Box(0, 1, (SYMBOLS,), np.float32)

    def reset(
        self,
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> tuple[NDArray[np.float32], Info]:
        super().reset(seed=seed)
        told, asked, answers = episodes(1, self.things, self.np_random)
        self.stream, self.answer, self.time = np.concatenate([told[0], asked]), int(answers[0]), 0
        return self.stream[0], self._info()

    def step(self, action: np.int64 | int) -> tuple[NDArray[np.float32], float, bool, bool, Info]:
        if self.time >= len(self.stream):
            raise InvalidOption("the episode is over: reset() begins another")
        asked = self.time == len(self.stream) - 1
        reward = float(asked and int(action) == self.answer)
        self.time += 1
        return self.stream[min(self.time, len(self.stream) - 1)], reward, asked, False, self._info()

    def _info(self) -> Info:
        return {"right_action": self.answer if self.time == len(self.stream) - 1 else 0}


def register() -> None:
    """Tell gymnasium of both, once."""
    for name, kind in (("mnemic/Ballet-v0", BalletEnv), ("mnemic/RapidNaming-v0", RapidNamingEnv)):
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=f"{kind.__module__}:{kind.__name__}")
