"""A transformers model in this process behind `LanguageModel`: no server, no network.

Imports torch: reach it through `mnemic.models.registry.load_model`, which says what to install.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import torch
import transformers

from mnemic.cube.errors import InvalidOption, ModelError, UnusableAnswer
from mnemic.models.base import Completion, Usage
from mnemic.models.decoding import Gate, decode, until_caught
from mnemic.models.detokenize import TextStream, token_bytes
from mnemic.models.hf import quietly
from mnemic.models.messages import check_messages, check_sampling
from mnemic.models.structured import Unsatisfied, check_schema, instruction, read_json

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class LocalModel:
    """A causal language model and its tokenizer, loaded.

    `model` and `tokenizer` are those of transformers; whoever needs more than text works with them directly.
    Threads may share one object as long as nobody changes the weights. Memory: the weights (SmolLM2 in
    float32: 0.54 GB) and, while it answers, 2 · layers · kv heads · head_dim numbers a token (46 KB).
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.name: Final = name

    @classmethod
    def read(cls, folder: str | os.PathLike[str], *, name: str | None = None, dtype: str = "float32") -> Self:
        """The model in a transformers folder (config.json, *.safetensors, tokenizer files). No network.

        dtype: float32, bfloat16 or float16. Weights come from safetensors alone, nothing is unpickled, and no
        code from the folder is run. Raises InvalidOption, ModelError.
        """
        if dtype not in DTYPES:
            raise InvalidOption(f"dtype={dtype!r:.80} must be one of {', '.join(DTYPES)}")
        path = Path(folder).expanduser().absolute()
        if not (path / "config.json").is_file():
            raise InvalidOption(
                f"{path} is not a model's folder: it has no config.json. Name one that `save_pretrained` "
                "wrote"
            )
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            with quietly():
                tokenizer = transformers.AutoTokenizer.from_pretrained(str(path), **options)
                model = transformers.AutoModelForCausalLM.from_pretrained(
                    str(path), dtype=DTYPES[dtype], use_safetensors=True, **options
                )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ModelError(
                f"no language model can be read from {path} ({type(error).__name__}: {error!s:.300}). If it "
                "was converted by mnemic, delete the folder and it is made anew"
            ) from error
        except Exception as error:
            if type(error).__name__ != "SafetensorError":
                raise
            raise ModelError(f"the weights in {path} are damaged ({error}); put the folder back") from error
        return cls(model, tokenizer, name=name or f"local:{path.name}")

    def __repr__(self) -> str:
        return f"LocalModel({self.name!r}, {self.dtype}, {self.context_tokens} tokens)"

    @property
    def dtype(self) -> str:
        return str(self.model.dtype).removeprefix("torch.")

    @property
    def context_tokens(self) -> int | None:
        found = getattr(self.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        return found if isinstance(found, int) else None

    # --- LanguageModel

    def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int = 512,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
    ) -> Completion:
        """Answer. With `schema` (JSON Schema) only tokens are chosen that keep the answer within it.

        Held to while decoding: types, properties and their order, required, enum, const, items and their
        number, lengths of strings, anyOf, oneOf, local $ref; other keywords are checked afterwards. A greedy
        answer (temperature 0) that says one passage four times running ends there. One prefill and a step for
        every token.

        Raises InvalidOption, InvalidInput and InvalidText before anything is computed; ModelError when the
        prompt is too long, or JSON is cut off at max_tokens or fails a keyword that is only checked.
        """
        check_sampling(max_tokens, temperature, stop)
        checked = check_messages(messages)
        if schema is None:
            ids = self.prompt_ids(checked)
            made = list(self._spoken(ids, max_tokens, temperature))
            text = "".join(TextStream(self.tokenizer, stop).all(made))
            return Completion(text=text, usage=Usage(input_tokens=len(ids), output_tokens=len(made)))
        return self._in_schema(checked, max_tokens, temperature, schema)

    def stream(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int = 512,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """The answer piece by piece; arguments are checked at once. Raises as `complete` does."""
        check_sampling(max_tokens, temperature, stop)
        ids = self.prompt_ids(check_messages(messages))
        return TextStream(self.tokenizer, stop).all(self._spoken(ids, max_tokens, temperature))

    def count_tokens(self, text: str) -> int:
        """Exact, without special tokens."""
        return len(self.encode(text))

    # --- what mounts and KV cubes are made with

    def encode(self, text: str, *, control: bool = False) -> list[int]:
        """Token ids without anything added. `control`: what reads like a control token is one."""
        return list(self.tokenizer.encode(text if control else self._defuse(text), add_special_tokens=False))

    def render(self, messages: Sequence[Mapping[str, str]], *, answer: bool) -> str:
        """The messages in this model's chat template; with `answer`, ready for the assistant to speak.

        What reads like a control token inside a message is broken up, so that stored text cannot end its own
        message. Raises ModelError when there is no template, or it refuses these roles.
        """
        if not self.tokenizer.chat_template:
            raise ModelError(
                f"{self.name} has no chat template, so it cannot be asked in messages. Use an instruct model"
            )
        plain = [{**message, "content": self._defuse(message["content"])} for message in messages]
        try:
            return str(
                self.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=answer)
            )
        except Exception as error:  # a template raises whatever its author chose
            raise ModelError(f"the chat template of {self.name} refuses these messages: {error}") from error

    def prompt_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Messages as the ids that are fed to the model. Raises ModelError when they do not fit."""
        ids = self.encode(self.render(messages, answer=True), control=True)
        self.check_room(len(ids))
        return ids

    def check_room(self, tokens: int) -> None:
        """Raises ModelError when so many tokens leave no room for an answer."""
        limit = self.context_tokens
        if limit is not None and tokens >= limit:
            raise ModelError(
                f"{tokens:,} tokens do not fit {self.name}, which reads {limit:,}, the answer included. "
                "Ask with a smaller budget="
            )

    def answer_tokens(
        self,
        ids: Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        cache: Any = None,
        gate: Gate | None = None,
    ) -> Iterator[int]:
        """Tokens that follow `ids`, until the model ends its answer. `cache` holds a beginning of `ids`, and
        is written to.
        """
        limit = self.context_tokens
        room = max_tokens if limit is None else min(max_tokens, limit - len(ids))
        return decode(
            self.model,
            ids,
            cache=cache,
            max_tokens=room,
            temperature=temperature,
            ends=self.end_tokens,
            gate=gate,
        )

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end an answer."""
        named = [self.tokenizer.eos_token_id, getattr(self.model.generation_config, "eos_token_id", None)]
        flat = [one for entry in named for one in (entry if isinstance(entry, list) else [entry])]
        return frozenset(one for one in flat if one is not None)

    @cached_property
    def token_bytes(self) -> list[bytes | None]:
        """What each token adds to the text; None for control tokens."""
        return token_bytes(self.tokenizer)

    # --- inside

    def _spoken(self, ids: Sequence[int], max_tokens: int, temperature: float) -> Iterator[int]:
        """An answer's tokens; a greedy one ends where it goes round in a circle."""
        tokens = self.answer_tokens(ids, max_tokens=max_tokens, temperature=temperature)
        return tokens if temperature else until_caught(tokens)

    def _in_schema(
        self,
        messages: list[dict[str, str]],
        max_tokens: int,
        temperature: float,
        schema: Mapping[str, Any],
    ) -> Completion:
        from mnemic.models.json_grammar import grammar

        validator = check_schema(schema)
        asked = [*messages[:-1], {**messages[-1]}]
        asked[-1]["content"] += "\n\n" + instruction(schema)
        ids = self.prompt_ids(asked)
        gate = Gate(self.token_bytes, grammar(schema))
        made = list(self.answer_tokens(ids, max_tokens=max_tokens, temperature=temperature, gate=gate))
        usage = Usage(input_tokens=len(ids), output_tokens=len(made))
        if not gate.complete:
            raise UnusableAnswer(
                f"{self.name} was cut off at {len(made)} tokens before its JSON ended. Raise max_tokens=, or "
                "limit the length of its strings in the schema (maxLength)"
            )
        text = b"".join(self.token_bytes[token] or b"" for token in made).decode()  # whole, so it is UTF-8
        try:
            return Completion(text=text, usage=usage, parsed=read_json(text, validator))
        except Unsatisfied as problem:
            raise UnusableAnswer(
                f"{self.name} gave no answer that satisfies the schema: {problem}. Simplify the schema, or "
                "use a stronger model"
            ) from None

    @cached_property
    def _control(self) -> list[str]:
        """Texts that the tokenizer reads as control tokens, the longest first."""
        return sorted(self.tokenizer.all_special_tokens, key=len, reverse=True)

    def _defuse(self, text: str) -> str:
        for word in self._control:
            if word in text:
                text = text.replace(word, f"{word[0]} {word[1:]}")
        return text
