"""Libraries of charts and widgets in installed packages."""

import sys
from pathlib import Path

import pytest

from nbrun.reporters.html import libraries
from nbrun.reporters.html.libraries import Libraries, named_in

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
    assert Libraries().is_installed("widgets")
    assert "DOMWidgetModel" in Libraries().script("widgets")


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
    monkeypatch.setattr(libraries, "own_folder", {"plotly": tmp_path}.get)
    assert Libraries().is_incomplete(text) is incomplete


def test_libraries_of_the_kernel_s_environment_come_first(tmp_path: Path) -> None:
    (tmp_path / "widgetsnbextension" / "static").mkdir(parents=True)
    (tmp_path / "widgetsnbextension" / "static" / "extension.js").write_text("of the kernel")
    (tmp_path / "vl_convert").mkdir()
    (tmp_path / "vl_convert" / "__init__.py").write_text("def javascript_bundle():\n    return 'made'\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    installed = Libraries(str(python))
    assert installed.script("widgets") == "of the kernel"
    assert installed.script("vega") == "(() => {made})();\n"


def test_a_kernel_that_does_not_start_has_no_libraries_of_its_own() -> None:
    assert Libraries("/no/such/python").script("widgets") == Libraries().script("widgets")
