"""The check of a project's settings, and messages for errors in them."""

import tomllib
from typing import Any

import pytest

from nbrun.cli.config.schema import (
    JobSetting,
    OverrideSetting,
    Setting,
    Settings,
    Wrong,
    line_of,
    read_settings,
    schema,
)
from nbrun.core.planning.option_types import Choice, Count, Duration, Flag, Integer, Text, Texts

OPTIONS = [
    Setting("cell-timeout", Duration(), "Limit of each cell.", key="cell_timeout"),
    Setting("no-save", Flag(), key="save", opposite=True),
    Setting("kernel", Text(), key="kernel"),
    Setting("retries", Integer()),
    Setting("engine", Text()),
    Setting("exclude", Texts()),
    Setting("jobs", Count()),
    Setting("order", Choice(["as-given", "slowest-first"])),
]

BOTH = '[batch.x]\nnotebooks = ["a"]\nparameter-templates = {y = "{date}"}\n'


def read(text: str) -> Settings:
    return read_settings(tomllib.loads(text), OPTIONS)


def test_all_that_a_project_may_say_is_read() -> None:
    settings = read("""
cell-timeout = "5m"
no-save = true
retries = 2
exclude = ["drafts/"]
jobs = "auto"
order = "slowest-first"
[parameters]
region = "EU"
[[overrides]]
match = "slow/*.ipynb"
cell-timeout = 3600
parameters = {region = "US"}
[[overrides]]
match = ["a", "b"]
skip = true
[batch.nightly]
notebooks = ["reports/"]
matrix = {year = [2025, 2026]}
parameters = {region = "UK"}
parameter-templates = {day = "{date:%d}"}
jobs = 4
""")
    assert settings == Settings(
        {
            "cell-timeout": 300.0,
            "no-save": True,
            "retries": 2,
            "exclude": ["drafts/"],
            "jobs": "auto",
            "order": "slowest-first",
        },
        {"region": "EU"},
        [
            OverrideSetting(["slow/*.ipynb"], {"cell-timeout": 3600.0}, {"region": "US"}),
            OverrideSetting(["a", "b"], skip=True),
        ],
        {
            "nightly": JobSetting(
                ["reports/"], {"jobs": 4}, {"region": "UK"}, {"year": [2025, 2026]}, {"day": "{date:%d}"}
            )
        },
    )
    assert read("") == Settings({}, {}, [], {})


@pytest.mark.parametrize(
    ("text", "url", "engines"),
    [
        ('engine = "hub+https://x/"', "hub+https://x/", {}),
        ('[engine]\nurl = "hub+https://x/"', "hub+https://x/", {}),
        ('[engine]\nurl = "hub+https://x/"\n[engine.hub]\na = 1', "hub+https://x/", {"hub": {"a": 1}}),
        ("[engine.hub]\na = 1\n[engine.dask]", None, {"hub": {"a": 1}, "dask": {}}),
    ],
)
def test_an_engine_has_a_url_and_settings(text: str, url: str | None, engines: dict[str, Any]) -> None:
    settings = read(text)
    assert settings.options == ({} if url is None else {"engine": url})
    assert settings.engines == engines


@pytest.mark.parametrize(
    ("text", "line", "said", "hint"),
    [
        ('\ncell-timout = "5m"', 2, "is no setting", "cell-timeout"),
        ("zzz = 1", 1, "is no setting", "There are cell-timeout"),
        ('cell-timeout = "soon"', 1, "no duration", ""),
        ("cell-timeout = true", 1, "takes seconds", ""),
        ('no-save = "yes"', 1, "takes true or false", ""),
        ("retries = true", 1, "takes a whole number", ""),
        ("kernel = 3", 1, "takes text", ""),
        ('exclude = "x"', 1, "takes a list of texts", ""),
        ("jobs = [1]", 1, "takes a number from 1, or auto", ""),
        ('order = "random"', 1, "takes as-given, slowest-first", ""),
        ("overrides = 1", 1, "is a list of tables", "[[tool.nbrun.overrides]]"),
        ("overrides = [1]", 1, "is a table", ""),
        ("[engine]\nhub = 1", 2, "is a table", ""),
        ("[engine]\nurl = 3", 1, "takes text", ""),
        ('[[overrides]]\nmatch = "a"\n[[overrides]]\nno-save = true', 3, "says which notebooks", ""),
        ("[[overrides]]\nmatch = []", 2, "says which notebooks", ""),
        ('[[overrides]]\nmatch = "a"\nskip = 1', 3, "takes true or false", ""),
        ('[[overrides]]\nmatch = "a"\nretries = 1', 3, "no setting of a single notebook", ""),
        ('[[overrides]]\nmatch = "a"\nparameters = 1', 3, "is a table", ""),
        ("parameters = 1", 1, "is a table", ""),
        ("batch = 1", 1, "is a table", ""),
        ("[batch]\nx = 1", 2, "is a table", ""),
        ("# [batch.y]\n[batch.x]\nretries = 1", 2, "names the notebooks", ""),
        ('[batch.x]\nnotebooks = ["a"]\nmatrix = {y = 3}', 3, "is a list of values", ""),
        ('[batch.x]\nnotebooks = ["a"]\n[batch.x.matrix]\ny = []', 4, "is a list of values", ""),
        ('[batch.x]\nnotebooks = ["a"]\nretrys = 1', 3, "is no setting", "retries"),
        ('[batch.x]\nnotebooks = ["a"]\nparameter-templates = {y = "{dat}"}', 3, "no field {dat}; .* {date}", "{date}"),
        ('[batch.x]\nnotebooks = ["a"]\nparameter-templates = {y = 3}', 3, "is a template, as text", ""),
        (f"{BOTH}parameters = {{y = 1}}", 3, "is in parameters too", "Leave one"),
        (f"{BOTH}matrix = {{y = [1]}}", 3, "is in matrix too", "Leave one"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, line: int, said: str, hint: str) -> None:
    with pytest.raises(Wrong, match=said) as caught:
        read(text)
    assert line_of(text, caught.value.where) == line
    assert hint in caught.value.hint


def test_what_is_no_table_at_all_is_told() -> None:
    with pytest.raises(Wrong, match="is a table"):
        read_settings([], OPTIONS)


def test_a_line_is_found_below_the_projects_own_table() -> None:
    text = '[project]\nretries = 1\n[tool.nbrun] # ours\n"retries" = "x"\n[[tool.nbrun.overrides]] # one\nmatch = 1\n'
    assert line_of(text, ("retries",), ("tool", "nbrun")) == 4
    assert line_of(text, ("overrides", 0, "match"), ("tool", "nbrun")) == 6
    assert line_of(text, ("overrides", 0, "skip"), ("tool", "nbrun")) == 5
    assert line_of("a = 1", ("b",)) is None


def test_the_schema_takes_what_the_check_takes() -> None:
    whole: dict[str, Any] = schema(OPTIONS)
    assert set(whole["properties"]) == {option.name for option in OPTIONS} | {"parameters", "overrides", "batch"}
    override = whole["properties"]["overrides"]["items"]
    assert set(override["properties"]) == {"match", "skip", "parameters", "cell-timeout", "no-save", "kernel"}
    assert override["required"] == ["match"]
    assert whole["properties"]["order"] == {"type": "string", "enum": ["as-given", "slowest-first"]}
    assert whole["properties"]["cell-timeout"]["description"] == "Limit of each cell."
    assert whole["additionalProperties"] is False
