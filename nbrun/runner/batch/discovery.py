"""Find the notebooks that paths, folders and patterns name, on this machine or on a server.

A path that does not exist is an error before anything runs. Folders and patterns are searched for notebooks
(``.ipynb``). The search ignores hidden folders (such as ``.ipynb_checkpoints``), virtual environments,
``node_modules``, rescue files and the batch's own output.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from nbrun.core.formats.globs import Patterns, is_glob
from nbrun.errors import NoSuchNotebook, NotFound
from nbrun.jupyter.endpoint import contents_path
from nbrun.runner.job import path_on_server
from nbrun.storage.paths import absolute, hint_for_missing, hint_for_missing_on_server
from nbrun.storage.writable import is_file, is_folder, is_there, require

if TYPE_CHECKING:
    from nbrun.jupyter.contents import Contents, ContentsModel

_FOREIGN = ("node_modules", "__pycache__", "site-packages")
_SUFFIX = ".ipynb"


@dataclass(frozen=True, slots=True)
class FoundNotebook:
    """A notebook: ``name`` is its path for the user, ``tree`` its path for output templates.

    ``tree`` has ``/`` between segments and no ``..``. A notebook that was read from the URL ``origin`` has its text in
    ``content``.
    """

    name: str
    tree: str
    origin: str = ""
    content: bytes | None = None
    version: str = ""


def local_notebooks(named: Sequence[str], exclude: Sequence[str] = (), outputs: str = "") -> list[FoundNotebook]:
    """Return the notebooks on this machine, each once, in the order of the arguments and by path within a folder.

    `exclude` are patterns relative to the current folder. The folder `outputs` is not searched. Raises
    :class:`NoSuchNotebook` for a named path that does not exist.
    """
    here = Path.cwd()
    excluded = Patterns(exclude)
    written = absolute(outputs) if outputs else None
    found: dict[Path, FoundNotebook] = {}
    for name in named:
        for path, base in _local(name, written):
            if path not in found:
                inside = path.is_relative_to(here)
                shown = str(path.relative_to(here)) if inside else str(path)
                tree = path.relative_to(here if inside else base).as_posix()
                if not excluded.name(tree):
                    found[path] = FoundNotebook(shown, tree)
    return list(found.values())


def _local(name: str, written: Path | None) -> Iterator[tuple[Path, Path]]:
    """Yield the notebooks that one argument names, each with the folder that was searched."""
    path = absolute(name)
    if is_folder(path):
        yield from ((file, path.parent) for file in _below(path, written))
    elif is_there(path):
        yield path, path.parent
    elif is_glob(name):
        top = absolute(_before_the_glob(name))
        for match in sorted(glob.glob(name, recursive=True)):  # noqa: PTH207  (Path.glob follows other rules)
            file = absolute(match)
            if is_folder(file) and "**" not in name:
                yield from ((inner, top) for inner in _below(file, written))
            elif is_file(file) and _is_wanted(file.name) and not _is_in(file, written):
                yield file, top
    else:
        require(name, path, "there is no such file or folder", hint_for_missing(path))


def _below(folder: Path, written: Path | None) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        here = Path(where)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in _FOREIGN
            and not is_there(here / name / "pyvenv.cfg")
            and here / name != written
        )
        yield from (here / name for name in sorted(files) if _is_wanted(name))


def _is_wanted(name: str) -> bool:
    return name.endswith(_SUFFIX) and not name.startswith(".") and ".rescued-" not in name


def _is_in(path: Path, folder: Path | None) -> bool:
    return folder is not None and path.is_relative_to(folder)


def _before_the_glob(pattern: str) -> str:
    parts = Path(pattern).parts
    plain = next((number for number, part in enumerate(parts) if is_glob(part)), len(parts))
    return str(Path(*parts[:plain])) if plain else "."


async def notebooks_on_server(
    contents: "Contents", named: Sequence[str], exclude: Sequence[str] = (), outputs: str = ""
) -> list[FoundNotebook]:
    """Return the notebooks on a server by the rules of :func:`local_notebooks`, using the contents API."""
    excluded = Patterns(exclude)
    found: dict[str, FoundNotebook] = {}
    for name in named:
        for path in await _on_server(contents, name, contents_path(outputs) if outputs else None):
            if not excluded.name(path):
                found.setdefault(path, FoundNotebook(path, path))
    return list(found.values())


async def _on_server(contents: "Contents", name: str, written: str | None) -> list[str]:
    path = path_on_server(name)
    try:
        model = await contents.get(
            path, content=False
        )  # without a hash, for which servers answer 500 if it is a folder
    except NotFound:
        if not is_glob(name):
            hint = hint_for_missing_on_server(name)
            raise NoSuchNotebook(f"{name}: there is no such notebook or folder on the server", hint=hint) from None
        top = _before_the_glob(path)
        pattern = Patterns.anchored([path])
        try:
            return [
                file for file in await _listed(contents, contents_path(top.strip(".")), written) if pattern.name(file)
            ]
        except NotFound:
            return []
    return await _listed(contents, path, written) if model.type == "directory" else [path]


async def _listed(contents: "Contents", folder: str, written: str | None) -> list[str]:
    found: list[str] = []
    waiting = [folder]
    while waiting:
        entries = sorted(await contents.directory(waiting.pop()), key=lambda entry: entry.path)
        found += [entry.path for entry in entries if entry.type == "notebook" and _is_wanted(entry.name)]
        waiting += [entry.path for entry in entries if _is_followed(entry, written)]
    return sorted(found, key=lambda path: PurePosixPath(path).parts)


def _is_followed(entry: "ContentsModel", written: str | None) -> bool:
    hidden = entry.name.startswith(".") or entry.name in _FOREIGN
    return entry.type == "directory" and not hidden and entry.path != written
