"""The choice of a destination, and paths that are refused before the run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import nbrun
from nbrun.cli.call import read_options
from nbrun.cli.main import cli
from nbrun.cli.run import command
from nbrun.errors import ExitCode, NbrunError, UsageError
from nbrun.runner.job import paths_of
from tests.support.notebooks import notebook, read_notebook, run_nbrun, write_notebook
from tests.support.permissions import obedient, read_only


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
    (here / "nbrun.toml").write_text(settings)
    with command.make_context("run", ["docs", *typed]) as context:
        options = read_options(context, context.params)
        assert (options["output"], not options["save"], options["in_place"]) == found


@pytest.mark.parametrize(
    ("settings", "typed", "rule"),
    [
        ("", (), "merge"),
        ("", ("--on-conflict", "beside"), "beside"),
        ("", ("--force",), "overwrite"),
        ("", ("--force", "--on-conflict", "overwrite"), "overwrite"),
        ('on-conflict = "beside"', (), "beside"),
        ("force = true", (), "overwrite"),
        ("force = true", ("--on-conflict", "beside"), "beside"),
        ('on-conflict = "beside"', ("--force",), "overwrite"),
    ],
    ids=str,
)
def test_the_rule_for_conflicts_is_the_typed_one(settings: str, typed: tuple[str, ...], rule: str, here: Path) -> None:
    (here / "nbrun.toml").write_text(settings)
    with command.make_context("run", ["in.ipynb", *typed]) as context:
        assert paths_of("in.ipynb", read_options(context, context.params)).on_conflict.value == rule


def test_force_contradicts_every_rule_but_to_overwrite(here: Path) -> None:
    assert "contradict" in str(refused("run", "in.ipynb", "--force", "--on-conflict", "merge"))
    (here / "nbrun.toml").write_text('on-conflict = "never"')
    assert "merge, beside, overwrite" in str(refused("run", "in.ipynb"))


def test_a_jobs_choice_counts_before_the_projects(here: Path) -> None:
    (here / "nbrun.toml").write_text('output = "out"\n[batch.all]\nnotebooks = ["docs"]\nin-place = true\n')
    context = command.make_context("run", [], parent=None, obj=None)
    assert context.params["output"] == "out"
    parent = click.Context(command)
    parent.meta["nbrun.job"] = "all"
    with command.make_context("run", [], parent=parent) as context:
        options = read_options(context, context.params)
        assert (options["output"], options["in_place"]) == (None, True)


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
@pytest.mark.parametrize("path", ["hdfs://bucket/x.ipynb", "s3://", "https:///x", "", "~/x", "~nobody/x"])
def test_nothing_is_written_where_nbrun_cannot_write(option: str, path: str, here: Path) -> None:
    assert refused("run", "in.ipynb", option, path).hint


@pytest.mark.parametrize(
    "arguments",
    [
        ("hdfs://bucket/in.ipynb",),
        ("s3://bucket", "--no-save"),
        ("ftp://host/in.ipynb", "-o", "x.ipynb"),
        ("git+https://host/repository@main", "-o", "x.ipynb"),
        ("hdfs://bucket/*.ipynb", "--no-save"),
        ("",),
        ("in.ipynb", "-f", "s3://bucket/"),
        ("in.ipynb", "-f", "a.yaml", "-f", "foo://host/p.yaml"),
        ("in.ipynb", "--secret-file", "A=https://host/x"),
        ("in.ipynb", "--cwd", ""),
        ("in.ipynb", "-o", "hdfs://bucket/{stem}.ipynb"),
        ("in.ipynb", "-o", "hdfs://bucket/x.ipynb", "--server", "http://127.0.0.1:1/"),
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
        (["docs"], {"output": "foo://b/"}, "foo://"),
        (["docs"], {"output": Path("s3://b/x")}, "cannot write to s3"),
        (["docs"], {"output": ""}, "path is empty"),
        (["docs"], {"save": False, "cache": "gs://b"}, "cannot write to gs"),
        (["foo://b/x.ipynb"], {"save": False}, "foo://"),
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
        ("in.ipynb", {"output": "foo://b/x.ipynb"}, "foo://"),
        ("foo://h/x.ipynb", {}, "foo://"),
        ("in.ipynb", {"output": ""}, "path is empty"),
        ("in.ipynb", {"output": "x.ipynb", "in_place": True}, "output and in_place contradict"),
        ("in.ipynb", {"output": "x.ipynb", "save": False}, "output and save=False contradict"),
        ("in.ipynb", {"on_conflict": "theirs"}, "on_conflict: takes merge, beside, overwrite, not 'theirs'"),
        ("in.ipynb", {"on_conflict": "beside", "force": True}, "force and on_conflict='beside' contradict"),
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


@pytest.mark.parametrize(
    ("name", "output", "options", "saved"),
    [
        ("docs/a.ipynb", "new/", (), "new/docs/a.ipynb"),
        ("docs/a.ipynb", "new/", ("--retries", "1"), "new/docs/a.ipynb"),
        ("docs/a.ipynb", "there", (), "there/docs/a.ipynb"),
        ("in.ipynb", "there.ipynb", (), "there.ipynb/in.ipynb"),
        ("in.ipynb", "deep/new/", ("--prepare-only",), "deep/new/in.ipynb"),
        ("in.ipynb", "file", ("--retries", "1"), "file"),
        ("in.ipynb", "a{{b", ("--retries", "1"), "a{b"),
        ("in.ipynb", "{stem}-{params.x}", ("-p", "x", "1", "--allow-new"), "in-1"),
    ],
)
def test_a_path_that_ends_with_a_separator_or_is_a_folder_is_a_folder(
    name: str, output: str, options: tuple[str, ...], saved: str, here: Path
) -> None:
    (here / "there").mkdir()
    (here / "there.ipynb").mkdir()
    before = (here / name).read_bytes()
    found = call("run", name, "-o", output, "--prepare-only", "-q", *options)
    assert (found.exception, found.return_value) == (None, 0)
    assert (here / saved).is_file()
    assert (here / name).read_bytes() == before


def test_an_executed_notebook_goes_into_a_new_folder(here: Path) -> None:
    assert run_nbrun("run", here / "in.ipynb", "-o", "new/", "-q", cwd=here).returncode == ExitCode.OK
    assert read_notebook(here / "new" / "in.ipynb")["cells"][0]["execution_count"] == 1


@pytest.mark.parametrize("named", [("in.ipynb",), ("docs",), ("in.ipynb", "other.ipynb")])
def test_a_folder_in_which_the_notebook_is_already_is_no_place_for_it(named: tuple[str, ...], here: Path) -> None:
    assert "--in-place" in refused("run", *named, "-o", ".").hint


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("in.ipynb", "other.ipynb", "--html", "report.html"), "one page is for one notebook"),
        (("docs", "--html", "report.HTM"), "one page is for one notebook"),
        (("in.ipynb", "--matrix", "x=1", "--html", "report.html"), "one page is for one notebook"),
        (("docs", "--json", "{stem}.json"), "{stem} differs between notebooks"),
        (("docs", "--html", "site/{params.x}"), "{params.x} differs between notebooks"),
        (("docs", "--events", "{when}.json"), "there is no field {when}"),
        (("in.ipynb", "--junit", "{params.x}.xml"), "is given no parameter 'x'"),
        (("in.ipynb", "--html", "{"), "no template"),
        (("in.ipynb", "--junit", "in.ipynb"), "a report does not go into a notebook"),
        (("in.ipynb", "--json", "docs/../in.ipynb"), "a report does not go into a notebook"),
        (("docs", "--events", "docs/a.ipynb"), "a report does not go into a notebook"),
        (("in.ipynb", "--html", "r.html", "--json", "r.html"), "--json and --html name the same file"),
        (("in.ipynb", "--junit", "docs/../r", "--stderr-file", "r"), "name the same file"),
        (("docs", "--json", "r.json", "--journal", "./r.json"), "--json and --journal name the same file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_reports_that_cannot_be_are_refused(arguments: tuple[str, ...], said: str, here: Path) -> None:
    assert said in str(refused("run", *arguments, "--no-save"))


def test_a_report_does_not_go_into_the_output(here: Path) -> None:
    assert "does not go into a notebook" in str(refused("run", "in.ipynb", "-o", "x.txt", "--json", "x.txt"))


def test_templates_are_filled_in_for_every_report(here: Path) -> None:
    found = run_nbrun(
        "run", "in.ipynb", "--no-save", "-q", "-p", "region", "EU", "--allow-new",
        "--json", "{stem}-{params.region}.json", "--junit", "{date:%Y}/j.xml", "--events", "{run-id}.jsonl",
        "--stdout-file", "{name}.out", "--html", "site/{stem}.html", cwd=here,
    )  # fmt: skip
    assert found.returncode == ExitCode.OK, found.stderr
    assert (here / "in-EU.json").is_file()
    assert len([*here.glob("20??/j.xml")]) == 1
    assert len([path for path in here.glob("*.jsonl") if len(path.stem) == 8]) == 1
    assert (here / "in.ipynb.out").read_text() == "ran\n"
    page = (here / "site" / "in.html").read_text()
    assert "ran" in page
    assert "All notebooks" not in page
    assert [path.name for path in (here / "site").iterdir()] == ["in.html"]


def test_reports_of_many_and_outputs_share_date_and_id(here: Path) -> None:
    found = call("run", "docs", "--prepare-only", "-q", "-o", "{run-id}/{stem}.ipynb", "--json", "{run-id}/{date}.json")
    assert (found.exception, found.return_value) == (None, 0)
    (folder,) = (path for path in here.iterdir() if path.is_dir() and path.name != "docs")
    assert {path.suffix for path in folder.iterdir()} == {".ipynb", ".json"}
    assert len([*folder.iterdir()]) == 3


LONG = "x" * 260


@pytest.mark.parametrize(
    "arguments",
    [
        ("-o", f"{LONG}.ipynb"),
        ("-o", f"new/{LONG}/x.ipynb"),
        ("-o", f"{LONG}/"),
        ("-o", "x" * 254),
        ("-o", "{params.x}.ipynb", "-p", "x", LONG, "--allow-new"),
        ("--no-save", "--json", LONG),
        ("--no-save", "--html", f"new/{LONG}"),
        ("--no-save", "--html", f"{LONG}.html"),
        ("--no-save", "--cache", LONG),
        ("--no-save", "--events", "{params.x}.jsonl", "-p", "x", LONG, "--allow-new"),
        ("--no-save", "--stdout-file", f"ä{LONG}"),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_names_that_are_too_long_are_refused_at_once(arguments: tuple[str, ...], here: Path) -> None:
    error = refused("run", "in.ipynb", *arguments)
    assert "is too long" in str(error)
    assert len(str(error)) < 250


def test_a_notebook_of_a_name_that_is_too_long_is_none(here: Path) -> None:
    assert "cannot be read" in str(refused("run", f"{LONG}.ipynb"))
    assert "cannot be read" in str(refused("run", "in.ipynb", LONG, "--no-save"))


UNPRIVILEGED = """
import json, os, sys
from click.testing import CliRunner
from nbrun.cli.main import cli
for arguments in json.load(sys.stdin):
    found = CliRunner().invoke(cli, arguments, standalone_mode=False)
    error = found.exception
    print(json.dumps([type(error).__name__, getattr(error, "exit_code", None), str(error), error and error.hint]))
