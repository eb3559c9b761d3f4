"""Where results go: what a call must say, and what is refused before anything runs."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import nbrun
from nbrun.cli.app import cli
from nbrun.errors import ExitCode, NbrunError, UsageError
from tests.support.notebooks import notebook, read_notebook, run_nbrun, write_notebook


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with notebooks in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("in", "other", "docs/a", "docs/b"):
        write_notebook(tmp_path / f"{name}.ipynb", notebook("print('ran')"))
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), standalone_mode=False)


def refused(*arguments: str) -> NbrunError:
    """Return the error of a call that ends before anything is run or written."""
    before = state(Path.cwd())
    error = call(*arguments).exception
    assert isinstance(error, UsageError), error
    assert state(Path.cwd()) == before
    return error


def state(folder: Path) -> dict[str, bytes | None]:
    """Return all that a folder holds."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "arguments",
    [
        ("in.ipynb", "other.ipynb", "-p", "region", "US"),
        ("in.ipynb", "new.ipynb", "-p", "region", "US"),
        ("docs/",),
        (".",),
        ("*.ipynb",),
        ("in*.ipynb",),
        ("none*.ipynb", "--allow-empty"),
        ("in.ipynb", "--matrix", "x=1"),
        ("docs", "--prepare-only"),
        ("docs", "--help-notebook"),
        ("docs", "--cache", "kept"),
        ("team/", "--server", "http://127.0.0.1:1/"),
        ("a.ipynb", "b.ipynb", "--server", "http://127.0.0.1:1/"),
        ("docs/*.ipynb", "--server", "http://127.0.0.1:1/", "--upload"),
    ],
    ids=" ".join,
)
def test_several_notebooks_are_not_overwritten_unasked(arguments: tuple[str, ...], here: Path) -> None:
    error = refused("run", *arguments)
    assert all(option in error.hint for option in ("-o ", "--no-save", "--in-place"))


def test_papermills_form_is_answered_with_ours(here: Path) -> None:
    for second in ("other.ipynb", "new.ipynb"):
        first = refused("run", "in.ipynb", second).hint.splitlines()[0]
        assert first.endswith(f"nbrun run in.ipynb -o {second}")
    assert "shows one notebook, not 2" in str(refused("plan", "in.ipynb", "new.ipynb"))


def test_a_batch_of_the_settings_has_to_say_it_too(here: Path) -> None:
    (here / "nbrun.toml").write_text('[batch.nightly]\nnotebooks = ["in.ipynb"]\n')
    assert "notebooks of the settings" in str(refused("batch", "nightly"))
    (here / "nbrun.toml").write_text('[batch.nightly]\nnotebooks = ["in.ipynb"]\nmatrix = {x = [1, 2]}\n')
    assert "matrix" in str(refused("batch", "nightly"))


def test_in_place_overwrites_each(here: Path) -> None:
    found = run_nbrun("run", "docs/", "in.ipynb", "--in-place", "-j", "2", cwd=here)
    assert found.returncode == ExitCode.OK, found.stderr
    for name in ("docs/a", "docs/b", "in"):
        assert read_notebook(here / f"{name}.ipynb")["cells"][0]["execution_count"] == 1
    assert read_notebook(here / "other.ipynb")["cells"][0]["execution_count"] is None


@pytest.mark.parametrize(
    ("settings", "typed", "found"),
    [
        ("in-place = true", (), (None, False, True)),
        ("in-place = true", ("-o", "out"), ("out", False, False)),
        ("in-place = true", ("--no-save",), (None, True, False)),
        ('output = "out"', ("--in-place",), (None, False, True)),
        ('output = "out"', ("--no-save",), (None, True, False)),
        ("no-save = true", ("-o", "out"), ("out", False, False)),
        ("no-save = true", ("--in-place",), (None, False, True)),
    ],
    ids=str,
)
def test_what_is_typed_counts_before_the_settings(
    settings: str, typed: tuple[str, ...], found: tuple[Any, ...], here: Path
) -> None:
    import click

    from nbrun.cli.destinations import settle_choice
    from nbrun.cli.run import command

    (here / "nbrun.toml").write_text(settings)
    with command.make_context("run", ["docs", *typed]) as context:
        given = dict(context.params)
        settle_choice(click.get_current_context(), given)
        assert (given["output"], given["no_save"], given["in_place"]) == found


