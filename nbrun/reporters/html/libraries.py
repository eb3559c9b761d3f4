"""Find the JavaScript libraries of charts and widgets in installed Python packages.

Plotly, Bokeh, Altair and ipywidgets draw with scripts that a notebook names by URL. The Python packages contain the
same scripts. A page with scripts gets copies of those that it uses, so that it needs no network.

They are looked for in the kernel's Python environment first, because the version there is the one that wrote the
outputs, and then in nbrun's own.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Library:
    """A library, the addresses that notebooks load it from, and the Python package that contains it.

    ``made_by`` is a Python expression that returns the script, where it is no file of the package.
    """

    name: str
    package: str
    path: str = ""
    address: str = ""
    made_by: str = ""

    def loaded_in(self, text: str) -> bool:
        """Return whether a text names an address of the library."""
        return bool(self.address) and re.search(self.address, text) is not None


_BOKEH = ("", "-api", "-gl", "-widgets", "-tables", "-mathjax")
LIBRARIES = {
    library.name: library
    for library in (
        Library("plotly", "plotly", "package_data/plotly.min.js", r"https://cdn\.plot\.ly/plotly[\w.-]*\.js"),
        Library(
            "vega",
            "vl_convert",
            "",
            r"https://cdn\.jsdelivr\.net/npm/vega(-lite|-embed)?@[^\"'\s]*",
            # What the bundle declares at its top is for it alone.
            "'(() => {' + vl_convert.javascript_bundle() + '})();'",
        ),
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
_LIMIT = 30.0
"""Seconds that a Python program has to answer."""
_REMOTE = re.compile(r"<script\b[^>]*\bsrc\s*=\s*[\"']?(?:https?:)?//", re.IGNORECASE)


def named_in(texts: Iterable[str]) -> Iterator[Library]:
    """Return the libraries whose addresses are in these texts."""
    whole = "\n".join(texts)
    return (library for library in LIBRARIES.values() if library.loaded_in(whole))


class Libraries:
    """The libraries of two environments: that of the program `python`, if it is another one, and that of nbrun."""

    def __init__(self, python: str = "") -> None:
        self._python = python
        self._places = [Path(place) for place in _search_path(python)] if python else []

    def is_installed(self, name: str) -> bool:
        """Return whether a library is there."""
        library = LIBRARIES[name]
        folder = self._folder(library.package)
        return folder is not None and (folder / library.path).exists()

    def is_incomplete(self, text: str) -> bool:
        """Return whether an output loads a script that is not on this machine."""
        if any(not self.is_installed(library.name) for library in named_in([text])):
            return True
        known = "|".join(library.address for library in LIBRARIES.values() if library.address)
        return _REMOTE.search(re.sub(known, "", text)) is not None

    def script(self, name: str) -> str:
        """Return the text of a library that is there."""
        library = LIBRARIES[name]
        folder = self._folder(library.package)
        assert folder is not None
        if library.made_by:
            is_own = folder == own_folder(library.package)
            return _made(sys.executable if is_own else self._python, library)
        return _text(folder / library.path)

    def _folder(self, package: str) -> Path | None:
        for place in self._places:
            if (place / package).is_dir():
                return place / package
        return own_folder(package)


@cache
def libraries_of(python: str) -> Libraries:
    """Return the libraries that a kernel run by the program `python` finds, or those of nbrun for ""."""
    return Libraries(python)


def _search_path(python: str) -> list[str]:
    """Return the folders in which a Python program looks for packages; none if it does not start."""
    try:
        places = json.loads(_said(python, "import json, sys; print(json.dumps(sys.path[1:]))"))
        return [place for place in places if place]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []


@cache
def _made(python: str, library: Library) -> str:
    try:
        return _said(python, f"import {library.package}; print({library.made_by})")
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"{library.package} did not return its script: {error}") from None


def _said(python: str, source: str) -> str:
    asked = [python, "-X", "utf8", "-c", source]
    # In a folder without modules of the notebook's author.
    done = subprocess.run(asked, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIMIT, check=True)  # noqa: S603
    return done.stdout.decode()


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def own_folder(package: str) -> Path | None:
    """Return the folder of a package in the environment of nbrun, or None if it is not installed."""
    found = find_spec(package)
    places = found.submodule_search_locations if found else None
    return Path(places[0]) if places else None
