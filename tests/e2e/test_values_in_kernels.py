"""Parameter values of every type reach the kernel unchanged.

Three hundred values for each language, drawn by Hypothesis, the same ones every time. They are injected as one cell and
dumped by the kernel itself, byte for byte: text in hexadecimal UTF-8, floating-point numbers as their eight bytes.
"""

import functools
import json
import os
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nbrun.core.parameters.literals.base import LiteralWriter, NoLiteral, recordable
from nbrun.core.parameters.literals.registry import writer_for
from nbrun.errors import ExitCode
from tests.e2e.test_kernels import in_language
from tests.support.kernelspecs import KERNELS, jupyter_path
from tests.support.notebooks import assert_exit, code, notebook, outputs_of, read_notebook, run_module, write_notebook

pytestmark = pytest.mark.timeout(400)
WANTED = 300
_HOSTILE = "'\"\\$`!#%{}[]()<>&;*?~\n\r\t\0\x01\x07\x1b\x7f\x85\xa0é€\u2028\u200b\ufeff𝄞😀 aZ09"

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text(st.sampled_from(_HOSTILE), max_size=12)
_MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1))  # noqa: DTZ001
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-1000, 1000)
    | st.integers(-(2**80), 2**80)
    | st.integers(2**53 - 2, 2**53 + 2)
    | st.floats()
    | st.decimals(-10000, 10000, places=3).map(float)
    | _TEXT
    | st.dates(date(1800, 1, 1), date(2200, 1, 1))
    | _MOMENTS
    | _MOMENTS.map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000))
    | _MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC))
)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4), max_leaves=8
)


