"""Who may import whom. Type-only imports and imports inside functions count.

Each room lists the rooms it may import; what a room below it may import, it may import too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "mnemic"

ALLOWED: dict[str, set[str]] = {
    "__main__": {"cli"},
    "cli": {"serve", "bench", "doctor", "upkeep", "memory"},
    "serve": {"memory"},
    "bench": {"memory"},
    "asynchronous": {"memory"},  # the facade for asyncio
    "doctor": {"memory"},  # a sibling of the facade, above the rooms
    "upkeep": {"memory"},  # another
    "memory": {"computing", "scheduler", "governance", "plaintext", "runtime"},
    "computing": {"scheduler", "governance", "runtime"},  # the facade's verbs that need a model in process
    "scheduler": {"transform", "plaintext", "models", "vault"},
    "transform": {"plaintext", "activation", "parametric", "models", "vault"},
    "runtime": {"activation", "parametric", "models", "vault"},
    "plaintext": {"index", "models", "governance", "vault"},
    "activation": {"models", "vault"},
    "parametric": {"layers", "training", "models", "vault"},
    "training": {"layers"},
    "governance": {"vault"},
    "index": {"vault"},
    "models": {"cube"},
    "vault": {"cube"},
    "layers": {"cube"},
    "cube": set(),
}
ONLY = {"layers": {"mnemic.cube.errors"}}  # of the rooms it may import, these modules
FACADE = {"cli", "serve", "bench", "doctor", "upkeep", "memory"}  # who may `import mnemic` itself


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = ["mnemic", *path.relative_to(SOURCE).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def room(module: str) -> str:
    """The room of a module: the name after `mnemic`; "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def imported(module: str, path: Path) -> Iterator[str]:
    """Every module that a file names in an import; a name in a package is the submodule."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in MODULES else base


IMPORTS = {module: sorted(set(imported(module, path))) for module, path in MODULES.items()}


def below(name: str) -> set[str]:
    """The rooms it may import, directly or through others."""
    found: set[str] = set()
    todo = list(ALLOWED[name])
    while todo:
        other = todo.pop()
        if other not in found:
            found.add(other)
            todo.extend(ALLOWED[other])
    return found


def ours(module: str) -> list[str]:
    return [name for name in IMPORTS[module] if name == "mnemic" or name.startswith("mnemic.")]


def test_every_module_is_in_a_room() -> None:
    assert MODULES.keys() >= {"mnemic", "mnemic.cube.model", "mnemic.vault.vault"}
    assert {room(module) for module in MODULES} - {""} <= ALLOWED.keys()


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) in ALLOWED])
def test_a_room_imports_only_rooms_below_it(module: str) -> None:
    here = room(module)
    allowed = below(here) | {here}
    for name in ours(module):
        if name == "mnemic":
            assert here in FACADE, f"{module} imports mnemic itself: import the module that holds the name"
            continue
        assert room(name) in allowed, f"{module} ({here}) may not import {name}; allowed: {sorted(allowed)}"
        if room(name) != here and here in ONLY:
            assert name in ONLY[here], f"{module} may import only {sorted(ONLY[here])} from below, not {name}"


def test_rooms_import_one_another_in_one_direction() -> None:
    arrows: dict[str, set[str]] = {name: set() for name in ALLOWED}
    for module in MODULES:
        arrows.setdefault(room(module), set()).update(room(other) for other in ours(module))
    for name in ALLOWED:
        for other in arrows[name] - {name, ""}:
            assert name not in arrows[other], f"{name} and {other} import each other"
    assert not any(name in below(name) for name in ALLOWED), "the table itself has a circle"


def test_no_module_imports_itself_through_others() -> None:
    """No circle among files: each can be read after those it imports."""
    state: dict[str, int] = {}
    trail: list[str] = []

    def visit(module: str) -> None:
        if state.get(module) == 2 or module == "mnemic":
            return
        assert state.get(module) != 1, f"a circle: {' -> '.join([*trail[trail.index(module) :], module])}"
        state[module] = 1
        trail.append(module)
        for name in ours(module):
            if name in MODULES and name != module:
                visit(name)
        trail.pop()
        state[module] = 2

    for module in MODULES:
        visit(module)


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) == "cube"])
def test_the_ground_needs_pydantic_and_the_standard_library(module: str) -> None:
    for name in IMPORTS[module]:
        top = name.partition(".")[0]
        assert top in sys.stdlib_module_names or top == "pydantic" or name.startswith("mnemic.cube"), name


def test_errors_import_nothing_of_ours() -> None:
    assert ours("mnemic.cube.errors") == []


@pytest.mark.parametrize(
    ("names", "room_"), [({"sqlite3"}, "mnemic.vault.sqlite"), ({"psycopg"}, "mnemic.vault.postgres")]
)
def test_a_driver_is_known_in_one_file(names: set[str], room_: str) -> None:
    doctor = "mnemic.vault.check"  # asks SQLite about the file itself
    users = {module for module in MODULES if names & {name.partition(".")[0] for name in IMPORTS[module]}}
    assert {module for module in users if room(module) == "vault"} <= {room_, doctor}


def test_the_reader_of_imports_sees_them_all(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text(
        "import a.b as c\nfrom . import near\nfrom .. import up\nfrom ..vault import log\nfrom x import y\n"
        "if TYPE_CHECKING:\n    from typed import T\n"
        "def f():\n    import inner\n    class C:\n        from deep import d\n"
    )
    assert set(imported("mnemic.index.file", path)) == {
        "a.b", "mnemic.index", "mnemic", "mnemic.vault.log", "x", "typed", "inner", "deep",
    }  # fmt: skip
