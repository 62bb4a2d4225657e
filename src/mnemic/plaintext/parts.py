"""The parts of an open text memory:

which features a vault is searched by, what makes them, what ranks them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mnemic.cube.errors import EmbedderMismatch
from mnemic.index.cache import IndexCache
from mnemic.index.lexical import LEXICAL_VERSION
from mnemic.models.base import Embedder, TokenEmbedder
from mnemic.models.registry import EMBEDDERS, load_embedder
from mnemic.plaintext.ingest.features import FeatureMaker, Progress, embed_pending, lexical_only
from mnemic.plaintext.ingest.pending import PendingEmbeddings
from mnemic.plaintext.recall.rank import Weights
from mnemic.plaintext.recall.search import Recall
from mnemic.vault.erasing import finish
from mnemic.vault.snapshot import ModelRow
from mnemic.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class Parts:
    """What `Memory` calls."""

    vault: Vault
    maker: FeatureMaker
    pending: PendingEmbeddings
    recall: Recall

    def close(self) -> None:
        self.pending.close()
        self.vault.close()


def open_parts(
    vault: Vault, embedder: str | Embedder | None, *, weights: Weights | None, index_bytes: int
) -> Parts:
    """Choose the embedder and register it if the vault is new. Raises EmbedderMismatch and InvalidOption."""
    finish(vault)
    with vault.snapshot() as snapshot:
        active = {model.dim == 0: model for model in snapshot.models() if model.active}
    lexical, dense = active.get(True), active.get(False)
    chosen = _choose(embedder, dense)
    if lexical is None:
        lexical = vault.add_model(LEXICAL_VERSION, 0)
    if lexical.name != LEXICAL_VERSION:
        raise EmbedderMismatch(
            f"the words of this vault were indexed by {lexical.name!r}, this mnemic uses "
            f"{LEXICAL_VERSION!r}. "
            f"Run: mnemic reembed {vault.database.location}"
        )
    if dense is None:
        dense = vault.add_model(chosen.name, chosen.dim)
    if dense.name != chosen.name:
        raise EmbedderMismatch(
            f"the vectors of this vault come from {dense.name!r}, not from {chosen.name!r}. Open it without "
            f"embedder=…, or change it for good: mnemic reembed {vault.database.location} --embedder NAME"
        )
    _check_dim(vault, chosen, dense)
    maker = FeatureMaker(chosen, lexical, dense)
    table = (lambda: chosen.table) if isinstance(chosen, TokenEmbedder) else None
    cache = IndexCache(lexical=lexical, dense=dense, table=table, max_bytes=index_bytes)
    return Parts(vault, maker, PendingEmbeddings(vault, maker), Recall(vault, chosen, cache, weights))


def _check_dim(vault: Vault, chosen: Embedder, dense: ModelRow) -> None:
    """One that learns its dimension from its first answer (a property) is not asked, it may be down."""
    if not isinstance(getattr(type(chosen), "dim", None), property) and chosen.dim != dense.dim:
        raise EmbedderMismatch(
            f"the vectors of this vault have {dense.dim} dimensions, those of {chosen.name!r} now have "
            f"{chosen.dim}. Give other weights another name, then: mnemic reembed {vault.database.location} "
            "--embedder NAME"
        )


def reembed(vault: Vault, embedder: str | Embedder | None = None, *, progress: Progress | None = None) -> int:
    """Make features of every cube with another embedder (default: the one in use) and the current analyser.

    Returns how many features were made. The old ones go on serving until the last is there, then the vault is
    searched by the new ones; stopped half-way, the next run goes on where this one was. Open memories of
    other processes are told to open again. O(cubes).
    """
    with vault.snapshot() as snapshot:
        active = {model.dim == 0: model for model in snapshot.models() if model.active}
    chosen = _choose(embedder, active.get(False))
    lexical, dense = vault.add_model(LEXICAL_VERSION, 0), vault.add_model(chosen.name, chosen.dim)
    maker = FeatureMaker(chosen, lexical, dense)
    steps: list[tuple[ModelRow, Callable[..., list[bytes]]]] = [(lexical, lexical_only), (dense, maker.embed)]
    made = 0
    for model, make in steps:
        made += embed_pending(vault, model, make, progress)
        if not model.active:
            vault.activate_model(model)
    return made


def _choose(embedder: str | Embedder | None, dense: ModelRow | None) -> Embedder:
    """The embedder asked for; if none was, the built-in one whose name the vault holds, or the default."""
    if embedder is not None:
        return load_embedder(embedder)
    default = load_embedder("static")
    if dense is None or default.name == dense.name:
        return default
    for name in EMBEDDERS:
        if name == "openai":
            continue
        other = load_embedder(name)
        if other.name == dense.name:
            return other
    raise EmbedderMismatch(
        f"the vectors of this vault come from {dense.name!r}, which is not built in: open it with "
        "embedder=…, or "
        "change it for good with `mnemic reembed`"
    )
