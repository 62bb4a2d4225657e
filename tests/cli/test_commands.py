"""What each command does and says, for people and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from terminal import TOLD, Run, lines

import mnemic


def contents(path: Path, **scope: str) -> list[str]:
    with mnemic.open(path) as memory:
        return [cube.text for cube in memory.list(**(scope or {"user": "ana"}))]


# --- telling


def test_add_says_what_it_stored_and_stores_it(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    said = run("add", "I", "like", "short answers.", vault=path)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("remembered for ana: I like short answers.")
    assert contents(path) == ["I like short answers."]


def test_add_as_json_keeps_every_option(run: Run, vault: Path) -> None:
    words = ["add", "A week in Faro.", "--at", "2025-05-01", "--name", "Ana", "--id", "9", "--json"]
    words += ["--label", "travel", "--metadata", "city=Faro", "--session", "s2", "--agent", "coach"]
    said = run(*words, vault=vault).json
    (cube,) = said["cubes"]
    assert said["change_id"]
    assert (cube["text"], cube["at"]) == ("A week in Faro.", "2025-05-01T00:00:00+00:00")
    assert (cube["labels"], cube["metadata"], cube["client_id"]) == (["travel"], {"city": "Faro"}, "9")
    assert (cube["user"], cube["agent"], cube["session"], cube["name"]) == ("ana", "coach", "s2", "Ana")
    again = run(*words, vault=vault).json
    assert (again["existing"], again["change_id"]) == ([cube["id"]], None)


def test_add_reads_standard_input_whole_or_by_lines(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    run("add", "-", vault=path, input="two\n  lines\n")
    run("add", "-", "--lines", vault=path, input="one\n\ntwo\n")
    assert contents(path) == ["two\n  lines", "one", "two"]


def test_update_and_delete_by_the_ending_of_an_id_keep_the_history(run: Run, vault: Path) -> None:
    id = run("list", "--json", vault=vault).json["cubes"][0]["id"]
    assert "now says: I live in Braga." in run("update", id[-8:], "I live in Braga.", vault=vault).out
    assert contents(vault)[-1] == "I live in Braga."
    assert run("delete", id[-8:], vault=vault).out == "deleted 1\n"
    assert len(contents(vault)) == 3
    versions = run("history", id, "--json", vault=vault).json
    assert [one["version"] for one in versions] == [1, 2, 3]
    assert [one["deleted"] for one in versions] == [False, False, True]
    assert versions[0]["text"] == "I moved to Porto in March."
    assert "(deleted)" in run("history", id, vault=vault).out
    shown = run("show", id, vault=vault)
    assert "deleted; it last said" in shown.out
    assert shown.out.endswith("\nI live in Braga.\n")


# --- importing


def test_import_twice_stores_once(run: Run, tmp_path: Path) -> None:
    file, path = lines(tmp_path / "told.jsonl", *TOLD), tmp_path / "new.db"
    first = run("import", file, vault=path)
    assert first.code == 0
    assert "read 4 records" in first.out
    assert "stored 4 · already there 0 · skipped 0 · sessions 1" in first.out
    (report,) = run("import", file, "--json", vault=path).json
    assert (report["stored"], report["existing"], report["read"]) == (0, 4, 4)


def test_import_says_what_is_broken_and_takes_the_rest(run: Run, tmp_path: Path) -> None:
    file = lines(tmp_path / "told.jsonl", TOLD[0], '{"content": ', TOLD[1])
    said = run("import", file, "--skipped", tmp_path / "skipped.jsonl", vault=tmp_path / "new.db")
    assert said.code == 0
    assert "stored 2 · already there 0 · skipped 1" in said.out
    assert "told.jsonl:2: is not valid JSON" in said.err
    (skipped,) = (tmp_path / "skipped.jsonl").read_text().splitlines()
    assert json.loads(skipped)["where"].endswith("told.jsonl:2")


def test_import_of_several_files_reports_each(run: Run, tmp_path: Path) -> None:
    one, two = lines(tmp_path / "1.jsonl", TOLD[0]), lines(tmp_path / "2.jsonl", TOLD[1])
    reports = run("import", one, two, "--json", vault=tmp_path / "new.db").json
    assert [Path(report["file"]).name for report in reports] == ["1.jsonl", "2.jsonl"]
    assert [report["stored"] for report in reports] == [1, 1]


# --- asking


def test_search_shows_who_when_and_why(run: Run, vault: Path) -> None:
    said = run("search", "Where", "does Ana live?", "-k", "2", vault=vault)
    assert "2025-03-29  Ana" in said.out
    assert "I moved to Porto in March." in said.out
    assert "said by whom you ask about" in said.out
    assert "%" in said.out
    assert "speaker +" in run("search", "Where does Ana live?", "--explain", vault=vault).out


def test_search_as_json_has_every_signal(run: Run, vault: Path) -> None:
    said = run("search", "walnuts", "--json", vault=vault).json
    best = said["hits"][0]
    assert (said["question"], best["rank"], best["text"]) == ("walnuts", 1, "I am allergic to walnuts.")
    assert best["score"] == pytest.approx(sum(best["signals"].values()), abs=1e-3)
    assert {"lexical", "dense", "time", "speaker"} <= best["signals"].keys()
    assert [hit["rank"] for hit in said["hits"]] == [1, 2, 3, 4]


def test_filters_and_scopes_narrow_a_search(run: Run, vault: Path) -> None:
    found = run("search", "Porto", "--where", '{"name": "Tom"}', "--json", vault=vault).json["hits"]
    assert {hit["name"] for hit in found} == {"Tom"}
    assert run("search", "Porto", "--session", "s2", "--json", vault=vault).json["hits"] == []
    everyone = run("search", "Porto", "--everyone", "--json", vault=vault, user=None)
    assert len(everyone.json["hits"]) == 4


def test_nothing_found_says_whose_memories_there_are(run: Run, vault: Path) -> None:
    said = run("search", "Porto", vault=vault, user="bo")
    assert (said.code, said.out) == (0, "")
    assert "nothing is kept for bo" in said.err
    assert "There are memories of: ana" in said.err


def test_a_context_goes_to_output_and_its_account_beside_it(run: Run, vault: Path) -> None:
    said = run("context", "Where does Ana live?", "--why", vault=vault)
    assert said.out.startswith("<mnemic-memory")
    assert said.out.rstrip().endswith("</mnemic-memory>")
    assert "I moved to Porto in March." in said.out
    assert "full: the history's" in said.err
    assert "of 2,000 tokens · 4 cubes, 0 left out" in said.err
    assert "full history" in said.err
    assert "full history" not in said.out


def test_a_context_as_json_fits_its_budget_and_says_what_is_left_out(run: Run, vault: Path) -> None:
    made = run("context", "Where does Ana live?", "--budget", "60", "--json", vault=vault).json
    assert made["tokens"] <= made["budget"] == 60
    assert made["strategy"] in ("hybrid", "retrieval")
    assert len(made["cubes"]) + sum(one["count"] for one in made["omitted"]) >= 4
    assert made["why"].keys() == {cube["id"] for cube in made["cubes"]}


def test_ask_quotes_the_memory_and_cites(run: Run, vault: Path) -> None:
    said = run("ask", "What is Tom allergic to?", vault=vault)
    assert said.code == 0
    assert "walnuts" in said.out
    found = run("ask", "What is Tom allergic to?", "--json", vault=vault).json
    assert found["question"] == "What is Tom allergic to?"
    assert "walnuts" in found["text"]
    assert "I am allergic to walnuts." in [cube["text"] for cube in found["cubes"]]


def test_chat_answers_each_line_and_remembers(run: Run, vault: Path) -> None:
    asked = "What is Tom allergic to?\n/add Tom likes almonds.\n/context almonds\n/what\n/quit\nnever asked\n"
    said = run("chat", vault=vault, input=asked)
    assert said.code == 0
    assert "I am allergic to walnuts." in said.out
    assert "a model would see: full: the history's" in said.out
    assert "Tom likes almonds." in said.out
    assert "/quit ends" in said.err
    assert contents(vault)[-1] == "Tom likes almonds."
    assert "never asked" not in said.out


def test_chat_as_json_is_one_line_an_answer(run: Run, vault: Path) -> None:
    said = run("chat", "--json", vault=vault, input="What is Tom allergic to?\n/context dog\n")
    answer, context = map(json.loads, said.out.splitlines())
    assert answer["question"] == "What is Tom allergic to?"
    assert "walnuts" in answer["answer"]["text"]
    assert context["context"]["strategy"] == "full"


# --- looking


def test_list_pages(run: Run, vault: Path) -> None:
    first = run("list", "--limit", "3", "--json", vault=vault).json
    rest = run("list", "--after", first["next"], "--json", vault=vault).json
    assert [cube["client_id"] for cube in first["cubes"] + rest["cubes"]] == ["1", "2", "3", "4"]
    assert rest["next"] is None
    said = run("list", "--limit", "3", vault=vault)
    assert "I moved to Porto" in said.out
    assert f"there is more: --after {first['next']}" in said.err


def test_show_tells_all_about_a_cube(run: Run, vault: Path) -> None:
    cube = run("list", "--json", vault=vault).json["cubes"][3]
    said = run("show", cube["id"][-6:], vault=vault).out
    for part in (cube["id"], "user ana", "session s1", "Tom (user)", "2025-04-02 18:00", "your id"):
        assert part in said
    assert said.endswith("\nI am allergic to walnuts.\n")
    found = run("show", cube["id"], "--json", vault=vault).json
    assert (found["text"], found["versions"], found["used_by"]) == ("I am allergic to walnuts.", 1, [])


def test_stats_counts(run: Run, vault: Path) -> None:
    run("delete", run("list", "--json", vault=vault).json["cubes"][0]["id"], vault=vault)
    said = run("stats", vault)
    assert "3 live, 5 versions, 1 deletions" in said.out
    found = run("stats", "--json", vault=vault).json
    assert (found["cubes"], found["versions"], found["tombstones"], found["pending"]) == (3, 5, 1, 0)
    assert [(one["user"], one["cubes"]) for one in found["users"]] == [("ana", 3)]
    assert found["bytes_on_disk"] >= vault.stat().st_size


def test_where_names_the_file_and_hides_passwords(run: Run, vault: Path, tmp_path: Path) -> None:
    assert run("where", vault=vault).out == f"{vault}\n"
    mine = run("where", "--json").json
    assert mine["exists"] is False
    assert Path(mine["location"]).is_relative_to(tmp_path)
    server = run("where", "--vault", "postgresql://ana:secret@host/db?password=secret").out
    assert server == "postgresql://ana@host/db\n"


# --- keeping


def test_export_and_import_give_the_same_memory(run: Run, vault: Path, tmp_path: Path) -> None:
    run("add", "Größe: 5 µm\n\tend", "--agent", "", vault=vault)
    out = tmp_path / "out.jsonl"
    said = run("export-jsonl", "-o", out, "--json", vault=vault).json
    assert (said["messages"], said["cubes"]) == (5, 5)
    assert run("export-jsonl", vault=vault).out == out.read_text()
    run("import", out, vault=tmp_path / "copy.db")

    def whole(path: Path) -> list[dict[str, object]]:
        cubes = run("list", "--json", vault=path).json["cubes"]
        kept = ("text", "session", "role", "name", "at", "labels", "metadata")
        return [{name: cube[name] for name in kept} for cube in cubes]

    assert sorted(whole(tmp_path / "copy.db"), key=str) == sorted(whole(vault), key=str)


def test_export_joins_a_long_text_that_was_cut(run: Run, tmp_path: Path) -> None:
    text = "A sentence that says what was seen on day one. " * 400
    path = tmp_path / "long.db"
    run("add", "-", vault=path, input=text)
    assert len(contents(path)) > 1
    (line,) = run("export-jsonl", vault=path).out.splitlines()
    assert json.loads(line)["content"] == text


def test_export_replaces_a_file_only_when_told_to(run: Run, vault: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("mine\n")
    refused = run("export-jsonl", "-o", out, vault=vault)
    assert (refused.code, out.read_text()) == (2, "mine\n")
    assert "--force" in refused.err
    assert run("export-jsonl", "-o", out, "--force", vault=vault).code == 0
    assert len(out.read_text().splitlines()) == 4


def test_reembed_has_nothing_to_do_on_a_whole_vault(run: Run, vault: Path) -> None:
    assert "nothing to do" in run("reembed", vault).out
    assert run("reembed", "--json", vault=vault).json["features"] == 0


# --- help


def commands() -> list[str]:
    """Every command but benchmarks, those of a group with its name before them."""
    from typer.main import get_command

    from mnemic.cli.app import app

    found: list[str] = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        found += [f"{name} {one}" for one in command.commands] if hasattr(command, "commands") else [name]
    return [name for name in found if not name.startswith("bench ")]


COMMANDS = commands()


def test_help_of_every_benchmark_shows_how_it_is_run() -> None:
    from typer.main import get_command

    from mnemic.cli.app import app

    todo = [("mnemic bench", get_command(app).commands["bench"])]  # type: ignore[attr-defined]
    seen = 0
    while todo:
        name, command = todo.pop()
        if hasattr(command, "commands"):
            todo += [(f"{name} {one}", inner) for one, inner in command.commands.items()]
        else:
            seen += 1
            assert name in f"{command.help}{command.epilog}", f"{name} --help has no example"
    assert seen > 20


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_and_json(run: Run, command: str) -> None:
    said = run(*command.split(), "--help")
    assert said.code == 0
    assert "Example:" in said.out
    assert f"mnemic {command}" in said.out.split("Example:")[1]
    assert "--json" in said.out


def test_the_version_is_that_of_the_package(run: Run) -> None:
    assert len(COMMANDS) > 16
    assert run("--version").out == f"mnemic {mnemic.__version__}\n"
