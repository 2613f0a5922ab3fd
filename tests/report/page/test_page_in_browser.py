"""The page in a real browser: no complaint, no request, all of it there,
in both themes and on a phone.

Skips where Chromium is absent. DYNTS_SCREENSHOTS=folder keeps what it looked like.
"""

import os
from pathlib import Path

import chromium
import pytest
from fake_run import make_config
from local_run import finish_run
from report_runs import evil_rows, write_run

from dynts_batch.report.measures import measure
from dynts_batch.report.page.page import render_page
from dynts_batch.report.run_rows import read_run

pytestmark = pytest.mark.skipif(
    chromium.PATH is None, reason=f"no browser: none of {', '.join(chromium.NAMES)} is installed"
)

RUN = {"max_new_tokens": 60, "num_samples": 2, "temperature": 1.0}
SIZES = {
    "light": {"width": 1200},
    "dark": {"width": 1200, "dark": True},
    "phone": {"width": 390, "height": 844, "scale": 2.0},
}
CONTRAST = """
(() => {
  const light = (color) => {
    const parts = color.match(/[\\d.]+/g).map(Number).slice(0, 3);
    const linear = (x) => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = parts.map((x) => linear(x / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const style = getComputedStyle(document.body);
  const [a, b] = [light(style.color), light(style.backgroundColor)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
})()
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A run as the quickstart makes one, three policies compared, and a hostile run."""
    folder = tmp_path_factory.mktemp("pages")
    runs = []
    for policy, budget in (("window", 24), ("dynts", 32), ("full", None)):
        (folder / policy).mkdir()
        config = make_config(
            folder / policy, 30, special={3: ""}, model={"name": "fake:step_s=0.001"}, sampling=RUN,
            policy={"name": policy, "budget": budget, "window_size": 4},
            cost={"usd_per_gpu_hour": 2.0},
            run={"dir": str(folder / policy / "run"), "shard_rows": 8, "trace_rows": 6},
        )  # fmt: skip
        runs.append(finish_run(config).path)
    hostile = write_run(folder / "<img src=x onerror=alert(1)>", evil_rows())
    sets = {"one": runs[:1], "three": runs, "hostile": [hostile]}
    for name, paths in sets.items():
        page = render_page(measure([read_run(path) for path in paths]))
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in sets}


@pytest.mark.parametrize("name", ["one", "three", "hostile"])
def test_it_opens_without_a_complaint_or_a_request(pages, name):
    with chromium.open_page(pages[name]) as page:
        for size in SIZES.values():
            page.emulate(**size)
            page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        assert page.complaints == []
        assert page.requests == [pages[name].as_uri()]
        assert page.evaluate("document.querySelectorAll('script').length") == 1


@pytest.mark.parametrize(("name", "num_charts"), [("one", 4), ("three", 4 + 3 * 4)])
def test_every_figure_is_drawn(pages, name, num_charts):
    with chromium.open_page(pages[name]) as page:
        page.emulate(width=1200)
        sizes = page.evaluate(
            "[...document.querySelectorAll('figure svg')].map((s) =>"
            " s.getBoundingClientRect().height)"
        )
        assert len(sizes) == num_charts
        assert min(sizes) > 100
        titles = page.evaluate(
            "[...document.querySelectorAll('figcaption')].map((f) => f.textContent)"
        )
        assert {"Length of answers", "Eviction timeline", "KV memory over time"} <= set(titles)


@pytest.mark.parametrize("size", SIZES)
def test_it_fits_and_can_be_read_in_every_theme_and_on_a_phone(pages, size):
    with chromium.open_page(pages["three"]) as page:
        page.emulate(**SIZES[size])
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(CONTRAST) > 7
        dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        assert dark == (size == "dark")
        if folder := os.environ.get("DYNTS_SCREENSHOTS"):
            page.screenshot(Path(folder) / f"three-{size}.png")


def test_replaying_a_trace_shows_what_the_cache_held(pages):
    with chromium.open_page(pages["one"]) as page:
        page.emulate(width=1200)
        counts = """
        ((length) => {
          const slider = document.querySelector('.replay input');
          slider.value = length ?? slider.max;
          slider.dispatchEvent(new Event('input'));
          const text = slider.closest('.replay').nextElementSibling;
          const count = (css) => text.querySelectorAll(css).length;
          return [count('.gone'), count('.future'), count('span')];
        })
        """
        gone, future, pieces = page.evaluate(f"{counts}(null)")
        assert gone > 0
        assert future == 0
        gone, future, _ = page.evaluate(f"{counts}(1)")
        assert gone == 0
        assert 0 < future < pieces


def test_a_replay_shows_what_half_of_the_heads_let_go(pages):
    """Policies that choose for each head: a token is held by all, by fewer than half, by none."""
    with chromium.open_page(pages["hostile"]) as page:
        fates = page.evaluate("""
        [1, 2, 3, 4].map((length) => {
          const slider = document.querySelector('.replay input');
          slider.value = length;
          slider.dispatchEvent(new Event('input'));
          const [second] = slider.closest('.replay').nextElementSibling
            .querySelectorAll('span:nth-child(2)');
          return ['future', 'partly', 'gone', 'leaving'].filter((c) => second.className.includes(c))
            .join(' ');
        })
        """)
    assert fates == ["future", "", "partly leaving", "gone leaving"]


def test_keys_step_from_eviction_to_eviction(pages):
    """n and p, wherever in the trace the focus is;
    the ends are the whole text and its first token."""
    with chromium.open_page(pages["one"]) as page:
        page.emulate(width=390)
        press = """
        ((key) => {
          const replay = document.querySelector('.replay');
          const event = new KeyboardEvent('keydown', {key, bubbles: true});
          replay.closest('.trace').querySelector('summary').dispatchEvent(event);
          const leaving = replay.nextElementSibling.querySelectorAll('.leaving').length;
          const moments = replay.dataset.moments.split(' ').map(Number);
          return [Number(replay.querySelector('input').value), leaving, moments];
        })
        """
        length, leaving, moments = page.evaluate(f"{press}('p')")
        assert length == moments[-1]
        assert leaving > 0
        passed = [page.evaluate(f"{press}('p')")[0] for _ in moments]
        assert passed == [*moments[-2::-1], 1]
        assert [page.evaluate(f"{press}('n')")[0] for _ in moments] == moments
        last, leaving, _ = page.evaluate(f"{press}('n')")
        assert last > moments[-1]
        assert leaving == 0
        assert page.complaints == []


def test_evicted_and_kept_tokens_look_different(pages):
    with chromium.open_page(pages["one"]) as page:
        style = (
            "(css) => { const s = getComputedStyle(document.querySelector(css));"
            " return [s.color, s.backgroundColor, s.boxShadow]; }"
        )
        kept = page.evaluate(f"({style})('.text .thinking:not(.gone)')")
        gone = page.evaluate(f"({style})('.text .gone')")
        # Not by colour alone: a kept token is underlined, and nothing strikes out a minus sign.
        assert gone[2] == "none"
        assert all(a != b for a, b in zip(kept, gone, strict=True))
