"""Declared and given parameters, and the injected cell."""

from datetime import UTC, date, datetime
from typing import Any

import pytest

from nbrun.core.notebook.document import Document
from nbrun.core.parameters.declarations import declarations_in
from nbrun.core.parameters.inject import checked, declared, inject, set_parameters
from nbrun.core.parameters.literals.base import recordable
from nbrun.core.parameters.literals.registry import writer_for
from nbrun.errors import UsageError
from tests.support.notebooks import code, markdown, notebook

PYTHON = writer_for("python3", "python")
SOURCE = """\
%matplotlib inline
import datetime
region = "EU"  # which region
limit: int | None = None  # at most so many rows
rate = 0.5  # type: float as a fraction
names: "list[str]" = [
    "a",  # the first
]  # who
first, (second, third) = 1, (2, 3)
[left, right] = 1, 2
x = y = 7
day = datetime.date(2026, 1, 1)
when = now()
bare: dict
odd = -1  # type: ??
del x
"""


def document(source: str = SOURCE, *, tags: tuple[str, ...] = ("parameters",), minor: int = 5) -> Document:
    return Document(notebook(markdown("# Title"), code(source, tags=tags), code("print(region)"), minor=minor))


def check(given: dict[str, Any], source: str = SOURCE, **options: bool) -> dict[str, Any]:
    values, warnings = checked(given, declared(document(source), "python"), "nb.ipynb", allow_new=False, **options)
    assert warnings == []
    return values


def test_python_declarations_are_read_with_type_default_and_comment() -> None:
    found = declared(document(), "python")
    assert found.index == 1
    assert [(each.name, str(each.type), each.default, each.comment) for each in found.parameters] == [
        ("region", "str", '"EU"', "which region"),
        ("limit", "int | None", "None", "at most so many rows"),
        ("rate", "float", "0.5", "as a fraction"),
        ("names", "list[str]", '[\n    "a",  # the first\n]', "who"),
        ("first", "", "", ""),
        ("left", "", "", ""),
        ("right", "", "", ""),
        ("x", "int", "7", ""),
        ("y", "int", "7", ""),
        ("day", "date", "datetime.date(2026, 1, 1)", ""),
        ("when", "", "now()", ""),
        ("bare", "dict", "", ""),
        ("odd", "", "-1", "type: ??"),
    ]


@pytest.mark.parametrize(
    ("language", "source", "found"),
    [
        ("R", 'x <- 5 # five\nname = "a # b"\non = TRUE\nv <- c(1, 2)\n.h <- 1', [
            ("x", "a number", "5", "five"), ("name", "str", '"a # b"', ""), ("on", "bool", "TRUE", ""),
            ("v", "", "c(1, 2)", ""), (".h", "a number", "1", ""),
        ]),
        ("bash", "region=EU # where\nurl=http://a#b", [("region", "", "EU", "where"), ("url", "", "http://a#b", "")]),
        ("typescript", 'let x: number = 5; // hi\nconst s = "http://x"; // url', [
            ("x", "a number", "5", "hi"), ("s", "str", '"http://x"', "url"),
        ]),
        ("scala", "val x: Int = 5 // five\nval y = 2.5\nx == 5\nprintln(x)", [
            ("x", "int", "5", "five"), ("y", "float", "2.5", ""),
        ]),
        ("julia", "x::Int = 5 # five", [("x", "int", "5", "five")]),
        ("powershell", "$on = $true # sure", [("on", "bool", "$true", "sure")]),
        ("octave", "x = 5; % five", [("x", "a number", "5", "five")]),
        ("rust", "let s = it's;", [("s", "", "it's", "")]),
    ],
)  # fmt: skip
def test_of_other_languages_plain_assignments_are_read(
    language: str, source: str, found: list[tuple[str, str, str, str]]
) -> None:
    read = declarations_in(source, language)
    assert read is not None
    assert [(each.name, str(each.type), each.default, each.comment) for each in read] == found


def test_of_two_declarations_of_a_name_the_last_one_counts() -> None:
    assert check({"x": "text"}, "x = 1\nx = 'text'") == {"x": "text"}


@pytest.mark.parametrize(
    ("declaration", "value"),
    [
        ("x = 1", 2), ("x = 1.5", 2), ("x = 1.5", 2.5), ("x = 'a'", "b"), ("x = True", False), ("x = None", [1]),
        ("x = [1]", ["a", 2]), ("x = (1,)", [2]), ("x = {}", {"a": 1}), ("x: int | None = 1", None),
        ("x: Optional[int] = 1", None), ("x: typing.Union[int, str] = 1", "a"), ("x: list[int] = []", [1, 2]),
        ("x: dict[str, float] = {}", {"a": 1}), ("x: Literal['a', 'b'] = 'a'", "b"), ("x: Annotated[int, 5] = 1", 2),
        ("x: Any = 1", "a"), ("x: Unknown[int] = 1", "a"), ("x: 'not python' = 1", "a"), ("x: Path = 1", "a/b"),
        ("x: tuple[int, str] = ()", [1, "a"]), ("x: Literal[A.b] = 1", "c"), ("x: int | Unknown = 1", "c"),
        ("x: Mapping[str, Unknown] = {}", {"a": 1}), ("x = f()", "a"), ("x = {1}", [2]), ("x: 5 = 1", "a"),
        ("x: 'int' = 1", 3), ("x: 'a b c' = 1", 3), ("x: pd.DataFrame = 1", 3), ("x = float('nan')", 1),
        ("x: set[int] = 1", [1]), ("x = b'a'", 1),
    ],
)  # fmt: skip
def test_a_value_of_the_declared_type_is_taken(declaration: str, value: Any) -> None:
    assert check({"x": value}, declaration) == {"x": value}


