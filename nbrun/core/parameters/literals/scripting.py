"""Writers of literals for Python, R, Julia, Bash, PowerShell, MATLAB and Octave."""

import json
import keyword
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from fractions import Fraction
from typing import Any

from nbrun.core.parameters.literals import reserved_words
from nbrun.core.parameters.literals.base import (
    PLAIN_INTEGERS,
    LiteralWriter,
    escaped,
    in_utc,
    long_code,
    of_one_kind,
    recordable,
)

_BACKSLASHED = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_BACKSLASHED_OR_DOLLAR = {**_BACKSLASHED, "$": "\\$"}


class PythonWriter(LiteralWriter):
    """Python. Dates use ``__import__``, because an import would add a name to the notebook."""

    language = "Python"
    reserved = frozenset({*keyword.kwlist, "__debug__"})
    none, true, false = "None", "True", "False"
    nan, infinity, minus_infinity = "float('nan')", "float('inf')", "float('-inf')"

    def is_name(self, name: str) -> bool:  # noqa: D102
        return name.isidentifier()

    def set_variable(self, name: str, value: str) -> str:  # noqa: D102
        return f'__import__("os").environ[{name}] = {value}'

    def text(self, value: str) -> str:  # noqa: D102
        return f'"{escaped(value, _BACKSLASHED, _python_code)}"'

    def day(self, value: date) -> str:  # noqa: D102
        return f'__import__("datetime").date({value.year}, {value.month}, {value.day})'

    def moment(self, value: datetime) -> str:  # noqa: D102
        return f'__import__("datetime").datetime.fromisoformat("{value.isoformat()}")'

    def time_of_day(self, value: time) -> str:  # noqa: D102
        return f'__import__("datetime").time.fromisoformat("{value.isoformat()}")'

    def sequence(self, values: Sequence[Any]) -> str:  # noqa: D102
        return f"[{self.listed(values)}]"

    def mapping(self, values: Mapping[str, Any]) -> str:  # noqa: D102
        return f"{{{', '.join(f'{self.text(key)}: {self.literal(value)}' for key, value in values.items())}}}"


class RWriter(LiteralWriter):
    """R; numbers are doubles, lists and mappings are ``list``."""

    language = "R"
    name_pattern = r"_*[^\W\d_][\w.]*|\.[^\W\d][\w.]*"
    reserved = reserved_words.R
    none, true, false = "NULL", "TRUE", "FALSE"
    infinity, minus_infinity = "Inf", "-Inf"

    def assign(self, name: str, value: Any) -> str:
        """Return an assignment. Leading underscores, which R does not allow, are removed as in papermill."""
        return f"{self.variable(name)} = {self.literal(value)}"

    def variable(self, name: str) -> str:  # noqa: D102
        return name.lstrip("_")

    def integer(self, value: int) -> str:  # noqa: D102
        if abs(value) <= PLAIN_INTEGERS:
            return str(value)
        if abs(value) >= 2**1024 or int(float(value)) != value:
            raise self.refuse(f"exact number for {value}")
        return self.finite(float(value))

    def finite(self, value: float) -> str:
        """Return a number in decimal if R reads it exactly, otherwise in hexadecimal. R's reader rounds twice."""
        written = repr(value)
        return written if _survives_rounding_twice(written, value) else value.hex()

    def set_variable(self, name: str, value: str) -> str:  # noqa: D102
        return f"invisible(do.call(Sys.setenv, structure(list({value}), names = {name})))"

    def text(self, value: str) -> str:  # noqa: D102
        if "\0" in value:
            raise self.refuse("text with a NUL character in it", hint="")
        return f'"{escaped(value, _BACKSLASHED, long_code)}"'

    def day(self, value: date) -> str:  # noqa: D102
        return f'as.Date("{value.isoformat()}")'

    def moment(self, value: datetime) -> str:
        """Return a ``POSIXct`` in UTC, because R has no date and time without a time zone."""
        at = in_utc(value).replace(tzinfo=None)
        return f'as.POSIXct("{at.isoformat(" ")}", format = "%Y-%m-%d %H:%M:%OS", tz = "UTC")'

    def sequence(self, values: Sequence[Any]) -> str:  # noqa: D102
        return f"list({self.listed(values)})"

    def mapping(self, values: Mapping[str, Any]) -> str:  # noqa: D102
        if "" in values:
            return f"setNames(list({self.listed(values.values())}), c({self.listed(values)}))"
        return f"list({', '.join(f'{self.text(key)} = {self.literal(value)}' for key, value in values.items())})"


