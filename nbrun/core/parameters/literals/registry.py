"""The table of writers of literals by kernel name and language; a new language is added here."""

from collections.abc import Mapping
from types import MappingProxyType

from nbrun.core.parameters.literals.base import LiteralWriter
from nbrun.core.parameters.literals.scripting import (
    BashWriter,
    JuliaWriter,
    MatlabWriter,
    OctaveWriter,
    PowerShellWriter,
    PythonWriter,
    RWriter,
)
from nbrun.core.parameters.literals.typed import (
    CSharpWriter,
    FSharpWriter,
    GoWriter,
    JavaScriptWriter,
    RustWriter,
    ScalaWriter,
)
from nbrun.errors import UsageError

_WRITERS: Mapping[str, LiteralWriter] = {
    name: writer
    for names, writer in (
        (("python", "ipython", "pysparkkernel"), PythonWriter()),
        (("r", "ir", "sparkrkernel"), RWriter()),
        (("julia",), JuliaWriter()),
        (("scala", "sparkkernel"), ScalaWriter()),
        (("bash",), BashWriter()),
        (("javascript", "typescript", "deno", "tslab", "jslab"), JavaScriptWriter()),
        (("c#", "csharp", ".net-csharp"), CSharpWriter()),
        (("f#", "fsharp", ".net-fsharp"), FSharpWriter()),
        (("powershell", "pwsh", ".net-powershell", ".net-pwsh"), PowerShellWriter()),
        (("matlab",), MatlabWriter()),
        (("octave",), OctaveWriter()),
        (("rust",), RustWriter()),
        (("go",), GoWriter()),
    )
    for name in names
}
NO_PLUGINS: Mapping[str, LiteralWriter] = MappingProxyType({})


def writer_for(kernel: str, language: str, plugins: Mapping[str, LiteralWriter] = NO_PLUGINS) -> LiteralWriter:
    """Return the writer for a kernel, from `plugins` first; raise :class:`UsageError` if there is none."""
    for name in (kernel.casefold(), language.casefold()):
        found = plugins.get(name) or _WRITERS.get(name)
        if found is not None:
            return found
    known = ", ".join(sorted({writer.language for writer in _WRITERS.values()}, key=str.casefold))
    raise UsageError(
        f"nbrun does not know how to write values in the language {language or 'of no name'!r} (kernel {kernel})",
        hint=f"It knows {known}; a package with an entry point in the group nbrun.literals can teach it another.",
    )
