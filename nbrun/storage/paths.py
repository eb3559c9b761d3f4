"""Local paths of notebooks and outputs, and the root folder of the private server.

The module imports very little, so that the server can be started before the slow imports.
"""

import os
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path

from nbrun.core.planning.destinations import (
    GIT_SCHEMES,
    WEB_SCHEMES,
    is_source_url,
    is_store_url,
    scheme_of,
    without_credentials,
)
from nbrun.errors import NotANotebook, UsageError
from nbrun.storage.writable import check_file, check_readable, is_file, is_folder, is_there, require

OWN_PLACE = "Leave out -o to write in place (for several notebooks with --in-place), or name another folder."
BACKUP = ".~"
"""Jupyter Server's prefix for the copy of a file's old content during a write."""
Deliver = Callable[[str], None]
"""Receives the text of an executed notebook. It may raise OSError."""


def local_notebook(name: str) -> Path:
    """Return a notebook's path; raise :class:`NoSuchNotebook`, or :class:`NotANotebook` for a folder."""
    path = absolute(name)
    if is_folder(path):
        raise NotANotebook(f"{name}: this is a folder", hint="Name the notebook in it.")
    if not is_there(path):
        require(name, path, "there is no such file", hint_for_missing(path))
    if not is_file(path):
        raise NotANotebook(f"{name}: this is no file", hint="A notebook from a pipe is run by itself, and once.")
    refuse_other_kinds(name, path)
    return path


_KINDS = {
    ".py": "a Python script", ".r": "an R script", ".jl": "a Julia script", ".md": "Markdown", ".rmd": "R Markdown",
    ".qmd": "a Quarto document", ".txt": "text", ".html": "a web page", ".pdf": "a PDF file", ".yaml": "YAML",
    ".yml": "YAML", ".toml": "TOML", ".csv": "a table",
}  # fmt: skip
"""The usual content of files with suffixes other than ``.ipynb``."""


def refuse_other_kinds(name: str, path: Path) -> None:
    """Raise :class:`NotANotebook` for a file whose suffix and first bytes show that it is not a notebook."""
    kind = _KINDS.get(path.suffix.casefold())
    if kind is None:
        return
    try:
        with path.open("rb") as file:
            is_json = file.read(1000).lstrip().startswith(b"{")
    except OSError:
        return  # reading it later raises the error
    if not is_json:
        raise NotANotebook(f"{name}: this is {kind}, no notebook (.ipynb)", hint=_hint_for_kind(name, path))


def _hint_for_kind(name: str, path: Path) -> str:
    match path.suffix.casefold():
        case ".py" | ".r" | ".jl" | ".md" | ".rmd":
            return f"jupytext makes one of it: jupytext --to ipynb -o - {name} | nbrun run - -o {path.stem}.ipynb"
        case ".qmd":
            return f"quarto makes one of it: quarto convert {name}, then nbrun run {path.stem}.ipynb"
        case ".yaml" | ".yml" | ".toml":
            return f"Parameters in a file are given with -f: nbrun run NOTEBOOK -f {name}"
        case _ if path.with_suffix(".ipynb").is_file():
            return f"Did you mean {path.with_suffix('.ipynb').name}?"
        case _:
            return "nbrun run NOTEBOOK.ipynb runs the notebook that it comes from."


def hint_for_missing(path: Path) -> str:
    """Return the hint for a notebook that does not exist: the nearest name in its folder, or the folder searched."""
    try:
        beside = sorted(each.name for each in path.parent.iterdir() if each.suffix == ".ipynb")
    except OSError:
        beside = []
    whole = f"{path.name}.ipynb"
    near = [whole] if whole in beside else get_close_matches(path.name, beside, 1, 0.7)
    if near:
        return f"Did you mean {near[0]}?"
    return f"nbrun looked in {path.parent}. For a notebook on a server, say --server URL."


def hint_for_missing_on_server(name: str) -> str:
    """Return the hint for a notebook that is not on the server but may be on this machine."""
    try:
        is_here = Path(name).exists() or Path("/", name).exists()  # paths on a server have no leading slash
    except (OSError, ValueError):
        is_here = False
    if is_here:
        return f"{name} is on this machine: --upload runs it on the server and brings the result back."
    return (
        "Paths on a server are relative to its root folder; hidden files do not exist for it. For a file on this "
        "machine, say --upload."
    )


def local_folder(name: str | os.PathLike[str]) -> Path:
    """Return the path of a kernel's working folder; raise :class:`UsageError` if it does not exist."""
    path = absolute(name)
    if not is_folder(path):
        raise UsageError(f"{name}: there is no such folder to work in")
    return path


