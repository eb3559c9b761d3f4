"""Load extensions from other packages through entry points.

Group ``nbrun.literals``: the name is that of a kernel or language, the object a :class:`LiteralWriter` or its class. An
extension has precedence over nbrun's own writers. Only the requested entry point is loaded.
"""

from collections.abc import Mapping
from importlib.metadata import entry_points

from nbrun.core.parameters.literals.base import LiteralWriter
from nbrun.core.parameters.literals.registry import writer_for
from nbrun.errors import UsageError

LITERALS = "nbrun.literals"


def literal_writer(kernel: str, language: str) -> LiteralWriter:
    """Return the writer of literals for a kernel; raise :class:`UsageError` if there is none or it is broken."""
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
