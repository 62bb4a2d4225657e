"""A process that is killed loses nothing that it acknowledged."""

from __future__ import annotations

import os
import sys

import kill
import pytest

KILLS = int(os.environ.get("MNEMIC_KILLS", "20"))

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")


@pytest.mark.parametrize(("side", "kills"), [("vault", KILLS), ("memory", max(1, KILLS // 4))])
def test_what_was_acknowledged_survives(side: str, kills: int) -> None:
    account = kill.run(kills, side=side, seed=KILLS)
    assert account.sound, f"{account} {account}"
    assert account.kills == kills
    assert account.acknowledged > kills, "the writers wrote"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("side", "kills"), [("vault", 200), ("memory", 50)])
def test_what_was_acknowledged_survives_many_kills(side: str, kills: int) -> None:
    account = kill.run(kills, side=side, seed=7)
    assert account.sound, f"{account} {account}"


def test_the_harness_sees_what_is_lost_torn_or_altered(tmp_path) -> None:
    """It would not help if it could not fail."""
    path = str(tmp_path / "v.db")
    writer = kill.VaultSide(path)
    writer.write([kill.text_of("w0x0x0x2"), kill.text_of("w0x0x1x2")])
    writer.write([kill.text_of("w0x1x0x2")])
    writer.write([kill.text_of("w0x2x0x1") + "!"])
    writer.close()
    account = kill.Account()
    kill.check("vault", path, [(0, 0, 2), (0, 3, 1)], account, searches=1)
    assert account.lost == ["(0, 3, 1)"]
    assert account.torn == ["(0, 1, 2)"]
    assert account.altered[0] == "w0x2x0x1"
    assert len(account.unfound) == 1
    (tmp_path / "v.db").write_bytes(b"garbage")
    kill.check("vault", path, [], account, searches=0)
    assert len(account.unreadable) == 1
    assert not account.sound
