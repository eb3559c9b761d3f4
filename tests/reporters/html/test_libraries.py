"""Libraries of charts and widgets in installed packages."""

from pathlib import Path

import pytest

from nbrun.reporters.html import libraries
from nbrun.reporters.html.libraries import LIBRARIES, is_incomplete, is_installed, named_in

ADDRESSES = [
    ("https://cdn.plot.ly/plotly-3.1.0.min.js", "plotly"),
    ("https://cdn.plot.ly/plotly-latest.min.js", "plotly"),
    ("https://cdn.bokeh.org/bokeh/release/bokeh-3.9.2.min.js", "bokeh"),
    ("https://cdn.bokeh.org/bokeh/release/bokeh-gl-3.9.2.min.js", "bokeh-gl"),
    ("https://cdn.bokeh.org/bokeh/dev/bokeh-mathjax-3.0.0rc1.min.js", "bokeh-mathjax"),
    ("https://cdn.jsdelivr.net/npm/vega@6?noext", "vega"),
    ("https://cdn.jsdelivr.net/npm/vega-lite@6.4.1?noext", "vega"),
    ("https://cdn.jsdelivr.net/npm/vega-embed@7?noext", "vega"),
    ("https://cdn.jsdelivr.net/npm/other@7", ""),
    ("https://example.org/plotly.js", ""),
]


@pytest.mark.parametrize(("address", "name"), ADDRESSES)
def test_a_library_is_known_by_its_address(address: str, name: str) -> None:
    assert "".join(library.name for library in named_in([f'"{address}"'])) == name


def test_a_library_is_a_file_of_an_installed_package() -> None:
    assert is_installed("widgets")
    assert "DOMWidgetModel" in LIBRARIES["widgets"].script()


@pytest.mark.parametrize(
    ("text", "incomplete"),
    [
        ("<script>x()</script>", False),
        ('<script src="https://cdn.plot.ly/plotly-3.1.0.min.js"></script>', False),
        ('<script src="https://cdn.bokeh.org/bokeh/release/bokeh-3.9.2.min.js"></script>', True),
        ("<script src='//example.org/x.js'></script>", True),
        ('load("https://cdn.jsdelivr.net/npm/vega@6?noext")', True),
    ],
)
def test_an_output_that_loads_what_is_not_here_is_incomplete(
    text: str, incomplete: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "package_data").mkdir()
    (tmp_path / "package_data" / "plotly.min.js").write_text("plotly")
    monkeypatch.setattr(libraries, "_folder", {"plotly": tmp_path}.get)
    assert is_incomplete(text) is incomplete
