"""Charts as SVG: lines and stacked bars. Text stays text, and colors follow the page between light and dark.

An SVG is drawn for 440 units of width and scales with the page; the styles are those of `chart.css`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape as escape_html
from typing import NamedTuple

from ciod_core.drawing.detections import class_color

WIDTH, HEIGHT = 440, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 18, 12, 36
_LETTER = 6.4
_ROW = 18
# Longer series are thinned: more points than pixels show nothing.
_MOST_POINTS = 160
_DASHES = {"solid": "", "dashed": "6 4", "dotted": "1.5 4"}
# One shape per step of learning, so that classes differ by more than color.
MARKERS = ("circle", "square", "triangle", "diamond")

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffe\uffff]")

Point = tuple[float, float | None]


def _escape(text: str) -> str:
    """Text for an SVG, which is XML and knows no control characters."""
    return escape_html(_CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text))


class Line(NamedTuple):
    """One line of a chart; points without a value are left out.

    Attributes:
        color: a CSS color.
        dash: `solid`, `dashed` or `dotted`.
        marker: one of `MARKERS`; None draws none.
    """

    name: str
    points: Sequence[Point]
    color: str
    dash: str = "solid"
    marker: str | None = None


@dataclass(frozen=True)
class Axis:
    """What an axis shows; without limits they are those of the data, without ticks round numbers."""

    label: str
    least: float | None = None
    most: float | None = None
    ticks: Sequence[float] = ()


class Bar(NamedTuple):
    """A row of stacked bars: its label and the size of each part, in the order of the parts' names."""

    label: str
    parts: Sequence[float]


def color_of(index: int) -> str:
    """The color of a class by its position in the class table, as on pictures; also of anything else that counts."""
    return "#{:02x}{:02x}{:02x}".format(*class_color(index))


def line_chart(alt: str, lines: Sequence[Line], x: Axis, y: Axis) -> str:
    """A chart of lines with its legend below.

    Args:
        alt: what the chart shows, for those who do not see it.
        lines: those without any value are left out.
        x, y: the axes.
    """
    thinned = (line._replace(points=_thinned(line.points)) for line in lines)
    lines = [line for line in thinned if line.points]
    xs = [point[0] for line in lines for point in line.points]
    ys = [point[1] for line in lines for point in line.points if point[1] is not None]
    x_scale = _Scale.over(xs, x if x.most is not None else replace(x, most=max(xs, default=1.0)))
    y_scale = _Scale.over(ys, y)
    bottom = HEIGHT - _BOTTOM

    def at(point: Point) -> tuple[float, float]:
        return (
            _LEFT + x_scale.share(point[0]) * (WIDTH - _LEFT - _RIGHT),
            bottom - y_scale.share(point[1] or 0.0) * (bottom - _TOP),
        )

    parts = []
    for tick in y_scale.ticks:
        _, height = at((x_scale.least, tick))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in x_scale.ticks:
        left, _ = at((tick, y_scale.least))
        parts.append(f'<text x="{left:.1f}" y="{bottom + 16}" text-anchor="middle">{_number(tick)}</text>')
    parts.append(
        f'<text x="{(WIDTH + _LEFT - _RIGHT) / 2}" y="{bottom + 31}" text-anchor="middle">{_escape(x.label)}</text>'
    )
    for line in lines:
        parts.append(_drawn(line, [at(point) for point in line.points]))
    legend, height = _legend([(line.name, line) for line in lines], HEIGHT + 4)
    return _svg(f"{alt} Vertical axis: {y.label}.", [*parts, *legend], height)


def bar_chart(alt: str, names: Sequence[str], bars: Sequence[Bar], colors: Sequence[str]) -> str:
    """Stacked horizontal bars, a row each, with the legend below."""
    left = min(max((_LETTER * len(bar.label) for bar in bars), default=0) + 10, WIDTH / 2.5)
    most = max((sum(bar.parts) for bar in bars), default=0) or 1
    parts, top = [], 4
    for bar in bars:
        letters = int(left / _LETTER)
        shown = bar.label if len(bar.label) <= letters else bar.label[: letters - 1] + "…"
        parts.append(f'<text x="{left - 6:.0f}" y="{top + 13}" text-anchor="end">{_escape(shown)}</text>')
        start = left
        for name, size, color in zip(names, bar.parts, colors, strict=True):
            width = size / most * (WIDTH - left - _RIGHT)
            title = f"<title>{_escape(f'{bar.label}, {name}: {_number(size)}')}</title>"
            if width > 0:
                parts.append(
                    f'<rect class="bar" style="--c:{color}" x="{start:.1f}" y="{top}" width="{width:.1f}" height="17">'
                    f"{title}</rect>"
                )
            start += width
        top += 23
    marks = [(name, Line(name, (), color)) for name, color in zip(names, colors, strict=True)]
    legend, height = _legend(marks, top + 6, boxes=True)
    return _svg(alt, [*parts, *legend], height)


