"""Commands for the key of an encrypted vault: key new, key check, key change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mnemic.cli import options as o
from mnemic.cli.opening import Place, key_from_environment
from mnemic.cli.output import console, print_json, safe

app = typer.Typer(
    help="""The key of an encrypted vault.

    A vault is encrypted when it is made while MNEMIC_KEY_FILE (a file of `mnemic key new`) or
    MNEMIC_PASSPHRASE is set, and needs the same one from then on. Lose the key, and the memory is lost.""",
    no_args_is_help=True,
)


@app.command("new", epilog="Example:  mnemic key new ~/keys/ana.key")
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to make; it must not exist.")],
    as_json: o.Json = False,
) -> None:
    """Make a key file: 32 random bytes that only you may read. Keep a copy in another place."""
    from mnemic.vault.keys import write_key_file

    write_key_file(file.expanduser())
    if as_json:
        print_json({"file": str(file)})
        return
    console().print(safe(f"a new key is in {file}. Use it: MNEMIC_KEY_FILE={file} mnemic add …"))


@app.command("check", epilog="Example:  MNEMIC_KEY_FILE=ana.key mnemic key check --vault ana.db")
def check(vault: o.Vault = None, tenant: o.Tenant = "default", as_json: o.Json = False) -> None:
    """Say whether a vault is encrypted, and whether the key that is set opens it."""
    from mnemic.upkeep import is_encrypted

    place = Place(vault=vault, tenant=tenant)
    place.require()
    encrypted = is_encrypted(place.vault, tenant=tenant, key=key_from_environment())
    if as_json:
        print_json({"encrypted": encrypted})
    else:
        console().print("encrypted, and this key opens it" if encrypted else "not encrypted")


@app.command("change", epilog="Example:  MNEMIC_KEY_FILE=old.key mnemic key change --new-key-file new.key")
def change(
    vault: o.Vault = None,
    tenant: o.Tenant = "default",
    new_key_file: Annotated[
        Path | None,
        typer.Option("--new-key-file", metavar="FILE", help="A key file; without it, you type a passphrase."),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Let another key open the vault, and the present one no more. No data is rewritten.

    Backups made before still open with the old key: destroy it, and they cannot be read.
    """
    from mnemic.upkeep import change_key

    place = Place(vault=vault, tenant=tenant)
    place.require()
    new: str | Path = (
        new_key_file.expanduser()
        if new_key_file is not None
        else typer.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True)
    )
    change_key(place.vault, old=key_from_environment(), new=new)
    if as_json:
        print_json({"changed": True})
        return
    console().print("the new key opens the vault from now on; destroy the old one when no backup needs it")
