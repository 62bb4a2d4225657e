"""The command `mnemic`: its groups of commands. `ending` says what becomes of an error."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mnemic.cli import (
    asking,
    bench,
    bench_ballet,
    bench_chunks,
    bench_flash,
    bench_hcam,
    bench_hybrid,
    bench_kv_cubes,
    bench_layers,
    bench_parametric,
    bench_qfwp,
    bench_titans,
    bench_ultramem,
    carrying,
    changing,
    chat,
    erasing,
    governing,
    importing,
    keeping,
    keys,
    knowing,
    kv,
    looking,
    memory,
    ruling,
    telling,
    training,
)
from mnemic.cli.ending import USAGE, code_of, debugging
from mnemic.cli.opening import act_as
from mnemic.cli.output import print_error


class Commands(TyperGroup):
    """The root group: what ends a command ends here."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        ctx.meta["mnemic.json"] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        as_json = ctx.meta.get("mnemic.json", False)
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if debugging():
                raise
            usage = getattr(error, "format_message", None)  # what typer itself says of wrong options
            if usage is not None and not as_json:
                raise
            if usage is not None:
                print_error("Usage", str(usage()), as_json=True)
                raise typer.Exit(USAGE) from None
            raise typer.Exit(code_of(error, as_json=as_json)) from None


app = typer.Typer(
    name="mnemic",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        import mnemic

        typer.echo(f"mnemic {mnemic.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    principal: Annotated[
        str | None,
        typer.Option(
            "--principal",
            envvar="MNEMIC_PRINCIPAL",
            metavar="NAME",
            help="On whose behalf; default: the owner of the vault, who may do everything.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """A memory for AI agents: durable, offline, explainable, in one file.

    [bold]Start:[/bold]  mnemic add "I moved to Porto in March." --user ana
            mnemic search "where does Ana live?" --user ana

    Set MNEMIC_USER and MNEMIC_VAULT to leave out --user and --vault.
    """
    act_as(principal)


GROUPS = (
    *(telling, importing, asking, chat, looking, changing, knowing, keeping, carrying, erasing),
    *(governing, ruling),
)
for group in GROUPS:
    group.register(app)
bench.app.command()(bench_layers.layers)
bench.app.command()(bench_titans.titans)
bench.app.command()(bench_parametric.parametric)
bench.app.command()(bench_flash.flash)
bench.app.command()(bench_ultramem.ultramem)
bench.app.command()(bench_hybrid.hybrid)
bench.app.command()(bench_hcam.hcam)
bench.app.command()(bench_chunks.chunks)
bench.app.command()(bench_ballet.ballet)
bench.app.command()(bench_qfwp.qfwp)
bench.app.command("kv-cubes")(bench_kv_cubes.kv_cubes)
app.add_typer(kv.app, name="kv")
app.add_typer(memory.app, name="memory")
app.add_typer(keys.app, name="key")
app.add_typer(training.app, name="train")
app.add_typer(bench.app, name="bench")