class JuliaWriter(LiteralWriter):
    """Julia. Its integer literals become ``Int128`` or ``BigInt`` if necessary."""

    language = "Julia"
    reserved = reserved_words.JULIA
    none = "nothing"
    infinity, minus_infinity = "Inf", "-Inf"
    date_import = "import Dates"

    def set_variable(self, name: str, value: str) -> str:  # noqa: D102
        return f"ENV[{name}] = {value};"

    def text(self, value: str) -> str:  # noqa: D102
        return f'"{escaped(value, _BACKSLASHED_OR_DOLLAR, _python_code)}"'

    def day(self, value: date) -> str:  # noqa: D102
        return f"Dates.Date({value.year}, {value.month}, {value.day})"

    def moment(self, value: datetime) -> str:  # noqa: D102
        at = in_utc(value)
        if at.microsecond % 1000:
            raise self.refuse(f"point in time finer than a millisecond, as {value} is")
        parts = (at.year, at.month, at.day, at.hour, at.minute, at.second)
        return f"Dates.DateTime({', '.join(map(str, parts))}, {at.microsecond // 1000})"

    def time_of_day(self, value: time) -> str:  # noqa: D102
        whole, parts = value.microsecond, (value.hour, value.minute, value.second)
        return f"Dates.Time({', '.join(map(str, parts))}, {whole // 1000}, {whole % 1000})"

    def sequence(self, values: Sequence[Any]) -> str:
        """Return a vector, of type ``Any`` if Julia would otherwise convert its values to a common type."""
        return f"{'' if of_one_kind(values) else 'Any'}[{self.listed(values)}]"

    def mapping(self, values: Mapping[str, Any]) -> str:  # noqa: D102
        kind = "Dict" if of_one_kind(values.values()) else "Dict{String, Any}"
        return f"{kind}({', '.join(f'{self.text(key)} => {self.literal(value)}' for key, value in values.items())})"


class BashWriter(LiteralWriter):
    """Bash, where every value is text. Lists are arrays, mappings associative arrays, and nested values JSON."""

    language = "Bash"
    reserved = reserved_words.BASH
    name_pattern = r"[A-Za-z_][A-Za-z0-9_]*"
    none = ""
    nan, infinity, minus_infinity = "nan", "inf", "-inf"

    def assign(self, name: str, value: Any) -> str:  # noqa: D102
        if isinstance(value, Mapping):
            return f"unset -v {name}; declare -A {name}={self.literal(value)}"
        return f"{name}={self.literal(value)}"

    def set_variable(self, name: str, value: str) -> str:  # noqa: D102
        return f"export {name}={value}"

    def text(self, value: str) -> str:  # noqa: D102
        if "\0" in value:
            raise self.refuse("text with a NUL character in it", hint="")
        if value and all(each.isascii() and (each.isalnum() or each in "@%+=:,./-_") for each in value):
            return value
        if value.isprintable() and not set(value) & set("!"):
            return "'" + value.replace("'", "'\"'\"'") + "'"
        # The kernel talks to its shell through a terminal, which would interpret raw control characters.
        special = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t", "!": "\\041"}
        return f"$'{escaped(value, special, _octal)}'"

    def sequence(self, values: Sequence[Any]) -> str:  # noqa: D102
        return f"({' '.join(map(self._item, values))})"

    def mapping(self, values: Mapping[str, Any]) -> str:  # noqa: D102
        if "" in values:
            raise self.refuse("associative array with an empty key", hint="")
        return f"({' '.join(f'[{self._quoted(key)}]={self._item(value)}' for key, value in values.items())})"

    def _item(self, value: Any) -> str:
        if isinstance(value, (list, tuple, Mapping)):
            return self.text(json.dumps(recordable(value), ensure_ascii=False))
        return self.literal(value) or "''"

    def _quoted(self, key: str) -> str:
        written = self.text(key)
        return written if written[0] in "'$" else f"'{written}'"


class PowerShellWriter(LiteralWriter):
    """PowerShell."""

    language = "PowerShell"
    reserved = reserved_words.POWERSHELL
    none, true, false = "$null", "$true", "$false"
    nan, infinity, minus_infinity = "[double]::NaN", "[double]::PositiveInfinity", "[double]::NegativeInfinity"

    def variable(self, name: str) -> str:  # noqa: D102
        return name.casefold()

    def assign(self, name: str, value: Any) -> str:  # noqa: D102
        return f"${name} = {self.literal(value)}"

    def integer(self, value: int) -> str:  # noqa: D102
        return str(value) if -(2**63) < value < 2**63 else f"[bigint]::Parse('{value}')"

    def set_variable(self, name: str, value: str) -> str:  # noqa: D102
        return f"[Environment]::SetEnvironmentVariable({name}, {value})"

    def text(self, value: str) -> str:  # noqa: D102
        # PowerShell treats curly quotes as quotes.
        special = {each: f"`{each}" for each in '`$"\u201c\u201d\u201e'}
        special |= {"\n": "`n", "\r": "`r", "\t": "`t", "\0": "`0"}
        return f'"{escaped(value, special, lambda each: f"$([char]::ConvertFromUtf32({ord(each)}))")}"'

    def day(self, value: date) -> str:  # noqa: D102
        return f"[datetime]::new({value.year}, {value.month}, {value.day})"

    def moment(self, value: datetime) -> str:  # noqa: D102
        kind = "datetime" if value.tzinfo is None else "datetimeoffset"
        return f"[{kind}]::Parse('{value.isoformat()}', [cultureinfo]::InvariantCulture)"

    def sequence(self, values: Sequence[Any]) -> str:  # noqa: D102
        return f"@(,{self.literal(values[0])})" if len(values) == 1 else f"@({self.listed(values)})"

    def mapping(self, values: Mapping[str, Any]) -> str:  # noqa: D102
        if len({key.casefold() for key in values}) < len(values):
            raise self.refuse("mapping whose keys differ only in upper and lower case", hint="")
        return f"@{{{'; '.join(f'{self.text(key)} = {self.literal(value)}' for key, value in values.items())}}}"


