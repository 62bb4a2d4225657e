"""What is installed: light to import, typed, complete, of one version, without anybody's data."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mnemic

ROOT = Path(__file__).parents[1]
HEAVY = ("numpy", "sqlalchemy", "torch", "tokenizers", "pydantic", "rich", "typer", "sqlite3")


def python(code: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_importing_mnemic_loads_nothing_heavy() -> None:
    assert python(f"import sys, mnemic; print([name for name in {HEAVY!r} if name in sys.modules])") == "[]\n"


def test_using_it_never_loads_torch(tmp_path: Path) -> None:
    code = (
        "import sys, mnemic\n"
        f"with mnemic.open({str(tmp_path / 'a.db')!r}) as memory:\n"
        "    memory.add('x', user='ana'); memory.search('x', user='ana'); memory.context('x', user='ana')\n"
        "print('torch' in sys.modules, 'openai' in sys.modules, 'wordllama' in sys.modules)"
    )
    assert python(code) == "False False False\n"


def test_public_names_are_sorted_there_and_no_more() -> None:
    assert mnemic.__all__ == sorted(mnemic.__all__)
    assert dir(mnemic) == mnemic.__all__
    for name in mnemic.__all__:
        assert getattr(mnemic, name) is not None
    with pytest.raises(AttributeError, match="its public names: ANY"):
        mnemic.nosuch  # noqa: B018


def test_one_version_everywhere() -> None:
    from importlib.metadata import version

    assert mnemic.__version__ == version("mnemic")
    assert f"## {mnemic.__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f'version = "{mnemic.__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mnemic", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"mnemic {mnemic.__version__}\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """As `pip wheel .` builds it."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    if "hatchling" in done.stderr and done.returncode:
        pytest.skip(f"the build needs hatchling, which cannot be fetched here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_code_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "mnemic/py.typed" in names
    code = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src/mnemic").rglob("*.py")}
    assert code <= set(names)
    others = [name for name in names if not name.endswith(".py") and ".dist-info/" not in name]
    assert others == ["mnemic/py.typed"], "code only: no data sets, no databases, no weights"
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert sum(one.file_size for one in wheel.infolist()) < 3_000_000


def test_the_command_is_installed_with_it(wheel: zipfile.ZipFile) -> None:
    (entry,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "mnemic = mnemic.cli:main" in wheel.read(entry).decode()
