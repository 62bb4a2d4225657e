"""One OpenAI-compatible endpoint: requests, retries, and errors that say what to do. Knows no embedding and
no chat.

The `openai` SDK does the transport and the retries (connection errors, 408, 409, 429, 5xx; it honours
Retry-After). Everything it would read from the environment is given explicitly or taken back, so that nothing
of another program's configuration, its key above all, reaches an endpoint it was not meant for.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from mnemic.cube.checks import require_count, require_extra, require_positive
from mnemic.cube.errors import InvalidOption, ModelError

OPENAI_URL: Final = "https://api.openai.com/v1"


class Rejected(ModelError):
    """The endpoint refused the form of a request (400, 422); another form may pass. `said`: its own words."""

    def __init__(self, message: str, *, said: str) -> None:
        super().__init__(message)
        self.said = said


class Endpoint:
    """Where a model is served. `base_url` ends where the routes begin, as in "http://localhost:11434/v1".

    timeout: seconds to wait for the next bytes of one attempt. max_retries: further attempts after the first.
    The key is in no repr, log line or error; a user and password in the URL are not shown either.
    """

    def __init__(
        self, *, model: str, base_url: str, api_key: str | None, timeout: float, max_retries: int
    ) -> None:
        if not isinstance(model, str) or not model.strip():
            raise InvalidOption(f"model must name a model of the endpoint, got {model!r}")
        require_positive(timeout=timeout)
        require_count(minimum=0, max_retries=max_retries)
        self.model, self.timeout, self.max_retries = model, timeout, max_retries
        self._base_url, self.shown_url = base_url, _shown(base_url)
        self._api_key = _check_key(api_key)
        self._lock = threading.Lock()
        self._client: Any = None
        self._process = 0

    def __repr__(self) -> str:
        return f"model={self.model!r}, base_url={self.shown_url!r}"

    @property
    def is_openai(self) -> bool:
        return urlsplit(self._base_url).hostname == "api.openai.com"

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that `path` answers with. Raises Rejected or ModelError."""
        with self.errors():
            answer = self._sdk().post(path, body=dict(body), cast_to=object)
        if not isinstance(answer, dict):
            raise self.unreadable(f"expected a JSON object, got {answer!r:.120}")
        if answer.get("error"):  # some proxies answer 200 and an error
            raise self.unreadable(self.scrub(str(answer["error"])[:300]))
        return answer

    def events(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The JSON objects of a server-sent stream, as they arrive. Raises Rejected or ModelError."""
        stream_type = require_extra("openai", extra="llm").Stream[object]
        with self.errors():
            stream = self._sdk().post(
                path, body=dict(body), cast_to=object, stream=True, stream_cls=stream_type
            )
        try:
            while True:
                with self.errors():
                    event = next(stream, None)
                if event is None:
                    return
                if not isinstance(event, dict):
                    raise self.unreadable(f"expected JSON objects in the stream, got {event!r:.120}")
                yield event
        finally:
            stream.close()

    def unreadable(self, what: str) -> ModelError:
        return ModelError(
            f"{self.model} at {self.shown_url} answered with something unreadable: {what}. "
            "Check that base_url is the root of an OpenAI-compatible API (it usually ends in /v1)"
        )

    def scrub(self, said: str) -> str:
        return said.replace(self._api_key, "***") if self._api_key else said

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what the SDK raises into ModelError. The cause is cut off:

        servers echo keys in their messages.
        """
        openai = require_extra("openai", extra="llm")
        try:
            yield
        except openai.OpenAIError as error:
            raise self._explain(openai, error) from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise self.unreadable(f"not JSON ({error})") from None
        except Exception as error:
            if type(error).__module__.split(".")[0] not in {"httpx", "httpx2", "httpcore", "httpcore2"}:
                raise
            raise ModelError(
                f"the connection to {self.shown_url} broke while {self.model} was answering "
                f"({type(error).__name__}). Try again"
            ) from None

    def _explain(self, openai: Any, error: Exception) -> ModelError:
        where = f"{self.model} at {self.shown_url}"
        tries = f"{self.max_retries + 1} attempt{'s' * (self.max_retries > 0)}"
        said = self.scrub(str(getattr(error, "message", error)))[:300]
        if isinstance(error, openai.APITimeoutError):
            return ModelError(
                f"{where} did not answer within {self.timeout:g} s ({tries}). Raise timeout=, or ask less"
            )
        if isinstance(error, openai.APIConnectionError):
            return ModelError(
                f"cannot reach {self.shown_url} ({tries}). Is the server running, and base_url right?"
            )
        status = getattr(error, "status_code", None)
        if status in (401, 403):
            return ModelError(
                f"{self.shown_url} refused the key ({status}). Pass a valid api_key= that may use "
                f"{self.model}"
            )
        if status == 404:
            return ModelError(
                f"{where} does not exist (404: {said}). Check model= and base_url= (it usually ends in /v1)"
            )
        if status == 429:
            return ModelError(
                f"{where} is over its rate limit or quota after {tries}: {said}. Wait, or raise max_retries="
            )
        if status in (400, 422):
            return Rejected(f"{where} rejected the request ({status}): {said}", said=said)
        if isinstance(status, int) and status >= 400:
            return ModelError(f"{where} failed ({status}) after {tries}: {said}. Try again later")
        return self.unreadable(said)

    def _sdk(self) -> Any:
        if (
            self._process != os.getpid()
        ):  # first use, or a fork: a connection must not be used from two processes
            with self._lock:
                if self._process != os.getpid():
                    self._client, self._process = self._make_client(), os.getpid()
        return self._client

    def _make_client(self) -> Any:
        client = require_extra("openai", extra="llm").OpenAI(
            api_key=self._api_key or "none",  # local servers ask for no key; the SDK insists on one
            base_url=self._base_url,
            timeout=self.timeout,
            max_retries=self.max_retries,
        )
        client.organization = client.project = None  # these and the headers came from the environment
        client._custom_headers = {}
        return client


def _shown(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port
    except (ValueError, TypeError, AttributeError):
        host = None
    if host is None or parts.scheme not in ("http", "https"):
        raise InvalidOption("base_url must be an http(s) URL such as 'http://localhost:11434/v1'")
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path}"


def _check_key(api_key: str | None) -> str | None:
    if api_key is None:
        return None
    if (
        not isinstance(api_key, str)
        or not api_key
        or not api_key.isascii()
        or not api_key.isprintable()
        or " " in api_key
    ):
        raise InvalidOption(
            "api_key must be text of printable ASCII without spaces (no stray newline), or None"
        )
    return api_key