@pytest.mark.parametrize(
    ("declaration", "value", "said"),
    [
        ("x = 1", "2", "declared as int, and '2' is text"),
        ("x = 1", 2.5, "declared as int, and 2.5 is a floating-point number"),
        ("x = 1", True, "declared as int, and True is a truth value"),
        ("x = 1", None, "declared as int, and None is None"),
        ("x = True", 1, "declared as bool, and 1 is an integer"),
        ("x = 'a'", [1], r"declared as str, and \[1\] is a list"),
        ("x: list[int] = []", [1, "a"], r"declared as list\[int\]"),
        ("x: dict[str, int] = {}", {"a": "b"}, "is a mapping"),
        ("x: Optional[int] = 1", "a", r"declared as Optional\[int\]"),
        ("x: Literal['a', 1] = 'a'", True, "declared as Literal"),
        ("x = 1", date(2026, 1, 1), "is a date"),
        ("x = 1", "y" * 100, r"'yyy.*\.\.\. is text"),
        ("x: date = None", "tomorrow", "declared as date, and 'tomorrow' is text"),
    ],
)
def test_a_value_of_another_type_is_refused(declaration: str, value: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        check({"x": value}, declaration)
    assert "--allow-new" in caught.value.hint


def test_text_that_was_read_as_a_number_is_told_of_with_what_to_do() -> None:
    with pytest.raises(UsageError) as caught:
        check({"version": 1.1}, 'version = "1.0"')
    assert "For text say -r version VALUE." in caught.value.hint


def test_iso_text_becomes_a_date_where_one_is_declared() -> None:
    source = "a: date = None\nb: datetime = None\nc: time = None\nd = 'x'\ne: datetime = None"
    found = check(
        {"e": "2026-01-02", "a": "2026-01-02", "b": "2026-01-02T03:04:05+00:00", "c": "03:04", "d": "2026-01-02"},
        source,
    )
    assert (found["a"], found["b"]) == (date(2026, 1, 2), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert [str(found[name]) for name in "cde"] == ["03:04:00", "2026-01-02", "2026-01-02 00:00:00"]


def test_unknown_names_are_refused_all_at_once_with_the_nearest_ones() -> None:
    with pytest.raises(UsageError) as caught:
        check({"regoin": 1, "LIMIT": 1, "zzz": 1})
    assert str(caught.value) == (
        "nb.ipynb: there is no parameter 'regoin' (did you mean 'region'?); "
        "there is no parameter 'LIMIT' (did you mean 'limit'?); there is no parameter 'zzz'"
    )
    with pytest.raises(UsageError) as caught:
        check({"a": 1}, "")
    assert "It declares no parameters at all." in caught.value.hint


def test_javascript_declares_a_name_but_once_and_a_constant_cannot_be_set() -> None:
    made = document("let a = 1;\nconst b = 2;")
    known = declared(made, "typescript")
    inject(made, {"a": 3, "c": 4}, writer_for("deno", "typescript"), known)
    assert made.cells[2]["source"] == "// Parameters\na = 3;\nvar c = 4;"
    with pytest.raises(UsageError, match="'b' is declared with const"):
        checked({"b": 3}, known, "nb", allow_new=False)


def test_allow_new_lifts_both() -> None:
    found = checked({"regoin": 1, "rate": "x"}, declared(document(), "python"), "nb", allow_new=True)
    assert found == ({"regoin": 1, "rate": "x"}, [])


def test_where_nothing_is_declared_or_readable_nothing_is_checked_and_that_is_said() -> None:
    bare = declared(document(tags=()), "python")
    values, (warning,) = checked({"a": 1}, bare, "nb", allow_new=False)
    assert (values, bare.index) == ({"a": 1}, None)
    assert "no cell is tagged 'parameters'" in warning
    values, (warning,) = checked({"a": 1}, declared(document("x = = 1"), "python"), "nb", allow_new=False)
    assert values == {"a": 1}
    assert "cannot be read" in warning


def test_the_injected_cell_follows_the_declaring_one() -> None:
    made = document()
    assert inject(made, {"region": "US"}, PYTHON, declared(made, "python")) == 2
    cell = made.cells[2]
    assert cell["source"] == '# Parameters\nregion = "US"'
    assert cell["metadata"] == {"tags": ["injected-parameters"]}
    assert [each["id"] for each in made.cells] == ["cell-1", "cell-2", "556b8157", "cell-3"]


def test_the_next_run_replaces_it_where_it_stands_and_keeps_its_id() -> None:
    made = document()
    inject(made, {"region": "US"}, PYTHON, declared(made, "python"))
    made.cells.append(dict(made.cells[2], id="left-over"))
    assert inject(made, {"region": "DE"}, PYTHON, declared(made, "python")) == 2
    assert [each["id"] for each in made.cells] == ["cell-1", "cell-2", "556b8157", "cell-3"]
    assert made.cells[2]["source"] == '# Parameters\nregion = "DE"'


def test_without_a_declaring_cell_it_stands_first_and_before_format_4_5_it_has_no_id() -> None:
    made = document(tags=(), minor=4)
    assert inject(made, {"a": 1}, PYTHON, declared(made, "python")) == 0
    assert "id" not in made.cells[0]


def test_an_id_that_is_taken_is_not_given_twice() -> None:
    made = Document(notebook({**code("1"), "id": "556b8157"}))
    inject(made, {"a": 1}, PYTHON, declared(made, "python"))
    assert len({each["id"] for each in made.cells}) == 2


def test_a_value_without_a_literal_changes_nothing_and_names_notebook_and_parameter() -> None:
    made = document()
    with pytest.raises(UsageError, match=r"^nb\.ipynb: parameter when: .* set "):
        set_parameters(made, {"when": {1}}, PYTHON, "python", "nb.ipynb", allow_new=False)
    assert len(made.cells) == 3
    assert set_parameters(made, {"region": "US"}, PYTHON, "python", "nb", allow_new=False) == ({"region": "US"}, [])


def test_tags_that_are_no_list_are_no_tags() -> None:
    made = Document(notebook(code("x = 1", tags=["parameters"])))
    made.cells[0]["metadata"]["tags"] = "parameters"
    assert declared(made, "python").index is None


def test_what_is_recorded_is_json() -> None:
    given = {"a": float("nan"), "b": [float("inf"), -float("inf"), 1.5], "c": {1: date(2026, 1, 2)}, "d": None}
    assert recordable(given) == {"a": "NaN", "b": ["Infinity", "-Infinity", 1.5], "c": {"1": "2026-01-02"}, "d": None}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("x = " + "[" * 5000 + "]" * 5000, None),
        ("x: " + "|".join(["int"] * 5000) + " = 1", None),
        ("x: " + "list[" * 60 + "int" + "]" * 60 + " = 1", ["x"]),
        ("x: Literal[" + "1," * 1000 + "] = 1", ["x"]),
        ('x: "' + "[" * 5000 + '" = 1', ["x"]),
        ('x: "a\\0" = 1', ["x"]),
        ("\n".join(f"x{i} = {i}" for i in range(3000)), [f"x{i}" for i in range(3000)]),
    ],
    ids=["nested", "union", "generic", "long", "quoted", "nul", "many"],
)
def test_an_odd_declaration_is_read_or_left_and_costs_little(source: str, names: list[str] | None) -> None:
    found = declarations_in(source, "python")
    assert (None if found is None else [each.name for each in found]) == names
    for each in found or ():
        each.type.accepts(1)


