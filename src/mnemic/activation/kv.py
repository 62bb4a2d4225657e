"""KV memory: a text that a model has read once, as the keys and values of every layer (MemOS §6).

`prefill` makes it, `KV.cache` gives a fresh copy to a generation. Knows no vault and no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import torch

from mnemic.cube.checks import require_count
from mnemic.cube.errors import IncompatibleMemory, InvalidOption, PromptMismatch, UnsupportedModel
from mnemic.models.fingerprint import Fingerprint, Verify, fingerprint, library_version
from mnemic.models.hf import cache_keyword, layer_types
from mnemic.models.local import LocalModel
from mnemic.models.stack import mounted, stack_hash

SYSTEM: Final = "system"  # the text is a system message in the model's chat template
PLAIN: Final = "plain"  # the text is ids and no more
FORMS: Final = (SYSTEM, PLAIN)
EXACT: Final = "exact"
PROBE: Final = "What do you know about me? Answer in a few words."


@dataclass(frozen=True, slots=True, kw_only=True)
class KVError:
    """How far a model's next tokens are off with an approximate KV, from those with the exact one.

    Over `tokens` probe tokens after it: the largest difference of a logit, the mean Kullback-Leibler
    divergence (nats), and the share of tokens whose likeliest successor is the same. kv: of keys and values
    themselves, root mean square of the difference over that of the exact ones.
    """

    max_logit: float
    mean_kl: float
    same_top: float
    kv: float
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KV:
    """Keys and values of a text, as `layers` pairs of [1, kv heads, tokens, head_dim], keys rotated.

    ids: int32 [tokens], what was read. form: what these ids are a beginning of (FORMS). fingerprint, stack:
    by which model, under which mounts. label: "exact", or how it departs from that, such as "int8" or
    "rotated"; error: by how much, where that was measured. Its tensors are never written to: `cache` copies.
    Layers with a sliding window have all tokens here too; copies are cut to the window.
    """

    ids: torch.Tensor
    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    fingerprint: Fingerprint
    stack: str
    form: str = PLAIN
    label: str = EXACT
    error: KVError | None = None
    made_with: str = ""

    @property
    def tokens(self) -> int:
        return int(self.ids.shape[0])

    @property
    def nbytes(self) -> int:
        """Of keys and values: 2 · layers · kv heads · head_dim · tokens · bytes of a number."""
        return sum(one.numel() * one.element_size() for one in (*self.keys, *self.values))

    def cache(self, local: LocalModel, *, rows: int = 1) -> Any:
        """A new DynamicCache that holds a copy, for a batch of `rows`. O(bytes · rows).

        Built through the cache's own `update`, which copies, so nothing a generation does reaches these
        tensors.
        """
        from transformers import DynamicCache

        require_count(rows=rows)
        cache = DynamicCache(config=local.model.config)
        with torch.no_grad():
            for layer, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
                cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)
        if cache.get_seq_length() != self.tokens:
            raise UnsupportedModel(
                f"the cache of {local.name} holds {cache.get_seq_length()} of {self.tokens} tokens; its "
                "layers are of a kind that KV memory does not know"
            )
        return cache

    def check_model(
        self, local: LocalModel, *, verify: Verify = "fast", under: tuple[str, ...] | None = None
    ) -> None:
        """Raises IncompatibleMemory, naming the part that differs, unless this very model made it, under the
        same mounts. under: ids of what is mounted below it; default: all that is mounted now.
        """
        here = fingerprint(local, verify=verify)
        if parts := self.fingerprint.differing(here):
            part = parts[0]
            raise IncompatibleMemory(
                f"this KV memory was made by another model: its {' and '.join(parts)} "
                f"differ{'s' * (len(parts) == 1)} "
                f"({part}: {getattr(self.fingerprint, part)[:12]}… then, {getattr(here, part)[:12]}… now; "
                f"made with {self.made_with or 'an unknown version'}). Build it again for {local.name}",
                part=part,
                expected=getattr(self.fingerprint, part),
                found=getattr(here, part),
            )
        ids = mounted(local.model) if under is None else under
        stack = stack_hash(here.weights, ids)
        if stack != self.stack:
            now = ", ".join(ids) or "nothing"
            raise IncompatibleMemory(
                f"this KV memory was computed under other mounts than the model has now ({now}): its keys "
                "and values are a function of them too. Build it again under these, or unmount them",
                part="stack",
                expected=self.stack,
                found=stack,
            )

    def check_prompt(self, ids: Sequence[int]) -> None:
        """Raises PromptMismatch unless `ids` begin with the ids of this memory and go on after them."""
        mine = self.ids.tolist()
        if len(ids) > len(mine) and list(ids[: len(mine)]) == mine:
            return
        same = next((n for n, (one, two) in enumerate(zip(ids, mine, strict=False)) if one != two), len(ids))
        what = (
            f"it ends after {len(ids)} of the memory's {len(mine)} tokens, and at least one more is needed"
            if same >= len(ids)
            else f"it differs at token {same} of the memory's {len(mine)}"
        )
        raise PromptMismatch(
            f"the prompt does not begin with the mounted memory: {what}. Begin with exactly its ids "
            "(kv.ids), or let the mount write the prompt: m.complete(messages), m.prompt(text)"
        )

    def labelled(self, label: str, error: KVError | None = None) -> Self:
        return replace(self, label=label, error=error)


def check_supported(local: LocalModel, *, windows: bool = True) -> None:
    """Raises UnsupportedModel unless every layer has keys and values of its own for each token: no shared or
    latent ones, no recurrent states; without `windows`, no sliding windows either.

    Also when positions are turned by frequencies that follow the length: keys read at one length are then
    wrong at another.
    """
    known = ("full_attention", "sliding_attention") if windows else ("full_attention",)
    others = sorted({one for one in layer_types(local.model.config) if one not in known})
    if others and not windows:
        raise UnsupportedModel(
            f"{local.name} has layers of {', '.join(others)}; its KV memories can only be composed exactly "
            "(how='exact')"
        )
    if others:
        raise UnsupportedModel(
            f"{local.name} has layers of {', '.join(others)}; KV memory needs full attention in every layer, "
            "or a sliding window"
        )
    config = local.model.config.get_text_config(decoder=True)
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default") if isinstance(rope, dict) else "default"
    if kind in ("dynamic", "longrope"):
        raise UnsupportedModel(
            f"{local.name} turns positions by {kind} RoPE, whose frequencies change with the length; KV "
            "memory needs fixed ones"
        )


def system_text(local: LocalModel, text: str) -> str:
    """The text as a whole system message, as this model's chat template begins with it."""
    return local.render([{"role": "system", "content": text}], answer=False)


