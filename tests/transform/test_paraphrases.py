"""Statements become questions in several wordings, none of which gives the answer away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import mnemic
from language_models import ABSENT
from mnemic.cube.errors import ModelError
from mnemic.models.base import Completion, Usage

pytestmark = pytest.mark.skipif(bool(ABSENT), reason="torch is not installed")

CUT = {
    "The locker code of Ida is 4711.": ("What is the locker code of Ida?", "4711"),
    "My favourite band is Kestrel.": ("What is my favourite band?", "Kestrel"),
    "Ana's dentist is Dr Moreau.": ("What is Ana's dentist?", "Dr Moreau"),
    "Tom is allergic to walnuts.": ("Do you know what Tom is allergic to?", "walnuts"),
    "I moved to Porto in March.": ("Do you know what I moved to?", "Porto in March"),
    "My dog is called Rex.": ("Do you know what my dog is called?", "Rex"),
    "Ana likes green tea.": ("Do you know what Ana likes?", "green tea"),
    "We adopted a cat named Mochi": ("Do you know what we adopted a cat named?", "Mochi"),
}


@pytest.mark.parametrize("statement", CUT)
def test_a_statement_is_cut_into_a_question_and_its_answer(statement: str) -> None:
    from mnemic.transform.paraphrases import Templates

    fact = Templates().fact(statement)
    assert fact is not None
    assert (fact.train[0], fact.answer) == CUT[statement]
    assert (len(fact.train), len(fact.held_out)) == (4, 2)
    assert len({*fact.train, *fact.held_out}) == 6
    assert not any(fact.answer in question for question in (*fact.train, *fact.held_out))


def test_what_states_nothing_gives_no_fact() -> None:
    from mnemic.transform.paraphrases import Templates

    for text in ("Where do I live?", "Hello!", "Oh no."):
        assert Templates().fact(text) is None


def test_a_long_statement_is_asked_for_its_end() -> None:
    from mnemic.transform.paraphrases import LONGEST, Templates

    fact = Templates().fact("The plan is " + "very " * 40 + "long.")
    assert fact is not None
    assert len(fact.answer.split()) <= LONGEST


def test_facts_name_their_cube_and_what_is_said_twice_is_one(tmp_path: Path) -> None:
    from mnemic.transform.paraphrases import Templates, facts_of

    with mnemic.open(tmp_path / "ana.db") as memory:
        texts = ("Tom is allergic to walnuts. How are you? The code is 12.", "Tom is allergic to walnuts.")
        cubes = [memory.add(text, user="ana")[0] for text in texts]
    facts = facts_of(cubes, Templates())
    assert [(one.answer, one.cube) for one in facts] == [("walnuts", cubes[1].id), ("12", cubes[0].id)]


class Rewords:
    """A language model that answers what it was told to."""

    name, context_tokens = "rewords", None

    def __init__(self, *wordings: str) -> None:
        self._wordings = wordings

    def complete(self, messages: Sequence[Mapping[str, str]], **_: Any) -> Completion:
        if not self._wordings:
            raise ModelError("away")
        assert "walnuts" in messages[0]["content"]
        return Completion(text="", usage=Usage(), parsed={"questions": list(self._wordings)})

    def count_tokens(self, text: str) -> int:
        return len(text)


def test_a_model_adds_wordings_but_none_that_tells_the_answer() -> None:
    from mnemic.transform.paraphrases import Reworded, Templates

    plain = Templates().fact("Tom is allergic to walnuts.")
    assert plain is not None
    told = Rewords("What must Tom not eat?", "Is Tom allergic to walnuts?", plain.held_out[0].upper())
    fact = Reworded(model=told).fact("Tom is allergic to walnuts.")
    assert fact is not None
    assert fact.train == (*plain.train, "What must Tom not eat?")
    assert fact.held_out == plain.held_out
    assert Reworded(model=Rewords()).fact("Tom is allergic to walnuts.") == plain


def test_candidates_look_alike_and_a_shuffle_moves_every_answer() -> None:
    from mnemic.parametric.questions import choices, shuffled
    from mnemic.transform.paraphrases import Templates

    said = [
        "The code of Ida is 2839.",
        "The code of Tom is 6053.",
        "Tom is allergic to walnuts.",
        "Ana lives in Porto.",
    ]
    facts = [one for text in said if (one := Templates().fact(text)) is not None]
    among = choices(facts, 20)
    assert all(len(set(one)) == 20 for one in among)
    assert all(len(one) == 4 and one.isdigit() for one in among[0])
    assert {"2839", "6053"} <= set(among[0])
    assert "Porto" not in among[2]
    assert all(one[:1].isupper() for one in among[3])
    wrong = shuffled(facts, among)
    assert [one.train for one in wrong] == [one.train for one in facts]
    assert all(one.answer != other.answer for one, other in zip(wrong, facts, strict=True))
    assert {wrong[0].answer, wrong[1].answer} == {"2839", "6053"}
