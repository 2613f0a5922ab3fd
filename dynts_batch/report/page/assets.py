"""The files of the page that are no Python: its template, styles and script."""

from importlib.resources import files


def asset(name: str) -> str:
    """The content of a file of this folder."""
    return (files("dynts_batch.report.page") / name).read_text(encoding="utf-8")
