"""Endpoints: embeddings, chat and streaming over real HTTP, and every way they fail."""

from __future__ import annotations

import io
import json
import logging
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from fake_openai import FakeOpenAI, chat, embeddings, refusal
from mnemic.cube.errors import InvalidInput, InvalidOption, InvalidText, ModelError
from mnemic.models.openai_embedder import OpenAIEmbedder
from mnemic.models.openai_model import OpenAIModel

KEY = "sk-very-secret-0123456789"
HELLO = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def embedder(server: FakeOpenAI, **options: Any) -> OpenAIEmbedder:
    return OpenAIEmbedder(
        **{"model": "m", "base_url": server.url, "api_key": KEY, "max_retries": 0, **options}
    )


def model(server: FakeOpenAI, **options: Any) -> OpenAIModel:
    return OpenAIModel(**{"model": "m", "base_url": server.url, "api_key": KEY, "max_retries": 0, **options})


# --- embeddings -------------------------------------------------------------------------------------------


def test_vectors_come_back_in_order_in_batches_and_unit_length(server: FakeOpenAI) -> None:
    server.answer(embeddings)
    remote = embedder(server, batch_size=3)
    texts = ["x" * n for n in range(1, 9)]
    vectors = remote.embed(texts)
    np.testing.assert_allclose(vectors[:, 0] / vectors[:, 1], range(1, 9), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert [len(request["input"]) for request in server.requests] == [3, 3, 2]
    assert (remote.dim, remote.name, remote.inline) == (4, "openai:m", False)
    assert remote.usage.input_tokens == 24
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert server.headers[0]["path"] == "/v1/embeddings"


def test_nothing_is_sent_for_no_texts_and_blank_texts_get_a_direction(server: FakeOpenAI) -> None:
    server.answer(embeddings)
    remote = embedder(server, dim=4)
    assert remote.embed([]).shape == (0, 4)
    assert server.requests == []
    assert remote.embed(["", " \n"]).shape == (2, 4)
    assert server.requests[0]["input"] == [".", "."]
    for bad in ("text", [None], ["\udc00"]):
        with pytest.raises(InvalidText):
            remote.embed(bad)  # type: ignore[arg-type]


def test_dimensions_are_asked_for_only_on_request(server: FakeOpenAI) -> None:
    server.answer(lambda body: embeddings(body, body.get("dimensions", 4)))
    shorter = embedder(server, dim=2, shorten=True)
    assert shorter.embed(["x"]).shape == (1, 2)
    assert shorter.name == "openai:m:2"
    with pytest.raises(ModelError, match=r"\[4\] dimensions where 2"):
        embedder(server, dim=2).embed(["x"])
    with pytest.raises(InvalidOption, match="dim="):
        embedder(server, shorten=True)


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>",
        b'{"data": [',
        b"",
        b"null",
        [1],
        {},
        {"data": None},
        {"data": [{}]},
        {"data": [3]},
        {"data": []},
        {"data": [{"embedding": [0, 0, 0, 0]}]},
        b'{"data": [{"embedding": [NaN, 1, 1, 1]}]}',
        {"data": [{"embedding": [1, None, 1, 1]}]},
        {"data": [{"embedding": "AAAA"}]},
        {"error": {"message": "no"}},
        {"data": [{"embedding": [1, 2, 3, 4], "index": 0}, {"embedding": [1, 2, 3, 4], "index": 1}]},
    ],
)
def test_unusable_answers_are_model_errors(server: FakeOpenAI, answer: Any) -> None:
    server.answer((200, answer))
    with pytest.raises(ModelError):
        embedder(server, dim=4).embed(["x"])


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "api_key="),
        (403, "api_key="),
        (404, "model="),
        (400, "rejected"),
        (422, "rejected"),
        (429, "max_retries="),
        (500, "later"),
        (503, "later"),
    ],
)
def test_each_refusal_says_what_to_do_and_hides_the_key(server: FakeOpenAI, status: int, told: str) -> None:
    server.answer(refusal(status, f"you sent {KEY}, sorry"))
    for call in (lambda: embedder(server).embed(["x"]), lambda: model(server).complete(HELLO)):
        with pytest.raises(ModelError, match=told) as caught:
            call()
        assert KEY not in "".join(traceback.format_exception(caught.value))


