"""Memory of nbrun's process for large and for limited outputs, and of its server and kernel while it does not read."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.notebooks import notebook, outputs_of, read_notebook, write_notebook
from tests.support.processes import LiveNbrun, live_nbrun
from tests.support.servers import pause

# Not getrusage's maximum: that of the process which started this one counts in there, too.
MEASURED = """
import atexit, re
def show_peak():
    with open("/proc/self/status") as status:
        print(int(re.search(r"VmHWM:\\s*(\\d+) kB", status.read())[1]) * 1024, flush=True)
atexit.register(show_peak)
from nbrun.__main__ import main
main()
"""
PICTURE = "from IPython.display import display\ndisplay({{'image/png': 'A' * {}}}, raw=True)"


def peak_of_run(path: Path, *options: str) -> int:
    """Run a notebook on a private server; returns the most memory that nbrun's own process had, in bytes."""
    command = [sys.executable, "-c", MEASURED, "run", str(path), "-q", *options]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=270)
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> int:
    """The most memory of a run whose output is small."""
    return peak_of_run(write_notebook(tmp_path_factory.mktemp("base") / "nothing.ipynb", notebook("1")))


def check_lines(tmp_path: Path, lines: int, base: int) -> None:
    path = write_notebook(tmp_path / "lines.ipynb", notebook(f"for i in range({lines}): print(i)"))
    peak = peak_of_run(path)
    [[output]] = outputs_of(read_notebook(path))
    size = len(output["text"])
    assert output["text"].endswith(f"\n{lines - 1}\n")
    print(f"{lines} lines, {size} bytes: peak {peak}, {peak / size:.2f} times the text")
    assert peak - base < 3 * size
    if lines >= 10_000_000:
        assert peak < 3 * size


def test_a_million_lines_cost_less_than_three_times_their_text(tmp_path: Path, base: int) -> None:
    check_lines(tmp_path, 1_000_000, base)


@pytest.mark.slow
@pytest.mark.soak
def test_ten_million_lines_cost_less_than_three_times_their_text(tmp_path: Path, base: int) -> None:
    check_lines(tmp_path, 10_000_000, base)


def test_outputs_of_an_earlier_run_are_in_memory_once_while_they_are_loaded(tmp_path: Path, base: int) -> None:
    earlier = notebook(*["1"] * 20)
    for number, cell in enumerate(earlier["cells"]):
        image = f"{number:04}" * 500_000
        cell["outputs"] = [{"output_type": "display_data", "metadata": {}, "data": {"image/png": image}}]
    path = write_notebook(tmp_path / "earlier.ipynb", earlier)
    peak = peak_of_run(path)
    assert peak - base < 1.4 * 40_000_000
    assert [[output["data"] for output in cell] for cell in outputs_of(read_notebook(path))] == [
        [{"text/plain": "1"}]
    ] * 20


def test_of_what_is_more_than_a_cell_may_put_out_both_ends_are_kept_in_bounded_memory(
    tmp_path: Path, base: int
) -> None:
    cells = ("for i in range(1_000_000): print(i)", PICTURE.format(3_000_000), "print('after')")
    path = write_notebook(tmp_path / "limited.ipynb", notebook(*cells))
    peak = peak_of_run(path, "--max-output", "1MB", "--json", str(tmp_path / "result.json"))
    assert peak - base < 40_000_000  # a message of its text is a few megabytes large before anything is cut
    document = read_notebook(path)
    printed, picture, after = outputs_of(document)
    head, note, tail = (output["text"] for output in printed)
    assert (head.startswith("0\n1\n2\n"), tail.endswith("\n999999\n")) == (True, True)
    assert "of output was cut here: a cell may put out 1 MB (--max-output)" in note
    assert len(head) + len(tail) <= 1_000_000
    assert [output["output_type"] for output in picture] == ["stream"]
    assert "1 whole output" in picture[0]["text"]
    assert after == [{"output_type": "stream", "name": "stdout", "text": "after\n"}]
    result = json.loads((tmp_path / "result.json").read_text())
    whole = sum(len(f"{number}\n") for number in range(1_000_000))
    truncated = {"characters": whole - len(head) - len(tail), "outputs": 0, "limit": 1_000_000}
    assert result["cells"][0]["truncated"] == truncated
    assert document["cells"][0]["metadata"]["nbrun"]["truncated"] == truncated
    assert result["cells"][2]["truncated"] is None
    assert (result["outcome"], result["exit_code"], len(result["warnings"])) == ("passed", 0, 2)


FLOOD = """
from IPython.display import display
for number in range(200):
    display({"image/png": "A" * 1_000_000}, raw=True)
    print(number, flush=True)
    with open("written", "a") as file:
        file.write(".")
"""


@contextlib.contextmanager
def stopped(tmp_path: Path, *options: str) -> Iterator[tuple[LiveNbrun, int]]:
    """Stop nbrun while a cell writes 200 MB; yields it and how many megabytes the cell has written."""
    path, written = write_notebook(tmp_path / "flood.ipynb", notebook(FLOOD)), tmp_path / "written"
    with live_nbrun(path, *options, cwd=tmp_path, json_file=tmp_path / "result.json") as run:
        run.await_file(written, words=".")
        run.process.send_signal(signal.SIGSTOP)
        sizes = [0]
        while len(sizes) < 20 or sizes[-20] != sizes[-1]:
            pause()
            sizes.append(written.stat().st_size)
        yield run, sizes[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="memory that client and kernel share")
def test_while_nbrun_does_not_read_the_cell_waits_and_no_memory_grows(tmp_path: Path) -> None:
    with stopped(tmp_path) as (run, written):
        memory = [process.memory_info().rss for process in run.others()]
        print(f"{written} MB written, resident memory: {memory}")
        assert 10 < written < 100
        assert max(memory) < 150_000_000
        run.process.send_signal(signal.SIGCONT)
        assert run.end() == 0, run.said()
    [outputs] = outputs_of(read_notebook(tmp_path / "flood.ipynb"))
    assert [output["text"] for output in outputs if "text" in output] == [f"{number}\n" for number in range(200)]
    assert [len(output["data"]["image/png"]) for output in outputs if "data" in output] == [1_000_000] * 200


@pytest.mark.skipif(sys.platform != "linux", reason="memory that client and kernel share")
@pytest.mark.parametrize(
    ("options", "code", "outcome"), [(["--timeout", "1"], 1, "timed-out"), ([], 130, "interrupted")]
)
def test_a_cell_that_waits_is_interrupted_at_once(tmp_path: Path, options: list[str], code: int, outcome: str) -> None:
    with stopped(tmp_path, *options) as (run, written):
        if not options:
            run.process.send_signal(signal.SIGINT)
        run.process.send_signal(signal.SIGCONT)
        assert run.end() == code, run.said()
        assert run.outcomes() == [outcome]
        assert (tmp_path / "written").stat().st_size < written + 100
    [outputs] = outputs_of(read_notebook(tmp_path / "flood.ipynb"))
    assert [output["ename"] for output in outputs if "ename" in output] == ["KeyboardInterrupt"]
