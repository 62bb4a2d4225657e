"""Which model made this? Seven hashes, one for each part that a stored activation depends on.

Each part is hashed alone, so that an error names the part that differs. The library's version is recorded
beside them and not compared: what it changes in the tensors' layout is `LAYOUT`, and that is ours.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, Self
from weakref import WeakKeyDictionary

import torch

from mnemic.cube.errors import InvalidOption
from mnemic.models.hf import layer_types
from mnemic.models.local import LocalModel

LAYOUT: Final = "dense-1"  # one [1, heads, tokens, head_dim] of keys (rotated) and one of values a layer
Verify = Literal["fast", "full"]
_VOLATILE: Final = frozenset(
    {
        "_name_or_path", "_model_name_or_path", "name_or_path", "architectures", "transformers_version",
        "dtype", "torch_dtype", "use_cache", "rope_parameters", "rope_scaling", "rope_theta",
        "max_position_embeddings", "return_dict", "output_attentions", "output_hidden_states",
        "chunk_size_feed_forward",
    }
)  # fmt: skip

_known: WeakKeyDictionary[Any, tuple[tuple[Any, ...], str]] = WeakKeyDictionary()  # of models, tokenizers


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What a model is made of; every field is 64 hex digits."""

    weights: str
    config: str
    tokenizer: str
    template: str
    dtype: str
    rope: str
    layout: str

    def differing(self, other: Fingerprint) -> list[str]:
        """The parts in which they differ, by name."""
        return [one.name for one in fields(self) if getattr(self, one.name) != getattr(other, one.name)]

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def of_dict(cls, told: Any) -> Self:
        """Raises ValueError unless it is what `as_dict` gives."""
        names = {one.name for one in fields(cls)}
        if not isinstance(told, dict) or set(told) != names:
            raise ValueError(f"a fingerprint has the parts {', '.join(sorted(names))}")
        if not all(isinstance(value, str) and len(value) == 64 for value in told.values()):
            raise ValueError("each part of a fingerprint is 64 hex digits")
        return cls(**told)


def fingerprint(local: LocalModel, *, verify: Verify = "fast") -> Fingerprint:
    """What this model is made of.

    Weights: SHA-256 over sorted (name, dtype, shape, bytes), remembered until a parameter's address or
    version changes; verify="full" hashes them again, as writes through `.data` change no version. The
    tokenizer's is remembered until its size or control tokens change. O(bytes of the weights) the first time
    (some 0.4 s for 540 MB), then O(parameters).
    """
    if verify not in ("fast", "full"):
        raise InvalidOption(f'verify={verify!r:.80} must be "fast" or "full"')
    config = local.model.config.get_text_config(decoder=True)
    told = config.to_diff_dict()
    return Fingerprint(
        weights=weights_hash(local.model, verify=verify),
        config=_hash({name: value for name, value in told.items() if name not in _VOLATILE}),
        tokenizer=_tokenizer(local.tokenizer, verify),
        template=_hash(local.tokenizer.chat_template),
        dtype=_hash(local.dtype),
        rope=_hash(_rope(config)),
        layout=_hash([LAYOUT, layer_types(local.model.config)]),
    )


def library_version() -> str:
    """Recorded beside a fingerprint, for people."""
    import transformers

    return f"transformers {transformers.__version__}, torch {torch.__version__}"


def weights_hash(model: torch.nn.Module, *, verify: Verify = "fast") -> str:
    """The weights' part of a fingerprint, for any module; costs and `verify` as there."""
    named = sorted(model.state_dict(keep_vars=True).items())
    shared = {id(one): name for name, one in reversed(named)}  # tied weights count once
    named = [(name, one) for name, one in named if shared[id(one)] == name]
    state = tuple((name, one.data_ptr(), _version(one), one.dtype) for name, one in named)
    if verify == "fast" and (known := _known.get(model)) is not None and known[0] == state:
        return known[1]
    hashed = hashlib.sha256()
    for name, one in named:
        hashed.update(f"{name}\0{one.dtype}\0{tuple(one.shape)}\0".encode())
        flat = one.detach().contiguous().cpu().reshape(-1).view(torch.uint8)
        hashed.update(flat.numpy().data)
    digest = hashed.hexdigest()
    if all(version is not None for _, _, version, _ in state):
        _known[model] = (state, digest)
    return digest


def _version(tensor: torch.Tensor) -> int | None:
    """How often it was written to; None where torch does not count."""
    return None if tensor.is_inference() else int(tensor._version)


def _tokenizer(tokenizer: Any, verify: Verify) -> str:
    """Of all that decides how text becomes ids; padding and truncation are a matter of the last call."""
    state = (len(tokenizer), tuple(tokenizer.all_special_tokens))
    if verify == "fast" and (known := _known.get(tokenizer)) is not None and known[0] == state:
        return known[1]
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    told.pop("padding", None)
    told.pop("truncation", None)
    digest = _hash(told)
    _known[tokenizer] = (state, digest)
    return digest


def _rope(config: Any) -> Any:
    """How positions turn keys. Frequencies that follow the length need the window too."""
    told = getattr(config, "rope_parameters", None)
    return [told, getattr(config, "max_position_embeddings", None)]


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
