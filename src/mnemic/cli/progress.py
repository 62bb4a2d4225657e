"""Progress on standard error: a bar with a rate, on a terminal, for what takes longer than a second."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

PATIENCE_S = 0.8


class Bar:
    """Call it with (done, total); a total that only repeats `done` is not known."""

    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
        self._started = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self.done = 0

    def __call__(self, done: int, total: int) -> None:
        self.done = done
        seconds = time.monotonic() - self._started
        if self._bar is None:
            if seconds < PATIENCE_S or not sys.stderr.isatty():
                return
            self._show()
        rate = f"{done / seconds:,.0f} {self._unit}/s"
        self._bar.update(self._task, completed=done, total=total if total > done else None, rate=rate)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.monotonic() - self._started
        if self._bar is not None:
            self._bar.stop()

    def _show(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        from mnemic.cli.output import console

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:,.0f}"),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(self._what, total=None, rate="")
        self._bar.start()


class Steps:
    """A bar on standard error that moves by one per step reported, and keeps a line for each event."""

    def __init__(self, steps: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

        from mnemic.cli.output import console

        self.bar = Progress(
            "{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console(stderr=True),
        )
        self.task = self.bar.add_task("starting", total=steps)

    def __enter__(self) -> Any:
        self.bar.start()
        return self._report

    def _report(self, system: str, message: str) -> None:
        self.bar.update(self.task, description=system, advance=1)
        self.bar.console.print(f"{system}: {message}")

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
