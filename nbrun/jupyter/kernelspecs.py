"""Choose the kernelspec for a notebook by ``--kernel``, its metadata or its language; pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Self

from msgspec import Struct

from nbrun.errors import NoSuchKernel
from nbrun.jupyter.http.messages import Fields

NATIVE = "python3"
"""The name of the kernelspec that jupyter_client calls native."""

ALIASES = {"python": NATIVE}
"""Names that jupyter_client, and so a server, replaces, even if a kernelspec of that name exists."""


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """A kernel that can be started; see "Kernel specs" in the documentation of jupyter_client."""

    name: str
    display_name: str
    language: str
    argv: tuple[str, ...] = ()
    interrupt_mode: str = "signal"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def starts_ipykernel(self) -> bool:
        """Return whether the spec starts ipykernel directly, so that a private server can start it in its own way."""
        python = self.argv[0].replace("\\", "/").rpartition("/")[2].lower() if self.argv else ""
        module = self.argv[self.argv.index("-m") + 1 :][:1] if "-m" in self.argv else ()
        return python.startswith(("python", "pypy")) and module in (("ipykernel_launcher",), ("ipykernel",))

    @classmethod
    def read(cls, name: str, fields: Fields) -> Self:
        """Read the server's JSON; missing fields get the specification's defaults."""
        argv, env = fields.raw("argv"), fields.mapping("env")
        return cls(
            name=name,
            display_name=fields.maybe_text("display_name") or name,
            language=fields.maybe_text("language") or "",
            argv=tuple(word for word in argv if isinstance(word, str)) if isinstance(argv, list) else (),
            interrupt_mode=fields.maybe_text("interrupt_mode") or "signal",
            metadata=fields.mapping("metadata"),
            env={key: value for key, value in env.items() if isinstance(value, str)},
        )


class KernelSpecs(Struct, frozen=True):
    """All kernels that a server can start, by name, and the name of its default."""

    default: str
    specs: Mapping[str, KernelSpec]
    where: str = "the server"
    """The owner of the kernels in messages. Users of a private server did not name a server."""

    @classmethod
    def read(cls, fields: Fields, where: str = "the server") -> Self:
        """Read the answer to ``GET api/kernelspecs``; malformed entries are ignored."""
        named = fields.child("kernelspecs")
        specs = {
            name: KernelSpec.read(name, Fields(entry["spec"], named.where))
            for name, entry in fields.mapping("kernelspecs").items()
            if isinstance(entry, dict) and isinstance(entry.get("spec"), dict)
        }
        return cls(fields.maybe_text("default") or "", specs, where)

    def choose(self, wanted: str | None, notebook_metadata: Mapping[str, Any]) -> KernelSpec:
        """Return the kernel for a notebook.

        It is the first of these that is given:

        - `wanted`, the name from ``--kernel``;
        - the kernelspec that the notebook names;
        - the only kernel of the notebook's language, or the default if several kernels have this language;
        - the default.

        Case matters only if two names differ only in case. ``python`` means ``python3``. So the name of the result may
        differ from the requested one.

        Raises :class:`NoSuchKernel` with a list of all kernels. A notebook is never run in a kernel of another
        language.
        """
        kernelspec, language_info = (_mapping(notebook_metadata.get(key)) for key in ("kernelspec", "language_info"))
        if name := wanted or _text(kernelspec.get("name")):
            language = _text(kernelspec.get("language")) or _text(language_info.get("name"))
            return self._named(name, language, by_notebook=not wanted)
        if language := _text(kernelspec.get("language")) or _text(language_info.get("name")):
            speakers = [spec for spec in self.specs.values() if spec.language.casefold() == language.casefold()]
            speakers = [spec for spec in speakers if spec.name == self.default] or speakers
            if len(speakers) == 1:
                return speakers[0]
            count = "several kernels" if speakers else "no kernel"
            raise self._none(
                f"the notebook is written in {language!r}, for which {self.where} has {count}", "-k NAME chooses one"
            )
        if self.default in self.specs:
            return self.specs[self.default]
        if len(self.specs) == 1:
            return next(iter(self.specs.values()))
        raise self._none(f"the notebook names no kernel, and {self.where} has no default", "-k NAME chooses one")

    def _named(self, name: str, language: str, *, by_notebook: bool) -> KernelSpec:
        if (meant := ALIASES.get(name.casefold(), name)) in self.specs:
            return self.specs[meant]
        if name in self.specs:  # an alias whose target is not installed
            return self.specs[name]
        alike = [spec for spec in self.specs.values() if spec.name.casefold() == name.casefold()]
        if len(alike) == 1:
            return alike[0]
        message = f"{self.where} has no kernel {name!r}" + (", which the notebook names" if by_notebook else "")
        near = get_close_matches(name, self.specs, 1)
        other = near[0] if near and not by_notebook else self._other(language)
        advice = f"-k {other} runs it with that one" if other else "-k NAME chooses another one"
        if by_notebook and language.casefold() in ("", "python"):
            raise self._none(
                message,
                f"{advice}; to register the missing one, type in its environment: "
                f"python -m ipykernel install --user --name {name}",
            )
        raise self._none(message, advice)

    def _other(self, language: str) -> str:
        """Return a kernel for a notebook in `language`: the default if it matches, otherwise the first match."""
        fitting = [name for name, spec in self.specs.items() if spec.language.casefold() in (language.casefold(), "")]
        return self.default if self.default in fitting or not language else next(iter(fitting), "")

    def _none(self, message: str, advice: str) -> NoSuchKernel:
        listed = ", ".join(f"{spec.name} ({spec.language or 'no language'})" for spec in self.specs.values())
        return NoSuchKernel(message, hint=f"It has {listed or 'no kernels at all'}. {advice}.")


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