def test_the_key_is_in_no_repr_and_no_log(server: FakeOpenAI) -> None:
    server.answer(chat("hi"))
    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    logging.root.addHandler(handler)
    level = logging.root.level
    logging.root.setLevel(logging.DEBUG)
    try:
        reader = model(server, base_url=server.url.replace("://", "://me:hidden@"))
        reader.complete(HELLO)
    finally:
        logging.root.setLevel(level)
        logging.root.removeHandler(handler)
    said = shown.getvalue() + repr(reader) + repr(embedder(server)) + repr(vars(reader.endpoint)["shown_url"])
    assert KEY not in said
    assert "hidden" not in repr(reader)


def test_an_unreachable_server_and_a_slow_one(server: FakeOpenAI) -> None:
    with pytest.raises(ModelError, match=r"cannot reach http://127\.0\.0\.1:9/v1"):
        OpenAIModel(model="m", base_url="http://127.0.0.1:9/v1", max_retries=0).complete(HELLO)
    server.answer(chat("late"))
    server.delay = 1.0
    with pytest.raises(ModelError, match=r"within 0\.1 s"):
        model(server, timeout=0.1).complete(HELLO)


def test_a_rate_limit_is_waited_out(server: FakeOpenAI) -> None:
    server.extra_headers = {"retry-after-ms": "10"}
    server.answer(refusal(429, "slow down"), refusal(503, "busy"), chat("done"))
    assert model(server, max_retries=2).complete(HELLO).text == "done"
    server.answer(refusal(429, "slow down"))
    with pytest.raises(ModelError, match="after 3 attempts"):
        model(server, max_retries=2).complete(HELLO)


def test_nothing_of_the_environment_is_sent(server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "ORG_ID", "PROJECT_ID", "ADMIN_KEY"):
        monkeypatch.setenv(f"OPENAI_{name}", f"from-environment-{name}")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Leak: from-environment")
    server.answer(chat("hi"))
    model(server, api_key=None).complete(HELLO)
    assert "from-environment" not in json.dumps(server.headers)


@pytest.mark.parametrize(
    "options",
    [
        {"model": ""},
        {"model": None},
        {"base_url": "localhost:11434"},
        {"base_url": "ftp://x"},
        {"base_url": None},
        {"api_key": ""},
        {"api_key": "sk-a\n"},
        {"api_key": "schlüssel"},
        {"api_key": 3},
        {"timeout": 0},
        {"max_retries": -1},
        {"timeout": None},
    ],
)
def test_bad_settings_are_refused_at_once(server: FakeOpenAI, options: dict[str, Any]) -> None:
    for make in (embedder, model):
        with pytest.raises(InvalidOption) as caught:
            make(server, **options)
        assert str(options.get("api_key") or "\0") not in str(caught.value)


# --- chat -------------------------------------------------------------------------------------------------


def test_an_answer_with_its_cost(server: FakeOpenAI) -> None:
    server.answer(chat("Porto"))
    reader = model(server, input_price=2.0, output_price=10.0, context_tokens=8_192)
    answer = reader.complete(HELLO, max_tokens=7, temperature=0.5, stop=["\n"])
    sent = {"model": "m", "messages": HELLO, "max_tokens": 7, "temperature": 0.5, "stop": ["\n"]}
    assert server.requests == [sent]
    assert (answer.text, answer.parsed) == ("Porto", None)
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (100, 20)
    assert answer.usage.cost == pytest.approx(0.0004)
    assert (reader.name, reader.context_tokens) == ("openai:m", 8_192)
    assert model(server).complete(HELLO).usage.cost is None


