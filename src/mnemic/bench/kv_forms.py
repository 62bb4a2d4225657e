"""KV in fewer bits, and several KV as one: what each form saves, and how far it is off."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from mnemic.activation.kv import KV, SYSTEM, compare, prefill, probe_tokens, text_ids
from mnemic.activation.kv_compose import compose
from mnemic.activation.kv_file import STORAGES, encode, stored
from mnemic.bench.locomo import Dialogue
from mnemic.models.local import LocalModel

SESSIONS: Final = 3
LENGTH: Final = 400  # tokens of each
FORMS: Final = (
    ("exact", 1.0), ("rotated", 1.0), ("selective", 0.05), ("selective", 0.15), ("selective", 0.3),
    ("selective", 1.0),
)  # fmt: skip
REPEATS: Final = 3
Step = Callable[[str, str], None]


def run(dialogue: Dialogue, model: LocalModel, *, step: Step = lambda *_: None) -> dict[str, Any]:
    """Storage of one session's KV; and several sessions' KV composed, against reading them as one text.

    Errors are on the tokens of a question after the memory. O(12 prefills of the whole).
    """
    memories = [_session(dialogue, model, number) for number in range(1, SESSIONS + 1)]
    probe = probe_tokens(model, SYSTEM)
    storages = {}
    for name in STORAGES:
        size = sum(len(piece) for piece in encode(memories[0], storage=name)[1])
        error = compare(model, memories[0], stored(memories[0], name), probe)
        storages[name] = {"bytes": size, **_told(error)}
        step("forms", f"{name}: {size / 1e6:.1f} MB")
    whole = compose(model, memories, how="exact")
    forms = []
    for how, ratio in FORMS:
        seconds = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            made = compose(model, memories, how=how, ratio=ratio)
            seconds.append(time.perf_counter() - started)
        forms.append(
            {
                "how": how if how != "selective" else f"selective {ratio:.0%}",
                "seconds": statistics.median(seconds),
                "spread_s": [min(seconds), max(seconds)],
                **_told(compare(model, whole, made, probe)),
            }
        )
        step("forms", f"{forms[-1]['how']}: off by {forms[-1]['max_logit']:.3f}")
    return {
        "tokens": [one.tokens for one in memories],
        "probe_tokens": len(probe),
        "storages": storages,
        "compositions": forms,
    }


def _session(dialogue: Dialogue, model: LocalModel, number: int) -> KV:
    """The beginning of one session, as a system message of about LENGTH tokens."""
    names = list(dict.fromkeys(turn.session for turn in dialogue.turns))
    lines: list[str] = []
    for turn in (one for one in dialogue.turns if one.session == names[number]):
        if len(model.encode("\n".join([*lines, turn.line]))) > LENGTH:
            break
        lines.append(turn.line)
    return prefill(model, text_ids(model, "\n".join(lines), form=SYSTEM), form=SYSTEM)


def _told(error: Any) -> dict[str, float]:
    return {
        "max_logit": error.max_logit,
        "mean_kl": error.mean_kl,
        "same_top": error.same_top,
        "kv": error.kv,
    }


def rows(found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """For a table: name, then the four errors."""
    return [
        [f"{one['max_logit']:.3g}", f"{one['mean_kl']:.2g}", f"{one['same_top']:.0%}", f"{one['kv']:.2g}"]
        for one in found
    ]
