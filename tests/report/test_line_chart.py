"""A chart is well-formed SVG that shows every point where it belongs."""

import xml.etree.ElementTree as ET

import pytest

from dynts_batch.report.line_chart import Series, line_chart

SVG = "{http://www.w3.org/2000/svg}"


def chart(*series: Series) -> ET.Element:
    return ET.fromstring(line_chart(series, title="a < b", x_label="x", y_label="y"))


def test_points_keep_their_order_on_both_axes_and_lie_inside() -> None:
    points = ((10.0, 0.2), (20.0, 0.9), (40.0, 0.5))
    root = chart(Series("dynts & co", points, ((0.1, 0.3), None, (0.4, 0.6))))
    dots = [(float(c.get("cx")), float(c.get("cy"))) for c in root.iter(f"{SVG}circle")]
    xs, ys = zip(*dots, strict=True)
    assert list(xs) == sorted(xs)
    assert ys[1] < ys[2] < ys[0], "higher values are higher up"
    assert all(0 < x < 720 for x in xs)
    assert all(0 < y < 440 for y in ys)
    assert (xs[2] - xs[1]) == pytest.approx(2 * (xs[1] - xs[0]), abs=0.2)
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert {"a < b", "dynts & co", "x", "y"} <= texts


@pytest.mark.parametrize("points", [(), ((1.0, 0.5),), ((1.0, 0.0), (1.0, 0.0))])
def test_little_or_nothing_to_draw_is_a_chart_too(points: tuple[tuple[float, float], ...]) -> None:
    assert len(list(chart(Series("a", points)).iter(f"{SVG}circle"))) == len(points)
