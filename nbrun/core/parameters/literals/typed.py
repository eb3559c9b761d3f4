"""Writers of literals for Scala, JavaScript and TypeScript, C#, F#, Rust and Go."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from nbrun.core.parameters.literals import reserved_words
from nbrun.core.parameters.literals.base import (
    PLAIN_INTEGERS,
    LiteralWriter,
    escaped,
    in_utc,
    long_code,
    of_one_kind,
    utf16_units,
    with_point,
)

_BACKSLASHED = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class _TypedWriter(LiteralWriter):
    """Common to languages with static types: text with escapes, and a decimal point in floating-point numbers."""

    comment_sign = "//"

    def finite(self, value: float) -> str:
        return with_point(value)

    def text(self, value: str) -> str:
        return f'"{escaped(value, _BACKSLASHED, utf16_units)}"'


class ScalaWriter(_TypedWriter):
    """Scala."""

    language = "Scala"
    reserved = reserved_words.SCALA
    none = "None"
    nan, infinity, minus_infinity = "Double.NaN", "Double.PositiveInfinity", "Double.NegativeInfinity"

    def assign(self, name: str, value: Any) -> str:  # noqa: D102
        return f"val {name} = {self.literal(value)}"

    def integer(self, value: int) -> str:  # noqa: D102
        if -(2**63) <= value < 2**63:
            return str(value) if -(2**31) <= value < 2**31 else f"{value}L"
        return f'BigInt("{value}")'

    def day(self, value: date) -> str:  # noqa: D102
        return f'java.time.LocalDate.parse("{value.isoformat()}")'

    def moment(self, value: datetime) -> str:  # noqa: D102
        kind = "LocalDateTime" if value.tzinfo is None else "OffsetDateTime"
        return f'java.time.{kind}.parse("{value.isoformat()}")'

    def sequence(self, values: Sequence[Any]) -> str:  # noqa: D102
        return f"{'Seq' if of_one_kind(values) else 'Seq[Any]'}({self.listed(values)})"

    def mapping(self, values: Mapping[str, Any]) -> str:  # noqa: D102
        kind = "Map" if of_one_kind(values.values()) else "Map[String, Any]"
        return f"{kind}({', '.join(f'{self.text(key)} -> {self.literal(value)}' for key, value in values.items())})"


class JavaScriptWriter(LiteralWriter):
    """JavaScript and TypeScript. Integers beyond the doubles are BigInts."""

    language = "JavaScript"
    reserved = reserved_words.JAVASCRIPT
    sometimes_reserved = reserved_words.JAVASCRIPT_STRICT
    name_pattern = r"[^\W\d][\w$]*|\$[\w$]*"
    comment_sign = "//"

    def assign(self, name: str, value: Any) -> str:  # noqa: D102
        return f"var {name} = {self.literal(value)};"

    def reassign(self, name: str, value: Any) -> str:
        """Return an assignment without ``var``, because a variable declared by ``let`` cannot be declared again."""
        return f"{name} = {self.literal(value)};"

    def integer(self, value: int) -> str:  # noqa: D102
        return str(value) if abs(value) < PLAIN_INTEGERS else f"{value}n"

    def text(self, value: str) -> str:  # noqa: D102
        return f'"{escaped(value, _BACKSLASHED, utf16_units)}"'

    def day(self, value: date) -> str:
        """Return a Date at midnight UTC, as ECMAScript reads a date without a time."""
        return f'new Date("{value.isoformat()}")'

    def moment(self, value: datetime) -> str:
        """Return a Date. Without an offset it is in the kernel's local time."""
        if value.microsecond % 1000:
            raise self.refuse(f"Date finer than a millisecond, as {value} is")
        at = in_utc(value)
        return f'new Date("{at.replace(tzinfo=None).isoformat(timespec="milliseconds")}{"Z" * bool(at.tzinfo)}")'

    def sequence(self, values: Sequence[Any]) -> str:  # noqa: D102
        return f"[{self.listed(values)}]"

    def mapping(self, values: Mapping[str, Any]) -> str:  # noqa: D102
        return f"{{{', '.join(f'{self._key(key)}: {self.literal(value)}' for key, value in values.items())}}}"

    def _key(self, key: str) -> str:
        # An unquoted __proto__ would set the prototype.
        return f"[{self.text(key)}]" if key == "__proto__" else self.text(key)


class CSharpWriter(_TypedWriter):
    """C# as executed by .NET Interactive."""

    language = "C#"
    reserved = reserved_words.CSHARP
    none = "(object)null"
    nan, infinity, minus_infinity = "double.NaN", "double.PositiveInfinity", "double.NegativeInfinity"

    def assign(self, name: str, value: Any) -> str:  # noqa: D102
        return f"var {name} = {self.literal(value)};"

    def integer(self, value: int) -> str:  # noqa: D102
        if -(2**63) <= value < 2**63:
            return str(value) if -(2**31) <= value < 2**31 else f"{value}L"
        return f'System.Numerics.BigInteger.Parse("{value}")'

    def day(self, value: date) -> str:  # noqa: D102
        return f"new System.DateTime({value.year}, {value.month}, {value.day})"

    def moment(self, value: datetime) -> str:  # noqa: D102
        kind = "DateTime" if value.tzinfo is None else "DateTimeOffset"
        culture = "System.Globalization.CultureInfo.InvariantCulture"
        return f'System.{kind}.Parse("{value.isoformat()}", {culture})'

    def sequence(self, values: Sequence[Any]) -> str:  # noqa: D102
        kind = "new []" if values and of_one_kind(values) else "new object[]"
        return f"{kind} {{ {self.listed(values)} }}"

    def mapping(self, values: Mapping[str, Any]) -> str:  # noqa: D102
        pairs = ", ".join(f"{{ {self.text(key)}, {self.literal(value)} }}" for key, value in values.items())
        return f"new System.Collections.Generic.Dictionary<string, object> {{ {pairs} }}"


