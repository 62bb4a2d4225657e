"""The recogniser accepts what satisfies a schema and nothing that is not JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnemic.cube.errors import InvalidOption
from mnemic.models.json_grammar import begins, grammar, is_complete, step


def accepts(schema: Any, text: str) -> bool:
    state = grammar(schema)
    for byte in text.encode():
        assert (byte in begins(state)) == bool(step(state, byte))
        state = step(state, byte)
        if not state:
            return False
    return is_complete(state)


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 5},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"enum": ["a", "bé"]}, "minItems": 1, "maxItems": 2},
        "pair": {"prefixItems": [{"const": 1}, {"type": ["null", "boolean"]}], "items": False},
    },
    "required": ["name", "age"],
}


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ('{"name":"Ana","age":3}', True),
        ('{"name": "Ana", "age": 3, "tags": ["a", "bé"]}', True),
        ('{"name":"Ana","age":3,"pair":[1,null]}', True),
        ('{"name":"Ana","age":3,"pair":[1,null,2]}', False),
        ('{"name":"Ana","age":3,"pair":[2,null]}', False),
        ('{"age":3,"name":"Ana"}', False),  # members come in the schema's order
        ('{"name":"Ana"}', False),
        ('{"name":"Ana","age":3,"other":1}', False),
        ('{"name":"","age":3}', False),
        ('{"name":"Anabel","age":3}', False),
        ('{"name":"Ana","age":-3}', False),
        ('{"name":"Ana","age":03}', False),
        ('{"name":"Ana","age":3.5}', False),
        ('{"name":"\\u00e9\\ud83d","age":3}', False),  # half of a surrogate pair is no text
        ('{"name":"é\\u00e9🎉","age":3}', True),
        ('{"name":"Ana","age":3,"tags":[]}', False),
        ('{"name":"Ana","age":3,"tags":["a","a","a"]}', False),
        ('{"name":"Ana","age":3,}', False),
        ('{"name":"Ana","age":3}}', False),
    ],
)
def test_an_object(text: str, good: bool) -> None:
    assert accepts(PERSON, text) is good


def test_a_schema_that_contains_itself() -> None:
    chain = {
        "$defs": {
            "link": {
                "type": "object",
                "properties": {"v": {"type": "number"}, "next": {"anyOf": [{"$ref": "#/$defs/link"}, {"type":
                "null"}]}}, "required": ["v", "next"],
            }
        },
        "$ref": "#/$defs/link",
    }  # fmt: skip
    assert accepts(chain, '{"v":1.5e3,"next":{"v":-0,"next":null}}')
    assert not accepts(chain, '{"v":1.5e3,"next":{"v":-0}}')


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(value=values, ascii_only=st.booleans())
def test_anything_accepts_all_json(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":"))
    if "\\ud8" not in text:  # escaped pairs are never needed: the character itself can be written
        halves = any(f"\\ud{digit}" in text for digit in "89abcdef")
        assert accepts(True, text) or halves
    assert accepts({"const": value}, json.dumps(value, ensure_ascii=False, separators=(",", ":")))


@given(choices=st.data())
def test_whatever_is_written_by_it_is_json_and_satisfies_the_schema(choices: st.DataObject) -> None:
    """Bytes drawn at random from what may come next: at every end, the text is valid."""
    import jsonschema

    state, text = grammar(PERSON), bytearray()
    for _ in range(400):
        allowed = sorted(begins(state))
        if not allowed:
            break
        byte = choices.draw(st.sampled_from(allowed))
        text.append(byte)
        state = step(state, byte)
    assert is_complete(state)
    jsonschema.validate(json.loads(text), PERSON)


@pytest.mark.parametrize("schema", [False, {"$ref": "#/nosuch"}, {"$ref": "http://x/y"}, {"type": "date"}, 7])
def test_what_nothing_satisfies_or_cannot_be_read_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidOption):
        grammar(schema)
