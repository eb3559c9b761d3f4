"""The base class of all writers of literals, one for each language of kernels.

A *literal* is the source code of a value. A writer never changes a value. A value that the language cannot represent is
an error: for example an integer that R's doubles cannot hold, or a NUL character in a string of Bash.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import Any

from nbrun.core.parameters.limits import shown_name
from nbrun.errors import UsageError

PLAIN_INTEGERS = 2**53
"""Up to here every integer is a double."""


class NoLiteral(UsageError):
    """A value that the language has no literal for."""


class LiteralWriter(ABC):
    """Writes values as a language's literals, and assignments of them; subclass it for another language.

    What a language must say for itself is how it writes text, lists and mappings: a writer that lacks one of them
    cannot be made.

    Values are what YAML, TOML and JSON know: None, bool, int, float, str, date, time, datetime, lists and mappings.
    Keys of mappings are written as text, whatever they were.
    """

    language = ""
    """The language's name, for messages."""
    comment_sign = "#"
    name_pattern = r"[^\W\d]\w*"
    """What a name of a variable looks like."""
    reserved: Container[str] = frozenset()
    """Names that look like a variable's and cannot be assigned, as :meth:`variable` returns them."""
    sometimes_reserved: Container[str] = frozenset()
    """The same, where only some of the language's kernels refuse them: the notebook may show that its own does not."""
    none = "null"
    true, false = "true", "false"
    nan, infinity, minus_infinity = "NaN", "Infinity", "-Infinity"
    date_import = ""
    """A line that must stand before the first date."""

    def cell(self, parameters: Mapping[str, Any], comment: str = "Parameters", *, declared: Container[str] = ()) -> str:
        """Return the source of a cell that assigns `parameters`, headed by a comment, without a newline at its end.

        Those that are `declared` the notebook has assigned before. Raises :class:`UsageError` for a name that is none.
        """
        lines = [self.comment(comment)] if comment else []
        if self.date_import and _holds_date(parameters):
            lines.append(self.date_import)
        variables: dict[str, str] = {}
        for name, value in parameters.items():
            self.check_name(name, known=name in declared)
            variable = self.variable(name)
            if variable in variables:
                both = f"{shown_name(variables[variable])} and {shown_name(name)}"
                raise UsageError(
                    f"parameters {both} are the same variable in {self.language}", hint="Give one of them."
                )
            variables[variable] = name
            try:
                lines.append(self.reassign(name, value) if name in declared else self.assign(name, value))
            except NoLiteral as error:
                raise NoLiteral(f"parameter {name}: {error}", hint=error.hint) from None
        return "\n".join(lines)

    def variable(self, name: str) -> str:
        """Return the variable that a parameter's name stands for; equal ones are the same variable."""
        return name

    def check_name(self, name: str, *, known: bool) -> None:
        """Raise :class:`UsageError` for a name that no variable can have; a `known` one the notebook assigns itself."""
        if not self.is_name(name):
            raise UsageError(
                f"parameter {shown_name(name)}: this is no name of a variable in {self.language}",
                hint="A name has letters, digits and _, and begins with no digit.",
            )
        if self.variable(name) in self.reserved or (not known and name in self.sometimes_reserved):
            raise UsageError(
                f"parameter {shown_name(name)}: {self.language} reserves this name, so no cell can assign it",
                hint=f"Use another name, such as {self.variable(name).strip('_')}_value.",
            )

    def is_name(self, name: str) -> bool:
        """Return whether `name` looks like a variable's."""
        # \w also matches superscripts and the like, which no language has in names.
        return bool(re.fullmatch(self.name_pattern, name)) and re.sub(r"[$.]", "_", name).isidentifier()

    def comment(self, text: str) -> str:
        """Return a line that is a comment."""
        return f"{self.comment_sign} {text}"

    def assign(self, name: str, value: Any) -> str:
        """Return a statement that makes `name` mean `value`."""
        return f"{name} = {self.literal(value)}"

    def reassign(self, name: str, value: Any) -> str:
        """Return a statement that makes a `name` which means something already mean `value`."""
        return self.assign(name, value)

    def literal(self, value: Any) -> str:  # noqa: PLR0911  (one return for each kind of value)
        """Return `value` as a literal; raises :class:`NoLiteral`."""
        match value:
            case None:
                return self.none
            case bool():
                return self.true if value else self.false
            case int():
                return self.integer(int(value))
            case float():
                return self.real(float(value))
            case str():
                return self.text(_encodable(str(value)))
            case datetime():
                return self.moment(value)
            case date():
                return self.day(value)
            case time():
                return self.time_of_day(value)
            case Mapping():
                keyed = {_encodable(key_text(key)): item for key, item in value.items()}
                if len(keyed) < len(value):
                    raise NoLiteral(
                        "a mapping has two keys that are the same as text, such as 1 and '1'",
                        hint="Rename one of them.",
                    )
                return self.mapping(keyed)
            case list() | tuple():
                return self.sequence(value)
            case _:
                raise NoLiteral(
                    f"a value of type {type(value).__name__} cannot be written into a notebook",
                    hint="Give None, True or False, a number, text, a date, a list or a mapping.",
                )

    def integer(self, value: int) -> str:
        """Return an integer."""
        return str(value)

    def real(self, value: float) -> str:
        """Return a floating-point number."""
        if value != value:
            return self.nan
        if value in (float("inf"), float("-inf")):
            return self.infinity if value > 0 else self.minus_infinity
        return self.finite(value)

    def finite(self, value: float) -> str:
        """Return a floating-point number that is neither NaN nor infinite."""
        return repr(value)

    @abstractmethod
    def text(self, value: str) -> str:
        """Return text."""

    def day(self, value: date) -> str:
        """Return a day; as ISO 8601 text where a language has nothing of its own for it."""
        return self.text(value.isoformat())

    def moment(self, value: datetime) -> str:
        """Return a point in time, with the offset from UTC where it has one."""
        return self.text(value.isoformat())

    def time_of_day(self, value: time) -> str:
        """Return a time of day."""
        return self.text(value.isoformat())

    @abstractmethod
    def sequence(self, values: Sequence[Any]) -> str:
        """Return a list."""

    @abstractmethod
    def mapping(self, values: Mapping[str, Any]) -> str:
        """Return a mapping from text to values."""

    def listed(self, values: Iterable[Any], separator: str = ", ") -> str:
        """Return literals one after the other."""
        return separator.join(self.literal(value) for value in values)

    def refuse(self, what: str, hint: str = "Give it as text, with -r NAME VALUE.") -> NoLiteral:
        """Return the error that says what the language has no literal for."""
        return NoLiteral(f"{self.language} has no {what}", hint=hint)


