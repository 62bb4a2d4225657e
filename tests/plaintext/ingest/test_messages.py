"""`tell`: what goes in comes out verbatim, and nothing is ignored in silence."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnemic.cube.errors import InvalidInput, InvalidOption, InvalidText, InvalidTime
from mnemic.cube.model import Origin
from mnemic.plaintext.ingest.messages import MAX_TEXT_CHARS, tell

AT = 1741514400_000_000
texts = st.text(min_size=1).filter(str.strip)


@given(text=texts)
def test_a_text_is_kept_as_it_is(text: str) -> None:
    (alone,) = tell(text)
    (message,) = tell({"role": "user", "content": text})
    (parts,) = tell([{"role": "user", "content": [{"type": "text", "text": text}]}])
    assert alone.text == message.text == parts.text == text
    assert alone.origin is Origin.user


@pytest.mark.parametrize(
    "at", ["2025-03-09T10:00:00Z", AT / 1e6, AT // 1_000_000, datetime(2025, 3, 9, 10, tzinfo=UTC)]
)
def test_a_time_is_read_the_same_beside_and_inside_a_message(at: Any) -> None:
    assert tell("x", at=at)[0].at == AT
    assert tell({"content": "x", "at": at})[0].at == AT
    assert tell({"content": "x", "at": at}, at=0)[0].at == AT
    assert tell({"content": "x", "at": 0}, at=at)[0].at == 0


@pytest.mark.parametrize(
    ("role", "origin"),
    [
        ("user", Origin.user),
        ("system", Origin.user),
        ("developer", Origin.user),
        ("assistant", Origin.model),
        ("tool", Origin.imported),
        ("function", Origin.imported),
    ],
)
def test_origin_follows_from_the_role(role: str, origin: Origin) -> None:
    (told,) = tell({"role": role, "content": "x"})
    assert (told.role, told.origin) == (role, origin)


def test_parts_become_text_and_placeholders_without_inline_data() -> None:
    data = "data:image/png;base64," + "A" * 5000
    (told,) = tell(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "My flat:"},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.jpg", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": data}},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
                {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
                {"type": "file", "file": {"filename": "lease.pdf", "file_data": data}},
            ],
        }
    )
    assert told.text == "My flat:\n[image]\n[image]\n[image]\n[audio]\n[file]"
    kept = " ".join(told.metadata["parts"])
    assert "https://example.org/a.jpg" in kept
    assert "lease.pdf" in kept
    assert "AAAA" not in kept
    assert "QUJD" not in kept


def test_tool_calls_are_readable_and_kept() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Porto"}'}}
    (told,) = tell({"role": "assistant", "content": None, "tool_calls": [call]})
    assert told.text == 'weather({"city": "Porto"})'
    assert told.origin is Origin.model
    assert '"c1"' in told.metadata["tool_calls"][0]
    (said,) = tell({"role": "assistant", "content": "Let me look.", "tool_calls": [call]})
    assert said.text == "Let me look."
    assert said.metadata["tool_calls"] == told.metadata["tool_calls"]
    (result,) = tell({"role": "tool", "tool_call_id": "c1", "content": "17 °C"})
    assert (result.origin, result.metadata["tool_call_id"]) == (Origin.imported, "c1")


def test_anthropic_blocks_are_read() -> None:
    asked, answered = tell(
        [
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "42"}]},
        ]
    )
    assert (asked.text, asked.origin) == ('f({"x": 1})', Origin.model)
    assert (answered.text, answered.origin) == ("42", Origin.imported)  # a tool speaks, not the user


def test_keys_without_content_are_accepted() -> None:
    empty = {"refusal": None, "annotations": [], "audio": None, "function_call": None, "tool_calls": None}
    (told,) = tell({"role": "assistant", "content": "Hi", **empty})
    assert (told.text, dict(told.metadata)) == ("Hi", {})


@pytest.mark.parametrize(
    ("message", "error", "says"),
    [
        ({"role": "user", "content": ""}, InvalidText, "empty"),
        ({"role": "user", "content": " \n\t"}, InvalidText, "empty"),
        ({"role": "user", "content": None}, InvalidText, "empty"),
        ({"role": "user"}, InvalidInput, "content"),
        ({"role": "user", "content": "ab\ud800c"}, InvalidText, "character 2"),
        ({"role": "robot", "content": "x"}, InvalidInput, "robot"),
        ({"role": "user", "content": "x", "tiemstamp": 3}, InvalidOption, "tiemstamp"),
        ({"role": "user", "content": "x", "at": "yesterday"}, InvalidTime, "yesterday"),
        ({"role": "user", "content": "x", "at": 10**400}, InvalidTime, "not a time"),
        ({"role": "user", "content": "x", "at": float("nan")}, InvalidTime, "nan"),
        ({"role": "user", "content": "x", "id": 7}, InvalidOption, "id=7"),
        ({"role": "user", "content": "x", "metadata": {"a": {"b": 1}}}, InvalidOption, "flat"),
        ({"role": "user", "content": "x", "metadata": {"a": [[1]]}}, InvalidOption, "flat"),
        ({"role": "user", "content": "x", "metadata": {"a": float("inf")}}, InvalidOption, "finite"),
        ({"role": "user", "content": "x", "metadata": {"a": "\x00"}}, InvalidOption, "NUL"),
        ({"role": "user", "content": "x", "metadata": {1: "a"}}, InvalidOption, "metadata key"),
        ({"role": "user", "content": "x", "metadata": [1]}, InvalidOption, "dict"),
        ({"role": "user", "content": "x", "labels": [3]}, InvalidOption, "label"),
        ({"role": "user", "content": [{"type": "hologram"}]}, InvalidOption, "hologram"),
        ({"role": "user", "content": [{"type": "text", "text": "x", "colour": 1}]}, InvalidOption, "colour"),
        ({"role": "user", "content": [3]}, InvalidInput, "int"),
        ({"role": "user", "content": b"x"}, InvalidInput, "decode"),
        ({"role": "assistant", "tool_calls": [{"id": "c"}], "content": None}, InvalidInput, "no name"),
        (3, InvalidInput, "int"),
    ],
)
def test_an_error_says_what_is_wrong_and_where(message: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error) as raised:
        tell([{"role": "user", "content": "fine"}, message])
    assert str(raised.value).startswith("message 1: ")
    assert says in str(raised.value)


def test_too_long_a_text_advises_a_file() -> None:
    assert tell("a" * MAX_TEXT_CHARS)
    with pytest.raises(InvalidText, match="import"):
        tell("a" * (MAX_TEXT_CHARS + 1))


def test_keywords_hold_for_every_message_that_says_nothing_itself() -> None:
    first, second = tell(
        [{"content": "a", "name": "Bo", "labels": ["x"], "metadata": {"k": 1}}, "b"],
        name="Ana", role="user", labels="y", metadata={"k": 0, "l": 2},
    )  # fmt: skip
    assert (first.name, first.labels, first.metadata) == ("Bo", ("x", "y"), {"k": 1, "l": 2})
    assert (second.name, second.labels, second.metadata) == ("Ana", ("y",), {"k": 0, "l": 2})
    with pytest.raises(InvalidOption, match="one message"):
        tell(["a", "b"], id="1")
    assert tell([]) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v),
)
keys = st.sampled_from(
    ["role", "content", "type", "text", "tool_calls", "function", "name", "id", "at", "metadata", "audio"]
)


@given(
    content=st.recursive(
        json_values, lambda v: st.lists(v, max_size=3) | st.dictionaries(keys, v, max_size=4)
    )
)
def test_whatever_comes_only_typed_errors_are_raised(content: Any) -> None:
    try:
        told = tell(content)
    except InvalidInput:
        return
    assert all(item.text.strip() for item in told)
