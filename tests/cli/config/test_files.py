"""Settings files: which one is used, what it changes, and messages for errors in it."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import nbrun
from nbrun.cli.config.files import current_project, from_here, overrides_for, settings_of
from nbrun.cli.config.schema import Setting, schema
from nbrun.cli.main import cli
from nbrun.cli.run import command
from nbrun.core.planning.option_types import (
    Count,
    Duration,
    Flag,
    Integer,
    Kind,
    PathName,
    Pause,
    Size,
    Text,
    Texts,
    Words,
    options_in,
)
from nbrun.errors import NbrunError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder that is a repository."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def given(*arguments: str, meta: dict[str, str] | None = None) -> tuple[dict[str, Any], list[Any]]:
    """Return the options that the command would have, and the overrides of single notebooks."""
    parent = click.Context(cli)
    parent.meta.update(meta or {})
    context = command.make_context("run", [*arguments], parent=parent)
    with context:
        return context.params, overrides_for(context, current_project(), {})


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, standalone_mode=False)


def test_a_projects_settings_are_the_defaults_and_what_is_typed_wins(here: Path) -> None:
    (here / "pyproject.toml").write_text('[tool.nbrun]\ncell-timeout = "5m"\njobs = "auto"\nkernel = "ir"\n')
    options, overrides = given("a", "--kernel", "python3")
    assert (options["cell_timeout"], options["jobs"], options["kernel"]) == (300.0, "auto", "python3")
    assert overrides == []
    assert given("a", "--no-config")[0]["cell_timeout"] is None


def test_the_nearest_file_counts_up_to_the_repositorys_root(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "pyproject.toml").write_text("[tool.nbrun]\nretries = 1\n")
    below = here / "a" / "b"
    below.mkdir(parents=True)
    (here / "a" / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    monkeypatch.chdir(below)
    assert given("x")[0]["retries"] == 1
    (here / "a" / "nbrun.toml").write_text("retries = 2\n")
    assert given("x")[0]["retries"] == 2
    (below / ".git").mkdir()
    assert given("x")[0]["retries"] == 0
    assert given("x", "--config", str(here / "pyproject.toml"))[0]["retries"] == 1


def test_paths_in_a_file_begin_at_its_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "nbrun.toml").write_text('output = "out/"\njson = "-"\ncache = "kept"\n')
    assert given("x")[0]["output"] == "out/"
    (here / "deep").mkdir()
    monkeypatch.chdir(here / "deep")
    options, _ = given("x")
    assert (options["output"], options["json_file"], options["cache"]) == ("../out/", "-", "../kept")


@pytest.mark.parametrize(
    ("place", "output"),
    [
        ('server = "http://h/"', "out/"),
        ('server = "http://h/"\nupload = true', "../out/"),
        ('engine = "hub+http://h/"', "../out/"),
        ('engine = "hub+http://h/"\nupload = false', "out/"),
    ],
)
def test_paths_on_a_server_stay(place: str, output: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "nbrun.toml").write_text(f'{place}\noutput = "out/"\n')
    (here / "deep").mkdir()
    monkeypatch.chdir(here / "deep")
    assert given("x")[0]["output"] == output


def test_what_is_said_of_some_notebooks_becomes_an_override_less_what_was_typed(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "nbrun.toml").write_text(
        'exclude = ["drafts/"]\n[[overrides]]\nmatch = "slow/*"\ntimeout = "1h"\nno-save = true\nparameters = {a = 1}\n'
    )
    (here / "deep").mkdir()
    monkeypatch.chdir(here / "deep")
    _, (excluded, slow) = given("x")
    assert (excluded.match, excluded.skip, excluded.base) == (["drafts/"], True, "deep")
    assert (slow.match, slow.options, slow.parameters) == (["slow/*"], {"timeout": 3600.0, "save": False}, {"a": 1})
    _, (_, slow) = given("x", "--timeout", "5")
    assert slow.options == {"save": False}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.nbrun]\n\ncell-timout = 5\n", "pyproject.toml, line 3: tool.nbrun.cell-timout: is no setting"),
        ("[tool.nbrun]\nretries = 'x'\n", "line 2: tool.nbrun.retries: takes a whole number"),
        ("[tool.nbrun\n", "not readable as TOML"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(text: str, said: str, here: Path) -> None:
    (here / "pyproject.toml").write_text(text)
    error = call("run", "a.ipynb").exception
    assert isinstance(error, NbrunError)
    assert said in str(error)


def test_a_broken_pyproject_that_is_not_about_nbrun_is_none_of_our_business(here: Path) -> None:
    (here / "pyproject.toml").write_text("[tool.other\n")
    assert given("x")[0]["retries"] == 0


def test_a_named_batch_brings_its_notebooks_and_its_options(here: Path) -> None:
    (here / "nbrun.toml").write_text(
        'retries = 1\n[batch.nightly]\nnotebooks = ["nothing*.ipynb"]\nretries = 2\nallow-empty = true\n'
        "in-place = true\n"
    )
    options, _ = given(meta={"nbrun.job": "nightly"})
    assert (options["retries"], options["allow_empty"]) == (2, True)
    result = call("batch", "nightly", "--json", "r.json")
    assert (result.exception, result.return_value) == (None, 0)
    assert json.loads((here / "r.json").read_text())["runs"] == []


@pytest.mark.parametrize(
    ("arguments", "said"), [(["weekly"], "no batch 'weekly'"), (["--quiet", "nightly"], "the job's name comes first")]
)
def test_a_batch_that_is_not_there_is_told(arguments: list[str], said: str, here: Path) -> None:
    (here / "nbrun.toml").write_text('[batch.nightly]\nnotebooks = ["a"]\n')
    error = call("batch", *arguments).exception
    assert isinstance(error, NbrunError)
    assert said in str(error)


def test_every_option_for_single_notebooks_is_an_option_and_a_key() -> None:
    declared = options_in(nbrun.RunOptions)
    assert {setting.key for setting in settings_of(command) if setting.key} == {
        name for name, option in declared.items() if option.each
    }


def test_the_published_schema_is_that_of_the_options() -> None:
    published = json.loads((ROOT / "docs" / "nbrun.schema.json").read_text())
    assert published == json.loads(json.dumps(schema(settings_of(command)))), "run python docs/reference.py"


@pytest.mark.parametrize(
    ("name", "content", "said", "hint"),
    [
        ("nbrun.toml", b"[tool.nbrun]\njobs = 2\n", "line 1: [tool.nbrun] is for pyproject.toml", "at the top"),
        ("nbrun.toml", b"\n[tool.nbrun.parameters]\na = 2\n", "line 2: [tool.nbrun] is for", "at the top"),
        ("nbrun.toml", b"[nbrun]\njobs = 2\n", "line 1: there is no table [nbrun]", "at the top"),
        ("pyproject.toml", b"[nbrun]\njobs = 2\n", "line 1: [nbrun] is not read", "[tool.nbrun]"),
        ("pyproject.toml", b"[project]\nname = 'x'\n", "there is no [tool.nbrun] in it", "--config"),
        ("nbrun.toml", b"a = " + b"[" * 100_000, "not readable as TOML: ", "--no-config"),
        ("nbrun.toml", b"a" + b".a" * 100_000 + b" = 1", "more than 100 parts", "--no-config"),
        ("nbrun.toml", b"retries = 0x" + b"f" * 20_000, "takes a whole number|more than 4300 digits|no setting", ""),
        ("nbrun.toml", b"retries = " + b"9" * 20_000, "more than 4300 digits", "--no-config"),
        ("nbrun.toml", b"kernel = 0x" + b"f" * 20_000, "takes text, not an integer of more than 4300 digits", ""),
        ("nbrun.toml", b"timeout = 0x" + b"f" * 20_000, "nbrun.toml, line 1: timeout: ", ""),
        ("nbrun.toml", b'timeout = "' + b"9" * 400 + b'"', "beyond all durations", ""),
        ("nbrun.toml", b"timeout = nan", "is no duration", ""),
        ("nbrun.toml", b"parameters.x = 0x" + b"f" * 20_000, "parameter 'x': an integer of more than", "-r NAME"),
        ("nbrun.toml", b"[batch.n]\nnotebooks=['a']\nmatrix.x=[0x" + b"f" * 20_000 + b"]", "'x': an integer of", ""),
        ("nbrun.toml", b"\xff\xfej\x00", "not UTF-8 text", "Save it as UTF-8"),
        ("nbrun.toml", b"#" * (1 << 20) + b"\n", "larger than 1048576 bytes", "--config"),
        ("nbrun.toml", b"jobs = 1\njobs = 2", "not readable as TOML: Cannot overwrite", "--no-config"),
    ],
)  # fmt: skip
def test_a_file_of_settings_that_cannot_count_is_told_with_what_to_do(
    here: Path, name: str, content: bytes, said: str, hint: str
) -> None:
    (here / name).write_bytes(content)
    error = call("run", "a.ipynb", "--config", name).exception
    assert isinstance(error, NbrunError)
    assert any(each in str(error) for each in said.split("|")), error
    assert hint in error.hint
    assert len(str(error)) < 300


def test_a_byte_order_mark_before_settings_is_no_part_of_them(here: Path) -> None:
    (here / "nbrun.toml").write_bytes(b"\xef\xbb\xbfretries = 2\n")
    assert given("x")[0]["retries"] == 2


@pytest.mark.parametrize(
    "arguments",
    [("-j", "9" * 5000), ("--pipeline", "9" * 5000), ("--max-output", "9" * 400), ("--timeout", "9" * 400),
     ("--retries", "9" * 5000), ("--save-every", "9" * 400)],
)  # fmt: skip
def test_a_number_that_no_run_can_mean_is_a_wrong_call(arguments: tuple[str, str], here: Path) -> None:
    with pytest.raises(click.UsageError):
        given("a.ipynb", *arguments)


VALUES: dict[type[Kind], str] = {
    Flag: "true", Integer: "3", Duration: "'7m'", Pause: "'7m'", Text: "'1/3'", PathName: "'1/3'", Texts: "['A=B']",
    Size: "77000", Count: "77000", Words: "'pandas'",
}  # fmt: skip
SPECIAL = {
    "html-code": '"fold"',
    "pdf": '"folder"',
    "keep": '["30d"]\npublish = "site"',
    "latest": '"always"',
    "scheduled": '"2026-11-30"',
    "html-failures": '"hide"',
    "retry-on": "'cell'",
    "order": "'slowest-first'",
    "on-conflict": "'beside'",
    "in-place": "true",
    "server": "'http://h/'",
    "schedule": "'0 6 * * 1-5'",
    "timezone": "'Europe/Berlin'",
    "lock": '"skip"',
    "notify-on": '"success"',
}
NOT_SETTINGS = {
    "--config": "says which settings are read",
    "--no-config": "says which settings are read",
    "--matrix": "stands in a batch, as a table",
    "--if-due": "belongs to one line of a crontab",
    "--parameters": "is the table parameters",
    "--parameter-template": "stands in a batch, as the table parameter-templates",
    "--parameters_raw": "is the table parameters",
    "--help": "shows the help",
}


@pytest.mark.parametrize("option", settings_of(command), ids=lambda setting: setting.name)
def test_every_option_is_a_setting_that_counts(option: Setting, here: Path) -> None:
    value = SPECIAL.get(option.name, VALUES.get(type(option.kind)))
    parameter = next(one for one in command.params if f"--{option.name}" in one.opts)
    if isinstance(parameter.type, click.Path) and parameter.type.exists:
        (here / "1").mkdir()
        (here / "1" / "3").write_text("")
    assert parameter.name is not None
    before = given("a.ipynb")[0][parameter.name]
    if before is True or (parameter.name == "zygote"):
        value = "false"
    (here / "nbrun.toml").write_text(f"{option.name} = {value}\n")
    options, overrides = given("a.ipynb")
    if option.name == "exclude":
        assert list(overrides[0].match) == ["A=B"]
    else:
        assert options[parameter.name] != before


def test_the_options_that_are_no_settings_have_a_reason(here: Path) -> None:
    settings = {option.name for option in settings_of(command)}
    names = {
        next(name for name in one.opts if name.startswith("--")) for one in command.params if one.opts[0][0] == "-"
    }
    assert {name for name in names if name.removeprefix("--") not in settings} <= NOT_SETTINGS.keys()
    page = (ROOT / "docs" / "settings.md").read_text()
    assert all(f"`{name}`" in page for name in NOT_SETTINGS if name != "--help")


def test_files_of_parameters_and_secrets_begin_at_the_settings_folder_too(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "nbrun.toml").write_text('parameters_file = ["values.yaml"]\nsecret-file = ["KEY=key.txt", "odd"]\n')
    (here / "deep").mkdir()
    monkeypatch.chdir(here / "deep")
    options, _ = given("x")
    assert options["parameters_file"] == ("../values.yaml",)
    assert options["secret_file"] == ("KEY=../key.txt", "odd")


def test_a_url_in_the_settings_is_not_relative_to_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    paths = ["s3://bucket/x.ipynb", "git+https://host/r#x.ipynb", "x.ipynb", "out/"]
    assert [from_here(tmp_path, path) for path in paths] == [*paths[:2], "../x.ipynb", "../out/"]
