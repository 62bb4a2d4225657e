"""A dialogue of LoCoMo's layout, made up here: the real data is never part of the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SESSIONS = {
    1: (
        "1:56 pm on 8 May, 2023",
        ["I adopted a kitten called Biscuit.", "Lovely! I started rock climbing.", "Where do you climb?"],
    ),
    2: (
        "12:05 am on 1 June, 2023",
        ["Biscuit broke my favourite vase.", "Oh no. I moved to Lisbon last week.", "Is the harbour near?"],
    ),
}
QUESTIONS: list[dict[str, Any]] = [
    {"question": "What is the kitten called?", "answer": "Biscuit", "evidence": ["D1:1"], "category": 4},
    {"question": "When did Bo move to Lisbon?", "answer": 2023, "evidence": ["D2:2"], "category": 2},
    {
        "question": "What did Biscuit do?",
        "answer": "vase",
        "evidence": ["D1:1; D2:1", "D9:9", "D"],
        "category": 1,
    },
    {"question": "Why?", "answer": "bored; cats are", "evidence": [], "category": 3},
    {
        "question": "What is the dog called?",
        "adversarial_answer": "Biscuit",
        "evidence": ["D1:1"],
        "category": 5,
    },
]


def record(sample: str = "conv-1") -> dict[str, Any]:
    conversation: dict[str, Any] = {"speaker_a": "Ana", "speaker_b": "Bo"}
    for number, (when, texts) in SESSIONS.items():
        conversation[f"session_{number}_date_time"] = when
        conversation[f"session_{number}"] = [
            {"speaker": ("Ana", "Bo")[place % 2], "dia_id": f"D{number}:{place + 1}", "text": text}
            for place, text in enumerate(texts)
        ]
    conversation["session_1"][0]["blip_caption"] = "a photo of a kitten"
    return {"sample_id": sample, "conversation": conversation, "qa": QUESTIONS}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "locomo2.json").write_text(json.dumps([record("conv-1"), record("conv-2")]))
    return folder