def key_text(key: Any) -> str:
    """Return a mapping's key as text, as papermill does."""
    return key if isinstance(key, str) else str(key)


def recordable(value: Any) -> Any:
    """Return a value as JSON can record it: dates as ISO 8601 text, NaN and the infinities by their names."""
    if isinstance(value, Mapping):
        return {key_text(key): recordable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [recordable(item) for item in value]
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, float) and value - value != 0:
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return value


def escaped(value: str, table: Mapping[str, str], code: Callable[[str], str]) -> str:
    """Return text with the characters in `table` replaced, and those that cannot be seen written by `code`."""
    return "".join(table.get(each) or (each if each.isprintable() else code(each)) for each in value)


def utf16_units(character: str) -> str:
    r"""Return a character as ``\uXXXX``, two of them beyond the basic plane: what Java and its likes read."""
    data = character.encode("utf-16-be")
    return "".join(f"\\u{data[place]:02x}{data[place + 1]:02x}" for place in range(0, len(data), 2))


def long_code(character: str) -> str:
    r"""Return a character as ``\UXXXXXXXX``."""
    return f"\\U{ord(character):08x}"


def with_point(value: float) -> str:
    """Return a finite number that no reader takes for an integer: ``1e16`` as ``1.0e16``."""
    written = repr(value)
    return written if "." in written else written.replace("e", ".0e")


def in_utc(value: datetime) -> datetime:
    """Return a point in time in UTC; one that knows no offset stays as it is."""
    return value if value.tzinfo is None else value.astimezone(UTC)


def of_one_kind(values: Iterable[Any]) -> bool:
    """Return whether all values are scalars of the same type, so that a typed list can hold them as they are."""
    kinds = {type(value) for value in values}
    return len(kinds) <= 1 and not kinds & {list, tuple, dict, type(None)}


def _encodable(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        shown = f"U+{ord(value[error.start]):04X}"
        raise NoLiteral(
            f"the text has half a surrogate pair ({shown}) in it, which is no character and cannot be saved"
        ) from None
    return value


def _holds_date(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_date, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_holds_date, value))
    return isinstance(value, (date, time))