def test_a_long_line_of_another_language_costs_little() -> None:
    blanks = " " * 20_000
    assert declarations_in(f"x :{blanks}y", "r") == []
    assert [each.name for each in declarations_in(f"x : a{' ' * 400}= 1\n{blanks}y = 1\nz <- 2", "r") or ()] == [
        "x",
        "z",
    ]


def test_a_default_over_several_lines_is_shown_as_it_stands() -> None:
    (found,) = declarations_in("x = [\r\n  'é', 1,\r\n]", "python") or ()
    assert found.default == "[\r\n  'é', 1,\r\n]"


def test_values_that_no_cell_can_hold_are_refused_with_the_notebooks_name() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UsageError, match=r"^nb.ipynb: parameter 'region' is nested"):
        set_parameters(document(), {"region": loop}, PYTHON, "python", "nb.ipynb", allow_new=True)


@pytest.mark.parametrize(
    ("declaration", "text", "hint"),
    [
        ("x: list = []", "[1, 2]", "-y 'x: [1, 2]'"),
        ("x = {}", '{"a": 1}', "-y 'x: {\"a\": 1}'"),
        ("x: list = []", "[" + "1, " * 100, "-y 'x: VALUE'"),
        ("x = True", "false", "-p x False"),
        ("x: bool = True", "yes", "-p x True"),
        ("x: int | None = 1", "null", "-p x None"),
        ("x: int = 1", "null", "It declares x."),
        ("x: bool = True", "maybe", "It declares x."),
    ],
)
def test_text_that_looks_like_another_value_is_told_how_to_give_that(declaration: str, text: str, hint: str) -> None:
    with pytest.raises(UsageError, match="'x' is declared as") as caught:
        check({"x": text}, declaration)
    assert hint in caught.value.hint
    assert ("Say" in caught.value.hint or "say" in caught.value.hint) == hint.startswith("-")
