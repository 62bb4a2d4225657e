"""KV memory: is it exact, and how much sooner does the first token come? (MemOS, E1.)"""

from __future__ import annotations

import gc
import hashlib
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from mnemic.activation.kv import KV, SYSTEM, text_ids
from mnemic.bench.locomo import Dialogue
from mnemic.cube.errors import InvalidOption
from mnemic.cube.model import MemCube
from mnemic.memory import Memory
from mnemic.memory import open as open_memory
from mnemic.models.local import LocalModel
from mnemic.transform.text_to_kv import as_text

MEMORIES: Final = (256, 1024, 1800)
QUERIES: Final = (16, 64, 256)
REPEATS: Final = 3
GREEDY: Final = 32
USES: Final = 5
Step = Callable[[str, str], None]


def run(
    dialogue: Dialogue,
    model: LocalModel,
    folder: Path,
    tokens: int,
    *,
    queries: Sequence[int] = QUERIES,
    repeats: int = REPEATS,
    step: Step = lambda *_: None,
) -> dict[str, Any]:
    """A memory of so many tokens with every query: logits, greedy tokens, time to the first token, both ways.

    Texts are turns of one real dialogue. Direct: the whole prompt is read. KV: the vault is asked, the KV is
    cloned, the query is read. Both are measured in turn, `repeats` times after a warm-up.
    """
    with open_memory(folder / f"speed-{tokens}.db") as memory:
        cubes = _told(memory, dialogue, model, tokens)
        started = time.perf_counter()
        made = memory.as_kv(cubes, model, title=f"{tokens} tokens")
        build_s = time.perf_counter() - started
        started = time.perf_counter()
        with memory.mount(model, made) as mounted:
            mount_s = time.perf_counter() - started
            kv = mounted.kv
            if kv is None:
                raise InvalidOption("nothing was mounted")
            before, cells = _content(kv), []
            for size in queries:
                ids = mounted.prompt_ids(_query(mounted, dialogue, kv.tokens, size))
                cells.append({"memory": tokens, "query": size, **_measure(model, mounted, kv, ids, repeats)})
                step("speed", f"{tokens} + {size}: {cells[-1]['ratio']:.1f} times sooner")
            same = _use_often(mounted, ids)
            after = _content(kv)
    return {
        "memory": tokens,
        "tokens": kv.tokens,
        "build_s": build_s,
        "mount_s": mount_s,
        "file_bytes": made.blob.size if made.blob else 0,
        "unchanged_after_uses": same and before == after,
        "uses": USES,
        "cells": cells,
    }


