"""A vault on each database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mnemic.vault.vault import Vault, open_vault


@pytest.fixture
def vault(database: str) -> Iterator[Vault]:
    opened = open_vault(database)
    yield opened
    opened.close()