@functools.cache
def drawn() -> list[Any]:
    """Draw values, more than are wanted, the same ones every time."""
    found: dict[str, Any] = {}

    @settings(
        max_examples=2 * WANTED, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(_VALUES)
    def draw(value: Any) -> None:
        found.setdefault(repr(value), value)

    draw()
    return list(found.values())


def held_by(writer: LiteralWriter) -> list[Any]:
    """Return the values that a language has literals for; what it has none for is refused."""
    found = []
    for value in drawn():
        with suppress(NoLiteral):
            writer.literal(value)
            found.append(value)
    assert len(found) >= WANTED
    return found[:WANTED]


def double(value: float) -> str:
    return "dnan" if value != value else "d" + struct.pack(">d", value).hex()


def hexed(text: str) -> str:
    return text.encode().hex()


def day_as_text(value: date) -> str:
    return "s" + hexed(value.isoformat())


def dump(value: Any, language: "Language") -> str:
    """Return a value as a kernel of that language is to dump it."""
    match value:
        case None:
            return "n"
        case bool():
            return "t" if value else "f"
        case int():
            return language.integer(value)
        case float():
            return double(value)
        case str():
            return "s" + hexed(value)
        case datetime():
            return language.moment(value)
        case date():
            return language.day(value)
        case list():
            return "[" + ",".join(dump(item, language) for item in value) + "]"
        case Mapping():
            if not value:
                return language.empty_mapping
            return "{" + ",".join(sorted(f"{hexed(key)}:{dump(item, language)}" for key, item in value.items())) + "}"
        case _:
            raise AssertionError(value)


def dump_for_bash(value: Any, language: "Language") -> str:
    """Bash knows text only, and arrays of it; what is nested there is JSON."""
    match value:
        case list():
            return "[" + ",".join(map(bash_item, value)) + "]"
        case Mapping():
            return "{" + ",".join(sorted(f"{hexed(key)}:{bash_item(item)}" for key, item in value.items())) + "}"
        case _:
            return bash_item(value)


def bash_item(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return hexed("true" if value else "false")
        case date():
            return hexed(value.isoformat())
        case list() | dict():
            return hexed(json.dumps(recordable(value), ensure_ascii=False))
        case _:
            return hexed(str(value))


def small_is_double(value: int) -> str:
    return double(float(value)) if abs(value) <= 2**53 else f"i{value}"


def microseconds(value: datetime) -> str:
    return f"T{round((value.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6)}"


@dataclass(frozen=True)
class Language:
    """What a kernel makes of values that are not the same in all languages, and the code by which it dumps them."""

    kernel: str
    prepare: str
    show: Callable[[int], str]
    integer: Callable[[int], str] = small_is_double
    day: Callable[[date], str] = day_as_text
    moment: Callable[[datetime], str] = day_as_text
    empty_mapping: str = "{}"
    dump: Callable[[Any, "Language"], str] = dump
    read: Callable[[list[str]], list[str]] = list


PYTHON = r"""
import datetime, struct
def _dump(v):
    if v is None or v is True or v is False:
        return {None: "n", True: "t", False: "f"}[v]
    if type(v) is int: return f"i{v}"
    if type(v) is float: return "dnan" if v != v else "d" + struct.pack(">d", v).hex()
    if type(v) is str: return "s" + v.encode().hex()
    if type(v) is datetime.datetime: return "T" + v.isoformat()
    if type(v) is datetime.date: return "D" + v.isoformat()
    if type(v) is list: return "[" + ",".join(map(_dump, v)) + "]"
    return "{" + ",".join(sorted(k.encode().hex() + ":" + _dump(x) for k, x in v.items())) + "}"
"""

R = r"""
.hex <- function(s) paste(charToRaw(enc2utf8(s)), collapse = "")
.dump <- function(v) {
  if (is.null(v)) return("n")
  if (inherits(v, "Date")) return(paste0("D", format(v)))
  if (inherits(v, "POSIXct")) return(paste0("T", sprintf("%.0f", round(as.numeric(v) * 1e6))))
  if (is.logical(v)) return(if (v) "t" else "f")
  if (is.numeric(v)) return(if (is.nan(v)) "dnan" else
    paste0("d", paste(writeBin(as.double(v), raw(), endian = "big"), collapse = "")))
  if (is.character(v)) return(paste0("s", .hex(v)))
  items <- vapply(v, .dump, "")
  if (is.null(names(v))) return(paste0("[", paste(items, collapse = ","), "]"))
  pairs <- paste0(vapply(names(v), .hex, ""), ":", items)
  paste0("{", paste(sort(pairs, method = "radix"), collapse = ","), "}")
}
"""

DENO = r"""
const _hex = (s) => [...new TextEncoder().encode(s)].map((b) => b.toString(16).padStart(2, "0")).join("");
const _double = (x) => {
  const view = new DataView(new ArrayBuffer(8)); view.setFloat64(0, x);
  return "d" + view.getBigUint64(0).toString(16).padStart(16, "0");
};
const _dump = (v) => {
  if (v === null) return "n";
  if (v === true || v === false) return v ? "t" : "f";
  if (typeof v === "bigint") return "i" + v;
  if (typeof v === "number") return Number.isNaN(v) ? "dnan" : _double(v);
  if (typeof v === "string") return "s" + _hex(v);
  if (v instanceof Date) return "D" + v.getTime();
  if (Array.isArray(v)) return "[" + v.map(_dump).join(",") + "]";
  return "{" + Object.entries(v).map(([k, x]) => _hex(k) + ":" + _dump(x)).sort().join(",") + "}";
};
"""

BASH = r"""
_raw() { local kind; kind=$(declare -p "$1"); local -n it=$1; case "$kind" in 'declare -a'*) printf 'a%d\0' "${#it[@]}"; (( ${#it[@]} )) && printf '%s\0' "${it[@]}" ;; 'declare -A'*) printf 'm%d\0' "${#it[@]}"; for key in "${!it[@]}"; do printf '%s\0%s\0' "$key" "${it[$key]}"; done ;; *) printf 's%s\0' "$it" ;; esac; }
"""  # noqa: E501


def read_bash(lines: list[str]) -> list[str]:
    """Read the hexadecimal dump of all variables at once: a process for each would take a minute."""
    pieces = iter(bytes.fromhex("".join(lines)).split(b"\0")[:-1])
    found = []
    for piece in pieces:
        kind, rest = piece[:1], piece[1:]
        if kind == b"s":
            found.append(rest.hex())
        elif kind == b"a":
            found.append("[" + ",".join(next(pieces).hex() for _ in range(int(rest))) + "]")
        else:
            pairs = [f"{next(pieces).hex()}:{next(pieces).hex()}" for _ in range(int(rest))]
            found.append("{" + ",".join(sorted(pairs)) + "}")
    return found


OCTAVE = r"""
function s = dump_(v)
  if ischar(v)
    s = ["s" sprintf("%02x", uint8(v))];
  elseif iscell(v)
    s = ["[" strjoin(cellfun(@dump_, v, "UniformOutput", false), ",") "]"];
  elseif isobject(v)
    k = keys(v); p = {};
    for i = 1:numel(k)
      p{end+1} = [sprintf("%02x", uint8(k{i})) ":" dump_(v(k{i}))];
    end
    s = ["{" strjoin(sort(p), ",") "}"];
  elseif islogical(v)
    if v s = "t"; else s = "f"; end
  elseif isinteger(v)
    s = ["i" sprintf("%d", v)];
  elseif isempty(v)
    s = "n";
  elseif isnan(v)
    s = "dnan";
  else
    s = ["d" num2hex(v)];
  end
end
"""


def instant(value: date) -> str:
    """Return what a Date holds: milliseconds; a day begins in UTC, and so does the tests' local time."""
    moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)  # noqa: DTZ001
    return f"D{round(moment.replace(tzinfo=UTC).timestamp() * 1000)}"


LANGUAGES = (
    Language(
        "python3",
        PYTHON,
        lambda n: f"print(_dump(v{n}))",
        integer=lambda value: f"i{value}",
        day=lambda value: f"D{value.isoformat()}",
        moment=lambda value: f"T{value.isoformat()}",
    ),
    Language(
        "ir",
        R,
        lambda n: f'cat(.dump(v{n}), "\\n", sep = "")',
        integer=lambda value: double(float(value)),
        day=lambda value: f"D{value.isoformat()}",
        moment=microseconds,
        empty_mapping="[]",
    ),
    Language("bash", BASH, lambda n: f"_raw v{n}", dump=dump_for_bash, read=read_bash),
    Language(
        "deno",
        DENO,
        lambda n: f"console.log(_dump(v{n}));",
        integer=lambda value: double(float(value)) if abs(value) < 2**53 else f"i{value}",
        day=instant,
        moment=instant,
    ),
    Language("octave", OCTAVE, lambda n: f'printf("%s\\n", dump_(v{n}));'),
)


WITHOUT_DELAY = """
try:
    from pexpect.spawnbase import SpawnBase
except ImportError:
    pass
else:
    SpawnBase.delaybeforesend = property(lambda self: None, lambda self, value: None)
"""
"""The kernel of Bash sends its shell each line of a cell by itself, by default 50 ms after the last one."""


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.kernel)
def test_three_hundred_values_arrive_as_they_were(
    language: Language, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "" if language.kernel == "python3" else jupyter_path(language.kernel)
    name = "python" if language.kernel == "python3" else KERNELS[language.kernel].language
    values = held_by(writer_for(language.kernel, name))
    shown = "\n".join(map(language.show, range(WANTED)))
    if language.read is read_bash:
        (tmp_path / "sitecustomize.py").write_text(WITHOUT_DELAY)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        shown = f"for n in {{0..{WANTED - 1}}}; do _raw v$n; done | od -An -v -tx1"
    cells = (code("", tags=["parameters"]), language.prepare.strip(), shown)
    document = notebook(*cells) if language.kernel == "python3" else in_language(language.kernel, *cells)
    write_notebook(tmp_path / "in.ipynb", document)
    parameters = {f"v{number}": value for number, value in enumerate(values)}
    (tmp_path / "drive.py").write_text(
        "import datetime, nbrun, sys\n"
        "from math import inf, nan\n"
        f"result = nbrun.run('in.ipynb', output='out.ipynb', allow_new=True, parameters={parameters!r})\n"
        "print(result.problem, file=sys.stderr)\n"
        "sys.exit(int(result.exit_code))\n",
        encoding="utf-8",
    )

    process = run_module("drive", cwd=tmp_path, env={"JUPYTER_PATH": path, "TZ": "UTC"}, timeout=240)

    assert_exit(process, ExitCode.OK)
    outputs = outputs_of(read_notebook(tmp_path / "out.ipynb"))
    dumped = language.read("".join(output["text"] for output in outputs[3]).splitlines())
    wanted = [language.dump(value, language) for value in values]
    differing = [
        (value, found, want) for value, found, want in zip(values, dumped, wanted, strict=False) if found != want
    ]
    assert differing == []
    assert len(dumped) == WANTED