def local_output(output: str | os.PathLike[str]) -> Path:
    """Return the path of an output; raise :class:`UsageError` if something other than a file is there."""
    path = absolute(output)
    if is_folder(path):
        raise UsageError(f"{output}: this is a folder", hint="Name the file in it.")
    if is_there(path) and not is_file(path):
        raise UsageError(f"{output}: this is no file", hint="--no-save writes no notebook; -o - to standard output.")
    return path


def check_pair(
    notebook: str,
    output: str | os.PathLike[str] | None,
    *,
    is_given: bool,
    is_delivered: bool,
    save: bool = True,
    probed: set[Path] | None = None,
) -> tuple[Path, Path]:
    """Return the paths of :func:`local_pair`; also raise :class:`UsageError` if they cannot be read or written."""
    source, target = local_pair(notebook, output, is_given=is_given, is_delivered=is_delivered)
    if not is_given:
        check_readable(notebook, source)
    if save and not is_delivered:
        in_place = target == source
        hint = "Add -o FILE to write elsewhere, or --no-save." if in_place else ""
        shown = notebook if in_place else output or notebook
        check_file("" if in_place else "-o", shown, hint=hint, prefix=BACKUP, probed=probed)
    return source, target


def names_folder(output: str | os.PathLike[str], *, on_server: bool = False) -> bool:
    """Return whether an output is a folder: it ends with a separator, or is an existing local folder."""
    text = os.fspath(output)
    if on_server or is_store_url(text):
        return text.endswith("/")
    return text.endswith(tuple(filter(None, (os.sep, os.altsep)))) or is_folder(text)


def tree_path(notebook: str) -> str:
    """Return a notebook's path within the tree that an output folder mirrors, with ``/``.

    It is the path relative to the current folder, or only the name if the notebook is not below that folder.
    """
    if is_source_url(notebook):
        return name_in_url(notebook)
    path, here = absolute(notebook), Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else path.name


def name_in_url(url: str) -> str:
    """Return the last segment of a URL, for the name of a file that is made of it."""
    scheme = scheme_of(url)
    if scheme in GIT_SCHEMES:
        return url.partition("#")[2].rpartition("/")[2]
    name = without_credentials(url).rpartition("/")[2]
    if scheme not in WEB_SCHEMES:
        return name
    from urllib.parse import unquote

    return unquote(name)


def output_file(notebook: str, output: str | os.PathLike[str], *, on_server: bool = False) -> str:
    """Return the output file of one notebook: `output` itself, or the notebook's tree path within that folder."""
    text = os.fspath(output)
    if not names_folder(text, on_server=on_server):
        return text
    if on_server:
        return f"{text}{notebook.strip('/')}"
    if is_store_url(text):
        return f"{text}{tree_path(notebook)}"
    path = Path(text, tree_path(notebook))
    if absolute(path) == absolute(notebook):
        raise UsageError(f"-o {text}: the executed notebook would overwrite {notebook}", hint=OWN_PLACE)
    return str(path)


def local_pair(
    notebook: str, output: str | os.PathLike[str] | None, *, is_given: bool, is_delivered: bool
) -> tuple[Path, Path]:
    """Return the paths of a notebook, which may not exist, and of its output, unless it is delivered.

    Raises the errors of :func:`local_notebook` and :func:`local_output`.
    """
    source = absolute(notebook) if is_given else local_notebook(notebook)
    return source, source if is_delivered else local_output(output or notebook)


def absolute(name: str | os.PathLike[str]) -> Path:
    """Return the absolute path without ``..``, which paths on a server cannot contain."""
    path = Path(name).absolute()
    return path.parent.resolve() / path.name if ".." in path.parts else path


def root_for(pairs: Sequence[tuple[Path, Path]], folders: Sequence[Path] = ()) -> Path:
    """Return the root folder for a private server: it contains each notebook's git root or folder, and each output.

    `pairs` are absolute paths of notebooks and outputs. `folders` must be below the root too. Raises
    :class:`UsageError` if no folder contains them all.
    """
    around: dict[Path, Path] = {}
    for notebook, _ in pairs:
        if notebook.parent not in around:
            roots = (folder for folder in notebook.parents if is_there(folder / ".git"))
            around[notebook.parent] = next(roots, notebook.parent)
    try:
        return Path(os.path.commonpath([*around.values(), *(output.parent for _, output in pairs), *folders]))
    except ValueError:
        raise UsageError(f"{pairs[0][1]}: on another drive than the notebook, or than the folder to work in") from None


def shown(path: Path, here: Path) -> str:
    """Return a path relative to the folder `here` if it is below it, or else the path itself."""
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
