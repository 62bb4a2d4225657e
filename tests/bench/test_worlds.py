"""Ballet and rapid naming: what happens in them, as environments of gymnasium, and agents that are taught."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from typer.testing import CliRunner

from mnemic.bench.worlds import agents
from mnemic.bench.worlds.agents import ARMS, Agent, actor_critic_loss, episodes, imitation_loss, train, walk
from mnemic.bench.worlds.ballet import FEATURES, NAMES, Ballet, bitmap
from mnemic.bench.worlds.ballet_dances import DANCES, DIRECTIONS, LENGTH, PLACES, SHAPES, START, STEPS
from mnemic.bench.worlds.gym import BalletEnv, RapidNamingEnv, register
from mnemic.cli.app import app
from mnemic.cube.errors import InvalidOption


def ballet(seed: int = 0, *, dancers: int = 4, delay: int = 16) -> Ballet:
    return Ballet(dancers=dancers, delay=delay, draws=np.random.default_rng(seed))


def at_choice(seed: int = 0, **options: int) -> Ballet:
    episode = ballet(seed, **options)
    episode.watched()
    return episode


def test_every_dance_returns_to_its_place_within_a_square_of_it() -> None:
    assert len(DANCES) == 13
    assert len(set(DANCES.values())) == 13
    for name, moves in DANCES.items():
        assert len(moves) == LENGTH
        at = np.cumsum([STEPS[move] for move in moves], 0)
        assert at[-1].tolist() == [0, 0], name
        assert abs(at).max() <= 2, name


@pytest.mark.parametrize(("dancers", "delay", "steps"), [(2, 16, 65), (8, 48, 513), (8, 16, 257)])
def test_everyone_dances_once_in_turn_and_then_a_dance_is_named(dancers: int, delay: int, steps: int) -> None:
    episode = ballet(3, dancers=dancers, delay=delay)
    assert episode.watching == steps
    moved: list[list[str]] = [[] for _ in range(dancers)]
    before = [episode.standing(n) for n in range(dancers)]
    assert before == [PLACES[place] for place in episode.places]
    for time in range(1, steps):
        assert episode.told == "watch"
        assert episode.act(time % 8) == 0.0
        now = [episode.standing(n) for n in range(dancers)]
        changed = [n for n in range(dancers) if now[n] != before[n]]
        who, step = divmod(time - 1, LENGTH + delay)
        assert changed == ([who] if step < LENGTH else [])
        for n in changed:
            way = (now[n][0] - before[n][0], now[n][1] - before[n][1])
            moved[n].append(next(name for name, step in STEPS.items() if step == way))
        before = now
    assert [tuple(moves) for moves in moved] == [DANCES[NAMES[dance]] for dance in episode.dances]
    assert episode.agent == START  # nothing that was done while watching moved it
    episode.act(0)
    assert episode.told == NAMES[episode.dances[episode.target]]
    assert len({*episode.places}) == len({*episode.dances}) == len({*episode.colours}) == dancers


def test_what_is_watched_at_once_is_what_is_watched_step_by_step() -> None:
    for delay in (0, 16):
        at_once, by_step = ballet(5, delay=delay), ballet(5, delay=delay)
        seen = at_once.watched()
        assert seen.shape == (by_step.watching, FEATURES)
        for expected in seen:
            np.testing.assert_array_equal(by_step.symbolic(), expected)
            by_step.act(3)
        np.testing.assert_array_equal(by_step.symbolic(), at_once.symbolic())
    with pytest.raises(InvalidOption, match="begun"):
        by_step.watched()


def test_the_expert_is_rewarded_and_another_dancer_ends_it_without() -> None:
    for seed in range(12):
        episode = at_choice(seed)
        rewards = []
        while not episode.done:
            rewards.append(episode.act(episode.right_action()))
        assert rewards == [0.0, 0.0, 1.0]
        with pytest.raises(InvalidOption, match="over"):
            episode.act(0)
        wrong = at_choice(seed)
        other = wrong.places[(wrong.target + 1) % 4]
        way = tuple(np.sign(np.subtract(PLACES[other], START)))
        ends = [wrong.act(next(n for n, d in enumerate(DIRECTIONS) if STEPS[d] == way)) for _ in range(3)]
        assert ends == [0.0, 0.0, 0.0]
        assert wrong.done


def test_walls_block_and_patience_ends() -> None:
    episode = at_choice(1, dancers=2)
    empty = next(place for n, place in enumerate(PLACES) if n not in episode.places)
    way = tuple(np.sign(np.subtract(empty, START)))
    action = next(n for n, d in enumerate(DIRECTIONS) if STEPS[d] == way)
    while not episode.done:
        assert episode.act(action) == 0.0
        assert all(0 < one < 10 for one in episode.agent)
    assert episode.time == episode.limit == 320
    assert ballet(delay=48).limit == 1024
    for action in (-1, 8):
        with pytest.raises(InvalidOption, match="0 to 7"):
            ballet().act(action)
    for wrong in ({"dancers": 9}, {"dancers": 0}, {"delay": -1}):
        with pytest.raises(InvalidOption, match=next(iter(wrong))):
            ballet(**wrong)


def test_pixels_show_dancers_where_they_stand_around_the_agent() -> None:
    episode = ballet(2)
    picture = episode.pixels().reshape(11, 9, 11, 9, 3)
    for n in range(4):
        row, column = episode.standing(n)
        assert picture[row, :, column].max() > 0.3  # the agent stands in the middle: nothing is shifted
    assert (picture[0] == picture[0, 0, 0, 0]).all()  # a wall
    episode.watched()
    episode.act(0)
    moved = episode.pixels().reshape(11, 9, 11, 9, 3)
    np.testing.assert_array_equal(moved[2, :, 2], picture[1, :, 2])  # one step north: all is one square lower
    assert 0 <= moved.min() <= moved.max() <= 1
    drawn = {bitmap(shape).tobytes() for shape in SHAPES}
    assert len(drawn) == len(SHAPES)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BalletEnv(dancers=2),
        lambda: BalletEnv(dancers=8, delay=48, observe="pixels", render_mode="rgb_array"),
        lambda: RapidNamingEnv(things=3),
    ],
    ids=["symbols", "pixels", "naming"],
)
@pytest.mark.filterwarnings("ignore")
def test_gymnasium_finds_nothing_wrong(make: Any) -> None:
    check_env(make(), skip_render_check=False)


def test_by_name_an_expert_is_always_right() -> None:
    register()
    register()
    for name, options in (
        ("mnemic/Ballet-v0", {"dancers": 3}),
        ("mnemic/Ballet-v0", {"dancers": 2, "delay": 0, "observe": "pixels"}),
        ("mnemic/RapidNaming-v0", {"things": 5}),
    ):
        env = gymnasium.make(name, **options)
        total, ended = 0.0, False
        _, info = env.reset(seed=4)
        while not ended:
            _, reward, ended, cut, info = env.step(info["right_action"])
            total += float(reward)
            assert not cut
        assert total == 1.0
    with pytest.raises(InvalidOption, match="observe"):
        BalletEnv(observe="smells")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="chunks"):
        RapidNamingEnv(things=0)


def test_one_seed_is_one_episode_and_patience_truncates() -> None:
    env = BalletEnv(dancers=2)
    first, second, other = (env.reset(seed=seed)[0] for seed in (7, 7, 8))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    free = next(n for n in range(8) if n not in env.episode.places)
    action = next(
        n for n, d in enumerate(DIRECTIONS) if STEPS[d] == tuple(np.sign(np.subtract(PLACES[free], START)))
    )
    ended = cut = False
    while not (ended or cut):
        _, reward, ended, cut, _ = env.step(action)
    assert (reward, ended, cut) == (0.0, False, True)


@pytest.mark.parametrize("arm", ARMS)
def test_every_agent_is_taught_by_either_loss(arm: str) -> None:
    torch.manual_seed(0)
    agent, draws = Agent(ARMS[arm]), np.random.default_rng(0)
    for loss in (
        imitation_loss(agent, episodes(4, 2, 4, draws)),
        actor_critic_loss(agent, episodes(4, 2, 4, draws), torch.Generator().manual_seed(0)),
    ):
        agent.zero_grad()
        loss.backward()
        assert agent.act.weight.grad is not None
        assert float(agent.act.weight.grad.abs().max()) > 0
    if arm == "HCAM":
        assert agent.layers[-1].q.weight.grad is not None


def test_a_walk_pays_what_the_world_pays() -> None:
    torch.manual_seed(0)
    agent, played = Agent(ARMS["no memory"]), episodes(16, 8, 2, np.random.default_rng(0))
    steps = walk(agent, played, torch.Generator().manual_seed(0))
    paid = torch.stack([step.reward for step in steps]).sum(0)
    for episode, got in zip(played, paid.tolist(), strict=True):
        at_target = episode.agent == PLACES[episode.places[episode.target]]
        assert got == float(episode.done and at_target)
    assert steps[0].active.all()
    assert not (torch.stack([step.reward for step in steps])[1:] * ~steps[0].active).any()


def test_an_agent_with_a_memory_learns_what_one_without_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small Ballet, a short training: the full one is the command."""
    monkeypatch.setattr(agents, "TESTED", 128)
    record = train("no memory", "imitation", 2, 0, 40, delay=0)
    assert record["reached"] > 0.9  # it has learned to walk to a dancer
    assert 0.3 < record["success"] < 0.7  # and guesses whose dance it was


def test_the_command_writes_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "TESTED", 32)
    arguments = ["bench", "ballet", "--arm", "HCAM", "--dancers", "2", "--seeds", "1", "--steps", "4"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "| imitation | 2 | 16 | HCAM |" in done.stdout
    assert "| reward | 2 | 16 | HCAM |" in done.stdout
    assert len(json.loads((tmp_path / "ballet-runs.json").read_text())) == 2
    written = (tmp_path / "ballet.md").read_text()
    for how in ("imitation", "reward"):  # what prints this very table
        told = f'mnemic bench ballet --how {how} --dancers 2 --delay 16 --steps 4 --seeds 1 --arm "HCAM"'
        assert f"\n{told}\n" in written
    for words, said in (
        (["--how", "osmosis"], "there is no way 'osmosis'. Known: 'imitation', 'reward'; 'none' for none"),
        (["--arm", "HCAM, no"], "there is no arm 'HCAM, no'. Known: 'HCAM', 'HCAM, no convolution', "),
    ):
        refused = CliRunner().invoke(app, ["bench", "ballet", *words])
        assert refused.exit_code == 2
        assert said in " ".join(refused.stderr.split())
