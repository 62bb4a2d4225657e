"""How a command ends: an error becomes one message and an exit code, never a traceback.

0: done. 1: `doctor` or `bench` found something wrong. 2: wrong usage, or any MnemicError. 70: a fault of
mnemic itself. 130: Ctrl-C. 141: whoever read the output closed it. MNEMIC_DEBUG=1 shows tracebacks.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from mnemic.cli.output import print_error
from mnemic.cube.errors import MnemicError

STOPPED = "stopped. What was acknowledged is stored; run the same command again to go on."
FAULT = (
    "this is a fault of mnemic, not yours: {}. "
    "`mnemic doctor` checks the memory; MNEMIC_DEBUG=1 shows where, please report it"
)
USAGE, FAULTY, INTERRUPTED, CLOSED = 2, 70, 130, 141


def debugging() -> bool:
    return os.environ.get("MNEMIC_DEBUG") == "1"


def speak_utf8() -> None:
    """Pipes carry UTF-8 on every system; a terminal of another encoding gets `?` for what it cannot show."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")
    if hasattr(sys.stdin, "reconfigure") and not sys.stdin.isatty():
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # refused later, with what to do


def code_of(error: BaseException, *, as_json: bool) -> int:
    """Say what happened, once, on standard error; the exit code."""
    if isinstance(error, BrokenPipeError):  # whoever read our output has seen enough
        discard_output()
        return CLOSED
    if isinstance(error, KeyboardInterrupt):
        print_error("Interrupted", STOPPED, as_json=as_json)
        return INTERRUPTED
    if isinstance(error, MnemicError):
        print_error(type(error).__name__, str(error), as_json=as_json)
        return USAGE
    if isinstance(error, OSError):  # a file that the user named: it says which and why
        print_error(type(error).__name__, _about_file(error), as_json=as_json)
        return USAGE
    print_error("Fault", FAULT.format(f"{type(error).__name__}: {error}"), as_json=as_json)
    return FAULTY


def discard_output() -> None:
    """What is still buffered goes nowhere, so that the interpreter's last flush cannot fail either."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _about_file(error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.filename is None:
        return f"{reason}. Nothing more was done"
    return f"{os.fspath(error.filename)}: {reason}. Check the path and its permissions"
