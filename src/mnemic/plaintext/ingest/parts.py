"""The content of one message: text, or a list of parts (OpenAI's or Anthropic's). Knows no roles or times.

Text parts are joined verbatim with a newline. What is not text becomes a bracketed placeholder, and what is
known about it (address, detail, file name) is kept as JSON in `Content.parts`; inline base64 data is never
kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mnemic.cube.errors import InvalidInput, InvalidOption

_NO_CONTENT: Final = frozenset({"type", "cache_control", "citations", "annotations", "logprobs", "signature"})


@dataclass(slots=True)
class Content:
    """What was found in a message, in order. `parts` and `calls` hold JSON texts, for flat metadata."""

    texts: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    call_texts: list[str] = field(default_factory=list)
    result_ids: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    has_results: bool = False

    @property
    def text(self) -> str:
        """What was said; where only tools were called, the calls as `name(arguments)`, one a line."""
        said = "\n".join(self.texts)
        return said if said.strip() or not self.call_texts else "\n".join(self.call_texts)

    def add_call(self, name: object, arguments: object, record: Mapping[str, Any]) -> None:
        if not isinstance(name, str) or not name:
            raise InvalidInput(f"a tool call has no name: {record!r:.120}")
        shown = (
            arguments if isinstance(arguments, str) else as_json(arguments if arguments is not None else {})
        )
        self.call_texts.append(f"{name}({shown})")
        self.calls.append(as_json(record))

    def add_placeholder(self, kind: str, **known: object) -> None:
        """Put "[image]" in the text and what is known about it in `parts`, without inline data."""
        self.texts.append(f"[{kind}]")
        kept = {key: _without_data(value) for key, value in known.items() if value is not None}
        self.parts.append(as_json({"type": kind, **kept}))


def as_json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{value!r:.120} cannot be written as JSON ({error})") from error


def read_content(content: object) -> Content:
    """Read a string or a list of parts. Raises InvalidInput or InvalidOption on what it does not know."""
    found = Content()
    if isinstance(content, str):
        found.texts.append(content)
    elif isinstance(content, list | tuple):
        for part in content:
            add_part(found, part)
    elif content is not None:
        raise InvalidInput(
            f"content is a {type(content).__name__}; expected text or a list of parts{_decode(content)}"
        )
    return found


def add_part(found: Content, part: object) -> None:
    if isinstance(part, str):
        found.texts.append(part)
        return
    if not isinstance(part, Mapping):
        raise InvalidInput(
            f"a part of the content is a {type(part).__name__}; expected a dict such as {_EXAMPLE}"
        )
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _READERS:
        raise InvalidOption(f"type={kind!r:.80} is not a known part; known are {', '.join(sorted(_READERS))}")
    keys, reader = _READERS[kind]
    unknown = [key for key in part if key not in keys and key not in _NO_CONTENT]
    if unknown:
        raise InvalidOption(
            f"unknown key {unknown[0]!r:.80} in a part of type {kind!r}; known are {', '.join(keys)}"
        )
    reader(found, part)


_EXAMPLE: Final = '{"type": "text", "text": "…"}'


def _decode(content: object) -> str:
    return "; decode it first, content.decode()" if isinstance(content, bytes) else ""


def _text(found: Content, part: Mapping[str, Any]) -> None:
    text = part.get("text", part.get("refusal"))
    if not isinstance(text, str):
        raise InvalidInput(f"a part of type {part['type']!r} has no text; expected {_EXAMPLE}")
    found.texts.append(text)


def _image(found: Content, part: Mapping[str, Any]) -> None:
    image = part.get("image_url", part.get("source"))
    known = dict(image) if isinstance(image, Mapping) else {"url": image}
    known.pop("data", None)
    known.pop("type", None)
    detail = part.get("detail", known.pop("detail", None))
    found.add_placeholder(
        "image", **known, detail=detail, file_id=part.get("file_id", known.pop("file_id", None))
    )


def _audio(found: Content, part: Mapping[str, Any]) -> None:
    audio = part.get("input_audio", part.get("audio"))
    known = dict(audio) if isinstance(audio, Mapping) else {}
    found.add_placeholder(
        "audio", format=known.get("format"), id=known.get("id"), transcript=known.get("transcript")
    )


def _file(found: Content, part: Mapping[str, Any]) -> None:
    inner = part.get("file", part.get("source"))
    known: dict[str, Any] = dict(inner) if isinstance(inner, Mapping) else {}
    known.update({key: part[key] for key in part if key not in {"type", "file", "source", "cache_control"}})
    named = {key: known.get(key) for key in ("filename", "file_id", "file_url", "url", "title", "media_type")}
    if known.get("type") == "text" and isinstance(known.get("data"), str):
        found.texts.append(known["data"])
        found.parts.append(as_json({"type": "file", **{k: _without_data(v) for k, v in named.items() if v}}))
        return
    found.add_placeholder("file", **named)


def _video(found: Content, part: Mapping[str, Any]) -> None:
    video = part.get("video_url")
    found.add_placeholder("video", url=video.get("url") if isinstance(video, Mapping) else video)


def _tool_use(found: Content, part: Mapping[str, Any]) -> None:
    found.add_call(part.get("name"), part.get("input"), {k: part[k] for k in part if k != "cache_control"})


def _tool_result(found: Content, part: Mapping[str, Any]) -> None:
    found.has_results = True
    if isinstance(part.get("tool_use_id"), str):
        found.result_ids.append(part["tool_use_id"])
    inner = read_content(part.get("content"))
    found.texts.extend(inner.texts)
    found.parts.extend(inner.parts)


def _thinking(found: Content, part: Mapping[str, Any]) -> None:
    thought = part.get("thinking")
    found.thinking.append(thought if isinstance(thought, str) else "[redacted]")


def _without_data(value: object) -> object:
    """An inline `data:` address says only its media type; the bytes stay where they came from."""
    if isinstance(value, str) and value[:5].lower() == "data:":
        return f"{value[:100].split(',', 1)[0].split(';', 1)[0]} (inline data not kept)"
    return value


_Reader = Callable[[Content, Mapping[str, Any]], None]
_READERS: Final[Mapping[str, tuple[tuple[str, ...], _Reader]]] = {
    "text": (("text",), _text),
    "input_text": (("text",), _text),
    "output_text": (("text",), _text),
    "refusal": (("refusal",), _text),
    "image_url": (("image_url", "detail"), _image),
    "input_image": (("image_url", "detail", "file_id"), _image),
    "image": (("source",), _image),
    "input_audio": (("input_audio",), _audio),
    "audio": (("audio",), _audio),
    "file": (("file",), _file),
    "input_file": (("filename", "file_id", "file_url", "file_data"), _file),
    "document": (("source", "title", "context"), _file),
    "video_url": (("video_url",), _video),
    "tool_use": (("id", "name", "input"), _tool_use),
    "tool_result": (("tool_use_id", "content", "is_error"), _tool_result),
    "thinking": (("thinking",), _thinking),
    "redacted_thinking": (("data",), _thinking),
}