def demands(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """E1's demands, with what was measured for each memory."""
    cells = {(one["memory"], one["query"]): one for memory in found for one in memory["cells"]}
    ratio = {key: one["ratio"] for key, one in cells.items()}
    logit = max(one["max_logit"] for one in cells.values())
    same = all(one["same_tokens"] for one in cells.values())
    order = [(1800, 16), (1024, 16), (256, 16)]
    checks = [
        ("largest difference of a logit", "<= 1e-3", logit, logit <= 1e-3),
        (f"{GREEDY} greedy tokens are the same", "all", same, same),
        (
            "stored tensors unchanged after 5 uses",
            "all",
            None,
            all(b["unchanged_after_uses"] for b in found),
        ),
    ]
    for at, least in (((1800, 16), 4.0), ((256, 256), 1.3)):
        if at in ratio:
            checks.append(
                (f"first token sooner at {at[0]}/{at[1]}", f">= {least} times", ratio[at], ratio[at] >= least)
            )
    if all(at in ratio for at in order):
        falling = ratio[order[0]] > ratio[order[1]] > ratio[order[2]]
        checks.append(("1800/16 > 1024/16 > 256/16", "in this order", [ratio[at] for at in order], falling))
    if (1024, 256) in ratio:
        more = ratio[1024, 16] > ratio[1024, 256]
        checks.append(("1024/16 > 1024/256", "in this order", [ratio[1024, 16], ratio[1024, 256]], more))
    return [{"what": w, "demanded": d, "measured": m, "met": bool(ok)} for w, d, m, ok in checks]


def _told(memory: Memory, dialogue: Dialogue, model: LocalModel, tokens: int) -> list[MemCube]:
    """Turns from the beginning of the dialogue, until what the model reads is as long as asked, or a few
    tokens less: the last turn is cut at a word.
    """
    user = f"{dialogue.id}-{tokens}"

    def size(cubes: Sequence[MemCube], last: str | None = None) -> int:
        shown = list(cubes)
        if last is not None:
            shown[-1] = cubes[-1].model_copy(update={"payload": last.encode()})
        return len(text_ids(model, as_text(shown), form=SYSTEM))

    cubes: list[MemCube] = []
    for turn in dialogue.turns:
        told = {"role": "user", "name": turn.speaker, "content": turn.text, "at": turn.at}
        cubes += memory.add([told], user=user, session=turn.session)
        if size(cubes) < tokens:
            continue
        words = cubes[-1].text.split(" ")
        while words and size(cubes, " ".join(words)) > tokens:
            words.pop()
        if words:
            memory.update(cubes[-1].id, " ".join(words))
        else:
            memory.delete(cubes.pop().id)
        return cubes
    raise InvalidOption(f"dialogue {dialogue.id} is shorter than {tokens} tokens")


def _query(mounted: Any, dialogue: Dialogue, memory: int, tokens: int) -> list[dict[str, str]]:
    """A user's message of the dialogue's own words that takes as many tokens with its turn, or a few less."""
    words = " ".join(turn.text for turn in reversed(dialogue.turns)).split()
    low, high = 1, min(tokens, len(words))  # a word is a token or more
    while low < high:
        middle = (low + high + 1) // 2
        asked = [{"role": "user", "content": " ".join(words[:middle])}]
        if len(mounted.prompt_ids(asked)) - memory <= tokens:
            low = middle
        else:
            high = middle - 1
    return [{"role": "user", "content": " ".join(words[:low])}]


def _measure(model: LocalModel, mounted: Any, kv: KV, ids: list[int], repeats: int) -> dict[str, Any]:
    feed = torch.tensor([ids])
    with torch.inference_mode():
        wanted = model.model(feed, logits_to_keep=len(ids) - kv.tokens).logits
        found = mounted(feed).logits
    options = {"max_new_tokens": GREEDY, "min_new_tokens": GREEDY, "do_sample": False}
    same = torch.equal(model.model.generate(feed, **options), mounted.generate(feed, **options))
    direct, cloned = [], []
    for turn in range(repeats + 1):
        gc.collect()
        seconds = [_first_token(one, ids) for one in (model, mounted)]
        if turn:
            direct.append(seconds[0])
            cloned.append(seconds[1])
    return {
        "memory_tokens": kv.tokens,
        "query_tokens": len(ids) - kv.tokens,
        "max_logit": float((wanted - found).abs().max()),
        "same_tokens": same,
        "direct_s": direct,
        "kv_s": cloned,
        "ratio": statistics.median(direct) / statistics.median(cloned),
        "ratios": [one / two for one, two in zip(direct, cloned, strict=True)],
    }


def _first_token(model: LocalModel, ids: list[int]) -> float:
    started = time.perf_counter()
    next(model.answer_tokens(ids, max_tokens=1), None)
    return time.perf_counter() - started


def _use_often(mounted: Any, ids: list[int]) -> bool:
    """The same answer each time."""
    feed = torch.tensor([ids])
    answers = [mounted.generate(feed, max_new_tokens=8, do_sample=False).tolist() for _ in range(USES)]
    return all(one == answers[0] for one in answers)


def _content(kv: KV) -> tuple[int, str]:
    hashed = hashlib.sha256()
    for one in (*kv.keys, *kv.values):
        hashed.update(one.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return kv.tokens, hashed.hexdigest()