class FSharpWriter(_TypedWriter):
    """F# as executed by .NET Interactive. Values of different types are boxed."""

    language = "F#"
    reserved = reserved_words.FSHARP
    none = "None"
    nan, infinity, minus_infinity = "nan", "infinity", "-infinity"

    def comment(self, text: str) -> str:  # noqa: D102
        return f"(* {text} *)"

    def assign(self, name: str, value: Any) -> str:  # noqa: D102
        return f"let {name} = {self.literal(value)}"

    def integer(self, value: int) -> str:  # noqa: D102
        if -(2**63) <= value < 2**63:
            return str(value) if -(2**31) <= value < 2**31 else f"{value}L"
        return f"{value}I"

    def day(self, value: date) -> str:  # noqa: D102
        return f"System.DateTime({value.year}, {value.month}, {value.day})"

    def moment(self, value: datetime) -> str:  # noqa: D102
        kind = "DateTime" if value.tzinfo is None else "DateTimeOffset"
        culture = "System.Globalization.CultureInfo.InvariantCulture"
        return f'System.{kind}.Parse("{value.isoformat()}", {culture})'

    def sequence(self, values: Sequence[Any]) -> str:  # noqa: D102
        items = map(self.literal if of_one_kind(values) else self._boxed, values)
        return f"[ {'; '.join(items)} ]" if values else "[]"

    def mapping(self, values: Mapping[str, Any]) -> str:  # noqa: D102
        pairs = "; ".join(f"({self.text(key)}, {self._boxed(value)})" for key, value in values.items())
        return f"(Map.ofList<string, obj> [ {pairs} ])"

    def _boxed(self, value: Any) -> str:
        return "null" if value is None else f"box ({self.literal(value)})"


class RustWriter(_TypedWriter):
    """Rust as executed by evcxr. Lists and mappings contain values of one type only. Dates are text."""

    language = "Rust"
    reserved = reserved_words.RUST
    none = "None::<String>"
    nan, infinity, minus_infinity = "f64::NAN", "f64::INFINITY", "f64::NEG_INFINITY"

    def assign(self, name: str, value: Any) -> str:  # noqa: D102
        return f"let {name} = {self.literal(value)};"

    def integer(self, value: int) -> str:  # noqa: D102
        for bits in (32, 64, 128):
            if -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
                return str(value) if bits == 32 else f"{value}_i{bits}"
        raise self.refuse(f"integer as large as {value}")

    def text(self, value: str) -> str:  # noqa: D102
        written = escaped(value, _BACKSLASHED, lambda each: f"\\u{{{ord(each):x}}}")
        return f'String::from("{written}")'

    def sequence(self, values: Sequence[Any]) -> str:  # noqa: D102
        return f"vec![{self.listed(self._alike(values))}]" if values else "Vec::<String>::new()"

    def mapping(self, values: Mapping[str, Any]) -> str:  # noqa: D102
        kind = "std::collections::BTreeMap"
        self._alike(tuple(values.values()))
        pairs = ", ".join(f"({self.text(key)}, {self.literal(value)})" for key, value in values.items())
        return f"{kind}::from([{pairs}])" if values else f"{kind}::<String, String>::new()"

    def _alike(self, values: Sequence[Any]) -> Sequence[Any]:
        if not of_one_kind(values):
            raise self.refuse("list or mapping of values of several types")
        return values


class GoWriter(_TypedWriter):
    """Go as executed by gonb and gophernotes."""

    language = "Go"
    reserved = reserved_words.GO
    none = "interface{}(nil)"
    # Go has no literals for these, and math may not be imported.
    nan = "func() float64 { zero := 0.0; return zero / zero }()"
    infinity = "func() float64 { zero := 0.0; return 1 / zero }()"
    minus_infinity = "func() float64 { zero := 0.0; return -1 / zero }()"
    date_import = 'import "time"'

    def assign(self, name: str, value: Any) -> str:  # noqa: D102
        return f"var {name} = {self.literal(value)}"

    def integer(self, value: int) -> str:  # noqa: D102
        if -(2**63) <= value < 2**63:
            return str(value)
        if 0 < value < 2**64:
            return f"uint64({value})"
        raise self.refuse(f"integer as large as {value}")

    def text(self, value: str) -> str:  # noqa: D102
        return f'"{escaped(value, _BACKSLASHED, long_code)}"'

    def day(self, value: date) -> str:  # noqa: D102
        return f"time.Date({value.year}, {value.month}, {value.day}, 0, 0, 0, 0, time.UTC)"

    def moment(self, value: datetime) -> str:
        """Return a ``time.Time`` in UTC. Without an offset it is in the kernel's local time."""
        zone, at = "time.Local" if value.tzinfo is None else "time.UTC", in_utc(value)
        parts = (at.year, at.month, at.day, at.hour, at.minute, at.second)
        return f"time.Date({', '.join(map(str, parts))}, {at.microsecond * 1000}, {zone})"

    def sequence(self, values: Sequence[Any]) -> str:  # noqa: D102
        return f"[]interface{{}}{{{self.listed(values)}}}"

    def mapping(self, values: Mapping[str, Any]) -> str:  # noqa: D102
        pairs = ", ".join(f"{self.text(key)}: {self.literal(value)}" for key, value in values.items())
        return f"map[string]interface{{}}{{{pairs}}}"
