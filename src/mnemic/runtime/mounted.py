"""A model with memories mounted: what it generates begins with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from mnemic.activation.kv import KV, SYSTEM, KVError, after_system
from mnemic.cube.errors import InvalidOption, PromptMismatch
from mnemic.models.base import Completion
from mnemic.models.decoding import Gate
from mnemic.models.hf import cache_keyword
from mnemic.models.local import LocalModel

_COPIES: Final = ("num_beams", "num_return_sequences")
_OURS: Final = ("past_key_values", "cache", "cache_implementation", "inputs_embeds", "position_ids")


@dataclass(frozen=True, slots=True)
class Part:
    """One mounted memory: its id, where it enters, and for a KV its size, what it is, and how it was checked.

    bytes: of one copy of its keys and values. label: "exact", or how it departs from that.
    """

    id: str
    point: str
    tokens: int = 0
    bytes: int = 0
    label: str = "exact"
    error: KVError | None = None
    checked: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MountReport:
    """What is mounted. label, error: of the KV memories together, as they are used; error is None where it
    was not measured (mount(…, measure=True)). A stack of several weights depends on their order: floats are
    added.
    """

    parts: tuple[Part, ...]
    stack: tuple[str, ...]
    tokens: int
    bytes: int
    label: str
    error: KVError | None


@dataclass(frozen=True, slots=True)
class Prefix:
    """The KV memories as one. ask: raises StaleMemory or IncompatibleMemory when it may no longer be used."""

    kv: KV
    parts: tuple[Part, ...]
    ask: Callable[[], None]


class Mounted(LocalModel):
    """The model inside a `mount`: a LanguageModel whose every prompt begins with the mounted memory.

    `complete`, `stream` and `answer` write the prompt themselves. `generate` and a call take ids that begin
    with the memory's (`kv.ids`, or all of `prompt_ids`). Each use asks the vault first and gets a fresh copy
    of the KV, which is part of what it costs. Used after its `with` block it raises InvalidOption.
    """

    def __init__(
        self,
        local: LocalModel,
        prefix: Prefix | None,
        others: tuple[Part, ...],
        stack: tuple[str, ...],
        *,
        asks: tuple[Callable[[], None], ...] = (),
    ) -> None:
        super().__init__(local.model, local.tokenizer, name=local.name)
        self._prefix = prefix
        self._others = others
        self._stack = stack
        self.asks: Final = (
            asks  # of what is kept in a vault and mounted by hooks, here and around: StaleMemory
        )
        self._open = True

    def __repr__(self) -> str:
        return f"<Mounted {self.name}: {', '.join(self.stack) or 'nothing'}>"

    @property
    def stack(self) -> tuple[str, ...]:
        """Ids of what is mounted, by point, then by the order given."""
        prefix = tuple(one.id for one in self._prefix.parts) if self._prefix else ()
        below = [one.id for one in self._others if one.point == "WEIGHT"]
        cut = len(self._stack) - len(self._others) + len(below)
        return (*self._stack[:cut], *prefix, *self._stack[cut:])

    @property
    def kv(self) -> KV | None:
        """The mounted KV memory; do not write to its tensors."""
        return self._prefix.kv if self._prefix else None

    @property
    def has_prefix(self) -> bool:
        return self._prefix is not None

    def report(self) -> MountReport:
        kv = self.kv
        parts = (*(self._prefix.parts if self._prefix else ()), *self._others)
        return MountReport(
            parts=parts,
            stack=self.stack,
            tokens=kv.tokens if kv else 0,
            bytes=kv.nbytes if kv else 0,
            label=kv.label if kv else "exact",
            error=kv.error if kv else None,
        )

    # --- text

    def answer(self, question: str, *, max_tokens: int = 256, temperature: float = 0.0) -> Completion:
        """What the model says to a question, with what is mounted before it."""
        asked = [{"role": "user", "content": question}]
        return self.complete(asked, max_tokens=max_tokens, temperature=temperature)

    def prompt_ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The memory's ids and those of the messages after it.

        Raises PromptMismatch unless they are exactly the ids of the whole text.
        """
        kv = self.kv
        if kv is None:
            return super().prompt_ids(messages)
        if kv.form != SYSTEM:
            raise PromptMismatch(
                "the mounted memory is plain text, not a message: continue it with m.prompt(text) and "
                "m.generate"
            )
        return self._joined(kv, after_system(self, messages), control=True)

    def prompt(self, text: str) -> list[int]:
        """The memory's ids and those of a text that continues it.

        Raises PromptMismatch where the boundary is cut into other tokens than the whole text would be.
        """
        kv = self.kv
        return self.encode(text) if kv is None else self._joined(kv, text, control=False)

    def _joined(self, kv: KV, text: str, *, control: bool) -> list[int]:
        ids = kv.ids.tolist()
        read = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        whole = self.encode(read + (text if control else self._defuse(text)), control=True)
        if whole[: len(ids)] != ids or len(whole) == len(ids):
            raise PromptMismatch(
                f"{text!r:.60} cannot follow the mounted memory as it stands: together they are cut into "
                "other tokens than the memory was read in. Begin at a boundary, with a blank or a new line"
            )
        self.check_room(len(whole))
        return whole

    def answer_tokens(
        self,
        ids: Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        cache: Any = None,
        gate: Gate | None = None,
    ) -> Iterator[int]:
        self._check()
        if cache is None and self._prefix is not None:
            self._prefix.kv.check_prompt(ids)
            cache = self._prefix.kv.cache(self)
        return super().answer_tokens(
            ids, max_tokens=max_tokens, temperature=temperature, cache=cache, gate=gate
        )

    # --- ids

    def generate(self, inputs: Any = None, **options: Any) -> Any:
        """`model.generate` with the memory in its cache: transformers' own, with all its options.

        inputs: ids [rows, tokens], each row beginning with the memory's ids (`input_ids=` is the same).
        Copies of the KV: rows · max(num_beams, num_return_sequences). Raises PromptMismatch, StaleMemory,
        IncompatibleMemory, InvalidOption for an option that is the mount's own.
        """
        self._check()
        if inputs is None:
            inputs = options.pop("input_ids", None)
        for name in _OURS:
            if name in options:
                raise InvalidOption(f"{name}= is set by the mount; leave it out")
        if options.get("use_cache") is False:
            raise InvalidOption("use_cache=False would read the memory again; leave it out")
        if self._prefix is None:
            return self.model.generate(inputs, **options)
        _check_rows(self._prefix.kv, inputs, options.get("attention_mask"))
        settings = options.get("generation_config") or self.model.generation_config
        many = [options.get(name) or getattr(settings, name, None) or 1 for name in _COPIES]
        cache = self._prefix.kv.cache(self, rows=inputs.shape[0] * max(many))
        return self.model.generate(inputs, **{cache_keyword(self.model): cache}, **options)

    def __call__(self, input_ids: torch.Tensor, **options: Any) -> Any:
        """One forward. With a KV mounted, `input_ids` begin with its ids and the logits are those of what
        follows them: [rows, tokens - kv.tokens, vocabulary].
        """
        self._check()
        if self._prefix is None:
            return self.model(input_ids, **options)
        for name in _OURS:
            if name in options:
                raise InvalidOption(f"{name}= is set by the mount; leave it out")
        kv = self._prefix.kv
        _check_rows(kv, input_ids, options.get("attention_mask"))
        cache = kv.cache(self, rows=input_ids.shape[0])
        options.setdefault("use_cache", True)
        return self.model(input_ids[:, kv.tokens :], **{cache_keyword(self.model): cache}, **options)

    # --- inside

    def close(self) -> None:
        """For `mount` alone."""
        self._open = False

    def _check(self) -> None:
        if not self._open:
            raise InvalidOption("this mount has ended; use it inside its with block, or mount again")
        for ask in self.asks:
            ask()
        if self._prefix is not None:
            self._prefix.ask()


def _check_rows(kv: KV, ids: Any, mask: Any) -> None:
    """Each row begins with the memory, and sees all of it."""
    if not isinstance(ids, torch.Tensor) or ids.ndim != 2:
        raise InvalidOption(
            "inputs must be a tensor of ids [rows, tokens], such as torch.tensor([m.prompt(…)])"
        )
    if mask is not None and not bool(mask[:, : kv.tokens].all()):
        raise PromptMismatch(
            "the attention mask hides a part of the mounted memory. Pad after the memory, not before it"
        )
    for row in ids.tolist():
        kv.check_prompt(row)
