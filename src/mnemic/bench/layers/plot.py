"""A curve as an SVG file: points by series on a logarithmic x axis. No plotting package is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 520, 64, 190, 40, 56
COLOURS = (
    "#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#d68910", "#16a085", "#7f8c8d", "#d35400", "#2c3e50",
    "#a04000", "#5d6d7e", "#196f3d", "#b03a8c", "#4a6b12", "#0e4d64", "#934b2a", "#5b2c6f",
)  # fmt: skip
Point = tuple[float, float, float, float]  # x, mean y, least y, most y
_At = Callable[[float, float], tuple[float, float]]


def svg(title: str, x_label: str, y_label: str, series: Mapping[str, Sequence[Point]]) -> str:
    """One line a series, a bar from the least to the most at each point; y from 0 to 1."""
    xs = [point[0] for points in series.values() for point in points]
    low, high = math.floor(math.log10(min(xs))), math.ceil(math.log10(max(xs)))
    high = max(high, low + 1)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - low) / (high - low) * (WIDTH - LEFT - RIGHT)
        return LEFT + across, HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="16">{escape(title)}</text>',
    ]
    for tenth in range(0, 11, 2):
        x, y = at(10**low, tenth / 10)
        parts.append(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{tenth / 10:.1f}</text>')
    for power in range(low, high + 1):
        x, y = at(10**power, 0)
        parts.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 20:.1f}" text-anchor="middle">10^{power}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(
        f'<text x="18" y="{HEIGHT / 2}" transform="rotate(-90 18 {HEIGHT / 2})" text-anchor="middle">'
    )
    parts.append(f"{escape(y_label)}</text>")
    for number, (name, points) in enumerate(series.items()):
        parts += _series(name, sorted(points), COLOURS[number % len(COLOURS)], number, at)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _series(name: str, points: Sequence[Point], colour: str, number: int, at: _At) -> list[str]:
    places = [at(x, mean) for x, mean, _, _ in points]
    parts = []
    if len(places) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    for (x, y), (value, mean, least, most) in zip(places, points, strict=True):
        (_, top), (_, bottom) = at(value, most), at(value, least)
        parts.append(f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="{colour}"/>')
        said = escape(f"{name}: {mean:.3f} at {value:.0f}")
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{said}</title></circle>'
        )
    y = TOP + 14 + 19 * number
    parts.append(f'<circle cx="{WIDTH - RIGHT + 20}" cy="{y - 4}" r="4" fill="{colour}"/>')
    parts.append(f'<text x="{WIDTH - RIGHT + 32}" y="{y}">{escape(name)}</text>')
    return parts
