"""Pieces and sentences cover a text exactly, and end where a reader would end them."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnemic.cube.errors import InvalidOption
from mnemic.plaintext.ingest.cut import Span, cut, sentences

words = st.sampled_from(
    ["Porto", "e.g.", "Dr. Smith", "3.5", "U.S.", "é", "👩‍👩‍👧", "。", "!",
     ". ", "\n", "\n\n", "\r\n", " ", "  ", "# Head\n", "```\n", "- a\n", "x" * 40]
)  # fmt: skip
documents = st.lists(words | st.text(max_size=8), max_size=120).map("".join)


def covers(text: str, spans: list[Span]) -> bool:
    ends = [0, *(end for _, end in spans)]
    return (
        [start for start, _ in spans] == ends[:-1] and ends[-1] == len(text) and all(a < b for a, b in spans)
    )


@given(text=documents, target=st.integers(1, 60), more=st.integers(0, 60))
def test_pieces_are_lossless_and_within_the_limit(text: str, target: int, more: int) -> None:
    spans = cut(text, target=target, limit=target + more)
    assert covers(text, spans)
    assert all(end - start <= target + more for start, end in spans)
    assert "".join(text[a:b] for a, b in spans) == text


@given(text=documents)
def test_sentences_are_lossless(text: str) -> None:
    assert covers(text, sentences(text))


@pytest.mark.parametrize(
    "expected",
    [
        ["I met Dr. Smith today. ", "He was kind."],
        ["Bring fruit, e.g. apples, i.e. Something fresh. ", "Thanks!"],
        ["It costs 3.5 euros. ", "That is cheap."],
        ["She lives in the U.S. Virgin Islands now. ", "Lucky!"],
        ["J. R. R. Tolkien wrote it. ", "I read it."],
        ["So do I. ", "Then we agree."],
        ["See No. 5 and Fig. 3 below. ", "No. ", "That is wrong."],
        ["“Really?” she asked. ", "He said: “Yes.” ", "Then he left."],
        ["Well... maybe. ", "Wait... ", "What?! ", "Yes."],
        ["我去了里斯本。", "天气很好！", "真的吗？"],
        ["They shop at mnemic.example.org daily. ", "OK?"],
        ["Packing list:\n", "- tent\n", "- map\n", "1. Start early\n", "2. Eat"],
        ["# Title\n\n", "First line\ngoes on. ", "Second."],
        ["É bom. ", "Água fria."],
    ],
)
def test_sentences_end_where_a_reader_ends_them(expected: list[str]) -> None:
    text = "".join(expected)
    assert [text[a:b] for a, b in sentences(text)] == expected


def test_a_short_text_is_one_piece_and_no_text_is_none() -> None:
    assert cut("# A\n\nb\n\n# C\n\nd") == [(0, 14)]
    assert cut("") == sentences("") == []


def test_pieces_end_at_paragraphs_first() -> None:
    paragraph = "One sentence here. Another one there.\n\n"
    text = paragraph * 100
    assert all(text[:end].endswith("\n\n") for _, end in cut(text))


def test_pieces_end_at_sentences_where_there_are_no_paragraphs() -> None:
    text = "Dr. Smith paid 3.5 euros in the U.S. yesterday, e.g. for tea. " * 200
    ends = {end for _, end in sentences(text)}
    assert all(end in ends for _, end in cut(text))


def test_headings_start_pieces_and_code_stays_whole() -> None:
    code = "```python\n# not a heading\n\n" + "x = 1\n\n" * 100 + "```\n"
    text = "".join(f"## Part {n}\n\n{'Some words. ' * 60}\n\n{code}\n" for n in range(5))
    pieces = [text[a:b] for a, b in cut(text)]
    assert sum(piece.startswith("## Part") for piece in pieces) == 5
    assert sum(code in piece for piece in pieces) == 5


def test_a_title_stays_with_its_first_section() -> None:
    text = "# Title\n\n## One\n\n" + "a b. " * 300 + "\n\n## Two\n\n" + "c d. " * 300
    assert [text[a:b].split("\n")[0] for a, b in cut(text) if text[a] == "#"] == ["# Title", "## Two"]


@pytest.mark.parametrize("unit", ["👩‍👩‍👧", "e\u0301\u0323", "🇵🇹", "👍🏽", "\r\n"])
def test_a_hard_cut_does_not_part_what_is_seen_as_one(unit: str) -> None:
    text = unit * 2000
    assert all((end - start) % len(unit) == 0 for start, end in cut(text, target=90, limit=101))


@pytest.mark.parametrize("options", [{"target": 0}, {"limit": 10}, {"target": 1.5}, {"limit": True}])
def test_options_are_checked(options: dict[str, int]) -> None:
    with pytest.raises(InvalidOption):
        cut("text", **options)


@pytest.mark.parametrize("function", [cut, sentences])
@pytest.mark.parametrize(
    "unit",
    [
        "I like Porto. It rains, e.g. in March.\n\n",
        ".",
        " ",
        "\n",
        "\n  ",
        "`",
        ".)",
        "```\na\n```\n",
        "# a\nb\n",
    ],
)
def test_ten_times_the_text_takes_ten_times_as_long(function: Callable[[str], list[Span]], unit: str) -> None:
    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        begun = time.process_time()
        function(text)
        return time.process_time() - begun

    assert seconds(1_000_000) < 40 * max(seconds(100_000), 0.005)  # a quadratic one takes 100 times as long
