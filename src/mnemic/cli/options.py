"""Options that many commands share, named and explained once."""

from __future__ import annotations

from typing import Annotated

import typer

_WHERE, _WHO, _MODELS = "Which memory", "Whose memory", "Models"

Vault = Annotated[
    str | None,
    typer.Option(
        "--vault",
        "-v",
        envvar="MNEMIC_VAULT",
        metavar="PATH|URL",
        help="A file, sqlite:///path or postgresql://… Default: your own data folder (see `mnemic where`).",
        rich_help_panel=_WHERE,
        show_default=False,
    ),
]
VaultHere = Annotated[
    str | None,
    typer.Argument(metavar="[VAULT]", help="The same as --vault.", show_default=False),
]
Tenant = Annotated[
    str, typer.Option("--tenant", help="Which tenant of the vault.", rich_help_panel=_WHERE, metavar="NAME")
]
User = Annotated[
    str | None,
    typer.Option(
        "--user",
        "-u",
        envvar="MNEMIC_USER",
        metavar="NAME",
        help="Whose memory. Matched exactly.",
        rich_help_panel=_WHO,
        show_default=False,
    ),
]
Agent = Annotated[
    str | None,
    typer.Option(
        "--agent",
        "-a",
        metavar="NAME",
        help="Which agent's memory. When reading: left out means any, '' means none set.",
        rich_help_panel=_WHO,
        show_default=False,
    ),
]
Session = Annotated[
    str | None,
    typer.Option(
        "--session",
        "-s",
        metavar="NAME",
        help="Which conversation. When reading: left out means any, '' means none set.",
        rich_help_panel=_WHO,
        show_default=False,
    ),
]
Everyone = Annotated[
    bool, typer.Option("--everyone", help="All users' memories together.", rich_help_panel=_WHO)
]
Embedder = Annotated[
    str | None,
    typer.Option(
        "--embedder",
        envvar="MNEMIC_EMBEDDER",
        metavar="NAME",
        help="static, minilm or openai:<model>. Default: the one the vault was made with.",
        rich_help_panel=_MODELS,
        show_default=False,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar="MNEMIC_MODEL",
        metavar="NAME",
        help="A language model: smollm2 (in this process), a model's folder, or one of the endpoint. Without "
        "one, answers are quoted from memory.",
        rich_help_panel=_MODELS,
        show_default=False,
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        envvar="OPENAI_BASE_URL",
        metavar="URL",
        help="An OpenAI-compatible endpoint, such as http://localhost:11434/v1. Its key: OPENAI_API_KEY.",
        rich_help_panel=_MODELS,
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="JSON",
        help="""Only what passes, such as '{"labels": "travel", "at": {"gte": "2025-01-01"}}'.""",
        show_default=False,
    ),
]
AsOf = Annotated[
    str | None,
    typer.Option("--as-of", metavar="TIME", help="Only what was known then, ISO 8601.", show_default=False),
]
ValidAt = Annotated[
    str | None,
    typer.Option("--valid-at", metavar="TIME", help="Only what was true then, ISO 8601.", show_default=False),
]
Reason = Annotated[
    str | None, typer.Option("--reason", help="Why; kept in the history.", show_default=False, metavar="TEXT")
]
Id = Annotated[
    str, typer.Argument(metavar="ID", help="A cube's id, or an ending of it that only one cube has.")
]
