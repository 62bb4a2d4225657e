"""Adapter to text: back to the texts it was trained on, and what its weights still say of them (MemOS §7)."""

from __future__ import annotations

from dataclasses import dataclass

from mnemic.cube.model import MemCube
from mnemic.models.fingerprint import Fingerprint, fingerprint
from mnemic.models.local import LocalModel
from mnemic.parametric.cube import check_fingerprint
from mnemic.parametric.keeping import Learned, look
from mnemic.parametric.lora_cube import load
from mnemic.parametric.questions import Fact, choices
from mnemic.parametric.scoring import question_ids, rank
from mnemic.transform.paraphrases import Paraphraser, Templates, facts_of
from mnemic.transform.sources import live_ids
from mnemic.vault.vault import Vault

SAID_TOKENS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One question to the weights: what the source says now, what the model says, and where the right answer
    ranks among `candidates` with the adapter and without.
    """

    question: str
    text: str
    said: str
    rank: int
    rank_alone: int
    candidates: int

    @property
    def holds(self) -> bool:
        """The weights say what the source says."""
        return self.rank == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """An adapter as text. texts: its sources' as they stand now; gone: ids of those that are no more."""

    learned: Learned
    texts: tuple[MemCube, ...]
    gone: tuple[str, ...]
    probes: tuple[Probe, ...]


def as_text(
    vault: Vault,
    adapter: str,
    model: LocalModel | None = None,
    *,
    paraphraser: Paraphraser | None = None,
    candidates: int = 20,
) -> Spoken:
    """The texts that an adapter was trained on and, with a model, what its weights say when asked for them.

    Works for an adapter that is stale too: it shows where its weights lag behind the texts. Costs an answer
    and two rankings a held-out question. Raises NotFound, InvalidOption, IncompatibleMemory.
    """
    learned = look(vault, adapter)
    ids = [one.cube_id for one in learned.cube.header.sources]
    live = live_ids(vault, ids)
    with vault.snapshot() as snapshot:
        texts = [snapshot.head(one) for one in live]
    probes: list[Probe] = []
    if model is not None:
        wanted = Fingerprint.of_dict(learned.described.fingerprint)
        check_fingerprint(f"adapter {adapter}", wanted, fingerprint(model), model.name)
        facts = facts_of(texts, paraphraser or Templates())
        probes = _probe(vault, learned, model, facts, candidates) if facts else []
    return Spoken(
        learned=learned,
        texts=tuple(texts),
        gone=tuple(one for one in ids if one not in live),
        probes=tuple(probes),
    )


def _probe(
    vault: Vault, learned: Learned, model: LocalModel, facts: list[Fact], candidates: int
) -> list[Probe]:
    asked = [
        (fact, question, among)
        for fact, among in zip(facts, choices(facts, candidates), strict=True)
        for question in fact.held_out[:1]
    ]
    alone = [rank(model, question, among, fact.answer) for fact, question, among in asked]
    with load(vault, learned.cube).applied(model):
        out = []
        for (fact, question, among), before in zip(asked, alone, strict=True):
            said = list(model.answer_tokens(question_ids(model, question), max_tokens=SAID_TOKENS))
            out.append(
                Probe(
                    question=question,
                    text=fact.answer,
                    said=model.tokenizer.decode(said, skip_special_tokens=True).strip(),
                    rank=rank(model, question, among, fact.answer),
                    rank_alone=before,
                    candidates=len(among),
                )
            )
    return out
