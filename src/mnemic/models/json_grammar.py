"""JSON Schema as a recogniser of bytes: which byte may come next, so that what is written satisfies it.

A state is the set of ways in which the text so far can go on; a way is a stack of symbols still to come, the
next one last. A symbol is a set of bytes, or a rule that unfolds into other symbols when it is reached, so
that recursive schemas cost nothing until they are used. Knows no model and no tokens.

Written compactly: a single blank may follow ":" and ",", nothing else is between values. Object members come
in the schema's order; members the schema does not name are not written where it names any. Keywords that are
not read here (pattern, format, minimum, uniqueItems, allOf, not, if) leave more open than they allow: whoever
uses this checks the finished value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from mnemic.cube.errors import InvalidOption

DIGITS: Final = 15  # of a number's parts: as many as a float keeps
_ANNOTATIONS: Final = frozenset(
    {"title", "description", "default", "examples", "$schema", "$id", "$comment", "$defs", "definitions"}
)


class Symbol:
    """A set of bytes, or a rule; the same only as itself."""

    __slots__ = ()


class Bytes(Symbol):
    """One byte of these."""

    __slots__ = ("allowed",)

    def __init__(self, allowed: Iterable[int]) -> None:
        self.allowed = frozenset(allowed)


class Rule(Symbol):
    """Unfolds into one of several stacks; asked once."""

    __slots__ = ("_make", "_ways")

    def __init__(self, make: Callable[[], Sequence[Stack]]) -> None:
        self._make = make
        self._ways: tuple[Stack, ...] | None = None

    @property
    def ways(self) -> tuple[Stack, ...]:
        if self._ways is None:
            self._ways = tuple(self._make())
        return self._ways


Stack = tuple[Symbol, ...]
State = tuple[Stack, ...]


def grammar(schema: Mapping[str, Any] | bool) -> State:
    """The state before the first byte. Raises InvalidOption when nothing can satisfy the schema."""
    return _settle([(_Schema(schema).value(schema),)])


def step(state: State, byte: int) -> State:
    """The state after one more byte; empty when the byte may not come here. O(ways)."""
    return _settle([stack[:-1] for stack in state if stack and byte in stack[-1].allowed])  # type: ignore[attr-defined]


def begins(state: State) -> frozenset[int]:
    """The bytes that may come next; none when the text has to end here."""
    return _begins(state)


@lru_cache(4096)
def _begins(state: State) -> frozenset[int]:
    return frozenset().union(*(stack[-1].allowed for stack in state if stack))  # type: ignore[attr-defined]


def is_complete(state: State) -> bool:
    """Whether the text may end here."""
    return () in state


def _settle(stacks: Sequence[Stack]) -> State:
    """Unfold until every stack is empty or waits for a byte."""
    waiting: dict[Stack, None] = {}
    todo = list(stacks)
    while todo:
        stack = todo.pop()
        if stack and isinstance(rule := stack[-1], Rule):
            todo.extend(stack[:-1] + way for way in rule.ways)
        else:
            waiting[stack] = None
    return tuple(waiting)


# --- symbols


def _row(*symbols: Symbol) -> Stack:
    """One after another."""
    return tuple(reversed(symbols))


def _text(text: str) -> Stack:
    return _row(*(_byte(byte) for byte in text.encode()))


@lru_cache(256)
def _byte(byte: int) -> Bytes:
    return Bytes([byte])


def _either(*ways: Stack) -> Rule:
    return Rule(lambda: ways)


def _times(what: Stack, least: int = 0, most: int | None = None) -> Rule:
    """`what` that often; it may not be empty."""

    def make() -> list[Stack]:
        ways: list[Stack] = [] if least else [()]
        if most != 0:
            rest = rule if not least and most is None else _times(what, max(least - 1, 0), _less(most))
            ways.append((rest, *what))
        return ways

    rule = Rule(make)
    return rule


def _less(most: int | None) -> int | None:
    return None if most is None else most - 1


_DIGIT: Final = Bytes(b"0123456789")
_HEX: Final = Bytes(b"0123456789abcdefABCDEF")
_GAP: Final = _either((), _text(" "))
_TAIL: Final = Bytes(range(0x80, 0xC0))
_CHARACTER: Final = _either(
    (Bytes(set(range(0x20, 0x80)) - set(b'"\\')),),
    _row(_byte(0x5C), Bytes(b'"\\/bfnrt')),
    _row(_byte(0x5C), _byte(0x75), Bytes(b"0123456789abcefABCEF"), _HEX, _HEX, _HEX),
    _row(_byte(0x5C), _byte(0x75), Bytes(b"dD"), Bytes(b"01234567"), _HEX, _HEX),  # no half of a pair
    _row(Bytes(range(0xC2, 0xE0)), _TAIL),
    _row(_byte(0xE0), Bytes(range(0xA0, 0xC0)), _TAIL),
    _row(Bytes([*range(0xE1, 0xED), 0xEE, 0xEF]), _TAIL, _TAIL),
    _row(_byte(0xED), Bytes(range(0x80, 0xA0)), _TAIL),
    _row(_byte(0xF0), Bytes(range(0x90, 0xC0)), _TAIL, _TAIL),
    _row(Bytes(range(0xF1, 0xF4)), _TAIL, _TAIL, _TAIL),
    _row(_byte(0xF4), Bytes(range(0x80, 0x90)), _TAIL, _TAIL),
)
_WHOLE: Final = _either(
    _text("0"), _row(Bytes(b"123456789"), _times((_DIGIT,), 0, DIGITS - 1))
)  # without a sign
_FRACTION: Final = _either((), _row(_byte(0x2E), _times((_DIGIT,), 1, DIGITS)))
_EXPONENT: Final = _either(
    (), _row(Bytes(b"eE"), _either((), (Bytes(b"+-"),)), _DIGIT, _times((_DIGIT,), 0, 1))
)
_SIGN: Final = _either((), _text("-"))


class _Schema:
    """One schema document: its parts as symbols, each made once."""

    def __init__(self, root: Mapping[str, Any] | bool) -> None:
        self._root = root
        self._made: dict[int, Rule] = {}
        self._anything: Rule | None = None

    def value(self, schema: Any) -> Rule:
        if schema is True or (isinstance(schema, Mapping) and not set(schema) - _ANNOTATIONS):
            return self.anything()
        if schema is False or not isinstance(schema, Mapping):
            raise InvalidOption(f"nothing satisfies this part of the schema: {schema!r:.80}")
        if id(schema) not in self._made:
            self._made[id(schema)] = Rule(lambda: self._ways(schema))
        return self._made[id(schema)]

    def anything(self) -> Rule:
        if self._anything is None:
            kinds = ("object", "array", "string", "number", "boolean", "null")
            self._anything = Rule(lambda: [(self._typed(kind, {}),) for kind in kinds])
        return self._anything

    def _ways(self, schema: Mapping[str, Any]) -> list[Stack]:
        if "$ref" in schema:
            return [(self.value(self._pointed(schema["$ref"])),)]
        if "const" in schema:
            return [_text(_json(schema["const"]))]
        if "enum" in schema:
            return [_text(_json(one)) for one in schema["enum"]]
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return [(self.value(one),) for one in schema[keyword] if one is not False]
        named = schema.get("type")
        if named is None:
            named = next((kind for kind, words in _MEANT.items() if words & set(schema)), None)
        if named is None:
            return [(self.anything(),)]
        kinds = [named] if isinstance(named, str) else list(named)
        return [(self._typed(kind, schema),) for kind in kinds]

    def _typed(self, kind: str, schema: Mapping[str, Any]) -> Rule:
        if kind == "object":
            return self._object(schema)
        if kind == "array":
            return self._array(schema)
        if kind == "string":
            least, most = schema.get("minLength", 0), schema.get("maxLength")
            quote = _byte(0x22)
            return _either(_row(quote, _times((_CHARACTER,), least, most), quote))
        if kind in ("integer", "number"):
            sign = () if _at_least(schema) >= 0 else (_SIGN,)
            rest = (_WHOLE,) if kind == "integer" else (_WHOLE, _FRACTION, _EXPONENT)
            return _either(_row(*sign, *rest))
        if kind == "boolean":
            return _either(_text("true"), _text("false"))
        if kind == "null":
            return _either(_text("null"))
        raise InvalidOption(f"type {kind!r:.80} in the schema is not a JSON type")

    def _object(self, schema: Mapping[str, Any]) -> Rule:
        named = list(schema.get("properties", {}).items())
        required = set(schema.get("required", ()))
        named += [(name, True) for name in schema.get("required", ()) if name not in dict(named)]
        if not named:
            others = schema.get("additionalProperties", True)
            return self._free(None if others is False else self.value(others))
        close = _text("}")

        def members(at: int, first: bool) -> Rule:
            def make() -> list[Stack]:
                if at == len(named):
                    return [close]
                name, inner = named[at]
                ways: list[Stack] = [] if name in required else [(members(at + 1, first),)]
                if inner is not False:
                    start = () if first else (_byte(0x2C), _GAP)
                    key = tuple(reversed(_text(_json(name) + ":")))
                    ways.append(_row(*start, *key, _GAP, self.value(inner), members(at + 1, False)))
                return ways

            return Rule(make)

        return _either(_row(_byte(0x7B), members(0, True)))

    def _free(self, value: Rule | None) -> Rule:
        """An object whose members nobody named."""
        if value is None:
            return _either(_text("{}"))
        quote = _byte(0x22)
        member = _row(quote, _times((_CHARACTER,)), quote, _byte(0x3A), _GAP, value)
        more = _times((*member, _GAP, _byte(0x2C)))
        return _either(_text("{}"), (_byte(0x7D), more, *member, _byte(0x7B)))

    def _array(self, schema: Mapping[str, Any]) -> Rule:
        first = [self.value(one) for one in schema.get("prefixItems", ())]
        others = schema.get("items", True)
        rest = None if others is False else self.value(others)
        least = schema.get("minItems", 0)
        most = schema.get("maxItems", len(first) if rest is None else None)
        close = _byte(0x5D)

        def items(at: int) -> Rule:
            def make() -> list[Stack]:
                ways: list[Stack] = [(close,)] if at >= least else []
                item = first[at] if at < len(first) else rest
                if item is not None and (most is None or at < most):
                    start = () if at == 0 else (_byte(0x2C), _GAP)
                    ways.append(_row(*start, item, items(at + 1)))
                return ways

            return Rule(make)

        return _either(_row(_byte(0x5B), items(0)))

    def _pointed(self, reference: str) -> Any:
        """What a local $ref points to (RFC 6901)."""
        found: Any = self._root
        try:
            if not reference.startswith("#"):
                raise KeyError(reference)
            for part in reference[1:].split("/")[1:]:
                part = part.replace("~1", "/").replace("~0", "~")
                found = found[int(part)] if isinstance(found, list) else found[part]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise InvalidOption(
                f"$ref {reference!r:.80} is not in the schema; only references that begin with # are read"
            ) from error
        return found


_MEANT: Final[Mapping[str, frozenset[str]]] = {  # a type that is not said, from keywords that only it has
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
}


def _at_least(schema: Mapping[str, Any]) -> float:
    found = [schema[word] for word in ("minimum", "exclusiveMinimum") if word in schema]
    return float(max(found)) if found else float("-inf")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
