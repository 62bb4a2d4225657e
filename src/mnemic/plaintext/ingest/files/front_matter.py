"""YAML front matter, as far as notes use it: `key: scalar`, `[a, b]` and `- a` lists. No YAML library."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_BLOCK = re.compile(r"---[ \t]*\r?\n(?P<body>(?:(?!---|\.\.\.)[^\n]*\n)*?)(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)")
_PAIR = re.compile(r"(?P<key>[\w][\w .-]*?)[ \t]*:(?:[ \t]+(?P<value>.*))?$")
_ITEM = re.compile(r"[ \t]*-[ \t]+(?P<value>.+)$")


@dataclass(slots=True)
class FrontMatter:
    """`end` is where the note's text begins: 0 when there is no front matter, or more than this can read."""

    values: dict[str, str | list[str]] = field(default_factory=dict)
    end: int = 0


def front_matter(text: str) -> FrontMatter:
    """Read the block `text` begins with. One line that is not understood leaves all of it in the text."""
    block = _BLOCK.match(text)
    if block is None:
        return FrontMatter()
    values: dict[str, str | list[str]] = {}
    last = ""
    for line in block["body"].splitlines():
        item, pair = _ITEM.match(line), _PAIR.match(line)
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if (item and last and values[last] in ("", [])) or (item and last and isinstance(values[last], list)):
            held = values[last]
            values[last] = [*(held if isinstance(held, list) else ()), _scalar(item["value"])]
        elif (
            pair
            and line[:1] not in " \t"
            and not (pair["value"] or "").startswith(("|", ">", "{", "&", "*", "!"))
        ):
            last = pair["key"].lower()
            values[last] = _value(pair["value"] or "")
        else:
            return FrontMatter()
    return FrontMatter(values, block.end())


def _value(written: str) -> str | list[str]:
    written = written.strip()
    if written.startswith("[") and written.endswith("]"):
        return [_scalar(item) for item in written[1:-1].split(",") if item.strip()]
    return _scalar(written)


def _scalar(written: str) -> str:
    written = written.strip()
    if len(written) > 1 and written[0] == written[-1] and written[0] in "\"'":
        return written[1:-1]
    return re.sub(r"\s+#.*$", "", written)