class _Scale(NamedTuple):
    least: float
    most: float
    ticks: Sequence[float]

    @classmethod
    def over(cls, values: Sequence[float], axis: Axis) -> _Scale:
        least = axis.least if axis.least is not None else min(values, default=0.0)
        most = axis.most if axis.most is not None else max(values, default=1.0)
        if most <= least:
            least, most = least - (0.5 if axis.least is None else 0.0), least + (1.0 if least == 0 else abs(least) / 2)
        ticks = axis.ticks or _round_ticks(least, most)
        if axis.most is None and not axis.ticks:
            most = max(most, ticks[-1])
        return cls(least, most, [tick for tick in ticks if least - 1e-12 <= tick <= most + 1e-12])

    def share(self, value: float) -> float:
        return min(max((value - self.least) / (self.most - self.least), 0.0), 1.0)


def _round_ticks(least: float, most: float) -> list[float]:
    """Four to eight multiples of 1, 2 or 5 times a power of ten, the last one at or above `most`."""
    rough = (most - least) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(least / step - 1e-9), math.ceil(most / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _number(value: float) -> str:
    size = abs(value)
    return f"{value:,.0f}" if size >= 1000 else f"{value:.3g}" if size >= 1e-3 or size < 1e-12 else f"{value:.0e}"


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """The first point in each of many equal parts of the horizontal axis, and the last of all."""
    known = sorted((point for point in points if point[1] is not None), key=lambda point: point[0])
    if len(known) <= _MOST_POINTS:
        return known
    start, end = known[0][0], known[-1][0]
    parts = {int((x - start) / ((end - start) or 1.0) * _MOST_POINTS): (x, y) for x, y in reversed(known)}
    return [parts[number] for number in sorted(parts)]


def _drawn(line: Line, places: Sequence[tuple[float, float]]) -> str:
    path = " ".join(f"{left:.1f},{top:.1f}" for left, top in places)
    dash = f' stroke-dasharray="{_DASHES[line.dash]}"' if _DASHES[line.dash] else ""
    marker = line.marker or ("circle" if len(places) == 1 else None)
    marks = "".join(_mark(marker, left, top) for left, top in places) if marker else ""
    title = f"<title>{_escape(line.name)}</title>"
    return f'<g style="--c:{line.color}">{title}<polyline class="line"{dash} points="{path}"/>{marks}</g>'


def _mark(marker: str, left: float, top: float) -> str:
    match marker:
        case "square":
            return f'<rect class="mark" x="{left - 3.5:.1f}" y="{top - 3.5:.1f}" width="7" height="7"/>'
        case "triangle":
            return f'<path class="mark" d="M{left:.1f} {top - 4.5:.1f}l4.5 8h-9z"/>'
        case "diamond":
            return f'<path class="mark" d="M{left:.1f} {top - 5:.1f}l5 5l-5 5l-5-5z"/>'
        case _:
            return f'<circle class="mark" cx="{left:.1f}" cy="{top:.1f}" r="3.5"/>'


def _legend(entries: Sequence[tuple[str, Line]], top: int, *, boxes: bool = False) -> tuple[list[str], int]:
    """The legend in as many rows as it needs, and where it ends."""
    parts: list[str] = []
    for name, line, left, row in _placed(entries):
        y = top + row * _ROW
        if boxes:
            parts.append(f'<rect class="bar" style="--c:{line.color}" x="{left}" y="{y + 2}" width="12" height="12"/>')
        else:
            parts.append(
                _drawn(line._replace(name=name), [(left, y + 8), (left + 20, y + 8)]).replace(
                    "<title>", "<title>Legend: "
                )
            )
        parts.append(f'<text x="{left + (18 if boxes else 26)}" y="{y + 12}">{_escape(name)}</text>')
        rows = row + 1
    return parts, top + (rows if entries else 0) * _ROW + 4


def _placed(entries: Sequence[tuple[str, Line]]) -> Iterator[tuple[str, Line, int, int]]:
    left, row = _LEFT, 0
    for name, line in entries:
        width = 40 + round(_LETTER * len(name))
        if left > _LEFT and left + width > WIDTH:
            left, row = _LEFT, row + 1
        yield name, line, left, row
        left += width


def _svg(alt: str, parts: Sequence[str], height: int) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{_escape(alt)}">{"".join(parts)}</svg>'
    )
