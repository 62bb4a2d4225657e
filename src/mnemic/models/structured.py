"""Structured output: asking a model for JSON, reading it out of an answer, and checking it.

Knows no endpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mnemic.cube.checks import require_extra
from mnemic.cube.errors import InvalidOption


class Unsatisfied(Exception):
    """An answer that holds no JSON, or JSON that does not satisfy the schema; the message says why."""


def check_schema(schema: Mapping[str, Any]) -> Any:
    """A validator of `schema`. Raises InvalidOption when it is not a JSON Schema, MissingExtra without
    jsonschema.
    """
    jsonschema = require_extra("jsonschema", extra="llm")
    if not isinstance(schema, Mapping):
        raise InvalidOption(f"schema must be a JSON Schema object (a dict), got {type(schema).__name__}")
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
        json.dumps(schema)
    except (jsonschema.SchemaError, TypeError, ValueError) as error:
        raise InvalidOption(
            f"schema is not a valid JSON Schema: {str(error).splitlines()[0][:300]}"
        ) from None
    return kind(schema)


def instruction(schema: Mapping[str, Any]) -> str:
    """What is added to the messages where an endpoint does not enforce a schema itself."""
    return "Answer with one JSON value and nothing else. It must satisfy this JSON Schema:\n" + json.dumps(
        schema, ensure_ascii=False
    )


def read_json(answer: str, validator: Any) -> Any:
    """The value in `answer`: the whole of it, what a code fence holds, or the first object or list in its
    prose.

    Raises Unsatisfied.
    """
    value = _parse(answer)
    problems = sorted(validator.iter_errors(value), key=lambda problem: [str(step) for step in problem.path])
    if problems:
        told = "; ".join(
            f"{'/'.join(map(str, problem.path)) or 'root'}: {problem.message[:200]}"
            for problem in problems[:3]
        )
        raise Unsatisfied(told)
    return value


def _parse(answer: str) -> Any:
    text = answer.strip()
    if text.startswith("```"):
        text = text.partition("\n")[2].rpartition("```")[0].strip() or text
    decoder = json.JSONDecoder(parse_constant=_refuse)
    try:
        return decoder.decode(text)
    except (ValueError, RecursionError):
        starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
        if not starts:
            raise Unsatisfied("the answer holds no JSON") from None
    try:
        return decoder.raw_decode(text, min(starts))[0]
    except (ValueError, RecursionError) as error:
        raise Unsatisfied(f"the answer is not JSON ({error})") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
