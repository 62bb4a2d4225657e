"""Text as a source: tokens that give the text back, windows of it, and what is reported of a model."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mnemic.cube.errors import InvalidFile, InvalidOption, NotFound
from mnemic.training.options import CUE, TextOptions
from mnemic.training.text import Text, read_text

STORY = "".join(f"In year {n} the ship of Captain {name} came to Porto. Ünïcode {n}.\n" for n, name in
                ((n, ("Ana", "Tom", "Eva")[n % 3]) for n in range(400)))  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts")
    (path / "a.txt").write_text(STORY, encoding="utf-8")
    (path / "b.txt").write_text(STORY[::-1][:3_000], encoding="utf-8")
    (path / "c.md").write_text("not read")
    return path


def text(folder: Path, **options: object) -> Text:
    given = {
        "train": "a.txt",
        "held_out": "b.txt",
        "vocabulary": 300,
        "length": 16,
        "evaluated": 9,
        **options,
    }
    return Text(TextOptions.read(given), folder)


def test_tokens_give_the_text_back_whatever_it_is(folder: Path) -> None:
    made = text(folder)
    assert made.vocabulary == 300
    assert made.tokenizer.decode(made.train.tolist()) == STORY
    strange = "\x00 日本語 🙂\t"
    assert made.tokenizer.decode(made.tokenizer.encode(strange).ids) == strange
    assert torch.equal(made.train, text(folder).train)  # the same tokens each time


def test_a_batch_is_windows_and_the_tokens_that_follow(folder: Path) -> None:
    made = text(folder)
    tokens, labels = made.batch(6, torch.Generator().manual_seed(1))
    assert tokens.shape == labels.shape == (6, 16)
    assert torch.equal(tokens[:, 1:], labels[:, :-1])
    ids = made.train.unfold(0, 17, 1)
    whole = torch.cat([tokens, labels[:, -1:]], 1)
    assert all(bool((ids == row).all(1).any()) for row in whole)
    assert torch.equal(made.batch(6, torch.Generator().manual_seed(1))[0], tokens)
    assert not torch.equal(made.batch(6, torch.Generator().manual_seed(2))[0], tokens)


def test_held_out_text_is_read_once_in_order(folder: Path) -> None:
    made = text(folder)
    tokens = torch.cat([some for some, _ in made.held_out(4)])
    assert torch.equal(tokens.flatten(), made.held[: 9 * 16])


def test_repeats_say_the_first_half_again(folder: Path) -> None:
    made = text(folder, repeats=1.0)
    tokens, labels = made.batch(5, torch.Generator().manual_seed(1))
    assert torch.equal(tokens[:, :8], tokens[:, 8:])
    assert torch.equal(tokens[:, 1:], labels[:, :-1])
    held = torch.cat([some for some, _ in made.held_out(4)])
    assert held.shape[0] == 9 + 5  # ordinary ones first, then every other one again
    assert torch.equal(held[9:, 8:], held[9:, :8])
    assert torch.equal(held[9:, :8], held[:9:2, :8])


def test_passages_are_said_again_and_again_and_grow_while_they_are_learned(folder: Path) -> None:
    made = text(folder, length=64, repeats=0.25, passage=4, grow=0.5)

    def passages(done: float) -> list[int]:
        """Tokens after which each sequence says itself again; 64 where it does not."""
        tokens, labels = made.batch(200, torch.Generator().manual_seed(1), done)
        assert torch.equal(tokens[:, 1:], labels[:, :-1])
        return [next((p for p in range(2, 40) if torch.equal(row[p:], row[:-p])), 64) for row in tokens]

    first, middle, last = passages(0.0), passages(0.25), passages(0.5)
    assert max(first) <= 8
    assert min(first) >= 4
    assert 8 < max(p for p in middle if p < 64) <= 16
    assert sum(p < 64 for p in middle) / 200 == pytest.approx(0.625, abs=0.1)
    assert 24 < max(p for p in last if p < 64) <= 32
    assert sum(p < 64 for p in last) / 200 == pytest.approx(0.25, abs=0.1)
    assert passages(1.0) == last


def test_recall_is_reported_for_passages_of_each_length(folder: Path) -> None:
    made = text(folder, length=64, repeats=0.5, passage=4)
    batches = list(made.held_out(100))
    tokens, labels = batches[0]
    plain = tokens.shape[0] - 3 * 5
    for size, rows in zip((8, 16, 32), tokens[plain:].split(5), strict=True):
        assert torch.equal(rows[:, size:], rows[:, :-size])
        assert torch.equal(rows[:, :size], tokens[:plain:2, :size])
    right = torch.zeros(tokens.shape, dtype=torch.bool)
    right[plain : plain + 5, 8 + CUE - 1 :] = True
    right[plain + 5 : plain + 10, 16 + CUE - 1 : 40] = True
    found = made.report(torch.ones(tokens.shape), right, tokens, labels)
    assert (found["recall_8"], found["recall"], found["first_time"]) == (1.0, 0.0, 0.0)
    assert found["recall_16"] == pytest.approx((40 - 19) / (64 - 19))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"length": 9, "repeats": 0.5}, "length of 10 or more"),
        ({"passage": 4}, "with repeats"),
        ({"passage": 5, "repeats": 0.5}, "quarter of the length"),
        ({"passage": 0, "repeats": 0.5}, "passage"),
        ({"grow": 0.5, "repeats": 0.5}, "give passage too"),
    ],
)
def test_repeats_that_ask_nothing_are_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidOption, match=says):
        TextOptions.read({"train": "a.txt", "length": 16, **wrong})


def test_what_is_reported_is_counted_by_hand(folder: Path) -> None:
    made = text(folder, repeats=0.5)
    batches = list(made.held_out(100))
    tokens, labels = batches[0]
    losses = torch.full(tokens.shape, 2.0)
    losses[9:] = 100.0  # sequences that repeat themselves do not count as text
    right = torch.zeros(tokens.shape, dtype=torch.bool)
    right[9:, 8 + CUE - 1 :] = True
    found = made.report(losses, right, tokens, labels)
    assert found["perplexity"] == pytest.approx(math.exp(2))
    said = made.tokenizer.decode(labels[:9].flatten().tolist()).encode()
    assert found["bits_per_byte"] == pytest.approx(2 * 9 * 16 / math.log(2) / len(said), rel=0.02)
    assert (found["recall"], found["first_time"]) == (1.0, 0.0)
    right = ~right
    again = made.report(losses, right, tokens, labels)
    assert (again["recall"], again["first_time"]) == (0.0, 1.0)


def test_a_hit_is_a_pair_seen_earlier_in_the_window_and_rare_in_training(folder: Path) -> None:
    made = text(folder)
    common = made.train[:2].tolist()  # begins every line
    rare = [298, 5]  # not in the training text
    window = torch.tensor([[*common, *rare, *common, *rare, *common]])
    hits = made.recallable(window[:, :-1], window[:, 1:])[0].tolist()
    at = [n + 1 for n, hit in enumerate(hits) if hit]
    assert 7 in at  # the second time the rare pair ends
    assert 3 not in at
    assert 5 not in at  # the common pair again: training tells


def test_without_held_out_text_the_last_tenth_is_held_out(folder: Path) -> None:
    made = text(folder, held_out=None)
    assert made.tokenizer.decode(made.held.tolist()) == STORY[len(STORY) * 9 // 10 :]
    assert made.tokenizer.decode(made.train.tolist()) == STORY[: len(STORY) * 9 // 10]


def test_a_folder_is_its_txt_files_in_order(folder: Path) -> None:
    assert read_text(folder) == STORY + "\n" + STORY[::-1][:3_000]


def test_what_cannot_be_read_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        text(folder, train="nowhere.txt")
    with pytest.raises(NotFound, match=r"no \.txt"):
        read_text(tmp_path)
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidFile, match="UTF-8"):
        read_text(tmp_path / "x.txt")
    (tmp_path / "x.txt").write_text("too short")
    with pytest.raises(InvalidOption, match="smaller length"):
        text(tmp_path, train="x.txt", held_out="x.txt")


def test_settings_name_the_texts_by_what_they_say(folder: Path, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert text(tmp_path).settings() == text(folder).settings()
    (tmp_path / "a.txt").write_text(STORY + "!", encoding="utf-8")
    assert text(tmp_path).settings() != text(folder).settings()
