"""A chart as a file of its own: both themes in one, and text that can be read.

DYNTS_SCREENSHOTS=folder keeps what the browser showed.
"""

import os
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import chromium
import numpy as np
import pytest

from dynts_batch.report.charts.document import themes
from dynts_batch.report.charts.ladder_chart import Bet, ladder_chart
from dynts_batch.report.charts.line_chart import Level, Series, line_chart
from dynts_batch.report.charts.panel_grid import Panel, panel_grid

SVG = "{http://www.w3.org/2000/svg}"
POINTS = ((5.0, 0.1), (10.0, 0.4), (50.0, 0.9))


def lines(num: int) -> str:
    """`num` lines whose ends are near each other, with long names."""
    return line_chart(
        [
            Series(
                f"policy_{n}" + "+protect_prompt=false" * (n % 2) + "+quantize=int4" * (n % 3 == 0),
                tuple((x, y - 0.001 * n) for x, y in POINTS),
                tuple((y - 0.05, y + 0.05) for _, y in POINTS),
            )
            for n in range(num)
        ],
        title="Right answers by KV memory",
        note="200 questions; bars: 95% intervals of the paired difference to the full cache",
        x_label="peak KV memory of a sequence, % of the full cache's",
        level=Level("full: 91.0%", 0.91),
        is_log_x=True,
        is_share=True,
    )


def ladder() -> str:
    bets = [
        Bet(f"dynts at {n}", 10.0 * n, 0.1 * n, (0.0, 1.0), np.full(9, 0.1), n > 2)
        for n in range(1, 6)
    ]
    return ladder_chart(bets, most_loss=2.0, delta=0.05, title="At most 2 points lost")


def grid() -> str:
    panels = [Panel(f"layer {n}: 12%", POINTS, (7.0,) if n == 2 else ()) for n in range(28)]
    return panel_grid(panels, title="Density of sparsity\nnone is chosen", x_label="share")


CHARTS = {"few": lines(3), "many": lines(20), "ladder": ladder(), "grid": grid()}


@pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS)
def test_every_colour_of_the_drawing_has_one_of_the_dark_theme(chart: str) -> None:
    light, dark = themes()
    style, _, drawing = chart.partition("</style>")
    used = set(re.findall(r"(fill|stroke): (#\w{6})", drawing))
    assert len(used) >= 4
    for what, colour in used:
        names = [name for name, known in light.items() if known == colour]
        rules = re.findall(rf'"{what}: {colour}"\] {{ {what}: (#\w{{6}}) !important; }}', style)
        assert rules
        assert rules[0] in [dark[name] for name in names]
    assert "var(" not in chart  # viewers beside browsers know none
    assert "#000000" not in chart


@pytest.mark.parametrize("chart", CHARTS.values(), ids=CHARTS)
def test_text_is_large_enough_at_full_width(chart: str) -> None:
    root = ET.fromstring(chart)
    scale = float(root.attrib["width"]) / float(root.attrib["viewBox"].split()[2])
    sizes = [re.findall(r"([\d.]+)px", e.get("style", ""))[0] for e in root.iter(f"{SVG}text")]
    assert len(sizes) > 5
    assert min(map(float, sizes)) * scale >= 11.0


TEXTS = """
[...document.querySelectorAll("text")].map((text) => {
  const {left, right, top, bottom} = text.getBoundingClientRect();
  return {text: text.textContent, left, right, top, bottom};
})
"""


@pytest.mark.skipif(chromium.PATH is None, reason="no browser is installed")
@pytest.mark.parametrize("name", CHARTS)
def test_in_a_browser_no_text_is_cut_or_lies_on_another(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.svg"
    path.write_text(CHARTS[name])
    root = ET.fromstring(CHARTS[name])
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    with chromium.open_page(path) as page:
        page.emulate(width=int(width), height=int(height), dark=True)
        texts = page.evaluate(TEXTS)
        background = page.evaluate("getComputedStyle(document.querySelector('rect')).fill")
        if (folder := os.environ.get("DYNTS_SCREENSHOTS")) is not None:
            page.screenshot(Path(folder) / f"{name}.png")
    assert len(texts) > 5
    assert background == "rgb(28, 32, 36)"
    for i, a in enumerate(texts):
        assert a["left"] >= 0
        assert a["top"] >= 0
        assert a["right"] <= width
        assert a["bottom"] <= height, a
        for b in texts[:i]:
            beside = min(a["right"], b["right"]) - max(a["left"], b["left"])
            below = min(a["bottom"], b["bottom"]) - max(a["top"], b["top"])
            # Boxes hold room for accents, so lines of one text touch a little.
            assert beside <= 1 or below <= 4, (a, b)
