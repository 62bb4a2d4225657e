"""Large payloads: stored before they are named, whole or not at all, and gone with their last name."""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vaults import ANA, rows, someone

from mnemic.cube.errors import InvalidInput, InvalidOption, NotFound
from mnemic.cube.ids import id_text
from mnemic.cube.model import Blob, Kind, MemCube, Scope
from mnemic.vault.codec import Draft
from mnemic.vault.vault import Vault, open_vault

TENSORS = random.Random(1).randbytes(3_000_001)
SOURCES = [
    lambda: TENSORS,
    lambda: memoryview(TENSORS),
    lambda: io.BytesIO(TENSORS),
    lambda: [TENSORS[:7], TENSORS[7:]],
]


@pytest.fixture
def vault(database: str, tmp_path: Path) -> Iterator[Vault]:
    opened = open_vault(database, blobs=tmp_path / "blobs")
    yield opened
    opened.close()


def keep(vault: Vault, scope: Scope, data: bytes) -> MemCube:
    draft = Draft(payload=b'{"model": "x"}', kind=Kind.activation, blob=vault.put_blob(scope, data))
    (outcome,) = vault.append(scope, [draft]).outcomes
    assert outcome.row
    return outcome.row.cube_in(scope)


def files(vault: Vault) -> list[Path]:
    assert vault.blobs.folder
    return sorted(vault.blobs.folder.iterdir())


@pytest.mark.parametrize("source", SOURCES, ids=["bytes", "view", "file", "pieces"])
def test_what_was_put_is_read_from_the_cube_in_every_state(vault: Vault, source: Callable[[], Any]) -> None:
    blob = vault.put_blob(ANA, source())
    assert blob == Blob(id=blob.id, sha256=hashlib.sha256(TENSORS).hexdigest(), size=len(TENSORS))
    drafts = [Draft(payload=b"{}", kind=Kind.parametric, blob=blob)]
    (outcome,) = vault.append(ANA, drafts).outcomes
    assert outcome.row
    cube = outcome.row.cube_in(ANA)
    with vault.snapshot() as snapshot:
        assert snapshot.head(cube.id) == cube
    assert (cube.kind, cube.blob) == (Kind.parametric, blob)
    with vault.open_blob(cube) as file:
        assert file.read() == TENSORS
    change, _ = vault.revise(cube.id, {"payload": b"{2}"})
    with vault.open_blob(change.stored[0].cube_in(ANA)) as file:
        assert file.read(5) == TENSORS[:5]


def test_equal_bytes_are_one_file_and_the_digest_covers_them(vault: Vault) -> None:
    cubes = [keep(vault, someone(), b"one"), keep(vault, ANA, b"one"), keep(vault, ANA, b"two")]
    assert len(files(vault)) == 2
    digests = {bytes(digest) for (digest,) in rows(vault, "SELECT digest FROM version")}
    assert len(digests) == 2
    assert [cube.blob.size for cube in cubes if cube.blob] == [3, 3, 3]


def test_a_payload_that_is_not_there_is_refused_and_nothing_is_written(vault: Vault) -> None:
    lost = Blob(id="ab" * 32, sha256="ab" * 32, size=1)
    with pytest.raises(NotFound, match="is not in"):
        vault.append(ANA, [Draft(payload=b"", kind=Kind.activation, blob=lost)])
    assert rows(vault, "SELECT 1 FROM version") == []
    with pytest.raises(NotFound, match="no large payload"):
        vault.open_blob(vault.append(ANA, [Draft(payload=b"x")]).outcomes[0].row.cube_in(ANA))  # type: ignore[union-attr]


@pytest.mark.parametrize("source", [["text"], [b"x", 5]])
def test_what_is_not_bytes_is_refused_and_leaves_no_file(vault: Vault, source: object) -> None:
    with pytest.raises(InvalidInput):
        vault.put_blob(ANA, source)  # type: ignore[arg-type]
    assert files(vault) == []


