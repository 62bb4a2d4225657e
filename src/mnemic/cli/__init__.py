"""The `mnemic` command. One file a group of commands; nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from mnemic.cli.ending import speak_utf8

        speak_utf8()
        from mnemic.cli.app import app

        app(prog_name="mnemic")
    except KeyboardInterrupt:  # while modules were being imported, or on the way out
        sys.exit(130)
