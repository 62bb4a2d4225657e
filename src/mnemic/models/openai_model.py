"""Chat with any endpoint that speaks OpenAI's protocol: OpenAI, Ollama, vLLM, llama.cpp and others."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Final

from mnemic.cube.checks import require_count, require_extra, require_positive
from mnemic.cube.errors import InvalidOption, ModelError, UnusableAnswer
from mnemic.models.base import Completion, Usage
from mnemic.models.endpoint import OPENAI_URL, Endpoint, Rejected
from mnemic.models.messages import check_messages, check_sampling
from mnemic.models.structured import Unsatisfied, check_schema, instruction, read_json
from mnemic.models.tokens import TokenCounter, estimate_tokens

SCHEMA_FORMS: Final = ("json_schema", "json_object", "prompted")
UNSUPPORTED: Final = (
    "support",
    "unknown",
    "unrecognized",
    "unexpected",
    "not permitted",
    "not allowed",
    "invalid parameter",
)


class OpenAIModel:
    """POST {base_url}/chat/completions.

    Endpoints differ in what they accept. Where one rejects "max_tokens", "stream_options", a temperature of 0
    (reasoning models), or a way of asking for JSON, the next form is tried and remembered; any other refusal
    is a ModelError, also that of a temperature which you asked for.

    context_tokens: what fits into one call, if you know it. input_price, output_price: per million tokens, in
    any currency; given together, they make `cost`. Threads may share one object.
    Raises InvalidOption here; MissingExtra (the `openai` package) and ModelError at use.
    """

    def __init__(
        self,
        *,
        model: str,
        base_url: str = OPENAI_URL,
        api_key: str | None = None,
        context_tokens: int | None = None,
        input_price: float | None = None,
        output_price: float | None = None,
        timeout: float = 120.0,
        max_retries: int = 3,
    ) -> None:
        if context_tokens is not None:
            require_count(context_tokens=context_tokens)
        if (input_price is None) != (output_price is None):
            raise InvalidOption("give input_price and output_price together, or neither")
        for field, price in (("input_price", input_price), ("output_price", output_price)):
            if price is not None and price != 0:
                require_positive(**{field: price})
        self.endpoint = Endpoint(
            model=model, base_url=base_url, api_key=api_key, timeout=timeout, max_retries=max_retries
        )
        self.name: Final = f"openai:{model}"
        self.context_tokens: Final = context_tokens
        self._prices = None if input_price is None or output_price is None else (input_price, output_price)
        self._refused: frozenset[str] = frozenset()
        self._totals = (0, 0, 0)  # calls, input tokens, output tokens
        self._lock = threading.Lock()
        self._counter: TokenCounter | None = None

    def __repr__(self) -> str:
        return f"OpenAIModel({self.endpoint!r})"

    @property
    def calls(self) -> int:
        """Answers paid for so far, repairs included."""
        return self._totals[0]

    @property
    def usage(self) -> Usage:
        """Running totals of this object."""
        _, input_tokens, output_tokens = self._totals
        return self._price(input_tokens, output_tokens)

    def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int = 512,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
    ) -> Completion:
        """Answer. With `schema` (JSON Schema) the answer is validated; one that fails is sent back once for
        repair.

        `usage` is of this call, a repair included; tokens are estimated where the endpoint reports none.
        Raises InvalidOption and InvalidText before anything is sent; ModelError. One request, two with a
        repair.
        """
        body = self._body(messages, max_tokens, temperature, stop)
        if schema is None:
            text, _, usage = self._ask(body, None)
            return Completion(text=text, usage=usage)
        validator = check_schema(schema)
        text, finish, first = self._ask(body, schema)
        try:
            return Completion(text=text, usage=first, parsed=read_json(text, validator))
        except Unsatisfied as problem:
            if finish == "length":
                raise UnusableAnswer(
                    f"{self.name} was cut off at {max_tokens} tokens before its JSON ended. Raise max_tokens="
                ) from None
            repair = f"That does not satisfy the schema ({problem}). " + instruction(schema)
        body["messages"] += [{"role": "assistant", "content": text}, {"role": "user", "content": repair}]
        text, _, second = self._ask(body, schema)
        usage = self._price(
            first.input_tokens + second.input_tokens, first.output_tokens + second.output_tokens
        )
        try:
            return Completion(text=text, usage=usage, parsed=read_json(text, validator))
        except Unsatisfied as problem:
            raise UnusableAnswer(
                f"{self.name} gave no answer that satisfies the schema, after one repair: {problem}. "
                "Simplify the schema, or use a stronger model"
            ) from None

    def stream(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int = 512,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """The answer piece by piece. Arguments are checked at once, the request is sent at the first `next`.

        Totals are counted when the iterator ends or is closed; what was received is estimated if the endpoint
        had not reported by then. Raises as `complete` does; ModelError also in the middle, when the
        connection breaks.
        """
        body = {**self._body(messages, max_tokens, temperature, stop), "stream": True}
        return self._pieces({**body, "stream_options": {"include_usage": True}})

    def count_tokens(self, text: str) -> int:
        """Exact for OpenAI's own models when `tiktoken` is installed; else `estimate_tokens`, which errs
        upward.

        tiktoken downloads its tables once, so it is used only where base_url is OpenAI's own.
        """
        if self._counter is None:
            known = self.endpoint.is_openai and find_spec("tiktoken") is not None
            self._counter = _tiktoken_counter(self.endpoint.model) if known else estimate_tokens
        return self._counter(text)

    def _body(
        self, messages: Sequence[Mapping[str, str]], max_tokens: int, temperature: float, stop: Sequence[str]
    ) -> dict[str, Any]:
        check_sampling(max_tokens, temperature, stop)
        body = {"model": self.endpoint.model, "messages": check_messages(messages), "max_tokens": max_tokens}
        body["temperature"] = temperature
        return body | ({"stop": list(stop)} if stop else {})

    def _ask(self, body: dict[str, Any], schema: Mapping[str, Any] | None) -> tuple[str, str | None, Usage]:
        """Text, why it ended, and what it cost."""
        while True:
            sent = _adapted(body, self._refused, schema)
            try:
                answer = self.endpoint.post("/chat/completions", sent)
                break
            except Rejected as error:
                self._adapt(sent, error)
        try:
            choice = answer["choices"][0]
            text, finish = choice["message"].get("content"), choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise self.endpoint.unreadable(
                f"no choices with a message ({type(error).__name__}: {error})"
            ) from None
        usage = self._count(answer.get("usage"), sent, text if isinstance(text, str) else "")
        if not isinstance(text, str):
            refusal = choice["message"].get("refusal")
            raise ModelError(f"{self.name} gave no text (finish_reason={finish!r}, refusal={refusal!r:.200})")
        return text, finish, usage

    def _pieces(self, body: dict[str, Any]) -> Iterator[str]:
        received: list[str] = []
        usage: Any = None
        sent, started = body, False
        try:
            while not started:
                sent = _adapted(body, self._refused, None)
                try:
                    for event in self.endpoint.events("/chat/completions", sent):
                        started = True
                        usage = event.get("usage") or usage
                        if event.get("error"):
                            raise self.endpoint.unreadable(self.endpoint.scrub(str(event["error"])[:300]))
                        piece = _delta(event)
                        if piece:
                            received.append(piece)
                            yield piece
                except Rejected as error:
                    self._adapt(sent, error)
                    continue
                if not started:
                    raise self.endpoint.unreadable("an empty stream")
        finally:
            if started:
                self._count(usage, sent, "".join(received))

    def _adapt(self, sent: Mapping[str, Any], error: Rejected) -> None:
        """Remember the part of `sent` that the endpoint does not support, or raise the error."""
        said = error.said.lower()
        form = sent.get("response_format", {}).get("type")
        if any(word in said for word in UNSUPPORTED):
            named = [
                part
                for part in ("stream_options", "max_tokens", "temperature")
                if part in sent and part in said and not (part == "temperature" and sent[part])
            ]
        else:
            named = []
        if (
            not named
            and form
            and any(word in said for word in ("response_format", "json", "schema", "grammar"))
        ):
            named = [form]
        if not named:
            raise error
        with self._lock:
            self._refused |= {named[0]}

    def _count(self, reported: Any, sent: Mapping[str, Any], text: str) -> Usage:
        counts = reported if isinstance(reported, dict) else {}
        used, made = counts.get("prompt_tokens"), counts.get("completion_tokens")
        if not isinstance(used, int):
            used = sum(4 + self.count_tokens(message["content"]) for message in sent["messages"])
        if not isinstance(made, int):
            made = self.count_tokens(text)
        with self._lock:
            calls, input_tokens, output_tokens = self._totals
            self._totals = (calls + 1, input_tokens + used, output_tokens + made)
        return self._price(used, made)

    def _price(self, used: int, made: int) -> Usage:
        cost = None if self._prices is None else (used * self._prices[0] + made * self._prices[1]) / 1_000_000
        return Usage(input_tokens=used, output_tokens=made, cost=cost)


def _adapted(
    body: Mapping[str, Any], refused: frozenset[str], schema: Mapping[str, Any] | None
) -> dict[str, Any]:
    """`body` in the form that the endpoint accepts, as far as is known."""
    sent = {
        key: value for key, value in body.items() if key not in refused or (key == "temperature" and value)
    }
    if "max_tokens" in refused:
        sent["max_completion_tokens"] = body["max_tokens"]
    if schema is None:
        return sent
    form = next(form for form in SCHEMA_FORMS if form not in refused)
    if form == "json_schema":
        wrapped = {"name": "answer", "schema": dict(schema), "strict": False}
        return sent | {"response_format": {"type": form, "json_schema": wrapped}}
    sent["messages"] = [{"role": "system", "content": instruction(schema)}, *sent["messages"]]
    return sent | ({"response_format": {"type": form}} if form == "json_object" else {})


def _delta(event: Mapping[str, Any]) -> str:
    choices = event.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    delta = choice.get("delta") if isinstance(choice, dict) else None
    piece = delta.get("content") if isinstance(delta, dict) else None
    return piece if isinstance(piece, str) else ""


def _tiktoken_counter(model: str) -> TokenCounter:
    tiktoken = require_extra("tiktoken", extra="llm")
    try:
        encoding = tiktoken.encoding_for_model(model)
    except (KeyError, OSError, ValueError):  # unknown model; no network for the tables
        return estimate_tokens
    return lambda text: len(encoding.encode(text, disallowed_special=()))
