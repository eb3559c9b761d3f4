"""``nbrun merge`` with files that are not as they should be: each is an error that names them, or a true result."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from nbrun.cli.main import cli
from nbrun.core.results import BatchResult, NotebookResult, Outcome, Part, Problem
from nbrun.errors import ExitCode, NbrunError
from tests.support.notebooks import notebook, write_notebook

START = "2026-01-01T00:00:00.000+00:00"


def write_shard(number: int, *names: str, file: str = "", total: int = 3) -> None:
    """Write the result of a shard and its executed notebooks; the n-th notebook of the batch is called ``n.ipynb``."""
    runs = [NotebookResult("1.0", name, f"out/{name}", "python3", Outcome.PASSED, START, 1.0) for name in names]
    part = Part(number, total, "key", 2, [int(name[0]) for name in names], names)
    batch = BatchResult("1.0", START, 1.0, runs, 2 - len(names), shard=part)
    path = Path(file or f"shards/{number}/shard.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(batch.as_dict()))
    for name in names:
        write_notebook(path.parent / "out" / name, notebook("1", nbrun={"run": {"started": START}}))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two notebooks in three shards."""
    monkeypatch.chdir(tmp_path)
    write_shard(1, "0.ipynb")
    write_shard(2)
    write_shard(3, "1.ipynb")
    return tmp_path


def merge(*arguments: str) -> tuple[Any, str]:
    """Return the exit code of a merge, and its messages with the hint."""
    found: Result = CliRunner().invoke(cli, ["merge", *arguments], standalone_mode=False)
    if isinstance(found.exception, NbrunError):
        return found.exception.exit_code, f"{found.exception}\n{found.exception.hint}"
    assert found.exception is None, found.exc_info
    return found.return_value, found.output


def result(file: str = "all.json") -> Any:
    return json.loads(Path(file).read_text())


def test_an_empty_shard_is_merged_like_the_others() -> None:
    assert merge("shards", "--json", "all.json", "--html", "site")[0] == ExitCode.OK
    assert [run["notebook"] for run in result()["runs"]] == ["0.ipynb", "1.ipynb"]
    assert (result()["left_out"], result()["shard"], result()["problem"]) == (0, None, None)
    assert sorted(page.name for page in Path("site").glob("*.html")) == ["0.html", "1.html", "index.html"]


def truncate(name: str, size: int) -> None:
    Path(name).write_bytes(Path(name).read_bytes()[:size])


def replace(name: str, old: str, new: str) -> None:
    path = Path(name)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("change", "arguments", "code", "message"),
    [
        (
            lambda: truncate("shards/3/shard.json", 200),
            ["shards"],
            ExitCode.USAGE,
            "shards/3/shard.json: no JSON; it m",
        ),
        (lambda: truncate("shards/3/shard.json", 0), ["shards"], ExitCode.SERVER, "shard 3 of 3 is missing"),
        (lambda: truncate("shards/3/shard.json", 0), ["shards/3/shard.json"], ExitCode.USAGE, "no JSON; it may be cut"),
        (lambda: write_shard(3, file="shards/old.json"), ["shards"], ExitCode.USAGE, "both are shard 3"),
        (int, ["shards", "shards/3/shard.json", "./shards/3"], ExitCode.OK, ""),
        (lambda: Path("link").symlink_to("shards"), ["shards", "link"], ExitCode.OK, ""),
        (lambda: write_shard(3, "0.ipynb"), ["shards"], ExitCode.USAGE, "both have 0.ipynb"),
        (lambda: write_shard(3), ["shards"], ExitCode.USAGE, "the shards have 1 of the 2 runs"),
        (lambda: write_shard(3, "1.ipynb", total=4), ["shards"], ExitCode.USAGE, "a shard of 3 and one of 4"),
        (
            lambda: replace("shards/3/shard.json", '"batch": "key"', '"batch": "other"'),
            ["shards"],
            ExitCode.USAGE,
            "shards/1/shard.json and shards/3/shard.json: results of different batches",
        ),
        (
            lambda: replace("shards/3/shard.json", '{"version": "1.0"', '{"version": "2.0"'),
            ["shards"],
            ExitCode.USAGE,
            "of nbrun 1.0 and 2.0",
        ),
        (lambda: Path("x.json").write_text("[]"), ["x.json"], ExitCode.USAGE, "x.json: not the result of a batch"),
        (lambda: Path("x.json").write_text("{}"), ["x.json"], ExitCode.USAGE, "x.json: not the result of a batch"),
        (lambda: Path("x.json").write_text("[1, {}]"), [".", "--json", "all.json"], ExitCode.OK, ""),
        (lambda: Path("shards/folder.json").mkdir(), ["shards"], ExitCode.OK, ""),
        (lambda: os.mkfifo("shards/pipe.json"), ["shards"], ExitCode.OK, ""),
        (lambda: Path("shards/link.json").symlink_to("nowhere"), ["shards"], ExitCode.OK, ""),
        (lambda: Path("empty").mkdir(), ["empty"], ExitCode.USAGE, "empty: there is no result of a shard"),
        (int, ["nowhere"], ExitCode.USAGE, "nowhere: cannot be read: No such file or directory"),
        (
            lambda: Path("shards/3/out/1.ipynb").unlink(),
            ["shards", "--html", "site"],
            ExitCode.USAGE,
            "not found: out/1.ipynb",
        ),
        (lambda: Path("shards/3/out/1.ipynb").unlink(), ["shards", "--junit", "all.xml"], ExitCode.OK, ""),
    ],
)
def test_each_set_of_files_is_merged_truly_or_refused(
    change: Callable[[], object], arguments: list[str], code: ExitCode, message: str
) -> None:
    change()
    found, said = merge(*arguments)
    assert (found, message in said) == (code, True), said


@pytest.mark.parametrize(
    "arguments",
    [
        ("shards", "--json", "shards/2/shard.json"),
        ("shards", "--junit", "shards/1/../2/shard.json"),
        ("shards/1", "shards/2/shard.json", "--json", "shards/2/shard.json"),
    ],
)
def test_a_report_never_replaces_the_result_of_a_shard(arguments: tuple[str, ...]) -> None:
    before = Path("shards/2/shard.json").read_bytes()
    code, said = merge(*arguments)
    assert (code, "would replace a result that is merged" in said) == (ExitCode.USAGE, True)
    assert Path("shards/2/shard.json").read_bytes() == before


def test_a_merge_that_failed_can_be_repeated_in_the_folder_of_the_shards() -> None:
    write_shard(3, "0.ipynb")
    assert merge("shards", "--json", "shards/all.json")[0] is ExitCode.USAGE
    assert "both have 0.ipynb" in result("shards/all.json")["problem"]["message"]
    Path("shards/3/shard.json").unlink()
    code, said = merge("shards", "--json", "shards/all.json")
    assert (code, "shard 3 of 3 is missing" in said, "both have" in said) == (ExitCode.SERVER, True, False)
    write_shard(3, "1.ipynb")
    assert merge("shards", "--json", "shards/all.json")[0] == ExitCode.OK


def test_a_batch_of_which_no_job_could_start_exits_with_4_and_the_reasons() -> None:
    for number in (1, 2, 3):
        failed = BatchResult("1.0", START, 0.0, problem=Problem("no such kernel"), failure=ExitCode.USAGE)
        Path(f"shards/{number}/shard.json").write_text(json.dumps(failed.as_dict()))
    code, said = merge("shards", "--json", "all.json")
    assert (code, said.count("no such kernel")) == (ExitCode.SERVER, 3)
    assert result()["exit_code"] == ExitCode.SERVER
