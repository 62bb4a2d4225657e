"""Text and chat messages in, `Told` out: everything is checked before anything is returned. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mnemic.cube.errors import InvalidInput, InvalidOption
from mnemic.cube.model import Origin
from mnemic.cube.times import TimeLike
from mnemic.plaintext.ingest.checked import (
    MAX_TEXT_CHARS,
    ORIGINS,
    check_labels,
    check_metadata,
    check_role,
    check_short,
    check_text,
    check_time,
)
from mnemic.plaintext.ingest.parts import Content, as_json, read_content
from mnemic.plaintext.ingest.told import Told

__all__ = ["KEYS", "MAX_TEXT_CHARS", "tell"]

KEYS: Final = ("role", "content", "name", "at", "id", "metadata", "labels", "tool_calls", "tool_call_id")
_EXTRA: Final = ("refusal", "annotations", "audio", "function_call", "reasoning_content", "model")
_NO_CONTENT: Final = (
    "type",
    "stop_reason",
    "stop_sequence",
    "stop_details",
    "usage",
    "container",
    "cache_control",
)

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Defaults:
    """What holds for every message that does not say otherwise."""

    at: int | None
    id: str | None
    role: str | None
    name: str | None
    metadata: Mapping[str, Any]
    labels: tuple[str, ...]


def tell(
    content: str | Message | Iterable[str | Message],
    *,
    at: TimeLike | None = None,
    id: str | None = None,
    role: str | None = None,
    name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    labels: Iterable[str] | str = (),
) -> list[Told]:
    """Read a text, one message, or a list of messages (OpenAI's or Anthropic's format). O(characters).

    The keywords hold for each message that does not carry the key itself; metadata and labels are joined, the
    message's own first. `id` names one message, so it may not be given for several.

    Raises InvalidOption for an unknown key, InvalidText for text that cannot be stored, InvalidTime, and
    InvalidInput for anything else; in a list the error names the position ("message 3: …"), counted from 0.
    """
    defaults = _Defaults(
        at=check_time(at),
        id=check_short("id", id),
        role=None if role is None else check_role(role),
        name=check_short("name", name),
        metadata=check_metadata(metadata),
        labels=check_labels(labels),
    )
    if isinstance(content, str | Mapping):
        return [_told(content, defaults)]
    if isinstance(content, bytes) or not isinstance(content, list | tuple):
        raise InvalidInput(
            f"{type(content).__name__} cannot be told. Give text, a message dict such as "
            '{"role": "user", "content": "…"} (for an SDK object: .model_dump()), or a list of those.'
        )
    if id is not None and len(content) > 1:
        raise InvalidOption(
            f"id={id!r:.80} names one message, and {len(content)} are given: put an id in each"
        )
    return [_at_position(index, item, defaults) for index, item in enumerate(content)]


def _at_position(index: int, item: str | Message, defaults: _Defaults) -> Told:
    try:
        return _told(item, defaults)
    except InvalidInput as error:
        raise type(error)(f"message {index}: {error}") from error


def _told(item: str | Message, defaults: _Defaults) -> Told:
    message = {"content": item} if isinstance(item, str) else item
    if not isinstance(message, Mapping):
        raise InvalidInput(
            f"is a {type(message).__name__}; expected text or a dict with 'role' and 'content'"
        )
    _check_keys(message)
    role = check_role(message["role"] if message.get("role") is not None else defaults.role or "user")
    content = read_content(message.get("content"))
    made = _collect(message, content)
    own = check_metadata(message.get("metadata"))
    clash = made.keys() & own.keys()
    if clash:
        raise InvalidOption(
            f"metadata key {min(clash)!r} is taken by the message's own {min(clash)}; rename yours"
        )
    moment = message.get("at")
    return Told(
        text=check_text(content.text),
        role=role,
        name=check_short("name", message.get("name")) or defaults.name,
        at=check_time(moment) if moment is not None else defaults.at,
        id=check_short("id", message.get("id")) or defaults.id,
        origin=Origin.imported if content.has_results else Origin.model if content.calls else ORIGINS[role],
        labels=check_labels((*check_labels(message.get("labels")), *defaults.labels)),
        metadata={**defaults.metadata, **own, **check_metadata(made)},
    )


def _check_keys(message: Message) -> None:
    for key in message:
        if key not in KEYS and key not in _EXTRA and key not in _NO_CONTENT:
            raise InvalidOption(
                f"unknown key {key!r:.80}; a message may have {', '.join(KEYS)}. "
                "Put anything else in 'metadata'."
            )
    if message.get("type", "message") != "message":
        raise InvalidOption(
            f"type={message['type']!r:.80} is not a message; is this one part of a message's content?"
        )
    if "content" not in message and not any(
        message.get(key) for key in ("tool_calls", "function_call", "audio")
    ):
        raise InvalidInput("has no 'content'")


def _collect(message: Message, content: Content) -> dict[str, Any]:
    """Add what stands beside `content` (calls, refusal, audio) to it; return the metadata of all parts."""
    for call in _listed(message, "tool_calls"):
        function = call.get("function", call.get("custom", call))
        if not isinstance(function, Mapping):
            raise InvalidInput(f"a tool call has no function: {call!r:.120}")
        content.add_call(function.get("name"), function.get("arguments", function.get("input")), call)
    if message.get("function_call"):
        (call,) = _listed({"function_call": [message["function_call"]]}, "function_call")
        content.add_call(call.get("name"), call.get("arguments"), call)
    if message.get("refusal"):
        content.texts.append(_as_text(message, "refusal"))
    if message.get("audio"):
        _add_audio(message["audio"], content)
    if message.get("reasoning_content"):
        content.thinking.append(_as_text(message, "reasoning_content"))
    found = {
        "parts": content.parts,
        "tool_calls": content.calls,
        "thinking": content.thinking,
        "annotations": [as_json(item) for item in _listed(message, "annotations")],
        "tool_call_id": message.get("tool_call_id") or ", ".join(content.result_ids),
        "model": message.get("model"),
    }
    return {key: value for key, value in found.items() if value}


def _add_audio(audio: object, content: Content) -> None:
    if not isinstance(audio, Mapping):
        raise InvalidInput("audio must be a dict with 'transcript'")
    if audio.get("transcript"):
        content.texts.append(_as_text(audio, "transcript"))
        content.parts.append(as_json({"type": "audio", "id": audio.get("id")}))
    else:
        content.add_placeholder("audio", id=audio.get("id"))


def _as_text(holder: Message, key: str) -> str:
    if not isinstance(holder[key], str):
        raise InvalidInput(f"{key} must be text, got {type(holder[key]).__name__}")
    return str(holder[key])


def _listed(message: Message, key: str) -> list[Message]:
    items = message.get(key)
    if not items:
        return []
    if not isinstance(items, list | tuple) or not all(isinstance(item, Mapping) for item in items):
        raise InvalidInput(f"{key} must be a list of dicts")
    return list(items)