def test_totals_are_right_when_threads_share_a_model(server: FakeOpenAI) -> None:
    server.answer(chat("x"))
    reader = model(server, input_price=1, output_price=1)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: reader.complete(HELLO), range(40)))
    assert (reader.calls, reader.usage.input_tokens, reader.usage.output_tokens) == (40, 4_000, 800)
    assert reader.usage.cost == pytest.approx(0.0048)


def test_tokens_are_estimated_where_none_are_reported(server: FakeOpenAI) -> None:
    server.answer(chat("four words are here", usage=None))
    usage = model(server).complete(HELLO).usage
    assert usage.input_tokens > 0
    assert usage.output_tokens == model(server).count_tokens("four words are here")


@pytest.mark.parametrize(
    "answer",
    [
        chat(None),
        chat(None, refusal="I cannot"),
        (200, {"choices": []}),
        (200, {}),
        (200, {"choices": [{}]}),
        (200, {"choices": [{"message": None}]}),
    ],
)
def test_an_answer_without_text_is_an_error(server: FakeOpenAI, answer: Any) -> None:
    server.answer(answer)
    with pytest.raises(ModelError):
        model(server).complete(HELLO)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        "hello",
        {},
        None,
        [3],
        [{}],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": "\ud800"}],
    ],
)
def test_bad_messages_are_refused_before_anything_is_sent(server: FakeOpenAI, messages: Any) -> None:
    for call in (model(server).complete, model(server).stream):
        with pytest.raises(InvalidInput):
            call(messages)
    for options in (
        {"max_tokens": 0},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"stop": "x"},
        {"stop": None},
        {"stop": [""]},
    ):
        with pytest.raises(InvalidOption):
            model(server).complete(HELLO, **options)  # type: ignore[arg-type]
    assert server.requests == []


def test_forms_that_an_endpoint_does_not_support_are_replaced_and_remembered(server: FakeOpenAI) -> None:
    def reasoning(body: dict[str, Any]) -> Any:
        if "max_tokens" in body:
            return refusal(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if "temperature" in body:
            return refusal(400, "Unsupported value: 'temperature' does not support 0.0 with this model.")
        return chat("ok")

    server.answer(reasoning)
    reader = model(server)
    assert reader.complete(HELLO, max_tokens=9).text == "ok"
    assert server.requests[-1] == {"model": "m", "messages": HELLO, "max_completion_tokens": 9}
    reader.complete(HELLO)
    assert len(server.requests) == 4
    with pytest.raises(ModelError, match="temperature"):  # asked for, so it is not left out silently
        reader.complete(HELLO, temperature=0.7)
    server.answer(refusal(400, "max_tokens is too large: 99999"))
    with pytest.raises(ModelError, match="too large"):
        model(server).complete(HELLO, max_tokens=99_999)


# --- structured output ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ['{"city": "Porto"}', '```json\n{"city": "Porto"}\n```', 'Sure: {"city": "Porto"}. Ok?']
)
def test_a_schema_gives_a_parsed_value(server: FakeOpenAI, text: str) -> None:
    server.answer(chat(text))
    assert model(server).complete(HELLO, schema=SCHEMA).parsed == {"city": "Porto"}
    assert server.requests[0]["response_format"]["json_schema"]["schema"] == SCHEMA


@pytest.mark.parametrize("supported", ["json_object", "prompted"])
def test_an_endpoint_without_schemas_is_prompted(server: FakeOpenAI, supported: str) -> None:
    def answer(body: dict[str, Any]) -> Any:
        form = body.get("response_format", {}).get("type", "prompted")
        return (
            chat('{"city": "Porto"}')
            if form == supported
            else refusal(400, f"response_format {form} unavailable")
        )

    server.answer(answer)
    reader = model(server)
    assert reader.complete(HELLO, schema=SCHEMA).parsed == {"city": "Porto"}
    assert '"city"' in server.requests[-1]["messages"][0]["content"]
    before = len(server.requests)
    reader.complete(HELLO, schema=SCHEMA)
    assert len(server.requests) == before + 1


