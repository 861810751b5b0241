"""Charts as SVG."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from ciod_core.report.charts import Axis, Bar, Line, bar_chart, line_chart
from tests.helpers.class_names import HOSTILE_NAMES

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def points_of(chart: ElementTree.Element) -> list[list[tuple[float, ...]]]:
    """The places of every line, without those of the legend."""
    lines = [line.get("points", "").split() for line in chart.iter(f"{SVG}polyline")]
    places = [[tuple(map(float, place.split(","))) for place in line] for line in lines]
    return places[: len(places) // 2]


def test_values_are_where_the_axes_say() -> None:
    line = Line("AP", [(1, 0.0), (2, None), (3, 50.0)], "#123456")
    chart = parsed(line_chart("What it shows.", [line], Axis("step", 1, 3, (1, 2, 3)), Axis("AP in %", 0, 100)))
    [[first, last]] = points_of(chart)
    texts = {element.text: element for element in chart.iter(f"{SVG}text")}
    assert first[0] == float(texts["1"].get("x", "")) and last[0] == float(texts["3"].get("x", ""))
    zero, hundred = (float(texts[text].get("y", "")) - 4 for text in ("0", "100"))
    assert first[1] == pytest.approx(zero) and last[1] == pytest.approx((zero + hundred) / 2, abs=0.06)
    assert chart.get("aria-label") == "What it shows. Vertical axis: AP in %."


@pytest.mark.parametrize(
    ("most", "expected"),
    [(43.0, ["0", "10", "20", "30", "40", "50"]), (0.0021, ["0", "0.0005", "0.001", "0.0015", "0.002", "0.0025"])],
)
def test_ticks_are_round_numbers_up_to_the_data(most: float, expected: list[str]) -> None:
    chart = parsed(line_chart("", [Line("a", [(0, 0.0), (1, most)], "red")], Axis("x", ticks=(0, 1)), Axis("y", 0)))
    ticks = [text.text for text in chart.iter(f"{SVG}text") if text.get("text-anchor") == "end"]
    assert [str(float(tick or "")) for tick in ticks] == [str(float(tick)) for tick in expected]


def test_a_long_line_is_thinned_and_keeps_its_ends() -> None:
    points = [(float(number), float(number % 7)) for number in range(100_000)]
    svg = line_chart("", [Line("loss", points, "red")], Axis("iteration"), Axis("loss"))
    [places] = points_of(parsed(svg))
    assert len(places) <= 200 and len(svg) < 8000
    assert places[0][0] == 46.0 and places[-1][0] == 422.0


@pytest.mark.parametrize("points", [[], [(1.0, None)], [(5.0, 0.0)], [(1.0, 3.0), (2.0, 3.0)]])
def test_no_value_and_equal_values(points: list[tuple[float, float | None]]) -> None:
    parsed(line_chart("", [Line("a", points, "red")], Axis("x"), Axis("y")))
    parsed(line_chart("", [Line("a", points, "red")], Axis("x", 0.0), Axis("y", 0.0)))


def test_bars_are_as_long_as_their_parts() -> None:
    chart = parsed(bar_chart("", ["a", "b"], [Bar("one", (30, 10)), Bar("two", (0, 20))], ["red", "blue"]))
    bars = [float(bar.get("width", "")) for bar in chart.iter(f"{SVG}rect") if bar.get("height") == "17"]
    assert bars[0] == pytest.approx(3 * bars[1], abs=0.2) and bars[2] == pytest.approx(2 * bars[1], abs=0.2)
    assert parsed(bar_chart("", ["a"], [], ["red"])) is not None


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_are_text(name: str) -> None:
    """Whatever a class is called, the chart is well-formed XML."""
    chart = parsed(line_chart(name, [Line(name, [(1, 1.0), (2, 2.0)], "red")], Axis(name), Axis(name)))
    assert not list(chart.iter(f"{SVG}script"))
    parsed(bar_chart(name, [name], [Bar(name, (1,))], ["red"]))
