"""A GGUF file as a transformers folder: dequantised once, kept in the user's cache, loaded quickly ever
after.

transformers reads GGUF, slowly (it dequantises), and refuses to save what it read. Here the weights go into a
model that never heard of GGUF, and that one is saved as float32 safetensors.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from mnemic.cube.checks import require_extra
from mnemic.cube.errors import ModelError
from mnemic.models.hf import quietly

LAYOUT: Final = 1  # of what is written; another number makes other folders
Mend = Callable[[Any], None]


def cache_folder() -> Path:
    """Where converted models are kept: the user's cache folder. Not made here."""
    from platformdirs import user_cache_path

    return user_cache_path("mnemic", appauthor=False) / "models"


def as_safetensors(
    gguf: Path, *, name: str, mend_tokenizer: Mend | None = None, cache: Path | None = None
) -> Path:
    """The folder that holds `gguf` as safetensors with its tokenizer, made if it is not there yet.

    name: begins the folder's name; the rest is a hash of the file, so another file is another folder.
    mend_tokenizer: puts right, in place, what GGUF does not say about the tokenizer.
    cache: where to keep it; default: `cache_folder()`. A folder appears whole or not at all: when two
    processes convert at once, the second finds the first one's. Costs a hash of the file (0.1 s for 100 MB);
    the first time half a minute and some 1.5 GB of memory for 135 million parameters.

    Raises MissingExtra (gguf, accelerate), ModelError.
    """
    folder = (cache or cache_folder()) / f"{name}-{_digest(gguf)[:16]}-{LAYOUT}"
    if folder.is_dir():
        return folder
    for module in ("torch", "transformers", "gguf", "accelerate"):
        require_extra(module, extra="torch")
    part = folder.with_name(f"{folder.name}.part-{secrets.token_hex(4)}")
    try:
        part.mkdir(parents=True)
        with quietly():
            _convert(gguf, part, mend_tokenizer)
        _publish(part, folder)
    except Exception as error:  # a damaged file breaks its reader in many ways
        raise ModelError(
            f"{gguf.name} cannot be converted into {folder} ({type(error).__name__}: {error}). It needs some "
            "600 MB of disk there and 1.5 GB of memory; if the file itself is damaged, reinstall its package"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _convert(gguf: Path, folder: Path, mend_tokenizer: Mend | None) -> None:
    import torch
    import transformers

    where, file = str(gguf.parent), gguf.name
    read = transformers.AutoModelForCausalLM.from_pretrained(where, gguf_file=file, dtype=torch.float32)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    clean = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    clean.load_state_dict(read.state_dict())
    clean.tie_weights()
    del read
    tokenizer = transformers.AutoTokenizer.from_pretrained(where, gguf_file=file)
    if mend_tokenizer is not None:
        mend_tokenizer(tokenizer)
    clean.generation_config.pad_token_id = tokenizer.pad_token_id
    clean.generation_config.eos_token_id = tokenizer.eos_token_id
    clean.generation_config.bos_token_id = tokenizer.bos_token_id
    clean.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _publish(part: Path, folder: Path) -> None:
    """Make the folder appear whole: durable first, then one rename. Another process's copy is as good."""
    for path in [*part.iterdir(), part]:
        _sync(path)
    try:
        part.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    _sync(folder.parent)


def _sync(path: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there, and files are flushed by closing them
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}). Reinstall the package that holds it"
        ) from (error)