def test_one_repair_and_then_an_error(server: FakeOpenAI) -> None:
    server.answer(chat('{"town": 3}'), chat('{"city": "Porto"}'))
    reader = model(server)
    answer = reader.complete(HELLO, schema=SCHEMA)
    assert answer.parsed == {"city": "Porto"}
    assert (answer.usage.input_tokens, reader.calls) == (200, 2)
    assert "city" in server.requests[1]["messages"][-1]["content"]
    for bad in ("no json", '{"city": NaN}', '{"city": 3}', "[" * 100_000, ""):
        server.requests.clear()
        server.answer(chat(bad))
        with pytest.raises(ModelError, match="after one repair"):
            model(server).complete(HELLO, schema=SCHEMA)
        assert len(server.requests) == 2


def test_a_cut_off_answer_is_not_repaired(server: FakeOpenAI) -> None:
    server.answer(chat('{"city": "Por', finish="length"))
    with pytest.raises(ModelError, match="max_tokens="):
        model(server).complete(HELLO, schema=SCHEMA)
    assert len(server.requests) == 1


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"type": 3}, [], "object"])
def test_a_bad_schema_is_refused_before_anything_is_sent(server: FakeOpenAI, schema: Any) -> None:
    with pytest.raises(InvalidOption, match="JSON Schema"):
        model(server).complete(HELLO, schema=schema)
    assert server.requests == []


# --- streaming --------------------------------------------------------------------------------------------


def event(value: Any) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def piece(text: str) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}}]})


USED = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})


def test_a_stream_arrives_in_pieces_and_is_counted(server: FakeOpenAI) -> None:
    server.answer(
        (200, [piece("Por"), piece("to ✓"), event({"choices": [{"delta": {}}]}), USED, event(b"[DONE]")])
    )
    reader = model(server, input_price=1, output_price=1)
    assert list(reader.stream(HELLO)) == ["Por", "to ✓"]
    assert (reader.usage.input_tokens, reader.usage.output_tokens, reader.calls) == (5, 2, 1)
    assert server.requests[0]["stream_options"] == {"include_usage": True}


def test_a_stream_that_is_left_early_is_counted_by_estimate(server: FakeOpenAI) -> None:
    server.answer((200, [piece("one "), piece("two "), USED, event(b"[DONE]")]))
    reader = model(server)
    pieces = reader.stream(HELLO)
    assert reader.calls == 0
    assert next(pieces) == "one "
    pieces.close()  # type: ignore[attr-defined]
    assert (reader.calls, reader.usage.output_tokens) == (1, reader.count_tokens("one "))


@pytest.mark.parametrize(
    "parts",
    [
        [piece("a"), b"BREAK"],
        [event(b"{not json")],
        [event([1])],
        [event({"error": {"message": "boom"}})],
        [],
        [piece("a"), event({"error": "boom"})],
    ],
)
def test_a_broken_stream_is_a_model_error(server: FakeOpenAI, parts: list[bytes]) -> None:
    server.answer((200, parts))
    with pytest.raises(ModelError):
        list(model(server).stream(HELLO))


def test_a_refused_stream_option_is_dropped_and_other_refusals_told(server: FakeOpenAI) -> None:
    def old(body: dict[str, Any]) -> Any:
        if "stream_options" in body:
            return refusal(400, "unknown field stream_options")
        return 200, [piece("ok"), event(b"[DONE]")]

    server.answer(old)
    assert list(model(server).stream(HELLO)) == ["ok"]
    server.answer(refusal(401, KEY))
    with pytest.raises(ModelError, match="api_key="):
        list(model(server).stream(HELLO))
