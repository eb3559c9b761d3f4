"""Load extensions from other packages through entry points. Only the requested one is loaded.

Group ``nbrun.literals``: the name is that of a kernel or language, the object a :class:`LiteralWriter` or its class. An
extension has precedence over nbrun's own writers.

Group ``nbrun.engines``: the name is the scheme of the engine's URL, the object a function that takes an
:class:`~nbrun.runner.engine.EngineCall` and returns an :class:`~nbrun.runner.engine.Engine`. nbrun's own engines are
imported by the same names, so that none of their modules is imported without need.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points

from nbrun.core.parameters.literals.base import LiteralWriter
from nbrun.core.planning.destinations import without_credentials
from nbrun.core.planning.option_types import nearest
from nbrun.errors import UsageError
from nbrun.runner.engine import Engine, EngineCall

LITERALS = "nbrun.literals"
ENGINES = "nbrun.engines"
_OWN_ENGINES: Mapping[str, str] = {
    "dask": "nbrun.engines.dask",
    "dask+tls": "nbrun.engines.dask",
    "gateway+http": "nbrun.engines.gateway",
    "gateway+https": "nbrun.engines.gateway",
    "hub+http": "nbrun.engines.hub",
    "hub+https": "nbrun.engines.hub",
}
"""The modules of nbrun's own engines, by scheme. The function is called ``engine``."""
_EXTRAS: Mapping[str, str] = {"dask": "dask", "distributed": "dask"}
"""The extras that install what an engine imports, by module."""


def literal_writer(kernel: str, language: str) -> LiteralWriter:
    """Return the writer of literals for a kernel; raise :class:`UsageError` if there is none or it is broken."""
    from nbrun.core.parameters.literals.registry import writer_for

    return writer_for(kernel, language, _plugins({kernel.casefold(), language.casefold()}))


def _plugins(names: set[str]) -> Mapping[str, LiteralWriter]:
    found = {}
    for point in entry_points(group=LITERALS):
        if point.name.casefold() not in names:
            continue
        try:
            writer = point.load()
            writer = writer() if isinstance(writer, type) else writer
        except Exception as error:
            raise UsageError(f"the plug-in {point.value} ({LITERALS}) cannot be loaded: {error}") from error
        if not isinstance(writer, LiteralWriter):
            raise UsageError(f"the plug-in {point.value} ({LITERALS}) is no LiteralWriter")
        found[point.name.casefold()] = writer
    return found


def make_engine(call: EngineCall) -> Engine:
    """Return the engine for a URL; raise :class:`UsageError` for an unknown scheme or a missing extra."""
    scheme, separator, _ = call.url.partition("://")
    scheme, shown = scheme.lower(), without_credentials(call.url)
    points = {point.name.lower(): point for point in entry_points(group=ENGINES)}
    known = sorted({*_OWN_ENGINES, *points})
    if not separator or scheme not in known:
        listed = f"There are {', '.join(f'{name}://' for name in known) or 'none'}."
        if not separator:
            hint = f"{listed} -k NAME chooses a kernel, and --server URL a server."
            raise UsageError(f"--engine {shown}: not the URL of an engine", hint=hint)
        near = nearest(scheme, known, 1)
        hint = f"Did you mean {near[0]}://? " if near else ""
        raise UsageError(f"--engine {shown}: there is no engine {scheme}://", hint=f"{hint}{listed}")
    try:
        make = import_module(_OWN_ENGINES[scheme]).engine if scheme in _OWN_ENGINES else points[scheme].load()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise UsageError(f"--engine {shown}: its plug-in cannot be loaded: {error}") from error
        hint = f"Install the extra: pip install 'jupyter-nbrun[{_EXTRAS[package]}]'"
        raise UsageError(f"--engine {shown}: {scheme}:// needs {package}", hint=hint) from None
    except Exception as error:
        raise UsageError(f"--engine {shown}: its plug-in cannot be loaded: {error}") from error
    made: Engine = make(call)
    return made
