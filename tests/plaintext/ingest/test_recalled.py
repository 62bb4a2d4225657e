"""Blocks that mnemic put into a prompt are found whole, and stored text cannot end one early."""

from hypothesis import given
from hypothesis import strategies as st

from mnemic.plaintext.ingest.recalled import (
    CLOSING,
    OPENING,
    escape_recalled,
    find_recalled,
    opening,
    without_recalled,
)

pieces = st.lists(
    st.sampled_from(
        [
            OPENING,
            CLOSING,
            "<",
            "/",
            ">",
            "mnemic-memory",
            " ",
            "</mnemic-memory",
            "</MNEMIC-memory >",
            "x",
            "&lt;",
        ]
    )
    | st.text(max_size=5)
).map("".join)


@given(stored=pieces)
def test_an_escaped_text_stays_inside_its_block(stored: str) -> None:
    block = opening(ids='a"<b>') + escape_recalled(stored) + CLOSING
    assert find_recalled("before " + block + " after") == [(7, 7 + len(block))]
    assert without_recalled("before " + block + " after") == "before  after"


@given(text=pieces)
def test_spans_are_in_order_apart_and_inside_the_text(text: str) -> None:
    spans = find_recalled(text)
    flat = [position for span in spans for position in span]
    assert flat == sorted(flat)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert find_recalled(escape_recalled(text)) == []


def test_nested_open_ended_and_lone_tags() -> None:
    nested = f"{OPENING}a{OPENING}b{CLOSING}c{CLOSING}"
    assert find_recalled(f"x{nested}y{nested}") == [
        (1, 1 + len(nested)),
        (2 + len(nested), 2 + 2 * len(nested)),
    ]
    assert without_recalled(f"said {OPENING} and cut off") == "said "
    assert without_recalled('said <mnemic-memory ids="1,2') == "said "
    assert without_recalled(f"only {CLOSING} here") == f"only {CLOSING} here"
    assert find_recalled("<mnemic-memory-like> <mnemic-memoryx>") == []


def test_plain_text_is_not_changed() -> None:
    assert escape_recalled("a < b && c > d <b>bold</b>") == "a < b && c > d <b>bold</b>"
