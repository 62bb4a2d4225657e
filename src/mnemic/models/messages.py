"""Checks on what a language model is asked. Knows no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mnemic.cube.checks import require_count, require_positive
from mnemic.cube.errors import InvalidInput, InvalidOption, InvalidText


def check_messages(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The messages as a list of dicts with "role" and "content". Raises InvalidOption, InvalidInput,
    InvalidText.
    """
    advice = 'messages must be a non-empty list such as [{"role": "user", "content": "…"}]'
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence) or not messages:
        raise InvalidOption(f"{advice}, got {messages!r:.80}")
    for position, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise InvalidOption(f"{advice}; messages[{position}] is {type(message).__name__}")
        for field in ("role", "content"):
            value = message.get(field)
            if not isinstance(value, str):
                raise InvalidInput(f"{advice}; messages[{position}] has {field}={value!r:.80}")
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise InvalidText(f"messages[{position}] is not valid Unicode ({error.reason})") from None
    return [dict(message) for message in messages]


def check_sampling(max_tokens: int, temperature: float, stop: Sequence[str]) -> None:
    """Raises InvalidOption."""
    require_count(max_tokens=max_tokens)
    if temperature != 0:
        require_positive(temperature=temperature)
    listed = isinstance(stop, Sequence) and not isinstance(stop, str)
    if not listed or any(not isinstance(word, str) or not word for word in stop):
        raise InvalidOption(f"stop must be a list of non-empty texts, got {stop!r:.80}")
