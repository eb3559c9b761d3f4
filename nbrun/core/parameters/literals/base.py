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
"""Every integer up to this value is exact as a double."""


class NoLiteral(UsageError):
    """The language has no literal for a value."""


class LiteralWriter(ABC):
    """Writes values as literals of one language, and assignments of them; subclass it for another language.

    A subclass must define how the language writes text, lists and mappings.

    Values are those of YAML, TOML and JSON: None, bool, int, float, str, date, time, datetime, lists and mappings. Keys
    of mappings are written as text.
    """

    language = ""
    """The name of the language, for messages."""
    comment_sign = "#"
    name_pattern = r"[^\W\d]\w*"
    """Regular expression for the names of variables."""
    reserved: Container[str] = frozenset()
    """Names that cannot be assigned, in the form that :meth:`variable` returns."""
    sometimes_reserved: Container[str] = frozenset()
    """Names that only some of the language's kernels refuse. They are allowed if the notebook itself assigns them."""
    none = "null"
    true, false = "true", "false"
    nan, infinity, minus_infinity = "NaN", "Infinity", "-Infinity"
    date_import = ""
    """The line that must precede the first date."""

    def cell(self, parameters: Mapping[str, Any], comment: str = "Parameters", *, declared: Container[str] = ()) -> str:
        """Return the source of a cell that assigns `parameters`, after a comment, without a final newline.

        The notebook itself has assigned the `declared` ones before. Raises :class:`UsageError` for an invalid name.
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
        """Return the variable of a parameter; two parameters with the same one conflict."""
        return name

    def check_name(self, name: str, *, known: bool) -> None:
        """Raise :class:`UsageError` for an invalid or reserved name; `known` means that the notebook assigns it."""
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
        """Return whether `name` has the form of a variable's name."""
        # \w also matches superscripts, which no language allows in names.
        return bool(re.fullmatch(self.name_pattern, name)) and re.sub(r"[$.]", "_", name).isidentifier()

    def environment(self, env: Mapping[str, str]) -> str:
        """Return statements that set environment variables of the kernel's process; raise :class:`NoLiteral`."""
        return "\n".join(self.set_variable(self.text(name), self.text(value)) for name, value in env.items())

    def set_variable(self, name: str, value: str) -> str:  # noqa: ARG002  (for subclasses)
        """Return a statement that sets the environment variable with these literals of its name and its value."""
        raise NoLiteral(
            f"nbrun does not know how {self.language} sets environment variables",
            hint="Set them in the kernelspec or where the server is started, or run without --server.",
        )

    def comment(self, text: str) -> str:
        """Return `text` as a comment line."""
        return f"{self.comment_sign} {text}"

    def assign(self, name: str, value: Any) -> str:
        """Return a statement that assigns `value` to `name`."""
        return f"{name} = {self.literal(value)}"

    def reassign(self, name: str, value: Any) -> str:
        """Return a statement that assigns `value` to an existing variable `name`."""
        return self.assign(name, value)

    def literal(self, value: Any) -> str:  # noqa: PLR0911  (one return for each kind of value)
        """Return `value` as a literal; raise :class:`NoLiteral`."""
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
        """Return the literal of an integer."""
        return str(value)

    def real(self, value: float) -> str:
        """Return the literal of a floating-point number."""
        if value != value:
            return self.nan
        if value in (float("inf"), float("-inf")):
            return self.infinity if value > 0 else self.minus_infinity
        return self.finite(value)

    def finite(self, value: float) -> str:
        """Return the literal of a floating-point number other than NaN and infinities."""
        return repr(value)

    @abstractmethod
    def text(self, value: str) -> str:
        """Return the literal of a string."""

    def day(self, value: date) -> str:
        """Return the literal of a date; ISO 8601 text if the language has no type for it."""
        return self.text(value.isoformat())

    def moment(self, value: datetime) -> str:
        """Return the literal of a date and time, with its offset from UTC if it has one."""
        return self.text(value.isoformat())

    def time_of_day(self, value: time) -> str:
        """Return the literal of a time of day."""
        return self.text(value.isoformat())

    @abstractmethod
    def sequence(self, values: Sequence[Any]) -> str:
        """Return the literal of a list."""

    @abstractmethod
    def mapping(self, values: Mapping[str, Any]) -> str:
        """Return the literal of a mapping from text to values."""

    def listed(self, values: Iterable[Any], separator: str = ", ") -> str:
        """Return the literals of several values, joined by a separator."""
        return separator.join(self.literal(value) for value in values)

    def refuse(self, what: str, hint: str = "Give it as text, with -r NAME VALUE.") -> NoLiteral:
        """Return the error for a value without a literal; `what` describes the value."""
        return NoLiteral(f"{self.language} has no {what}", hint=hint)


def key_text(key: Any) -> str:
    """Return a mapping's key as text, as papermill does."""
    return key if isinstance(key, str) else str(key)


def recordable(value: Any) -> Any:
    """Return a value as JSON can store it: dates as ISO 8601 text, NaN and the infinities by their names."""
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
    """Return text with the characters in `table` replaced, and other unprintable characters written by `code`."""
    return "".join(table.get(each) or (each if each.isprintable() else code(each)) for each in value)


def utf16_units(character: str) -> str:
    r"""Return a character as ``\uXXXX``, or as two of them beyond the basic plane, as in Java."""
    data = character.encode("utf-16-be")
    return "".join(f"\\u{data[place]:02x}{data[place + 1]:02x}" for place in range(0, len(data), 2))


def long_code(character: str) -> str:
    r"""Return a character as ``\UXXXXXXXX``."""
    return f"\\U{ord(character):08x}"


def with_point(value: float) -> str:
    """Return a finite number with a decimal point, so that it is never an integer: ``1e16`` as ``1.0e16``."""
    written = repr(value)
    return written if "." in written else written.replace("e", ".0e")


def in_utc(value: datetime) -> datetime:
    """Return a date and time in UTC, or unchanged if it has no offset."""
    return value if value.tzinfo is None else value.astimezone(UTC)


def of_one_kind(values: Iterable[Any]) -> bool:
    """Return whether all values are scalars of the same type, so that a typed list can contain them."""
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
