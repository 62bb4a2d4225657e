"""A context is never above its budget, whatever was told; and it says what it left out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mnemic
from mnemic.cube.errors import BudgetTooSmall, InvalidOption
from mnemic.models.tokens import estimate_tokens
from mnemic.plaintext.compose.policy import STRATEGIES
from mnemic.plaintext.compose.sentences import sentence_spans

_users = (f"user-{number}" for number in itertools.count())
TELLABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1).filter(
    lambda text: bool(text.strip())
)
PROSE = st.lists(
    st.sampled_from(["Ana moved to Porto.", "Why?", "It rained all week, and 愛 was there! ", "Tea. ", "Ω…"]),
    min_size=1,
    max_size=40,
).map(" ".join)
HISTORY = st.lists(
    st.tuples(TELLABLE | PROSE, st.sampled_from(["Ana", "Bo", "  Ç\n x", None]), st.integers(0, 400)),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mnemic.Memory]:
    folder: Path = tmp_path_factory.mktemp("compose")
    with mnemic.open(folder / "x.db") as opened:
        yield opened


def by_characters(text: str) -> int:
    return len(text)


def by_bytes(text: str) -> int:
    return (len(text.encode()) + 2) // 3


def told(memory: mnemic.Memory, history: list[tuple[str, str | None, int]]) -> str:
    user = next(_users)
    for text, name, day in history:
        message = {"role": "user", "content": text, "at": 1_700_000_000 + day * 40_000}
        memory.add(message | ({"name": name} if name else {}), user=user, session=f"s{day % 3}")
    return user


@settings(max_examples=60)
@given(
    history=HISTORY,
    budget=st.integers(1, 600),
    strategy=st.sampled_from(("auto", *STRATEGIES)),
    counter=st.sampled_from([None, by_characters, by_bytes]),
)
def test_a_context_is_within_its_budget_by_the_counter_given(
    memory: mnemic.Memory,
    history: list[tuple[str, str | None, int]],
    budget: int,
    strategy: str,
    counter: object,
) -> None:
    user = told(memory, history)
    try:
        made = memory.context(
            "Where does Ana live?", user=user, budget=budget, strategy=strategy, count_tokens=counter
        )  # type: ignore[arg-type]
    except BudgetTooSmall:
        assert budget < 120
        return
    count = estimate_tokens if counter is None else counter
    assert made.tokens == count(made.text) <= budget  # type: ignore[operator]
    assert made.strategy == strategy or strategy == "auto"
    accounted = {one.id for one in made.cubes} | {one.cube for one in made.omitted if one.cube}
    rest = sum(one.count for one in made.omitted if one.cube is None)
    assert len(accounted) + rest == memory.count(user=user)
    assert all(one.reason for one in made.omitted)
    assert made.why.keys() == made.refs.keys() == {one.id for one in made.cubes}
    assert all(f"[{ref}]" in made.text for ref in made.refs.values())


@settings(max_examples=40)
@given(texts=st.lists(PROSE, min_size=1, max_size=4), budget=st.integers(60, 400))
def test_no_text_is_cut_inside_a_sentence(memory: mnemic.Memory, texts: list[str], budget: int) -> None:
    user = told(
        memory, [(f"{text} The end of {number}.", "Ana", number) for number, text in enumerate(texts)]
    )
    made = memory.context("Did it rain?", user=user, budget=budget, strategy="retrieval")
    lines = {line.split("]")[0][1:]: line for line in made.text.splitlines() if line.startswith("[")}
    for cube in made.cubes:
        piece = lines[made.refs[cube.id]].split(" Ana: ", 1)[1]
        whole = cube.text.strip()
        if piece == whole:
            continue
        bare = piece.removeprefix("… ").removesuffix(" …")
        spans = sentence_spans(whole)
        runs = {
            whole[first[0] : last[1]] for first, last in itertools.combinations_with_replacement(spans, 2)
        }
        assert bare in runs
        assert any(one.cube == cube.id and one.reason.startswith("shortened to") for one in made.omitted)


@pytest.mark.parametrize("budget", [1, 5, 10])
def test_a_budget_too_small_for_a_line_is_an_error_that_says_so(memory: mnemic.Memory, budget: int) -> None:
    user = told(memory, [("Ana moved to Porto.", "Ana", 0)])
    with pytest.raises(BudgetTooSmall, match="raise budget="):
        memory.context("Where?", user=user, budget=budget)


@pytest.mark.parametrize("budget", [0, -1, 1.5, True, None])
def test_a_budget_is_a_count(memory: mnemic.Memory, budget: object) -> None:
    with pytest.raises(InvalidOption):
        memory.context("Where?", user="ana", budget=budget)  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", [-1, 1.5, "3", None, True])
def test_a_counter_that_does_not_count_is_refused(memory: mnemic.Memory, answer: object) -> None:
    user = told(memory, [("Ana moved to Porto.", "Ana", 0)])
    with pytest.raises(InvalidOption, match="count_tokens must return a whole number"):
        memory.context("Where?", user=user, count_tokens=lambda _: answer)  # type: ignore[arg-type,return-value]


def test_one_text_larger_than_any_budget_is_shown_in_part(memory: mnemic.Memory) -> None:
    long = " ".join(f"Sentence number {number} is about nothing." for number in range(4000))
    user = told(memory, [(f"{long} Biscuit broke the vase. {long}", "Ana", 0)])
    made = memory.context("What did Biscuit break?", user=user, budget=200)
    assert made.tokens <= 200
    assert "Biscuit broke the vase." in made.text
    assert made.omitted[0].reason.startswith("shortened to")


def test_far_more_than_fits_is_neither_fetched_nor_counted(memory: mnemic.Memory) -> None:
    user = next(_users)
    messages = [{"role": "user", "content": f"Note {number} on cats."} for number in range(3000)]
    memory.add(messages, user=user)  # type: ignore[arg-type]
    counted = 0

    def count(text: str) -> int:
        nonlocal counted
        counted += len(text)
        return estimate_tokens(text)

    made = memory.context("Which note?", user=user, budget=500, count_tokens=count)
    assert made.strategy == "retrieval"
    assert counted < 40_000  # all of it, rendered, is more than 90,000
