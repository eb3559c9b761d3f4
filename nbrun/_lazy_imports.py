"""Postponed imports of slow parts of nbformat, jsonschema, httpx and other libraries.

:mod:`nbformat` and :mod:`jupyter_events` import :mod:`jsonschema`, which imports every installed format checker:

- ``rfc3987_syntax`` compiles a grammar for international URIs, which takes more than a second. No notebook schema uses
  it.
- ``rfc3986_validator`` compiles very long regular expressions.
- ``isoduration`` imports ``arrow``, which it needs only to read a duration.

:mod:`httpx` imports its own command line, and with it rich and pygments. It also imports the tables of :mod:`idna`,
which only a host name with other than ASCII characters needs. :mod:`tenacity` imports tornado. All of these are now
imported on first use. Their results stay the same.

Importing this module changes nothing. :func:`put_off_imports` changes the imports of the current process for good. Only
processes that belong to nbrun call it: the command, the private server and the process that renders pages. They call it
before they import one of these libraries or :mod:`jupyter_server`. In the process of a caller of :func:`nbrun.run`,
:func:`grammars_put_off` does the same for one import and then reverts every change.
"""

import contextlib
import sys
from _thread import RLock  # as importlib itself does: threading is for those who start threads
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType

_GRAMMAR = "rfc3987_syntax"
_GRAMMAR_BODY = "rfc3987_syntax.syntax_helpers"
_EXPRESSIONS = "rfc3986_validator"
_COMMAND_LINE = "httpx._main"
_TORNADO = "tenacity.tornadoweb"
_LAZY = {"arrow", "idna", "websocket"}


_EXECUTING = RLock()
_EXECUTE = "__nbrun_execute__"


class _LazyModule(ModuleType):
    """A module that is executed when one of its names is first used. Other threads wait meanwhile."""

    def __getattribute__(self, name: str) -> object:
        if name != "__spec__":
            with _EXECUTING:
                execute = object.__getattribute__(self, "__dict__").pop(_EXECUTE, None)
                if execute is not None:
                    execute()  # the executing code uses the module's names, so they work normally from here on
                    self.__class__ = ModuleType  # type: ignore[assignment]
        return ModuleType.__getattribute__(self, name)


class _LazyLoader:
    """Loads a module without executing it.

    The standard library's `LazyLoader`, up to Python 3.11.8 and 3.12.2, returns an incomplete module to a second thread
    while the first one executes it.
    """

    def __init__(self, spec: ModuleSpec) -> None:
        assert spec.loader is not None
        self._loader = spec.loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as usual."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Postpone the execution of the module."""
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        vars(module)[_EXECUTE] = lambda: self._loader.exec_module(module)
        module.__class__ = _LazyModule


class _LazyModules:
    """Finds some modules as usual, but executes them only when one of their names is used."""

    @staticmethod
    def find_spec(fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in _LAZY:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _LazyLoader(spec)  # type: ignore[assignment]
        return spec


def put_off_grammar() -> None:
    """Import ``rfc3987_syntax`` without its grammar, which is built at its first use.

    Lazy loading does not help here, because :mod:`jsonschema` reads a function of the package at import. So the package
    is created without being executed. All that it does is to import the names of its slow module; these are now looked
    up there on use. Does nothing if the package is not installed or already imported.
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


def put_off(name: str, function: str) -> None:
    """Replace a module by a stand-in that imports the real one when its `function` or another name is used."""
    if name in sys.modules:
        return

    def call(*args: object, **kwargs: object) -> object:
        return getattr(real(), function)(*args, **kwargs)

    real = replace({name: {function: call}})[name]


def replace(modules: Mapping[str, Mapping[str, object]]) -> dict[str, Callable[[], ModuleType]]:
    """Replace modules by stand-ins with the given contents; any other name of one imports the real modules instead.

    Return the functions that do so, by name.
    """
    stand_ins = {name: ModuleType(name) for name in modules}

    def real(name: str) -> ModuleType:
        for other, stand_in in stand_ins.items():
            if sys.modules.get(other) is stand_in:
                del sys.modules[other]
        return import_module(name)

    def look_up(name: str, wanted: str) -> object:
        if wanted.startswith("__"):
            raise AttributeError(wanted)
        return getattr(real(name), wanted)

    for name, stand_in in stand_ins.items():
        vars(stand_in).update(modules[name], __path__=[], __getattr__=partial(look_up, name))
    sys.modules.update(stand_ins)
    return {name: partial(real, name) for name in modules}


def put_off_imports() -> None:
    """Postpone slow imports in this process for good; only for processes that belong to nbrun."""
    _put_off_formats()
    if "httpx" not in sys.modules:
        put_off(_COMMAND_LINE, "main")
    if "tenacity" not in sys.modules:
        put_off(_TORNADO, "TornadoRetrying")
    if _LazyModules not in sys.meta_path:
        sys.meta_path.insert(0, _LazyModules)


@contextlib.contextmanager
def grammars_put_off() -> Iterator[None]:
    """Postpone the grammars and expressions of formats during the imports in the block, then remove all stand-ins."""
    absent = [name for name in (_GRAMMAR, _EXPRESSIONS) if name not in sys.modules]
    _put_off_formats()
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)


def _put_off_formats() -> None:
    put_off_grammar()
    if _EXPRESSIONS not in sys.modules and find_spec(_EXPRESSIONS) is not None:
        put_off(_EXPRESSIONS, "validate_rfc3986")