"""
CASES = [
    (["sealed.ipynb"], "sealed.ipynb: cannot be written: Permission denied", "--no-save"),
    (["sealed.ipynb", "--prepare-only"], "sealed.ipynb: cannot be written", "-o FILE"),
    (["sealed.ipynb", "in.ipynb", "--in-place"], "sealed.ipynb: cannot be written", "--no-save"),
    (["in.ipynb", "-o", "sealed.ipynb"], "-o sealed.ipynb: cannot be written", "another place"),
    (["in.ipynb", "-o", "sealed/out.ipynb"], "-o sealed/out.ipynb: cannot be written", "another place"),
    (["in.ipynb", "-o", "sealed/deep/out.ipynb"], "-o sealed/deep/out.ipynb: cannot be written", "another place"),
    (["in.ipynb", "-o", "sealed/"], "-o sealed/in.ipynb: cannot be written", "another place"),
    (["docs", "-o", "sealed"], "sealed/docs/a.ipynb: cannot be written", "another place"),
    (["in.ipynb", "-o", "sealed/out.ipynb", "--prepare-only"], "cannot be written", "another place"),
    (["in.ipynb", "--html", "sealed"], "--html sealed: cannot be written", "another place"),
    (["in.ipynb", "--html", "sealed/site"], "--html sealed/site: cannot be written", "another place"),
    (["in.ipynb", "--html", "sealed/in.html"], "--html sealed/in.html: cannot be written", "another place"),
    (["docs", "--no-save", "--html", "sealed"], "--html sealed: cannot be written", "another place"),
    (["in.ipynb", "--json", "sealed/r.json"], "--json sealed/r.json: cannot be written", "another place"),
    (["in.ipynb", "--junit", "sealed/deep/r.xml"], "--junit sealed/deep/r.xml: cannot be written", "another place"),
    (["in.ipynb", "--events", "sealed.txt"], "--events sealed.txt: cannot be written", "another place"),
    (["in.ipynb", "--stdout-file", "sealed/o"], "--stdout-file sealed/o: cannot be written", "another place"),
    (["in.ipynb", "--stderr-file", "sealed/o"], "--stderr-file sealed/o: cannot be written", "another place"),
    (["in.ipynb", "--no-save", "--cache", "sealed"], "--cache sealed: cannot be written", "another place"),
    (["secret.ipynb"], "secret.ipynb: cannot be read: Permission denied", "right to read"),
    (["secret.ipynb", "--no-save"], "secret.ipynb: cannot be read", "right to read"),
    (["secret.ipynb", "--prepare-only", "-o", "x.ipynb"], "secret.ipynb: cannot be read", "right to read"),
    (["in.ipynb", "secret.ipynb", "--no-save"], "secret.ipynb: cannot be read", "right to read"),
    (["closed/in.ipynb", "--no-save"], "closed/in.ipynb: cannot be read: Permission denied", "right to read"),
]


def test_places_without_permission_are_refused_before_anything_runs(here: Path) -> None:
    (here / "sealed").mkdir()
    (here / "closed").mkdir()
    for name in ("sealed.ipynb", "secret.ipynb", "closed/in.ipynb"):
        write_notebook(here / name, notebook("1"))
    (here / "sealed.txt").touch()
    before = state(here)
    modes = {"sealed": 0o555, "sealed.ipynb": 0o444, "sealed.txt": 0o444, "secret.ipynb": 0, "closed": 0}
    for name, mode in modes.items():
        (here / name).chmod(mode)
    try:
        process = subprocess.run(
            [*obedient(), sys.executable, "-c", UNPRIVILEGED],
            input=json.dumps([["run", *arguments] for arguments, _, _ in CASES]),
            capture_output=True, text=True, timeout=120, check=False, cwd=here,
        )  # fmt: skip
    finally:
        for name in modes:
            (here / name).chmod(0o755)
    assert process.returncode == 0, process.stderr
    answers = [json.loads(line) for line in process.stdout.splitlines()]
    for (arguments, said, advice), (kind, code, message, hint) in zip(CASES, answers, strict=True):
        assert (kind, code) == ("UsageError", ExitCode.USAGE), (arguments, kind, message)
        assert said in message, arguments
        assert advice in hint, arguments
    assert state(here) == before


def test_a_read_only_notebook_can_be_run_without_being_saved(here: Path) -> None:
    with read_only(here / "in.ipynb"):
        assert run_nbrun("run", "in.ipynb", "-o", "out.ipynb", "-q", cwd=here).returncode == ExitCode.OK
        found = run_nbrun("run", "in.ipynb", cwd=here)
    assert found.returncode == ExitCode.USAGE
    assert "nbrun: in.ipynb: cannot be written: Operation not permitted" in found.stderr or "denied" in found.stderr
