"""Check parameters against the notebook's declarations, and inject the cell that sets them.

The rules are papermill's. A cell with the tag ``parameters`` declares parameters. The injected cell (tag
``injected-parameters``) is placed directly after it, or first in a notebook without one. It replaces the injected cell
of an earlier run. An undeclared name or a value of another type is an error before the run, because it would have no
effect or fail late.
"""

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from nbrun.core.notebook.document import Cell, Document
from nbrun.core.notebook.tags import INJECTED_TAG, PARAMETERS_TAG, tags_of
from nbrun.core.parameters.declarations import Declaration, declarations_in
from nbrun.core.parameters.limits import check_values, shown_name, shown_value
from nbrun.core.parameters.literals.base import LiteralWriter
from nbrun.errors import UsageError


class Declared(Struct, frozen=True):
    """The parameters that a notebook declares.

    ``index`` is the position of the declaring cell, or None. ``readable`` is false if the cell could not be parsed in
    the notebook's language.
    """

    index: int | None
    parameters: Sequence[Declaration] = ()
    readable: bool = True

    @property
    def names(self) -> set[str]:
        """Return the names of all parameters."""
        return {each.name for each in self.parameters}

    def named(self, name: str) -> Declaration | None:
        """Return the declaration of a name, the last one if there are several."""
        return next((each for each in reversed(self.parameters) if each.name == name), None)


def declared(document: Document, language: str) -> Declared:
    """Return the parameters that a notebook declares in that language."""
    for index, cell in document.code_cells():
        if PARAMETERS_TAG in tags_of(cell):
            found = declarations_in(cell["source"], language)
            return Declared(index, found or (), readable=found is not None)
    return Declared(None)


def checked(
    given: Mapping[str, Any], known: Declared, where: str, *, allow_new: bool
) -> tuple[dict[str, Any], list[str]]:
    """Check parameters against the declarations; return the values to inject, and warnings.

    ISO 8601 text becomes a date if a date is declared. Raises :class:`UsageError` with all errors. Without declarations
    nothing can be checked, which is a warning as in papermill.
    """
    if known.index is None:
        return dict(given), [f"no cell is tagged {PARAMETERS_TAG!r}: the parameters stand at the top, unchecked"]
    if not known.readable:
        return dict(given), ["what the notebook declares in its parameters cell cannot be read; nothing was checked"]
    if allow_new:
        return dict(given), []
    problems, hints, values = [], [], {}
    for name, value in given.items():
        declaration = known.named(name)
        if declaration is None:
            problems.append(f"there is no parameter {shown_name(name)}{_nearest(name, known)}")
            continue
        if declaration.constant:
            problems.append(f"parameter {name!r} is declared with const, so that it cannot be set; let would do")
        values[name] = declaration.type.adapt(value)
        if not declaration.type.accepts(values[name]):
            problems.append(
                f"parameter {name!r} is declared as {declaration.type}, and {shown_value(value)} is {_kind(value)}"
            )
            hints += _hints_for_text(name, value, str(declaration.type)) if isinstance(value, str) else []
            if "str" in str(declaration.type) and isinstance(value, (bool, int, float)):
                hints.append(f"For text say -r {name} VALUE.")
    if problems:
        names = ", ".join(each.name for each in known.parameters) or "no parameters at all"
        hints += [f"It declares {names}. --allow-new lets everything pass."]
        raise UsageError(f"{where}: {'; '.join(problems)}", hint=" ".join(hints))
    return values, []


def set_parameters(
    document: Document, given: Mapping[str, Any], writer: LiteralWriter, language: str, where: str, *, allow_new: bool
) -> tuple[dict[str, Any], list[str]]:
    """Check and inject parameters; return the injected values, and warnings.

    Raises :class:`UsageError` without a change to the notebook.
    """
    check_values(given, where)
    known = declared(document, language)
    values, warnings = checked(given, known, where, allow_new=allow_new)
    try:
        inject(document, values, writer, known)
    except UsageError as error:
        raise UsageError(f"{where}: {error}", hint=error.hint) from None
    return values, warnings


def inject(document: Document, parameters: Mapping[str, Any], writer: LiteralWriter, known: Declared) -> int:
    """Insert a cell that sets `parameters` and return its index; raise :class:`UsageError`."""
    source = writer.cell(parameters, declared=known.names)
    old = [index for index, cell in enumerate(document.cells) if INJECTED_TAG in tags_of(cell)]
    cell: Cell = {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {"tags": [INJECTED_TAG]},
        "outputs": [],
        "source": source,
    }
    if document.has_ids:
        kept = document.cells[old[0]]["id"] if old else None
        cell["id"] = kept or _new_id({each["id"] for each in document.cells})
    if old:
        document.cells[old[0]] = cell
        for index in reversed(old[1:]):  # a remaining one would set its old values
            del document.cells[index]
        return old[0]
    declaring = [index for index, each in document.code_cells() if PARAMETERS_TAG in tags_of(each)]
    place = declaring[0] + 1 if declaring else 0
    document.cells.insert(place, cell)
    return place


def _nearest(name: str, known: Declared) -> str:
    near = difflib.get_close_matches(name, [each.name for each in known.parameters], n=3, cutoff=0.5)
    by_case = {each.name.casefold(): each.name for each in known.parameters}
    near = near or [by_case[alike] for alike in (name.casefold(),) if alike in by_case]
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""


def _hints_for_text(name: str, text: str, declared_type: str) -> list[str]:
    """Return what to type instead of ``-p NAME TEXT`` if the text looks like another value."""
    shown = text.strip() if len(text) < 60 else "VALUE"
    if text.lstrip().startswith(("[", "{")):
        return [f"For a list or a mapping say -y '{name}: {shown}'."]
    if "bool" in declared_type and text.casefold() in ("true", "yes", "on", "1"):
        return [f"Say -p {name} True."]
    if "bool" in declared_type and text.casefold() in ("false", "no", "off", "0"):
        return [f"Say -p {name} False."]
    if text.casefold() in ("null", "none", ""):
        return [f"Say -p {name} None."] if "None" in declared_type or "Optional" in declared_type else []
    return []


def _kind(value: Any) -> str:
    match value:
        case None:
            return "None"
        case bool():
            return "a truth value"
        case int():
            return "an integer"
        case float():
            return "a floating-point number"
        case str():
            return "text"
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return f"a {type(value).__name__}"


def _new_id(taken: set[str]) -> str:
    """Return an id that is always the same for the first injected cell of the same notebook."""
    seed = INJECTED_TAG
    while (made := hashlib.sha256(seed.encode()).hexdigest()[:8]) in taken:
        seed += "'"
    return made
