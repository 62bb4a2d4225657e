"""`python -m mnemic`: the command line."""

from mnemic.cli import main

main()
