"""Line charts and head maps as SVG, written by hand: no plotting library for three pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

COLOURS: Final = (
    "#1f77b4",
    "#d62728",
    "#2ca02c",
    "#9467bd",
    "#ff7f0e",
    "#8c564b",
    "#17becf",
    "#7f7f7f",
    "#bcbd22",
)
WIDTH, HEIGHT, LEFT, BOTTOM, RIGHT, TOP = 720, 420, 70, 50, 180, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]


def lines_svg(lines: Sequence[Line], *, x: str, y: str) -> str:
    """Every line with marks at its points, linear axes from zero, a legend at the right."""
    everything = [point for line in lines for point in line.points]
    right = max((point[0] for point in everything), default=1.0) * 1.05 or 1.0
    top = max((point[1] for point in everything), default=1.0) * 1.05 or 1.0
    inner, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(point: tuple[float, float]) -> str:
        return f"{LEFT + point[0] / right * inner:.1f},{TOP + tall - point[1] / top * tall:.1f}"

    parts = [_open(WIDTH, HEIGHT)]
    for i in range(6):
        across, up = right * i / 5, top * i / 5
        (x0, y0), (x1, y1) = (at((across, 0)).split(","), at((0, up)).split(","))
        parts.append(f'<text x="{x0}" y="{float(y0) + 18}" text-anchor="middle">{across:.3g}</text>')
        parts.append(f'<text x="{float(x1) - 8}" y="{float(y1) + 4}" text-anchor="end">{up:.3g}</text>')
        parts.append(f'<line x1="{x1}" y1="{y1}" x2="{LEFT + inner}" y2="{y1}" stroke="#ddd"/>')
    for i, line in enumerate(lines):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(map(at, line.points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [_mark(at(point), colour) for point in line.points]
        down = TOP + 14 + 20 * i
        parts.append(
            f'<rect x="{WIDTH - RIGHT + 16}" y="{down - 9}" width="10" height="10" fill="{colour}"/>'
        )
        parts.append(f'<text x="{WIDTH - RIGHT + 32}" y="{down}">{escape(line.name)}</text>')
    parts.append(f'<text x="{LEFT + inner / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x)}</text>')
    middle = TOP + tall / 2
    turned = f'transform="rotate(-90 16 {middle})"'
    parts.append(f'<text x="16" y="{middle}" text-anchor="middle" {turned}>{escape(y)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def map_svg(cells: Sequence[Sequence[float]], *, x: str, y: str) -> str:
    """A row for each of `cells`, a column for each number in [0, 1]; darker is more."""
    size, wide = 18, max((len(row) for row in cells), default=0)
    width, height = LEFT + wide * size + 20, TOP + len(cells) * size + BOTTOM
    parts = [_open(width, height)]
    for down, row in enumerate(cells):
        for across, value in enumerate(row):
            shade = round(255 * (1 - min(1.0, max(0.0, value))))
            parts.append(
                f'<rect x="{LEFT + across * size}" y="{TOP + down * size}" width="{size - 1}" '
                f'height="{size - 1}" fill="rgb({shade},{shade},255)"><title>{value:.2f}</title></rect>'
            )
        if down % 5 == 0:
            parts.append(f'<text x="{LEFT - 8}" y="{TOP + down * size + 13}" text-anchor="end">{down}</text>')
    parts.append(f'<text x="{LEFT}" y="{height - 20}">{escape(x)}</text>')
    parts.append(f'<text x="8" y="{TOP + 12}">{escape(y)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _open(width: int, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    )


def _mark(at: str, colour: str) -> str:
    x, y = at.split(",")
    return f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>'
