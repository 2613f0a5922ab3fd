"""Laws of the page: one whole file, every section there,
and nothing of a run's text becomes markup or script."""

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_runs import ERROR_ROW, HOSTILE, ROW, evil_rows, write_run

from dynts_batch.report.charts.picture import render_picture
from dynts_batch.report.measures import measure
from dynts_batch.report.page.page import render_page
from dynts_batch.report.run_rows import read_run

#: Every tag of the page; charts add those of SVG.
TAGS = {
    *("html", "head", "meta", "link", "title", "style", "script", "body", "header", "main",
      "section", "footer"),
    *("p", "h1", "h2", "h3", "nav", "a", "i", "b", "div", "span", "figure", "figcaption", "button",
      "details", "summary"),
    *("table", "thead", "tbody", "tr", "th", "td", "label", "input", "output", "pre"),
    *("svg", "defs", "g", "path", "use", "text", "tspan", "clippath", "rect"),
}  # fmt: skip


class Outline(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open.append(tag)
        self.attributes |= {name for name, _ in attributes}
        self.links += [v for name, v in attributes if name in ("href", "src", "xlink:href")]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append(data)


def _page(*paths: str) -> str:
    return render_page(measure([read_run(path) for path in paths]))


@pytest.fixture(scope="module")
def evil_page(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("evil")
    name = "<b>$x^2$ & 'r'"
    paths = [write_run(folder / f"{name}{i}", evil_rows()) for i in range(2)]
    return _page(*paths)


def test_nothing_of_a_run_becomes_a_tag_an_attribute_or_a_link(evil_page):
    outline = Outline(evil_page)
    assert set(outline.tags) <= TAGS
    assert outline.tags.count("script") == 1
    assert outline.tags.count("style") == 1 + outline.tags.count(
        "svg"
    )  # matplotlib's own, in each chart
    assert not [name for name in outline.attributes if name.startswith("on")]
    assert all(link.startswith(("#", "data:,")) for link in outline.links)


def test_hostile_text_is_shown_as_it_is(evil_page):
    text = "".join(Outline(evil_page).words)
    for piece in HOSTILE:
        if "\x00" not in piece:
            assert piece in text, piece
    assert "50337" not in text  # what a template would make of 7191 * 7


def test_labels_are_drawn_and_not_parsed_as_formulas(evil_page):
    assert "window 30 (&lt;b&gt;$x^2$ &amp; 'r'0)</text>" in evil_page


def test_a_page_is_whole_and_asks_for_nothing(tmp_path):
    page = _page(write_run(tmp_path / "run", [ROW]))
    assert page.lstrip().startswith("<!doctype html>")
    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)=\"https?:", page)
    assert "@import" not in page
    assert "url(http" not in page


def test_ids_are_unique_and_every_reference_has_its_target(tmp_path):
    page = _page(*(write_run(tmp_path / name, [ROW] * 1) for name in "ab"))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:url\(#|xlink:href="#|href="#)([^)"]+)', page))
    assert used <= set(ids)


def test_the_colours_are_the_themes(tmp_path):
    page = _page(write_run(tmp_path / "run", [ROW]))
    assert "#fe0" not in page
    names = set(re.findall(r"var\(--([\w-]+)\)", page))
    light, dark = page.split("prefers-color-scheme: dark")
    for name in names:
        assert f"--{name}:" in light, name
        assert f"--{name}:" in dark, name


@pytest.mark.parametrize("what", ["Errors (1)", "Configuration", "Slowest rows", "Dearest rows"])
def test_every_section_is_there(evil_page, what):
    assert evil_page.count(what) == 2


def test_what_is_unfinished_or_half_regraded_is_said_first(tmp_path):
    path = write_run(tmp_path / "run", [ROW], finished=False)
    (Path(path) / "regrade.json").write_text("{}")
    page = _page(path)
    assert "The run is not finished" in page
    assert "Grading again broke off" in page


def test_a_run_without_anything_to_show_says_why(tmp_path):
    page = _page(write_run(tmp_path / "run", [ERROR_ROW], ()))
    for reason in ("no row was run", "set run.trace_rows", "too short for telemetry", "no prices"):
        assert reason in page


def test_the_picture_is_a_drawing_that_needs_nothing_else(tmp_path):
    runs = measure([read_run(write_run(tmp_path / name, [ROW])) for name in "ab"])
    tree = ElementTree.fromstring(render_picture(runs))
    assert tree.tag == "{http://www.w3.org/2000/svg}svg"
    text = "".join(tree.itertext())
    assert "$0.250, 100.0% right" in text
    assert "prefers-color-scheme: dark" in text


def test_a_bar_that_is_cut_says_so_and_its_label_stands_beside_it(tmp_path):
    """Labels of policies that were hardly ever right stood on their bars, where none could read."""
    paths = []
    for i, (num_right, usd) in enumerate([(20, 0.1), (10, 0.1), (1, 0.5)]):
        rows = [
            {"request_id": f"q{q}", "correct": q < num_right, "cost_usd": usd} for q in range(20)
        ]
        overrides = [f"policy.budget={30 + i}", "cost.usd_per_gpu_hour=2.0"]
        paths.append(write_run(tmp_path / str(i), rows, overrides=overrides))
    picture = render_picture(measure([read_run(path) for path in paths]))
    assert re.findall("→ [^<]*", picture) == ["→ $10.00, 5.0% right"]


def test_a_trace_of_an_older_version_is_shown(tmp_path):
    """Its column had three lists of today's five."""
    trace = {"token_texts": ["a", "b", "c"], "evicted_at": [None, 2, None]}
    path = write_run(
        tmp_path / "r", [ROW | {"token_trace": trace | {"kept_share": [1.0, 0.0, 1.0]}}]
    )
    (shard,) = (tmp_path / "r" / "rows").glob("*.parquet")
    table = pq.read_table(shard)
    column = table["token_trace"].combine_chunks()
    names = ["token_texts", "evicted_at", "kept_share"]
    older = pa.StructArray.from_arrays([column.field(name) for name in names], names)
    place = table.schema.get_field_index("token_trace")
    pq.write_table(table.set_column(place, "token_trace", older), shard)
    page = render_page(measure([read_run(path)]))
    assert "2 of 3 stored at the end" in page
    assert 'data-moments="2"' in page
