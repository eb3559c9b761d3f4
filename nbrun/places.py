"""Where runs on this machine read and write, and which folder their private server is for.

Its one idea: it imports next to nothing, so that the server can be started before anything that takes time is imported.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from nbrun.errors import NoSuchNotebook, NotANotebook, UsageError

Deliver = Callable[[str], None]
"""Takes the text of an executed notebook. May raise OSError."""


def local_notebook(name: str) -> Path:
    """Give a notebook's path; raises :class:`NoSuchNotebook`, or :class:`NotANotebook` for a folder."""
    path = absolute(name)
    if path.is_dir():
        raise NotANotebook(f"{name}: this is a folder", hint="Name the notebook in it.")
    if not path.exists():
        hint = f"nbrun looked in {path.parent}. For a notebook on a server, say --server URL."
        raise NoSuchNotebook(f"{name}: there is no such file", hint=hint)
    if not path.is_file():
        raise NotANotebook(f"{name}: this is no file", hint="A notebook from a pipe is run by itself, and once.")
    return path


def local_folder(name: str | os.PathLike[str]) -> Path:
    """Give the path of a folder to work in; raises :class:`UsageError` where there is none."""
    path = absolute(name)
    if not path.is_dir():
        raise UsageError(f"{name}: there is no such folder to work in")
    return path


def local_output(output: str | os.PathLike[str]) -> Path:
    """Give where a result goes; raises :class:`UsageError` for what is there and is no file."""
    path = absolute(output)
    if path.is_dir():
        raise UsageError(f"{output}: this is a folder", hint="Name the file in it.")
    if path.exists() and not path.is_file():
        raise UsageError(f"{output}: this is no file", hint="--no-save writes no notebook; -o - to standard output.")
    return path


def local_pair(
    notebook: str, output: str | os.PathLike[str] | None, *, is_given: bool, is_delivered: bool
) -> tuple[Path, Path]:
    """Give where a notebook is, or would be where its text is given, and where its result goes, if it is not delivered.

    Raises what :func:`local_notebook` and :func:`local_output` do.
    """
    source = absolute(notebook) if is_given else local_notebook(notebook)
    return source, source if is_delivered else local_output(output or notebook)


def absolute(name: str | os.PathLike[str]) -> Path:
    """Give the path from the root of the disk, without the ``..`` of which a server's paths know nothing."""
    path = Path(name).absolute()
    return path.parent.resolve() / path.name if ".." in path.parts else path


def root_for(pairs: Sequence[tuple[Path, Path]], folders: Sequence[Path] = ()) -> Path:
    """Give the folder that is the server's root: it holds the git root or folder of each notebook, and each output.

    `pairs` are absolute paths of notebooks and outputs, `folders` are to be in it, too. Raises :class:`UsageError`
    where no folder can hold them all.
    """
    around: dict[Path, Path] = {}
    for notebook, _ in pairs:
        if notebook.parent not in around:
            roots = (folder for folder in notebook.parents if (folder / ".git").exists())
            around[notebook.parent] = next(roots, notebook.parent)
    try:
        return Path(os.path.commonpath([*around.values(), *(output.parent for _, output in pairs), *folders]))
    except ValueError:
        raise UsageError(f"{pairs[0][1]}: on another drive than the notebook, or than the folder to work in") from None


def shown(path: Path, here: Path) -> str:
    """Give a path as a person would write it from the folder `here`."""
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
