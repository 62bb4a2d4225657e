"""A language model that answers from a context, and how its answers are scored."""

from __future__ import annotations

from typing import Any

from mnemic.bench.locomo import Question
from mnemic.bench.metrics import abstains, answer_f1, exact_match
from mnemic.models.base import LanguageModel

PROMPT = """Below are parts of conversations between two people. Each part is headed by its date.

{context}

Answer the question from these conversations alone, in a few words, with exact words from them where \
possible. Write dates like 7 May 2023. If they do not hold the answer, say "No information available".

Question: {question}
Short answer:"""


class Reader:
    """One prompt for every system. The answer key is never shown to the model."""

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.name = model, model.name

    def answer(self, context: str, question: Question) -> dict[str, Any]:
        """The model's answer and its scores: F1 and exact match in categories 1-4, abstention in all."""
        prompt = PROMPT.format(context=context, question=question.text)
        said = self.model.complete([{"role": "user", "content": prompt}], max_tokens=48)
        text = said.text.strip()
        scores: dict[str, Any] = {
            "text": text,
            "abstained": abstains(text),
            "tokens": said.usage.input_tokens,
        }
        if question.answer is not None:
            scores["f1"] = answer_f1(text, question.answer, question.category)
            scores["exact"] = exact_match(text, question.answer)
        return scores
