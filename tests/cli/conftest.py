"""Commands run in this process where only their words matter, and as real processes where more does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from terminal import TOLD, Run, Said, own_environment
from typer.testing import CliRunner

import mnemic
from mnemic.cli.app import app


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    """A vault with four messages of ana's."""
    path = tmp_path / "ana.db"
    with mnemic.open(path) as memory:
        memory.add(TOLD, user="ana", session="s1")
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("search", "x", vault=path)`: `mnemic search x --vault path --user ana`, in this process."""
    environment = own_environment(tmp_path)
    for name in set(os.environ) - set(environment):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def call(*words: object, vault: Path | None = None, user: str | None = "ana", input: str = "") -> Said:
        settings = {"MNEMIC_VAULT": str(vault) if vault else None, "MNEMIC_USER": user}
        done = CliRunner().invoke(app, [str(word) for word in words], input=input, env=settings)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Said(done.exit_code, done.stdout, done.stderr)

    return call


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Starts `mnemic WORDS` as a process of its own."""

    def begin(*words: object, **options: Any) -> subprocess.Popen[bytes]:
        settings = {**own_environment(tmp_path), **options.pop("env", {})}
        command = [sys.executable, "-m", "mnemic", *(str(word) for word in words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        return subprocess.Popen(command, env=settings, cwd=tmp_path, **{**pipes, **options})

    return begin
