"""A chart is well-formed SVG with all that it was given, and the same chart is the same file."""

import re
import xml.etree.ElementTree as ET

import pytest

from dynts_batch.report.charts.line_chart import (
    MAX_INTERVALS,
    Level,
    Series,
    line_chart,
    style_of,
)

SVG = "{http://www.w3.org/2000/svg}"


def chart(*series: Series, level: Level | None = None, is_share: bool = False) -> str:
    return line_chart(
        series, title="a < b", x_label="stored $", note="right", level=level, is_share=is_share
    )


def texts_of(text: str) -> set[str | None]:
    return {element.text for element in ET.fromstring(text).iter(f"{SVG}text")}


def test_every_line_has_its_points_and_every_label_its_text() -> None:
    points = ((10.0, 0.2), (20.0, 0.9), (40.0, 0.5))
    intervals = ((0.1, 0.3), (0.8, 1.0), (0.4, 0.6))
    text = chart(*(Series(f"dynts & {n}", points, intervals) for n in range(12)))
    root = ET.fromstring(text)
    assert {"a < b", "stored $", "right", "dynts & 0", "dynts & 11"} <= texts_of(text)
    assert len(list(root.iter(f"{SVG}use"))) >= 12 * 3
    assert text == chart(*(Series(f"dynts & {n}", points, intervals) for n in range(12)))


@pytest.mark.parametrize("points", [(), ((1.0, 0.5),)])
def test_little_or_nothing_to_draw_is_a_chart_too(points: tuple[tuple[float, float], ...]) -> None:
    assert ET.fromstring(chart(Series("a", points))).tag == f"{SVG}svg"


def test_no_two_of_72_lines_look_the_same() -> None:
    styles = [style_of(number) for number in range(72)]
    looks = {(s["color"], s["marker"], s["linestyle"]) for s in styles}
    assert len(looks) == 72
    # Black and white print, and eyes that see no colours, have the other two.
    assert len({(s["marker"], s["linestyle"]) for s in styles[:24]}) == 24


def _num_bars(text: str, num_lines: int) -> int:
    bars = re.findall(r'<path d="M ([\d.]+) [\d.]+ \nL \1 [\d.]+ \n" [^>]*stroke-width: 1.1', text)
    return len(bars) // num_lines


def test_intervals_are_drawn_unless_they_would_hide_one_another() -> None:
    few, many = (
        [Series(f"s{n}", ((1.0, 0.5), (2.0, 0.6)), ((0.4, 0.6), (0.5, 0.7))) for n in range(num)]
        for num in (MAX_INTERVALS, MAX_INTERVALS + 1)
    )
    assert _num_bars(chart(*few), len(few)) == 2
    assert _num_bars(chart(*many), len(many)) == 0


def test_lines_with_intervals_stand_beside_each_other_at_the_same_x() -> None:
    series = [Series(f"s{n}", ((1.0, 0.5),), ((0.4, 0.6),)) for n in range(4)]
    places = re.findall(r'<path d="M ([\d.]+) [\d.]+ \nL \1 [^>]*stroke-width: 1.1', chart(*series))
    assert len(set(places)) == 4


def test_no_line_leaves_the_axes_by_standing_aside() -> None:
    name = "policy+with=a_long_option"
    both = ((35.0, 0.5), (50.0, 0.6)), ((0.4, 0.6), (0.5, 0.7))
    text = chart(*(Series(f"{name}{n}", *both) for n in range(8)), level=Level("full", 0.6))
    (ends,) = re.findall(r'<path d="M ([\d.]+) ([\d.]+) \nL ([\d.]+) \2 \n" clip-path="[^"]*"'
                         r' style="[^"]*stroke-dasharray', text)  # fmt: skip
    bars = re.findall(r'<path d="M ([\d.]+) [\d.]+ \nL \1 [^>]*stroke-width: 1.1', text)
    assert len(bars) == 16
    assert float(ends[0]) + 4 < min(map(float, bars)) < max(map(float, bars)) < float(ends[2]) - 4


def test_shares_are_shown_in_percent_over_twenty_points_or_more() -> None:
    close = chart(Series("a", ((1.0, 0.985), (2.0, 0.99))), level=Level("b", 1.0), is_share=True)
    assert {"80%", "85%", "90%", "95%", "100%", "b"} <= texts_of(close)
    middle = texts_of(chart(Series("a", ((1.0, 0.5), (2.0, 0.51))), is_share=True))
    assert {"45%", "50%", "55%"} <= middle
    assert "105%" not in texts_of(close)