def test_a_jobs_choice_counts_before_the_projects(here: Path) -> None:
    from nbrun.cli.destinations import settle_choice
    from nbrun.cli.run import command

    (here / "nbrun.toml").write_text('output = "out"\n[batch.all]\nnotebooks = ["docs"]\nin-place = true\n')
    context = command.make_context("run", [], parent=None, obj=None)
    assert context.params["output"] == "out"
    import click

    parent = click.Context(command)
    parent.meta["nbrun.job"] = "all"
    with command.make_context("run", [], parent=parent) as context:
        given = dict(context.params)
        settle_choice(context, given)
        assert (given["output"], given["in_place"]) == (None, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-o", "out", "--no-save"), "--output and --no-save contradict"),
        (("-o", "out", "--in-place"), "--output and --in-place contradict"),
        (("--no-save", "--in-place"), "--no-save and --in-place contradict"),
    ],
)
def test_two_choices_contradict_each_other(arguments: tuple[str, ...], said: str, here: Path) -> None:
    assert said in str(refused("run", "in.ipynb", *arguments))


OUTPUTS = ("-o", "--html", "--json", "--junit", "--events", "--stdout-file", "--stderr-file", "--cache")


@pytest.mark.parametrize("option", OUTPUTS)
@pytest.mark.parametrize("path", ["s3://bucket/x.ipynb", "https://host/x", "", "~/x", "~nobody/x"])
def test_nothing_is_written_where_nbrun_cannot_write(option: str, path: str, here: Path) -> None:
    assert refused("run", "in.ipynb", option, path).hint


@pytest.mark.parametrize(
    "arguments",
    [
        ("s3://bucket/in.ipynb",),
        ("https://host/in.ipynb", "-o", "x.ipynb"),
        ("gs://bucket/*.ipynb", "--no-save"),
        ("",),
        ("in.ipynb", "-f", "s3://bucket/p.yaml"),
        ("in.ipynb", "-f", "a.yaml", "-f", "https://host/p.yaml"),
        ("in.ipynb", "--secret-file", "A=https://host/x"),
        ("in.ipynb", "--cwd", ""),
        ("in.ipynb", "-o", "s3://bucket/{stem}.ipynb"),
        ("in.ipynb", "-o", "s3://bucket/x.ipynb", "--server", "http://127.0.0.1:1/"),
    ],
    ids=" ".join,
)
def test_nothing_is_read_where_nbrun_cannot_read(arguments: tuple[str, ...], here: Path) -> None:
    assert refused("run", *arguments).hint


@pytest.mark.parametrize(
    ("named", "options", "said"),
    [
        (["in.ipynb", "other.ipynb"], {}, "notebooks of 2 paths"),
        (["docs"], {}, "a folder or a pattern"),
        (["i*.ipynb"], {}, "a folder or a pattern"),
        (["in.ipynb"], {"matrix": {"x": [1]}}, "matrix"),
        (["docs"], {"prepare_only": True}, "a folder or a pattern"),
        (["docs"], {"in_place": True, "output": "out"}, "output and in_place contradict"),
        (["docs"], {"in_place": True, "save": False}, "save=False and in_place contradict"),
        (["docs"], {"output": "s3://b"}, "cannot write to s3"),
        (["docs"], {"output": Path("s3://b/x")}, "cannot write to s3"),
        (["docs"], {"output": ""}, "path is empty"),
        (["docs"], {"save": False, "cache": "gs://b"}, "cannot write to gs"),
        (["s3://b/x.ipynb"], {"save": False}, "cannot read from s3"),
    ],
    ids=str,
)
def test_the_rules_hold_in_python(named: list[str], options: dict[str, Any], said: str, here: Path) -> None:
    before = state(here)
    with pytest.raises(UsageError, match=said):
        nbrun.run_many(named, **options)
    assert state(here) == before


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("in.ipynb", {"output": "s3://b/x.ipynb"}, "cannot write to s3"),
        ("https://h/x.ipynb", {}, "cannot read from https"),
        ("in.ipynb", {"output": ""}, "path is empty"),
        ("in.ipynb", {"output": "x.ipynb", "in_place": True}, "output and in_place contradict"),
        ("in.ipynb", {"output": "x.ipynb", "save": False}, "output and save=False contradict"),
    ],
    ids=str,
)
def test_the_rules_hold_for_one_run_in_python(name: str, options: dict[str, Any], said: str, here: Path) -> None:
    before = state(here)
    with pytest.raises(UsageError, match=said):
        nbrun.run(name, **options)
    assert state(here) == before


def test_one_notebook_needs_no_word_in_python(here: Path) -> None:
    assert nbrun.run_many(["in.ipynb"]).exit_code is ExitCode.OK
    assert read_notebook(here / "in.ipynb")["cells"][0]["execution_count"] == 1
