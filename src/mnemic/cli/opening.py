"""From options to an open Memory, and to the scope of a read or write."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mnemic.cli.output import note

if TYPE_CHECKING:
    from mnemic.memory import Memory
    from mnemic.models.base import Embedder, LanguageModel
    from mnemic.models.local import LocalModel


_acting: ContextVar[str | None] = ContextVar("principal", default=None)


def act_as(principal: str | None) -> None:
    """On whose behalf this command opens a memory; None: the owner's."""
    _acting.set(principal or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which vault, and the models that read it."""

    vault: str | None
    tenant: str = "default"
    embedder: str | None = None
    model: str | None = None
    base_url: str | None = None

    def path(self) -> Path | None:
        """The file, or None for a server."""
        if self.vault is None:
            from mnemic.memory import default_place

            return default_place()
        if "://" not in self.vault:
            return Path(self.vault).expanduser().absolute()
        scheme, _, rest = self.vault.partition("://")
        return Path(rest.removeprefix("/")).expanduser().absolute() if scheme == "sqlite" else None

    def require(self) -> None:
        """Reading must not make an empty vault out of a mistyped path. Raises NotFound."""
        from mnemic.cube.errors import NotFound

        path = self.path()
        if path is None or path.exists():
            return
        if self.vault is None:
            raise NotFound(
                f"nothing is remembered yet ({path} does not exist). Begin with: "
                'mnemic add "…" --user NAME, or name another file with --vault PATH'
            )
        raise NotFound(
            f"there is no vault at {path}. Check --vault; `mnemic add` and `mnemic import` make new ones"
        )

    def make_embedder(self) -> str | Embedder | None:
        if self.embedder is None or not self.embedder.startswith("openai:"):
            return self.embedder
        from mnemic.models.registry import load_embedder

        return load_embedder(self.embedder, base_url=self.base_url, api_key=os.environ.get("OPENAI_API_KEY"))

    def make_model(self) -> LanguageModel | None:
        if self.model is None:
            return None
        from mnemic.models.registry import runs_here

        if self.base_url is None and runs_here(self.model):
            return in_process(self.model)
        from mnemic.models.openai_model import OpenAIModel

        key = os.environ.get("OPENAI_API_KEY")
        if self.base_url is None:
            return OpenAIModel(model=self.model, api_key=key)
        return OpenAIModel(model=self.model, base_url=self.base_url, api_key=key)

    @contextmanager
    def open(self, *, reading: bool = False) -> Iterator[Memory]:
        """The memory; with `reading` it must be there already."""
        if reading:
            self.require()
        import mnemic

        with mnemic.open(
            self.vault,
            tenant=self.tenant,
            key=key_from_environment(),
            embedder=self.make_embedder(),
            model=self.make_model(),
            principal=_acting.get(),
        ) as memory:
            yield memory


def key_from_environment(prefix: str = "MNEMIC") -> str | Path | None:
    """The key that <prefix>_KEY_FILE or <prefix>_PASSPHRASE names. Secrets never stand on a command line."""
    file, passphrase = os.environ.get(f"{prefix}_KEY_FILE"), os.environ.get(f"{prefix}_PASSPHRASE")
    if file and passphrase:
        raise typer.BadParameter(f"{prefix}_KEY_FILE and {prefix}_PASSPHRASE are both set; unset one")
    return Path(file).expanduser() if file else passphrase or None


@cache
def in_process(name: str) -> LocalModel:
    """A model of this process, loaded once however often it is asked for."""
    from mnemic.models.registry import load_model

    return load_model(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Whose memory a command reads or writes."""

    user: str | None = None
    agent: str | None = None
    session: str | None = None
    everyone: bool = False

    def writes(self) -> dict[str, Any]:
        self._named()
        return {"user": self.user or None, "agent": self.agent or None, "session": self.session or None}

    def reads(self) -> dict[str, Any]:
        """Arguments of a read: a field left out matches any, '' matches only "unset"."""
        if self.everyone:
            if self.user is not None and self.user != os.environ.get("MNEMIC_USER"):
                raise typer.BadParameter("--everyone and --user cannot go together; leave one out")
            given = {"agent": self.agent, "session": self.session}
        else:
            self._named()
            given = {"user": self.user, "agent": self.agent, "session": self.session}
        out: dict[str, Any] = {name: value or None for name, value in given.items() if value is not None}
        return out | ({"everyone": True} if self.everyone else {})

    def _named(self) -> None:
        if not self.user and not self.agent:
            raise typer.BadParameter(
                "say whose memory this is: --user NAME (or --agent NAME), or set MNEMIC_USER for good"
            )

    def __str__(self) -> str:
        if self.everyone:
            return "everyone"
        named = [self.user or "", f"agent {self.agent}" if self.agent else ""]
        named.append(f"session {self.session}" if self.session else "")
        return ", ".join(name for name in named if name)


def embed_the_rest(memory: Memory) -> None:
    """Vectors of an embedder that does not run inside `add`: this process is about to end, so make them now.

    A failing embedder is a remark, not an error: what was told is stored and is found by its words.
    """
    from mnemic.cli.progress import Bar
    from mnemic.cube.errors import ModelError

    try:
        with Bar("embedding", "cubes") as bar:
            memory.flush(progress=bar)
    except ModelError as error:
        note(f"stored, but not embedded yet ({error}); later: mnemic reembed")


def read_where(where: str | None) -> dict[str, Any] | None:
    """`--where` as a filter. Raises a usage error when it is not a JSON object."""
    if where is None:
        return None
    try:
        found = json.loads(where)
    except ValueError as error:
        raise typer.BadParameter(
            f'--where is not JSON ({error}); for example \'{{"labels": "travel"}}\''
        ) from None
    if not isinstance(found, dict):
        raise typer.BadParameter('--where must be a JSON object, such as \'{"labels": "travel"}\'')
    return found


def known_users(memory: Memory, who: Who) -> str | None:
    """When nothing is kept in this scope: a sentence that says whose memories there are."""
    if who.everyone or memory.count(**who.reads()):
        return None
    users = list(memory.users())
    if who.user and who.user in users:
        return f"{who.user} has memories here, but none of {who}. See: mnemic stats"
    others = ", ".join(users[:10]) + (", …" if len(users) > 10 else "")
    return f"nothing is kept for {who} in {memory.where()}. " + (
        f"There are memories of: {others}"
        if others
        else "It is empty; begin with `mnemic add` or `mnemic import`"
    )
