"""Keep the libraries below nbrun from building, at import, what hardly any run uses.

Its one idea: importing :mod:`nbformat` or :mod:`jupyter_events` imports :mod:`jsonschema`, which imports every format
checker that happens to be installed. One of them, ``rfc3987_syntax``, compiles a grammar for international URIs while
it is imported; that takes more than a second, and no notebook schema asks for it. Another, ``isoduration``, imports
``arrow``, which it needs only to read a duration. Both are put off until somebody really asks; the answers are the
same ones.

Import this module before :mod:`nbformat` and before :mod:`jupyter_server`. It is the one place of its kind, acts when
it is imported, and imports the standard library only.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader, find_spec, module_from_spec
from types import ModuleType

_GRAMMAR = "rfc3987_syntax"
_GRAMMAR_BODY = "rfc3987_syntax.syntax_helpers"


class _LazyArrow:
    """Find ``arrow`` as always, but let it be executed only when one of its names is used."""

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != "arrow":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def put_off_grammar() -> None:
    """Let ``rfc3987_syntax`` be imported without its grammar, which is then built at its first use.

    `LazyLoader` is no help here, because :mod:`jsonschema` takes a function out of the package at once. So the package
    is put in place without being executed (all it does is import the names of its one slow module) and its names are
    looked up there when they are used. Does nothing when the package is absent or already imported.
    """
    if _GRAMMAR in sys.modules or (spec := find_spec(_GRAMMAR)) is None:
        return

    def is_valid_syntax(term: str, value: str) -> bool:
        return bool(import_module(_GRAMMAR_BODY).is_valid_syntax(term, value))

    def look_up(name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(import_module(_GRAMMAR_BODY), name)

    package = module_from_spec(spec)
    vars(package).update(is_valid_syntax=is_valid_syntax, __getattr__=look_up)
    sys.modules[_GRAMMAR] = package


put_off_grammar()
if _LazyArrow not in sys.meta_path:
    sys.meta_path.insert(0, _LazyArrow)
