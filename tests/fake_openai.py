"""A server on loopback that speaks OpenAI's protocol: real HTTP, scripted answers, every request recorded."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]  # status, and a JSON value, or bytes as they are, or a list of bytes to stream


class FakeOpenAI:
    """`answers` are given one after the other, the last one for ever; a function gets the request's body."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: list[Answer | Callable[[dict[str, Any]], Answer]] = []
        self.delay = 0.0
        self.extra_headers: dict[str, str] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, *answers: Answer | Callable[[dict[str, Any]], Answer]) -> None:
        self.answers = list(answers)

    def next_answer(self, body: dict[str, Any]) -> Answer:
        with self._lock:
            self.requests.append(body)
            given = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return given(body) if callable(given) else given

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.headers.append(
                    {name.lower(): text for name, text in self.headers.items()} | {"path": self.path}
                )
                status, value = fake.next_answer(body)
                time.sleep(fake.delay)
                streamed = isinstance(value, list) and all(isinstance(part, bytes) for part in value)
                self.send_response(status)
                self.send_header("Content-Type", "text/event-stream" if streamed else "application/json")
                for name, text in fake.extra_headers.items():
                    self.send_header(name, text)
                if streamed:
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    for part in value:
                        if part == b"BREAK":
                            self.close_connection = True
                            return
                        self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                        self.wfile.flush()
                    self.wfile.write(b"0\r\n\r\n")
                    return
                content = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # the client gave up waiting
                    super().handle()

        return Handler


def embeddings(body: dict[str, Any], dim: int = 4) -> Answer:
    """Vectors that hold each text's length first, in reverse order, as the protocol's "index" allows."""
    data = [
        {"index": i, "embedding": [len(text), 1.0, 0.0, 2.0][:dim]} for i, text in enumerate(body["input"])
    ]
    return 200, {"data": data[::-1], "usage": {"prompt_tokens": 3 * len(data)}}


def chat(
    text: Any, *, finish: str = "stop", usage: tuple[int, int] | None = (100, 20), **message: Any
) -> Answer:
    body: dict[str, Any] = {
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": text, **message},
            }
        ]
    }
    if usage:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return 200, body


def refusal(status: int, message: str) -> Answer:
    return status, {"error": {"message": message, "type": "error", "code": None}}
