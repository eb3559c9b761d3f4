"""Writers of literals from other packages."""

from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest

from nbrun.core.parameters.literals.base import LiteralWriter
from nbrun.errors import UsageError
from nbrun.runner import plugins


class Cobol(LiteralWriter):
    """A language that nbrun does not know."""

    language = "COBOL"

    def assign(self, name: str, value: Any) -> str:
        return f"MOVE {value} TO {name}."

    def text(self, value: str) -> str:
        return f'"{value}"'

    def sequence(self, values: Sequence[Any]) -> str:
        raise self.refuse("lists")

    def mapping(self, values: Mapping[str, Any]) -> str:
        raise self.refuse("mappings")


class Half(LiteralWriter):
    """A language of which the writer is not finished."""

    language = "Half"


NOT_A_WRITER = object()


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plug-ins, as if they were installed."""
    here = __name__
    points = [
        EntryPoint("COBOL", f"{here}:Cobol", plugins.LITERALS),
        EntryPoint("broken", "no_such_module:Writer", plugins.LITERALS),
        EntryPoint("half", f"{here}:Half", plugins.LITERALS),
        EntryPoint("wrong", f"{here}:NOT_A_WRITER", plugins.LITERALS),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group: EntryPoints(points))
    monkeypatch.setitem(__import__("sys").modules, here, __import__("sys").modules.get(here, _This()))


class _This:
    """Stands for this module where pytest imported it under no name."""

    Cobol = Cobol
    Half = Half
    NOT_A_WRITER = NOT_A_WRITER


def test_a_plug_in_teaches_a_language() -> None:
    assert plugins.literal_writer("gnucobol", "cobol").cell({"X": 1}, "") == "MOVE 1 TO X."
    assert plugins.literal_writer("python3", "python").language == "Python"


def test_a_broken_plug_in_is_told_of_where_it_is_needed_and_not_elsewhere() -> None:
    with pytest.raises(UsageError, match=r"no_such_module:Writer .* cannot be loaded"):
        plugins.literal_writer("broken", "")
    with pytest.raises(UsageError, match=r"Half .* cannot be loaded: .*abstract.*\btext\b"):
        plugins.literal_writer("half", "")
    with pytest.raises(UsageError, match="is no LiteralWriter"):
        plugins.literal_writer("wrong", "")