def text_ids(local: LocalModel, text: str, *, form: str) -> list[int]:
    """The ids of a memory, up to a boundary that any continuation leaves as it is.

    In the form "system" that is the end of the message: the ids of the message alone are checked to begin
    those of the message with a question after it. Raises PromptMismatch where they do not.
    """
    if form not in FORMS:
        raise InvalidOption(f"form={form!r:.80} must be one of {', '.join(FORMS)}")
    if form == PLAIN:
        return local.encode(text)
    ids = local.encode(system_text(local, text), control=True)
    told = [{"role": "system", "content": text}, {"role": "user", "content": "?"}]
    longer = local.encode(local.render(told, answer=True), control=True)
    if longer[: len(ids)] != ids:
        raise PromptMismatch(
            f"the chat template of {local.name} does not begin a conversation with the system message as it "
            "stands alone, so nothing can be mounted before it. Use form='plain'"
        )
    return ids


def after_system(local: LocalModel, messages: Sequence[Mapping[str, str]]) -> str:
    """What the chat template writes for `messages` after a system message that is there already, up to the
    assistant's turn. Raises PromptMismatch where the template does not simply go on.
    """
    before = {"role": "system", "content": "…"}
    head = local.render([before], answer=False)
    whole = local.render([before, *messages], answer=True)
    if not whole.startswith(head):
        raise PromptMismatch(
            f"the chat template of {local.name} writes a system message otherwise when these messages follow "
            "it, so they cannot follow a mounted one"
        )
    return whole[len(head) :]


def probe_tokens(local: LocalModel, form: str) -> list[int]:
    """Tokens of a question after a memory of this form: what approximations are measured on."""
    if form == PLAIN:
        return local.encode(f" {PROBE}")
    return local.encode(after_system(local, [{"role": "user", "content": PROBE}]), control=True)


def prefill(local: LocalModel, ids: Sequence[int], *, form: str = PLAIN) -> KV:
    """Read `ids` once and keep what every layer computed. One forward, O(tokens²); no logits are kept.

    Raises InvalidOption for no ids, UnsupportedModel, ModelError when they do not fit.
    """
    from transformers import DynamicCache

    check_supported(local)
    if not len(ids):
        raise InvalidOption("there is nothing to read: the text is empty")
    local.check_room(len(ids))
    cache = DynamicCache()  # without the config: layers with a window keep all, for copies cut to the window
    feed = torch.tensor([list(ids)], dtype=torch.long, device=local.model.device)
    with torch.no_grad():
        local.model(input_ids=feed, use_cache=True, logits_to_keep=1, **{cache_keyword(local.model): cache})
    made = fingerprint(local)
    return KV(
        ids=torch.tensor(list(ids), dtype=torch.int32),
        keys=tuple(layer.keys.contiguous() for layer in cache.layers),
        values=tuple(layer.values.contiguous() for layer in cache.layers),
        fingerprint=made,
        stack=stack_hash(made.weights, mounted(local.model)),
        form=form,
        made_with=library_version(),
    )


def compare(local: LocalModel, exact: KV, other: KV, probe: Sequence[int]) -> KVError:
    """How far `other` is from `exact`, over the tokens of `probe` after them. Two forwards of `probe`."""
    wanted, found = (_logits(local, one, probe) for one in (exact, other))
    p, q = wanted.log_softmax(-1), found.log_softmax(-1)
    pairs = zip((*exact.keys, *exact.values), (*other.keys, *other.values), strict=True)
    off = total = 0.0
    for one, two in pairs:
        off += float((one.float() - two.float()).pow(2).sum())
        total += float(one.float().pow(2).sum())
    return KVError(
        max_logit=float((wanted - found).abs().max()),
        mean_kl=max(0.0, float((p.exp() * (p - q)).sum(-1).mean())),
        same_top=float((wanted.argmax(-1) == found.argmax(-1)).float().mean()),
        kv=(off / total) ** 0.5 if total else 0.0,
        tokens=len(probe),
    )


def _logits(local: LocalModel, kv: KV, probe: Sequence[int]) -> torch.Tensor:
    """(len(probe), vocabulary) float32."""
    feed = torch.tensor([list(probe)], dtype=torch.long, device=local.model.device)
    with torch.no_grad():
        out = local.model(input_ids=feed, use_cache=True, **{cache_keyword(local.model): kv.cache(local)})
    return out.logits[0].float()  # type: ignore[no-any-return]
