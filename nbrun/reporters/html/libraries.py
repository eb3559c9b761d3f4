"""Find the JavaScript libraries of charts and widgets in installed Python packages.

Plotly, Bokeh, Altair and ipywidgets draw with scripts that a notebook names by URL. The Python packages contain the
same scripts. A page with scripts gets copies of those that it uses, so that it needs no network. They are looked for in
the Python environment of nbrun.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Library:
    """A library, the addresses that notebooks load it from, and the Python package that contains it.

    ``make`` returns the script from the imported package, where it is no file in it.
    """

    name: str
    package: str
    path: str = ""
    address: str = ""
    make: Callable[[Any], str] | None = None

    def loaded_in(self, text: str) -> bool:
        """Return whether a text names an address of the library."""
        return bool(self.address) and re.search(self.address, text) is not None

    def is_installed(self) -> bool:
        """Return whether the package is there."""
        folder = _folder(self.package)
        return folder is not None and (folder / self.path).exists()

    def script(self) -> str:
        """Return the library's text."""
        return _script(self)


def _vega(package: Any) -> str:
    # What it declares at its top is for it alone.
    return f"(() => {{{package.javascript_bundle()}}})();"


_BOKEH = ("", "-api", "-gl", "-widgets", "-tables", "-mathjax")
LIBRARIES = {
    library.name: library
    for library in (
        Library("plotly", "plotly", "package_data/plotly.min.js", r"https://cdn\.plot\.ly/plotly[\w.-]*\.js"),
        Library("vega", "vl_convert", "", r"https://cdn\.jsdelivr\.net/npm/vega(-lite|-embed)?@[^\"'\s]*", _vega),
        Library("widgets", "widgetsnbextension", "static/extension.js"),
        Library("anywidget", "anywidget", "nbextension/index.js"),
        *(
            Library(
                f"bokeh{part}",
                "bokeh",
                f"server/static/js/bokeh{part}.min.js",
                rf"https://cdn\.bokeh\.org/bokeh/\w+/bokeh{part}-[\d.]+[\w.]*?\.js",
            )
            for part in _BOKEH
        ),
    )
}
_REMOTE = re.compile(r"<script\b[^>]*\bsrc\s*=\s*[\"']?(?:https?:)?//", re.IGNORECASE)


def is_installed(name: str) -> bool:
    """Return whether a library is there."""
    return LIBRARIES[name].is_installed()


def named_in(texts: Iterable[str]) -> Iterator[Library]:
    """Return the libraries whose addresses are in these texts."""
    whole = "\n".join(texts)
    return (library for library in LIBRARIES.values() if library.loaded_in(whole))


def is_incomplete(text: str) -> bool:
    """Return whether an output loads a script that is not on this machine."""
    if any(not library.is_installed() for library in named_in([text])):
        return True
    known = "|".join(library.address for library in LIBRARIES.values() if library.address)
    return _REMOTE.search(re.sub(known, "", text)) is not None


@cache
def _script(library: Library) -> str:
    if library.make is not None:
        return library.make(import_module(library.package))
    folder = _folder(library.package)
    assert folder is not None
    return (folder / library.path).read_text(encoding="utf-8")


@cache
def _folder(package: str) -> Path | None:
    found = find_spec(package)
    places = found.submodule_search_locations if found else None
    return Path(places[0]) if places else None
