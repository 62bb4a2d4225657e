"""One file that carries a memory: whole or refused, in a stream, and read by later versions."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_merging import state
from vaults import ANA, derive, live, rows, say, tell

from mnemic.cube.errors import DumpDamaged, DumpTooNew, InvalidOption, NotFound
from mnemic.cube.model import Kind, Scope
from mnemic.vault import archive
from mnemic.vault.archive import Dumped, FileSource, write
from mnemic.vault.comparing import diff
from mnemic.vault.erasing import erase
from mnemic.vault.merging import merge
from mnemic.vault.records import Redacted, VaultSource
from mnemic.vault.vault import Vault, open_vault

DATA = Path(__file__).parent.parent / "data"
BO = Scope("default", "bo", "coach", "s")


def dump(vault: Vault, path: Path, **part: Any) -> Dumped:
    with vault.database.read() as transaction:
        return write(path, VaultSource(vault, transaction, **part), about={"tenant": vault.tenant})


def load(vault: Vault, path: Path) -> Any:
    with FileSource(path) as records:
        return merge(vault, records)


@pytest.fixture
def told_vault(database: str, tmp_path: Path) -> Iterator[Vault]:
    vault = open_vault(database, blobs=tmp_path / "blobs")
    a, b, gone = tell(vault, ANA, "one\nline", "é\x00\u2028 two", "gone")
    vault.revise(a, {"payload": b"other"}, reason="because")
    derive(vault, BO, "made", [a, b])
    blob = vault.put_blob(ANA, os.urandom(50_000))
    tell(vault, ANA, "{}", kind=Kind.activation, blob=blob)
    tell(vault, ANA, "x", client_id="1", labels=("l",), metadata={"k": 1.5}, features={9: b"\x00\xff"})
    erase(vault, [gone])
    yield vault
    vault.close()


def test_what_was_dumped_is_what_is_loaded(
    told_vault: Vault, database: str, tmp_path: Path, fresh_database
) -> None:
    done = dump(told_vault, tmp_path / "d.mnemic")
    assert (done.cubes, done.versions, done.blobs, done.erased) == (5, 6, 1, 1)
    assert done.bytes == (tmp_path / "d.mnemic").stat().st_size
    kind = "postgresql" if "://" in database else "sqlite"
    other = open_vault(fresh_database(kind), blobs=tmp_path / "other")
    account = load(other, tmp_path / "d.mnemic")
    assert (account.stored, account.cubes) == (6, 5)
    assert state(other) == state(told_vault)
    assert load(other, tmp_path / "d.mnemic").stored == 0
    (payload,) = (cube for cube in live(other, ANA) if cube.blob)
    assert other.open_blob(payload).read() == told_vault.open_blob(payload).read()
    other.close()


def test_it_is_a_zip_of_json_lines_that_others_can_read(told_vault: Vault, tmp_path: Path) -> None:
    dump(told_vault, tmp_path / "d.mnemic")
    with zipfile.ZipFile(tmp_path / "d.mnemic") as file:
        assert file.testzip() is None
        manifest = json.loads(file.read("manifest.json"))
        lines = [json.loads(line) for line in file.read("log.jsonl").split(b"\n") if line]
    assert manifest["format"] == archive.FORMAT
    assert manifest["counts"]["versions"] == sum("version" in line for line in lines) == 6
    assert manifest["entries"].keys() >= {"erased.jsonl", "edges.jsonl", "log.jsonl"}
    assert "é\x00\u2028 two" in [line.get("text") for line in lines]


def test_a_dump_with_a_bit_that_is_not_as_it_was_written_is_refused(
    told_vault: Vault, tmp_path: Path
) -> None:
    dump(told_vault, tmp_path / "d.mnemic")
    whole = (tmp_path / "d.mnemic").read_bytes()
    rng = random.Random(3)
    places = [*range(64), *range(len(whole) - 200, len(whole)), *rng.sample(range(len(whole)), 100)]
    before = rows(told_vault, "SELECT count(*) FROM version")
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        (tmp_path / "bad.mnemic").write_bytes(damaged)
        with pytest.raises(DumpDamaged, match=r"bad\.mnemic .*Nothing was loaded"):
            load(told_vault, tmp_path / "bad.mnemic")
    assert rows(told_vault, "SELECT count(*) FROM version") == before


@pytest.mark.parametrize("keep", [0, 1, 3, 100, 0.3, 0.9, -1, -64, -100])
def test_a_dump_that_was_cut_off_is_refused(told_vault: Vault, tmp_path: Path, keep: float) -> None:
    dump(told_vault, tmp_path / "d.mnemic")
    whole = (tmp_path / "d.mnemic").read_bytes()
    length = int(keep * len(whole)) if 0 < keep < 1 else int(keep)
    (tmp_path / "bad.mnemic").write_bytes(whole[:length])
    with pytest.raises(DumpDamaged):
        load(told_vault, tmp_path / "bad.mnemic")
    (tmp_path / "bad.mnemic").write_bytes(whole + b"x")
    with pytest.raises(DumpDamaged):
        load(told_vault, tmp_path / "bad.mnemic")


def test_what_is_wrong_is_named(told_vault: Vault, tmp_path: Path) -> None:
    dump(told_vault, tmp_path / "d.mnemic")
    whole = (tmp_path / "d.mnemic").read_bytes()
    with zipfile.ZipFile(tmp_path / "d.mnemic") as file:
        start = file.getinfo("log.jsonl").header_offset
    damaged = bytearray(whole)
    damaged[start + 80] ^= 1
    (tmp_path / "d.mnemic").write_bytes(damaged)
    with pytest.raises(DumpDamaged, match=r"its entry log\.jsonl was altered"):
        FileSource(tmp_path / "d.mnemic")
    (tmp_path / "d.mnemic").write_bytes(whole[:-500])
    with pytest.raises(DumpDamaged, match="cut short"):
        FileSource(tmp_path / "d.mnemic")
    (tmp_path / "d.mnemic").write_text("hello")
    with pytest.raises(DumpDamaged, match="does not begin"):
        FileSource(tmp_path / "d.mnemic")
    with pytest.raises(NotFound):
        FileSource(tmp_path / "none.mnemic")


def forge(path: Path, into: Path, entry: str, change: Any) -> None:
    """A dump whose checksums fit, but which says something else."""

    class Forged(archive.FileSource):
        def groups(self) -> Iterator[Any]:
            for group in super().groups():
                yield change(group) if entry == "log" else group

    with Forged(path) as records:
        write(into, records, about={})


def test_a_dump_that_makes_no_sense_is_refused_whole(told_vault: Vault, tmp_path: Path) -> None:
    dump(told_vault, tmp_path / "d.mnemic")
    vault = open_vault(tmp_path / "v.db")
    (mine,) = tell(vault, ANA, "mine")
    seen = 0

    def wrong(group: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen < 3:
            return group
        from dataclasses import replace

        header = {"place": {"nonsense": 1}}
        return group._replace(versions=[replace(one, header=header) for one in group.versions])

    forge(tmp_path / "d.mnemic", tmp_path / "f.mnemic", "log", wrong)
    with pytest.raises(DumpDamaged, match="cannot be read"):
        load(vault, tmp_path / "f.mnemic")
    assert [cube.id for cube in live(vault, ANA)] == [mine]
    vault.close()


def test_a_newer_format_is_refused_and_an_older_one_is_read(
    told_vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "FORMAT", 7)
    dump(told_vault, tmp_path / "new.mnemic")
    monkeypatch.undo()
    with pytest.raises(DumpTooNew, match=r"format 7.*pip install -U"):
        FileSource(tmp_path / "new.mnemic")
    monkeypatch.setattr(archive, "FORMAT", 0)
    dump(told_vault, tmp_path / "before.mnemic")
    monkeypatch.undo()
    with pytest.raises(DumpDamaged, match="not a dump of mnemic"):
        FileSource(tmp_path / "before.mnemic")
    dump(told_vault, tmp_path / "old.mnemic")

    def renamed(entry: str, record: Any) -> Any:
        return (
            {**record, "text": "by a later reader"} if entry == "log.jsonl" and "text" in record else record
        )

    monkeypatch.setattr(archive, "FORMAT", archive.FORMAT + 1)
    monkeypatch.setitem(archive.UPGRADES, archive.FORMAT - 1, renamed)
    vault = open_vault(tmp_path / "v.db")
    load(vault, tmp_path / "old.mnemic")
    assert {cube.text for cube in live(vault, ANA) if not cube.blob} == {"by a later reader"}
    vault.close()


def test_the_first_format_is_read_for_ever(tmp_path: Path) -> None:
    """A file that the first release wrote."""
    vault = open_vault(tmp_path / "v.db")
    account = load(vault, DATA / "format_1.mnemic")
    assert (account.cubes, account.stored) == (4, 5)
    assert [cube.text for cube in live(vault, ANA)] == ["I have a cat.", "I live in Porto."]
    (made,) = live(vault, BO)
    assert (made.text, made.header.labels) == ("Ana has a cat.", ("fact",))
    with vault.snapshot() as snapshot:
        assert [one.text for one in snapshot.history(live(vault, ANA)[1].id)] == [
            "I live in Lisbon.",
            "I live in Porto.",
        ]
    vault.close()


def test_a_file_is_never_half_written_nor_overwritten_by_accident(told_vault: Vault, tmp_path: Path) -> None:
    path = tmp_path / "d.mnemic"
    dump(told_vault, path)
    with pytest.raises(InvalidOption, match="exists"):
        dump(told_vault, path)
    before = path.read_bytes()

    class Broken(VaultSource):
        def groups(self) -> Iterator[Any]:
            yield from super().groups()
            raise RuntimeError

    with told_vault.database.read() as transaction, pytest.raises(RuntimeError):
        write(path, Broken(told_vault, transaction), about={}, overwrite=True)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_a_part_holds_that_part_only(told_vault: Vault, tmp_path: Path) -> None:
    with told_vault.snapshot() as snapshot:
        space = snapshot.space_of("bo") or 0
    cube = live(told_vault, ANA)[-1].id
    done = dump(
        told_vault, tmp_path / "p.mnemic", spaces=[space], cubes=[bytes.fromhex(cube.replace("-", ""))]
    )
    assert done.cubes == 2
    vault = open_vault(tmp_path / "v.db")
    load(vault, tmp_path / "p.mnemic")
    assert [one.text for one in live(vault, ANA)] == ["x"]
    assert [one.text for one in live(vault, BO)] == ["made"]
    vault.close()


def test_a_redacted_dump_holds_nothing_of_what_was_taken_out(told_vault: Vault, tmp_path: Path) -> None:
    tell(
        told_vault,
        ANA,
        "my number is telzqx-1234",
        name="Dr telzqx",
        metadata={"tel": "telzqx"},
        client_id="ctelzqx",
    )
    (old,) = tell(told_vault, ANA, "telzqx before")
    told_vault.revise(old, {"payload": b"after"}, reason="telzqx")
    with told_vault.database.read() as transaction:
        records = Redacted(
            VaultSource(told_vault, transaction), lambda text: text.replace("telzqx", "###"), lambda _: ()
        )
        write(tmp_path / "r.mnemic", records, about={"redacted": True})
    with zipfile.ZipFile(tmp_path / "r.mnemic") as file:
        assert not any(b"telzqx" in file.read(name) for name in file.namelist())
    vault = open_vault(tmp_path / "v.db")
    load(vault, tmp_path / "r.mnemic")
    texts = [cube.text for cube in live(vault, ANA) if not cube.blob]
    assert texts[-2:] == ["my number is ###-1234", "after"]
    ours = {cube.id for cube in live(told_vault, ANA)}
    assert not ours & {cube.id for cube in live(vault, ANA)}
    with told_vault.database.read() as transaction:  # both can live side by side
        merge(vault, VaultSource(told_vault, transaction))
    assert len(live(vault, ANA)) == 2 * len(ours)
    vault.close()


def test_diff_says_what_a_merge_would_do(told_vault: Vault, tmp_path: Path) -> None:
    dump(told_vault, tmp_path / "d.mnemic")
    vault = open_vault(tmp_path / "v.db")
    load(vault, tmp_path / "d.mnemic")
    first, *_, last = live(vault, ANA)
    vault.revise(first.id, {"payload": b"changed"})
    (new,) = tell(vault, ANA, "new here")
    erase(vault, [last.id])
    with FileSource(tmp_path / "d.mnemic") as left, vault.database.read() as transaction:
        found = diff(left, VaultSource(vault, transaction))
        assert diff(left, left).equal
    assert not found.equal
    assert [(one.left, one.right) for one in found.changed] == [(first.text, "changed")]
    assert [(one.id, one.left, one.right) for one in found.only_right] == [(new, None, "new here")]
    assert (found.only_left, found.erased_right, found.erased_left) == ((), (last.id,), ())
    assert found.same == 3
    vault.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit on memory to set on Windows")
def test_a_large_dump_needs_little_memory(tmp_path: Path) -> None:
    """60 MB of payloads and texts go out and in under a limit that would not hold them."""
    vault = open_vault(tmp_path / "a.db")
    for i in range(3):
        blob = vault.put_blob(ANA, (os.urandom(1 << 20) for _ in range(15)))
        tell(vault, ANA, f"{i}", kind=Kind.activation, blob=blob)
    for start in range(0, 6000, 500):
        vault.append(
            ANA, [say(f"{start + i} {os.urandom(1000).hex()}", client_id=str(start + i)) for i in range(500)]
        )
    vault.close()
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from mnemic.vault.archive import FileSource, write\n"
        "from mnemic.vault.merging import merge\n"
        "from mnemic.vault.records import VaultSource\n"
        "from mnemic.vault.vault import open_vault\n"
        "a, b = open_vault(sys.argv[1] + '/a.db'), open_vault(sys.argv[1] + '/b.db')\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "with a.database.read() as transaction:\n"
        "    write(sys.argv[1] + '/d.mnemic', VaultSource(a, transaction), about={})\n"
        "with FileSource(sys.argv[1] + '/d.mnemic') as records:\n"
        "    print(merge(b, records).stored)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    stored, grown = map(int, done.stdout.split())
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there
    assert stored == 6003
    assert (tmp_path / "d.mnemic").stat().st_size > 50e6
    assert grown * unit < 20e6, "it was held in memory"
