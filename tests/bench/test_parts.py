"""A long measurement goes on where it was, and is not mixed with one of other settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from mnemic.bench.parts import Parts
from mnemic.cube.errors import InvalidOption


def test_what_is_done_is_not_done_again_and_the_rest_waits(tmp_path: Path) -> None:
    path, asked = tmp_path / "out" / "a.part.json", []

    def measured(name: str) -> int:
        asked.append(name)
        return len(asked)

    for run, left in enumerate((["b", "c"], ["c"], [])):
        parts = Parts(path, {"model": "m"}, at_most=1)
        found = [parts.keep(name, lambda name=name: measured(name)) for name in "abc"]
        assert found == [*range(1, run + 2), *[None] * len(left)]
        assert parts.missing == left
    assert asked == ["a", "b", "c"]
    reads_only = Parts(path, {"model": "m"}, measure=False)
    assert (reads_only.keep("a", lambda: 9), reads_only.keep("d", lambda: 9)) == (1, None)
    with pytest.raises(InvalidOption, match="other settings"):
        Parts(path, {"model": "other"})
    assert Parts(path, {"model": "other"}, fresh=True).keep("a", lambda: 7) == 7


def test_a_run_that_is_killed_while_it_writes_loses_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.part.json"
    Parts(path, {}).keep("a", lambda: 1)
    write_text = Path.write_text

    def killed(self: Path, text: str) -> int:
        write_text(self, text[: len(text) // 2])
        raise KeyboardInterrupt

    parts = Parts(path, {})
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            parts.keep("b", lambda: 2)
    assert Parts(path, {}).known("a") == 1
