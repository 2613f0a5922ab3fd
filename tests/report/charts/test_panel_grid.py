"""A grid of panels is well-formed SVG with all that it was given,
and the same grid is the same file."""

import xml.etree.ElementTree as ET

import pytest

from dynts_batch.report.charts.panel_grid import Panel, panel_grid

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("num_panels", [1, 4, 28])
def test_every_panel_has_its_name_and_its_own_axes(num_panels: int) -> None:
    """A model of 28 layers had its legend cut off and its colours used three times."""
    points = ((0.0, 0.1), (0.5, 3.0), (1.0, 0.2))
    panels = [Panel(f"layer {n} < 1", points, (0.3,) if n == 2 else ()) for n in range(num_panels)]
    text = panel_grid(panels, title="a & b", x_label="share $")
    root = ET.fromstring(text)
    texts = {element.text for element in root.iter(f"{SVG}text")}
    assert {"a & b", "share $", *(panel.name for panel in panels)} <= texts
    ids = [element.get("id", "") for element in root.iter(f"{SVG}g")]
    assert sum(name.startswith("axes_") for name in ids) == num_panels
    assert float(root.attrib["width"]) <= 720, "it fits a window"
    assert text == panel_grid(panels, title="a & b", x_label="share $")
