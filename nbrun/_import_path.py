"""The order of ``sys.path``: the standard library before folders of the user.

A folder in ``PYTHONPATH`` may contain a ``token.py`` or a ``logging.py``. Python then imports it instead of the
standard library's module. This must not break the command or the private server, so both call
:func:`standard_library_first` before they import anything else. The path of a kernel is not changed.

This module imports only modules that every interpreter has imported at start-up.
"""

import os
import sys


def standard_library_first(*, users_last: bool = False) -> None:
    """Move the standard library to the front of ``sys.path``; with `users_last`, folders of PYTHONPATH to its end."""
    library = os.path.dirname(os.__file__)  # noqa: PTH120 - pathlib imports modules that may be shadowed
    own = [folder for folder in sys.path if folder in (library, library + os.sep + "lib-dynload")]
    users = _folders_of_users() if users_last else []
    others = [folder for folder in sys.path if folder not in own and folder not in users]
    sys.path[:] = [*own, *others, *(folder for folder in sys.path if folder in users and folder not in own)]


def shadows_standard_library() -> bool:
    """Return whether a folder in PYTHONPATH contains a module with the name of one in the standard library."""
    return any(
        name.partition(".")[0] in sys.stdlib_module_names and _is_module(folder, name)
        for folder in _folders_of_users()
        for name in _names_in(folder)
    )


def _folders_of_users() -> list[str]:
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [os.path.abspath(folder) for folder in folders if folder]  # noqa: PTH100


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []


def _is_module(folder: str, name: str) -> bool:
    """Return whether `name` is a module file or a package.

    The standard library precedes a folder without __init__.py.
    """
    return name.endswith((".py", ".pyc", ".so", ".pyd")) or os.path.exists(os.path.join(folder, name, "__init__.py"))  # noqa: PTH110, PTH118
