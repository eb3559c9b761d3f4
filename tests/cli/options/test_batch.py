"""``nbrun run`` with many notebooks, as a command."""

import json
import signal
from pathlib import Path

import pytest

from nbrun.errors import ExitCode
from tests.support.notebooks import assert_exit, notebook, read_notebook, run_nbrun, write_notebook
from tests.support.processes import await_no_process_of, live_nbrun


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of notebooks, of which one fails."""
    for name, source in {"a": "print('a')", "b": "1/0", "c": "print('c')"}.items():
        write_notebook(tmp_path / "nb" / f"{name}.ipynb", notebook(source))
    return tmp_path


def test_a_folder_is_a_batch_with_one_object_for_all(folder: Path) -> None:
    found = run_nbrun("run", "nb", "-j", "2", "-o", "out/", "--exclude", "c.*", "--json", "-", cwd=folder)
    assert_exit(found, ExitCode.NOTEBOOK_FAILED)
    result = json.loads(found.stdout)
    assert {run["notebook"]: run["outcome"] for run in result["runs"]} == {
        "nb/a.ipynb": "passed",
        "nb/b.ipynb": "failed",
    }
    assert (result["exit_code"], result["tally"], result["left_out"]) == (1, {"passed": 1, "failed": 1}, 0)
    assert (folder / "out" / "nb" / "a.ipynb").exists()
    assert "ZeroDivisionError: division by zero" in found.stderr


def test_one_notebook_with_a_batchs_options_has_one_object(folder: Path) -> None:
    options = ("-o", "out/{stem}-{index}.ipynb", "--cache", "kept", "--json", "-", "-q")
    results = [json.loads(run_nbrun("run", "nb/a.ipynb", *options, cwd=folder).stdout) for _ in range(2)]
    assert [(result["output"], result["cached"]) for result in results] == [
        ("out/a-1.ipynb", False),
        ("out/a-1.ipynb", True),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["none*", "--no-save"], ExitCode.NOTHING_TO_RUN, "no notebook matches none*"),
        (["none*", "--allow-empty", "--in-place"], ExitCode.OK, ""),
        (["nb/a.ipynb", "none.ipynb", "--no-save"], ExitCode.USAGE, "no such file or folder"),
        (["nb", "--matrix", "x=1,2", "--in-place"], ExitCode.USAGE, "would both write"),
        (["nb", "-j", "0"], ExitCode.USAGE, "takes a number from 1, or auto, not '0'"),
        (["nb", "--retry-on", "kernel,weather"], ExitCode.USAGE, "'weather' is none of"),
        (["nb", "--shard", "9", "--in-place"], ExitCode.USAGE, "no part of a whole"),
        (["nb/a.ipynb", "--no-cache-read"], ExitCode.USAGE, "--no-cache-read needs --cache"),
        (["nb", "--exclude", "nb", "-o", "out/"], ExitCode.NOTHING_TO_RUN, "no notebook matches"),
        (["nb/a.ipynb", "--shard", "2/2"], ExitCode.OK, "nothing to run here: 1 left out"),
        ([], ExitCode.USAGE, "PATH"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_run_is_told_before_anything_is(
    arguments: list[str], code: ExitCode, said: str, folder: Path
) -> None:
    found = run_nbrun("run", *arguments, "--json", "r.json", cwd=folder)
    assert_exit(found, code)
    assert said in found.stderr
    assert "Traceback" not in found.stderr
    assert read_notebook(folder / "nb" / "a.ipynb")["cells"][0]["execution_count"] is None


def test_the_first_signal_ends_a_batch_in_good_order(folder: Path) -> None:
    slow = "import pathlib, time\nprint('so far', flush=True)\npathlib.Path('running').touch()\ntime.sleep(120)"
    write_notebook(folder / "nb" / "a.ipynb", notebook(slow))
    with live_nbrun("nb", "--in-place", cwd=folder, json_file=folder / "r.json") as run:
        run.await_file(folder / "nb" / "running")
        run.signal(signal.SIGTERM)
        assert run.end(within=30) == ExitCode.TERMINATED
        await_no_process_of(run.mark, within=5)
    first, *others = run.report()["runs"]
    assert first["outcome"] == "interrupted"
    assert others[-1]["outcome"] == "not-run"
    assert "so far" in json.dumps(read_notebook(folder / "nb" / "a.ipynb")["cells"][0]["outputs"])


def test_a_second_signal_ends_it_at_once(folder: Path) -> None:
    deaf = "import pathlib, time\nwhile True:\n    try:\n        pathlib.Path('running').touch(); time.sleep(99)\n"
    write_notebook(folder / "nb" / "a.ipynb", notebook(f"{deaf}    except BaseException: open('interrupted', 'w')"))
    with live_nbrun("nb", "--in-place", cwd=folder, json_file=folder / "r.json") as run:
        run.await_file(folder / "nb" / "running")
        run.signal(signal.SIGINT)
        run.await_file(folder / "nb" / "interrupted")
        run.signal(signal.SIGINT)
        assert run.end(within=2) == ExitCode.INTERRUPTED
        await_no_process_of(run.mark, within=5)
