"""On a model that nothing is mounted on: what is trained and tested is then nobody else's doing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mnemic.cube.errors import InvalidOption
from mnemic.models.local import LocalModel
from mnemic.models.stack import mounted


def require_bare(local: LocalModel) -> None:
    """Raises InvalidOption when anything is mounted on the model: what is measured would be its doing too."""
    if ids := mounted(local.model):
        raise InvalidOption(
            f"{', '.join(ids)} is mounted on {local.name}. Leave its with block first: an adapter is trained "
            "and tested on the model alone"
        )


class Applicable:
    """A `Mountable` that can also be applied without a vault."""

    __slots__ = ()

    def check(self, local: LocalModel, stack: tuple[str, ...]) -> None:
        raise NotImplementedError

    def install(self, local: LocalModel, undo: ExitStack) -> None:
        raise NotImplementedError

    @contextmanager
    def applied(self, local: LocalModel) -> Iterator[None]:
        """Installed for as long as a `with` block lasts, without a vault.

        Raises InvalidOption when anything is mounted on the model, and what `check` raises.
        """
        require_bare(local)
        with ExitStack() as undo:
            self.check(local, ())
            self.install(local, undo)
            yield
