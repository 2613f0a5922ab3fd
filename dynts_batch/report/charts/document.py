"""A chart as its own SVG file, for a README or a slide: light, or dark if its reader prefers that.

A README shows it as an image, to which the page's style sheet does not apply. So the file carries
both themes. The light colours stand in the drawing itself, where every viewer finds them, and a
media query replaces them.
"""

from __future__ import annotations

import re

from dynts_batch.report.page.assets import asset

#: Pixels. Text of 10 points is then as large as that around it, and 0.6 of it on a phone.
_WIDTH = 600
_FONT = "text { font-family: system-ui, 'Segoe UI', Helvetica, Arial, sans-serif !important; }"


def document(chart: str) -> str:
    """`chart`, as canvas.py makes it for the page, as a document. Its own background keeps it
    readable on any page."""
    light, dark = themes()
    used = sorted(set(re.findall(r"var\(--([\w-]+)\)", chart)) | {"card"})
    rules = "".join(_rule(light[name], dark[name]) for name in used)
    for name in used:
        chart = chart.replace(f"var(--{name})", light[name])
    width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', chart)[0])
    start, end, rest = chart.partition(">")
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'{start} width="{_WIDTH}" height="{_WIDTH * height / width:.0f}"{end}\n'
        f"<style>{_FONT}\n@media (prefers-color-scheme: dark) {{\n{rules}}}</style>\n"
        f'<rect width="100%" height="100%" style="fill: {light["card"]}"/>{rest}\n'
    )


def themes() -> tuple[dict[str, str], dict[str, str]]:
    """The colours of the page's light and dark theme by name."""
    light, _, dark = asset("theme.css").partition("@media")
    found = [dict(re.findall(r"--([\w-]+): (#\w{6});", theme)) for theme in (light, dark)]
    return found[0], found[1]


def _rule(light: str, dark: str) -> str:
    return "".join(
        f'  [style*="{what}: {light}"] {{ {what}: {dark} !important; }}\n'
        for what in ("fill", "stroke")
    )
