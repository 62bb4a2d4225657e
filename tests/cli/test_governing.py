"""Commands about principals, grants, policies, retention and the audit log; the sessions in the documents."""

from __future__ import annotations

import re
import shlex
import time
from pathlib import Path

import pytest
from terminal import Run

import mnemic

PAGE = Path(__file__).parents[2] / "docs" / "governance.md"
SESSIONS = re.findall(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def masked(text: str) -> str:
    """Without what differs from run to run: ids, hashes and the time; and without the ends of lines."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "HASH", text)
    text = re.sub(r"\b[0-9a-f]{8}\b", "ID", text)
    text = re.sub(r"\b\d{4}-\d\d-\d\d( \d\d:\d\d)?\b", "WHEN", text)
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


@pytest.mark.parametrize("session", SESSIONS, ids=range(len(SESSIONS)))
def test_a_session_in_the_documents_is_what_happens(session: str, run: Run, tmp_path: Path) -> None:
    vault = tmp_path / "session.db"
    for step in session.split("$ ")[1:]:
        command, _, shown = step.partition("\n")
        words = shlex.split(command)
        if words[0] == "sleep":
            time.sleep(float(words[1]))
            continue
        said = run(*words[1:], vault=vault, user=None)
        assert masked(said.out + said.err) == masked(shown), command


def test_the_documents_have_sessions() -> None:
    assert len(SESSIONS) >= 2
    assert "mnemic retention due" in SESSIONS[0]


def test_everything_as_json(run: Run, vault: Path) -> None:
    made = run("principal", "add", "coach", "--kind", "agent", "--json", vault=vault).json
    assert (made["name"], made["kind"], made["disabled"]) == ("coach", "agent", False)
    grant = run("grant", "add", "coach", "read,write", "--user", "ana", "--json", vault=vault).json
    assert (grant["rights"], grant["reach"]) == (["read", "write"], {"user": "ana"})
    assert run("grant", "list", "--json", vault=vault).json == [grant]
    policy = run("policy", "add", "Keep 7 days", "--user", "ana", "--session", "", "--json", vault=vault).json
    assert (policy["rule"], policy["reach"]) == ("keep 7 days", {"user": "ana", "session": None})
    assert run("policy", "list", "--json", vault=vault).json == [policy]
    assert run("retention", "due", "--within", "8 days", "--json", vault=vault, user=None).json == []
    swept = run("retention", "sweep", "--json", vault=vault).json
    assert swept == {"expired": 0, "archived": 0, "erased": 0, "waits_for": None}
    assert run("principal", "disable", "coach", "--json", vault=vault).json["disabled"]
    assert not run("principal", "enable", "coach", "--json", vault=vault).json["disabled"]
    assert run("grant", "revoke", grant["id"][-8:], "--json", vault=vault).json == grant
    assert run("policy", "drop", policy["id"][-8:], "--json", vault=vault).json == policy
    head = run("audit", "head", "--json", vault=vault).json["head"]
    verdict = run("audit", "verify", "--head", head, "--json", vault=vault).json
    assert (verdict["sound"], verdict["head"]) == (True, head)
    verbs = [one["verb"] for one in run("audit", "log", "--json", vault=vault).json]
    assert verbs == ["add_principal", "grant", "add_policy", "disable", "enable", "revoke", "drop_policy"]


def test_a_command_on_behalf_of_somebody(run: Run, vault: Path) -> None:
    id = run("list", "--json", vault=vault).json["cubes"][0]["id"]
    run("principal", "add", "tom", vault=vault)
    for words in (
        ["list"],
        ["search", "dog"],
        ["show", id],
        ["show", id[-8:]],
        ["history", id[-8:]],
        ["export-jsonl"],
        ["stats"],
        ["update", id, "x"],
        ["delete", id],
        ["audit", "log"],
    ):
        said = run("--principal", "tom", *words, vault=vault)
        assert said.code == 2, words
        assert said.err.startswith("error: ")
        assert "Porto" not in said.out + said.err
    run("grant", "add", "tom", "reader", "--user", "ana", vault=vault)
    assert "Porto" in run("--principal", "tom", "list", vault=vault).out
    assert run("--principal", "eve", "list", vault=vault).code == 2
    run("principal", "disable", "tom", vault=vault)
    assert "disabled" in run("--principal", "tom", "list", vault=vault).err


def test_an_export_is_on_record(run: Run, vault: Path) -> None:
    run("audit", "start", vault=vault)
    run("export-jsonl", vault=vault)
    verbs = [one["verb"] for one in run("audit", "log", "--json", vault=vault).json]
    assert verbs == ["start_audit", "export"]


def test_a_broken_chain_ends_with_code_1(run: Run, vault: Path) -> None:
    import sqlite3
    from contextlib import closing

    with mnemic.open(vault) as memory:
        memory.audit.start()
        memory.add("x", user="ana")
    with closing(sqlite3.connect(vault)) as connection:
        connection.execute("UPDATE audit SET verb = 'read' WHERE n = 1")
        connection.commit()
    said = run("audit", "verify", vault=vault)
    assert said.code == 1
    assert "broken: row 1 does not fit" in said.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["policy", "add", "keep it"], "keep 30 days"),
        (["grant", "add", "nobody", "read"], "no principal 'nobody'"),
        (["grant", "revoke", "12345678"], "no id ends in"),
        (["retention", "due", "--within", "soon"], "30 days"),
        (["audit", "head"], "mnemic audit start"),
        (["principal", "disable", "nobody"], "mnemic principal add"),
    ],
)
def test_refusals_say_what_to_do(run: Run, vault: Path, words: list[str], says: str) -> None:
    said = run(*words, vault=vault)
    assert said.code == 2
    assert says in said.err