class MatlabWriter(LiteralWriter):
    """MATLAB. Lists are cells, mappings ``containers.Map``, and None is ``[]``, as in ``jsondecode``."""

    language = "MATLAB"
    reserved = reserved_words.MATLAB
    name_pattern = r"[A-Za-z][A-Za-z0-9_]*"
    comment_sign = "%"
    none = "[]"
    infinity, minus_infinity = "Inf", "-Inf"

    def assign(self, name: str, value: Any) -> str:  # noqa: D102
        return f"{name} = {self.literal(value)};"

    def integer(self, value: int) -> str:  # noqa: D102
        if abs(value) <= PLAIN_INTEGERS:
            return str(value)
        # MATLAB reads long numbers as doubles, so the two halves of the bits are written separately.
        bits, kind = value % 2**64, "int64" if value < 2**63 else "uint64"
        if not -(2**63) <= value < 2**64:
            raise self.refuse(f"exact number for {value}")
        return f"typecast(uint32([{bits % 2**32} {bits >> 32}]), '{kind}')"

    def set_variable(self, name: str, value: str) -> str:  # noqa: D102
        return f"setenv({name}, {value});"

    def text(self, value: str) -> str:  # noqa: D102
        written = escaped(value, {'"': '""'}, lambda each: f'" + char({_utf16(each)}) + "')
        return f'"{written}"' if value.isprintable() else f'("{written}")'

    def day(self, value: date) -> str:  # noqa: D102
        return f"datetime({value.year}, {value.month}, {value.day})"

    def moment(self, value: datetime) -> str:  # noqa: D102
        at = in_utc(value)
        parts = (at.year, at.month, at.day, at.hour, at.minute)
        zone = "" if at.tzinfo is None else ", 'TimeZone', 'UTC'"
        return f"datetime({', '.join(map(str, parts))}, {at.second}.{at.microsecond:06d}{zone})"

    def sequence(self, values: Sequence[Any]) -> str:  # noqa: D102
        return f"{{{self.listed(values)}}}"

    def mapping(self, values: Mapping[str, Any]) -> str:  # noqa: D102
        if not values:
            return "containers.Map()"
        keys, items = ", ".join(map(self.key, values)), self.listed(values.values())
        return f"containers.Map({{{keys}}}, {{{items}}}, 'UniformValues', false)"

    def key(self, key: str) -> str:
        """Return a key as an array of characters, because text is a string."""
        written = escaped(key, {"'": "''"}, lambda each: f"' char({_utf16(each)}) '")
        return f"'{written}'" if key.isprintable() else f"['{written}']"


class OctaveWriter(MatlabWriter):
    """GNU Octave. It differs from MATLAB: text is bytes with escapes, and dates are text."""

    language = "Octave"
    name_pattern = r"[A-Za-z_][A-Za-z0-9_]*"
    reserved = reserved_words.OCTAVE
    comment_sign = "#"  # its kernel treats a line that begins with % as a magic command

    def text(self, value: str) -> str:  # noqa: D102
        return f'"{escaped(value, _BACKSLASHED, _octal)}"'

    def key(self, key: str) -> str:  # noqa: D102
        return self.text(key) if key else "char(zeros(1, 0))"  # "" is not accepted as a key, because it has no rows

    def day(self, value: date) -> str:  # noqa: D102
        return self.text(value.isoformat())

    def moment(self, value: datetime) -> str:  # noqa: D102
        return self.text(value.isoformat())


def _python_code(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"


def _octal(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in character.encode())


def _utf16(character: str) -> str:
    data = character.encode("utf-16-be")
    units = [int.from_bytes(data[place : place + 2]) for place in range(0, len(data), 2)]
    return str(units[0]) if len(units) == 1 else str(units)


def _survives_rounding_twice(written: str, value: float) -> bool:
    """Return whether a decimal is read exactly if it is rounded to 64 bits (x87's long double) and then to 53."""
    if not 1e-5 <= abs(value) < 1e15:
        return value == 0
    exact = abs(Fraction(written))
    return len(written) <= 17 and _rounded(_rounded(exact, 64), 53) == _rounded(exact, 53)


def _rounded(value: Fraction, bits: int) -> Fraction:
    """Round to that many binary digits, ties to even."""
    shift = bits - 1
    while value >= 2 ** (bits - shift):
        shift -= 1
    while value < 2 ** (bits - shift - 1):
        shift += 1
    return Fraction(round(value * Fraction(2) ** shift), 1) / Fraction(2) ** shift
