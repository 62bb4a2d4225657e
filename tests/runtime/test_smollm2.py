"""The real model with a real memory: exact, sooner, and never after its source."""

from __future__ import annotations

from pathlib import Path

import pytest

import mnemic
from language_models import needs_smollm2, smollm2
from mnemic.cube.errors import IncompatibleMemory, StaleMemory
from mnemic.models.registry import load_model

pytestmark = needs_smollm2
TOLD = ("Tom is allergic to walnuts.", "Ana moved to Porto in March.", "The locker code of Ida is 4711.")


def test_it_answers_from_what_it_has_read(tmp_path: Path) -> None:
    import torch

    model = smollm2()
    with mnemic.open(tmp_path / "ana.db") as memory:
        ids = [memory.add(text, user="ana")[0].id for text in TOLD]
        cube = memory.as_kv(ids, model)
        assert cube.blob is not None
        with memory.mount(model, cube) as mounted:
            kv = mounted.kv
            assert kv is not None
            assert kv.nbytes == 2 * 30 * 3 * 64 * 4 * kv.tokens
            assert cube.blob.size < 1.1 * kv.nbytes
            prompt = mounted.prompt_ids([{"role": "user", "content": "What is the locker code of Ida?"}])
            feed = torch.tensor([prompt])
            with torch.inference_mode():
                wanted = model.model(feed).logits[:, kv.tokens :]
                assert (mounted(feed).logits - wanted).abs().max() <= 1e-3
            options = {"max_new_tokens": 12, "do_sample": False}
            assert torch.equal(mounted.generate(feed, **options), model.model.generate(feed, **options))
            assert "4711" in mounted.answer("What is the locker code of Ida?", max_tokens=24).text
            memory.update(ids[2], "The locker code of Ida is 9052.")
            with pytest.raises(StaleMemory, match="was updated"):
                mounted.answer("What is the locker code of Ida?")
        again = memory.as_kv(ids, model, storage="int8")
        with memory.mount(model, again) as mounted:
            assert "9052" in mounted.answer("What is the locker code of Ida?", max_tokens=24).text
            error = mounted.report().error
            assert error is not None
            assert 0 < error.max_logit < 2
            assert error.same_top > 0.8
        half = load_model("smollm2", dtype="bfloat16")
        with pytest.raises(IncompatibleMemory, match="dtype"), memory.mount(half, again):
            pass
