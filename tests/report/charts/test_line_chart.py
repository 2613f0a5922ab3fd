"""A chart is well-formed SVG with all that it was given, and the same chart is the same file."""

import xml.etree.ElementTree as ET

import pytest

from dynts_batch.report.charts.line_chart import Series, line_chart

SVG = "{http://www.w3.org/2000/svg}"


def chart(*series: Series) -> str:
    return line_chart(series, title="a < b", x_label="stored $", y_label="right")


def test_every_line_has_its_points_and_every_label_its_text() -> None:
    points = ((10.0, 0.2), (20.0, 0.9), (40.0, 0.5))
    intervals = ((0.1, 0.3), (0.8, 1.0), (0.4, 0.6))
    text = chart(*(Series(f"dynts & {n}", points, intervals) for n in range(12)))
    root = ET.fromstring(text)
    texts = {element.text for element in root.iter(f"{SVG}text")}
    assert {"a < b", "stored $", "right", "dynts & 0", "dynts & 11"} <= texts
    assert len(list(root.iter(f"{SVG}use"))) >= 12 * 3
    assert text == chart(*(Series(f"dynts & {n}", points, intervals) for n in range(12)))


@pytest.mark.parametrize("points", [(), ((1.0, 0.5),)])
def test_little_or_nothing_to_draw_is_a_chart_too(points: tuple[tuple[float, float], ...]) -> None:
    assert ET.fromstring(chart(Series("a", points))).tag == f"{SVG}svg"