def test_a_dropped_payload_says_so_and_can_be_put_again(vault: Vault) -> None:
    first, second = keep(vault, ANA, b"one"), keep(vault, ANA, b"one")
    assert first.blob
    vault.remove([first.id])
    assert not vault.blobs.drop(first.blob), "a live cube needs it"
    assert vault.open_blob(second).read() == b"one"
    vault.remove([second.id])
    assert vault.blobs.drop(first.blob)
    assert files(vault) == []
    for cube in (first, second):
        with pytest.raises(NotFound, match="dropped"):
            vault.open_blob(cube)
    assert list(vault.blobs.damaged()) == []
    third = keep(vault, ANA, b"one")
    assert vault.open_blob(third).read() == b"one"


def test_only_old_files_without_a_name_are_orphans(vault: Vault) -> None:
    kept = keep(vault, ANA, b"kept")
    left = vault.put_blob(ANA, b"left by a crash")
    assert vault.blobs.folder
    (vault.blobs.folder / ".part-x").write_bytes(b"half")
    (vault.blobs.folder / "notes.txt").write_bytes(b"somebody else's")
    assert vault.blobs.sweep() == 0, "they may be about to be named"
    assert vault.blobs.sweep(grace=0) == 2
    assert [path.name for path in files(vault)] == sorted([kept.blob.id, "notes.txt"])  # type: ignore[union-attr]
    with pytest.raises(NotFound):
        vault.append(ANA, [Draft(payload=b"", kind=Kind.activation, blob=left)])


def test_damage_is_found(vault: Vault) -> None:
    good, bad, gone = (keep(vault, ANA, text) for text in (b"good", b"bad", b"gone"))
    assert good.blob
    assert bad.blob
    assert gone.blob
    vault.blobs.path(bad.blob).write_bytes(b"Bad")
    vault.blobs.path(gone.blob).unlink()
    said = dict(vault.blobs.damaged())
    assert said == {
        good.blob.id: None,
        bad.blob.id: "its file was altered",
        gone.blob.id: "its file is missing",
    }


def test_a_server_needs_to_be_told_where(server) -> None:
    vault = open_vault(server())
    with pytest.raises(InvalidOption, match="blobs="):
        vault.put_blob(ANA, b"x")
    vault.close()


def test_tenants_share_no_file_and_no_name(database: str, tmp_path: Path) -> None:
    folder = tmp_path / "blobs"
    one, other = (open_vault(database, tenant=name, blobs=folder) for name in ("hospital", "school"))
    keep(one, Scope("hospital", "ana"), b"same")
    assert files(one)[0].parent != other.blobs.folder
    keep(other, Scope("school", "ana"), b"same")
    assert len(list(folder.rglob("*"))) == 4
    assert not [path for path in folder.rglob("*") if "hospital" in str(path.relative_to(tmp_path))]
    with pytest.raises(InvalidOption):
        one.put_blob(Scope("school", "ana"), b"x")
    one.close()
    other.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
def test_a_process_killed_while_it_stores_leaves_no_half_payload(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from mnemic.cube.model import Kind, Scope\n"
        "from mnemic.vault.codec import Draft\n"
        "from mnemic.vault.vault import open_vault\n"
        f"vault = open_vault({str(tmp_path / 'v.db')!r})\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    blob = vault.put_blob(Scope('default', 'ana'), os.urandom(400_000))\n"
        "    vault.append(Scope('default', 'ana'), [Draft(payload=b'', kind=Kind.activation, blob=blob)])\n"
    )
    for life in range(5):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout
        assert child.stdout.readline() == b"ready\n"
        time.sleep(0.05 + 0.03 * life)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    vault = open_vault(tmp_path / "v.db")
    named = rows(vault, "SELECT cube, blob FROM version")
    assert named
    assert dict(vault.blobs.damaged()) == {bytes(blob).hex(): None for _, blob in named}
    vault.blobs.sweep(grace=0)
    assert {path.name for path in files(vault)} == {bytes(blob).hex() for _, blob in named}
    with vault.snapshot() as snapshot:
        assert vault.open_blob(snapshot.head(id_text(bytes(named[-1][0])))).read(1)
    vault.close()
