"""docs/cli.md, made from the commands themselves, so that it cannot say anything else than `--help`.

`python -m mnemic.cli.reference > docs/cli.md` writes it (`make docs`); a test compares.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEAD = """# The command line

Made from the commands by `make docs`; a test compares. The same is printed by `mnemic COMMAND --help`.

- Every command takes `--json` and then prints JSON on standard output, and errors as JSON on standard error.
- Results go to standard output; remarks, progress and errors to standard error.
- `MNEMIC_USER` and `MNEMIC_VAULT` stand in for `--user` and `--vault`.
- Exit codes: 0 done, 1 `doctor` or `bench` found something wrong, 2 wrong usage or a refused request, 70 a
  fault of mnemic itself, 130 Ctrl-C, 141 whoever read the output closed it. `MNEMIC_DEBUG=1` shows where.
"""


def reference() -> str:
    """All of docs/cli.md."""
    from typer.main import get_command

    from mnemic.cli.app import app

    root: Any = get_command(app)
    commands = list(_commands(root, "mnemic"))
    lines = [HEAD, "| command | |", "| --- | --- |"]
    lines += [f"| [`{name}`](#{_anchor(name)}) | {_first_line(command)} |" for name, command in commands]
    lines += ["", "## Shared options", "", "| | |", "| --- | --- |", *map(_row, _shared(commands))]
    for name, command in commands:
        lines += ["", *_about(name, command)]
    return "\n".join(lines) + "\n"


def _commands(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _first_line(command: Any) -> str:
    return inspect.cleandoc(command.help or "").partition("\n")[0]


def _about(name: str, command: Any) -> Iterator[str]:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
    words = [_in_usage(one) for one in arguments]
    yield f"## {name}"
    yield ""
    yield inspect.cleandoc(command.help or "")
    yield ""
    yield "```"
    yield " ".join([name, *words, "[OPTIONS]"])
    if command.epilog:
        yield re.sub(r"^Example:\s*", "", command.epilog)
    yield "```"
    yield ""
    yield "| | |"
    yield "| --- | --- |"
    for one in arguments:
        yield f"| `{one.metavar or one.name.upper()}` | {_cell(one.help)} |"
    yield from (_row(one) for one in options if not _is_shared(one))
    also = [f"`{one.opts[0]}`" for one in options if _is_shared(one)]
    if also:
        yield ""
        yield f"[Shared options](#shared-options): {', '.join(also)}."


def _is_shared(option: Any) -> bool:
    """Options of `mnemic.cli.options` stand in a panel of their own."""
    return option.rich_help_panel is not None


def _shared(commands: list[tuple[str, Any]]) -> list[Any]:
    """Each shared option once, panel by panel."""
    found: dict[str, Any] = {}
    for _, command in commands:
        for one in command.params:
            if one.param_type_name == "option" and _is_shared(one):
                found.setdefault(one.opts[0], one)
    panels = list(dict.fromkeys(one.rich_help_panel for one in found.values()))
    return sorted(found.values(), key=lambda one: panels.index(one.rich_help_panel))


def _row(option: Any) -> str:
    return f"| {_names(option)} | {_cell(option.help)}{_extras(option)} |"


def _in_usage(argument: Any) -> str:
    word = str(argument.metavar or argument.name.upper())
    return word if argument.required or word.startswith("[") else f"[{word}]"


def _names(option: Any) -> str:
    value = "" if option.is_flag else f" {option.metavar or _kind(option)}"
    longest_first = sorted(option.opts, key=len, reverse=True)
    names = ", ".join(f"`{one}{value}`".replace("|", "\\|") for one in longest_first)
    return names + "".join(f", `{one}`" for one in option.secondary_opts)


def _kind(option: Any) -> str:
    """What follows an option that names nothing itself; typer's own names differ by version."""
    default = option.default
    if isinstance(default, int):
        return "N"
    if isinstance(default, float):
        return "X"
    return "PATH" if isinstance(default, Path) else "TEXT"


def _extras(option: Any) -> str:
    default = option.default
    plain = isinstance(default, str | int | float | Path) and not isinstance(default, bool)
    said = f" Default: `{default}`." if plain and "Default" not in (option.help or "") else ""
    return said + (f" Environment: `{option.envvar}`." if option.envvar else "")


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # a file, or a pipe
    sys.stdout.write(reference())
