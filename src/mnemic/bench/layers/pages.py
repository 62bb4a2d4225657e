"""The table of layers in docs/layers.md, made from the table that names them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from mnemic.bench.markdown import table
from mnemic.layers.table import LAYERS, layer_class

BEGIN: Final = "<!-- layers: python -m mnemic.bench.layers.pages docs/layers.md -->"
END: Final = "<!-- /layers -->"
DIM, HEADS = 512, 8
FAMILIES: Final = ("titans",)  # layers that share a page


def layer_table() -> str:
    """Name, what it is, and the bytes of its state, from each class."""
    rows = []
    for name in LAYERS:
        kind = layer_class(name)
        wanted = {"dim": DIM, "heads": HEADS}
        known = {
            field: value for field, value in wanted.items() if field in kind.Options.__dataclass_fields__
        }
        options = kind.Options.read(known)
        what = (kind.__doc__ or "").strip().splitlines()[0]
        sizes = [f"{options.state_bytes(tokens):,}" for tokens in (1_000, 100_000)]
        rows.append([f"[{name}]({page_of(name)})", what.replace("|", "\\|"), *sizes])
    return table(["layer", "what it is", "state bytes at 1,000 tokens", "at 100,000"], rows)


def page_of(name: str) -> str:
    """Its own page, or that of its family: what stands before the first dash."""
    family = name.partition("-")[0]
    return f"layers/{family if family in FAMILIES else name}.md"


def written(page: str) -> str:
    """The page with its table made anew."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{layer_table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
