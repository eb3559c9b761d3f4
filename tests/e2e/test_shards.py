"""A real batch in three shards, merged: the same result and reports as those of one undivided batch."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from nbrun.errors import ExitCode
from tests.support.notebooks import VOLATILE_TEXT, markdown, notebook, run_nbrun, write_notebook

NOTEBOOKS = {
    "nb/a.ipynb": notebook(markdown("# First"), "print('a')", "import sys; print('b', end=''); sys.stderr.write('c')"),
    "nb/b.ipynb": notebook("x = {}\n\nx['no such key']", "'never'"),
    "nb/c.ipynb": notebook("from IPython.display import HTML; HTML('<b>bold</b>')", "1 + 1"),
    "nb/d.ipynb": notebook("for number in range(3):\n    print('line', number)"),
    "nb/deep/a.ipynb": notebook("'another a'", ""),
    "nb/e.ipynb": notebook("print('é')"),
}
REPORTS = ("--json", "all.json", "--junit", "all.xml", "--html", "site", "--github")
TIMES = re.compile(
    r'(time|timestamp|"started"|"seconds")(=|: )("[^"]*"|[\d.]+)|\d{4}-\d\d-\d\d[T ][\d:.+]+|(left|width): ?[\d.]+%'
)


def nbrun(folder: Path, *arguments: str | Path) -> tuple[int, str]:
    """Run nbrun in a folder; return its exit code and messages."""
    environment = {"GITHUB_STEP_SUMMARY": str(folder / "summary.md"), "GITHUB_OUTPUT": str(folder / "outputs")}
    process = run_nbrun(*arguments, cwd=folder, env=environment)
    return process.returncode, process.stderr


def write(folder: Path) -> Path:
    for name, content in NOTEBOOKS.items():
        write_notebook(folder / name, content)
    return folder


def reports_in(folder: Path) -> Mapping[str, str]:
    """Return all reports in a folder by name, without times."""
    site = sorted((folder / "site").rglob("*.html"))
    files = [folder / "all.json", folder / "all.xml", folder / "summary.md", *site]
    return {path.relative_to(folder).as_posix(): without_times(path.read_text()) for path in files}


def without_times(text: str) -> str:
    for pattern, replacement in VOLATILE_TEXT:
        text = pattern.sub(replacement, text)
    return re.sub(r"<details><summary>Slowest cells.*", "", TIMES.sub("TIME", text), flags=re.DOTALL).strip()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write(tmp_path_factory.mktemp("whole"))
    assert nbrun(folder, "run", "nb", "-o", "out", "-j", "2", *REPORTS)[0] == ExitCode.NOTEBOOK_FAILED
    return folder


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artefacts of three jobs in ``jobs/K``: the JSON result, and the folder of the executed notebooks."""
    folder = write(tmp_path_factory.mktemp("shards"))
    codes = []
    for number in ("1", "2", "3"):
        codes.append(nbrun(folder, "run", "nb", "-o", "out", "--shard", f"{number}/3", "--json", "shard.json")[0])
        job = folder / "jobs" / number
        job.mkdir(parents=True)
        shutil.move(folder / "shard.json", job / "shard.json")
        shutil.move(folder / "out", job / "out")
    assert sorted(codes) == [ExitCode.OK, ExitCode.OK, ExitCode.NOTEBOOK_FAILED]
    return folder


def test_the_merged_reports_are_those_of_one_undivided_batch(whole: Path, jobs: Path) -> None:
    assert nbrun(jobs, "merge", "jobs", *REPORTS)[0] == ExitCode.NOTEBOOK_FAILED
    merged, undivided = reports_in(jobs), reports_in(whole)
    assert merged.keys() == undivided.keys()
    assert len(merged) == 3 + len(NOTEBOOKS) + 1
    for name, text in undivided.items():
        assert merged[name] == text, name


def test_the_merged_reports_of_some_shards_name_the_missing_ones(jobs: Path) -> None:
    code, said = nbrun(jobs, "merge", "jobs/1", "jobs/3/shard.json", "--json", "some.json")
    assert code == ExitCode.SERVER
    assert "nbrun: shard 2 of 3 is missing\n  Look at the log of that job. Run it again with --shard 2/3," in said
    result = json.loads((jobs / "some.json").read_text())
    assert (result["exit_code"], result["problem"]["message"]) == (ExitCode.SERVER, "shard 2 of 3 is missing")
    assert 0 < len(result["runs"]) < len(NOTEBOOKS)


def truncated(folder: Path) -> None:
    path = folder / "2" / "shard.json"
    path.write_bytes(path.read_bytes()[:300])


def of_another_batch(folder: Path) -> None:
    path = folder / "2" / "shard.json"
    path.write_text(re.sub(r'"batch": "\w+"', '"batch": "0123"', path.read_text()))


def without_notebooks(folder: Path) -> None:
    shutil.rmtree(folder / "2" / "out")


def with_notebooks_of_another_run(folder: Path) -> None:
    for path in (folder / "2" / "out").rglob("*.ipynb"):
        path.write_text(re.sub(r'"started": "[^"]+"', '"started": "2020-01-01T00:00:00.000+00:00"', path.read_text()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (truncated, "jobs/2/shard.json: no JSON; it may be cut off"),
        (lambda folder: shutil.copytree(folder / "2", folder / "4"), "both are shard 2"),
        (of_another_batch, "jobs/1/shard.json and jobs/2/shard.json: results of different batches"),
        (without_notebooks, "--html and --pdf need the executed notebooks; not found: out/nb"),
        (with_notebooks_of_another_run, "--html and --pdf need the executed notebooks; not found: out/nb"),
        (shutil.rmtree, "jobs: cannot be read: No such file or directory"),
    ],
)
def test_results_that_cannot_be_merged_are_reported(
    jobs: Path, tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    shutil.copytree(jobs / "jobs", tmp_path / "jobs")
    change(tmp_path / "jobs")
    code, said = nbrun(tmp_path, "merge", "jobs", "--json", "all.json", "--html", "site")
    assert code == ExitCode.USAGE
    assert message in said
    assert message in json.loads((tmp_path / "all.json").read_text())["problem"]["message"]
