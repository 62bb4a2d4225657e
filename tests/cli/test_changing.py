"""Looking back and taking back from the command line: the session of docs/history.md, and the refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from terminal import Run

import mnemic


@pytest.fixture
def told(run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "ana.db"
    run("add", "I live in Lisbon.", "--at", "2024-01-10", vault=path)
    run("add", "I moved to Porto.", "--at", "2025-03-09", vault=path)
    return path


def facts(run: Run, path: Path) -> list[tuple[str, bool]]:
    found = run("facts", "--past", "--json", vault=path).json
    return [(one["value"], one["until"] is not None) for one in found]


def test_an_undo_session(run: Run, told: Path) -> None:
    assert facts(run, told) == [("Lisbon", True), ("Porto", False)]
    hits = run("search", "where does ana live", "--json", vault=told).json["hits"]
    assert [hit["text"] for hit in hits] == ["I moved to Porto.", "I live in Lisbon."]
    assert [one["now"] for one in hits[1]["superseded"]] == ["Porto"]
    assert "no longer: home Lisbon" in run("search", "where does ana live", vault=told).out

    id = hits[0]["id"]
    assert (
        "mnemic undo" in run("update", id[-8:], "I moved to Braga.", "--reason", "misheard", vault=told).err
    )
    assert facts(run, told) == [("Lisbon", True), ("Braga", False)]
    *_, last = run("history", id, "--json", vault=told).json
    assert (last["op"], last["reason"]) == ("update", "misheard")
    assert last["diff"] == "-I moved to Porto.\n+I moved to Braga."
    shown = run("history", id[-8:], vault=told).out
    assert "misheard" in shown

    listed = run("changes", "--json", vault=told).json
    assert [one["op"] for one in listed] == ["add", "add", "update"]
    assert "misheard" in run("changes", vault=told).out
    said = run("undo", listed[-1]["id"][-8:], "--reason", "it was Porto", vault=told)
    assert "says again: I moved to Porto." in said.out
    assert facts(run, told) == [("Lisbon", True), ("Porto", False)]
    assert "takes back" in run("changes", vault=told).out
    again = run("undo", listed[-1]["id"], "--json", vault=told).json
    assert (again["change_id"], again["cubes"]) == (None, [])
    assert "already as it was" in run("undo", listed[-1]["id"], vault=told).out

    gone = run("delete", id[-8:], "--json", vault=told).json
    assert facts(run, told) == [("Lisbon", False)]
    run("restore", id[-8:], 1, vault=told)
    assert facts(run, told) == [("Lisbon", True), ("Porto", False)]
    assert run("restore", id[-8:], 1, vault=told).out == "it says so already\n"
    refused = run("undo", gone["change_id"], vault=told)
    assert refused.code in (0, 2)


def test_time_travel_from_the_command_line(run: Run, told: Path) -> None:
    words = ("search", "where does ana live", "--json", "--valid-at")
    assert [hit["text"] for hit in run(*words, "2024-06-01", vault=told).json["hits"]] == [
        "I live in Lisbon."
    ]
    assert run("search", "lisbon", "--as-of", "2001-01-01", "--json", vault=told).json["hits"] == []
    assert run("context", "lisbon", "--as-of", "2001-01-01", "--json", vault=told).json["cubes"] == []
    assert run("facts", "--as-of", "2001-01-01", "--json", vault=told).json == []
    assert run("search", "x", "--as-of", "tomorrow", vault=told).code == 2


def test_explain_shows_the_words_and_what_was_made_of_them(run: Run, told: Path) -> None:
    fact = run("facts", "--json", vault=told).json[0]["cube"]["id"]
    shown = run("explain", fact[-8:], vault=told).out
    assert '"I moved to Porto"' in shown
    turn = run("list", "--json", vault=told).json["cubes"][1]["id"]
    assert fact[-8:] in run("explain", turn, vault=told).out
    found = run("explain", fact, "--json", vault=told).json
    assert [link["id"] for link in found["made_from"]] == [turn]
    run("delete", turn, vault=told)
    assert (
        "was deleted" in run("explain", fact, vault=told).out
        or "deleted" in run("show", fact, vault=told).out
    )


def test_a_frozen_cube_is_refused_until_it_is_thawed(run: Run, told: Path) -> None:
    id = run("list", "--json", vault=told).json["cubes"][0]["id"]
    assert "frozen 1" in run("freeze", id[-8:], vault=told).out
    assert run("freeze", id[-8:], vault=told).out == "already frozen\n"
    refused = run("delete", id, vault=told)
    assert refused.code == 2
    assert "thaw" in refused.err
    run("thaw", id, vault=told)
    assert run("delete", id, vault=told).code == 0


def test_jobs_say_what_waits_and_are_run(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ana.db"
    with mnemic.open(path, derive=()) as memory:
        memory.add("I live in Lisbon.", user="ana")
    waiting = run("jobs", vault=path)
    assert "1 versions are to be read" in waiting.out
    assert run("jobs", "--run", vault=path).out == "nothing waits\n"
    assert run("jobs", "--json", vault=path).json["health"]["ok"] is True
    assert run("jobs", "--rerun", "abcd", vault=path).code == 2


@pytest.mark.parametrize("wrong", [("undo", "zz"), ("undo", "00000000"), ("restore", "00000000", "1")])
def test_what_is_not_there_is_refused(run: Run, told: Path, wrong: tuple[str, ...]) -> None:
    said = run(*wrong, vault=told)
    assert said.code == 2
    assert said.err.startswith("error: ")


def test_pinned_and_fused_by_ids_and_taken_back(run: Run, told: Path) -> None:
    first, second = (one["id"] for one in run("list", "--json", vault=told).json["cubes"][:2])
    assert "pinned 1" in run("pin", first[-8:], "--reason", "daily", vault=told).out
    assert run("pin", first, vault=told).out == "already pinned\n"
    assert "unpinned 1" in run("unpin", first, vault=told).out
    done = run("fuse", first[-8:], second[-8:], "Lisbon, then Porto.", vault=told)
    assert "says now: Lisbon, then Porto." in done.out
    change = done.err.split()[-1]
    assert [one["text"] for one in run("list", "--json", vault=told).json["cubes"]] == ["Lisbon, then Porto."]
    assert "merged into" in run("show", first, vault=told).out
    assert "fused from" in run("explain", done.out[1:9], vault=told).out
    assert run("undo", change, vault=told).code == 0
    assert len(run("list", "--json", vault=told).json["cubes"]) == 2
    for wrong in ((first, "one text"), (first,), (first, second, "")):
        refused = run("fuse", *wrong, vault=told)
        assert (refused.code, refused.err[:7]) == (2, "error: ")
