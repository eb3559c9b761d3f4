"""The trace of a real run replays to the same result and contains no secret."""

import base64
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import nbrun
from nbrun.errors import ExitCode
from nbrun.jupyter.trace import Trace
from tests.support.notebooks import assert_exit, notebook, read_notebook, run_nbrun, write_notebook
from tests.support.replay import main, recorded, replayed
from tests.support.servers import RunningServer, jupyter_server
from tests.support.transcripts import Transcript

SECRET = 'pa"ss wörd-0815'
SHOWN = """\
import base64, json, os, sys
secret = os.environ["K"] if "K" in os.environ else K
print(secret, json.dumps(secret), base64.b64encode(secret.encode()).decode())
for piece in (secret[:5], secret[5:] + "!"):
    print(piece, end="", flush=True)
display({"text/plain": secret, "application/json": {secret: [secret]}}, raw=True)"""
RAISES = "raise ValueError(secret)"


@dataclass
class Traced:
    """What came of a run with a trace."""

    result: dict[str, Any]
    notebook: dict[str, Any]
    path: Path

    @property
    def outputs(self) -> dict[int, list[dict[str, Any]]]:
        """Return the saved outputs of the code cells, by index."""
        return {i: cell["outputs"] for i, cell in enumerate(self.notebook["cells"]) if "outputs" in cell}


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a tenth of the usual rate limit."""
    options = ["--ZMQChannelsWebsocketConnection.iopub_msg_rate_limit=100"]
    with jupyter_server(tmp_path_factory.mktemp("strict"), args=options) as server:
        yield server


def traced(server: RunningServer, trace: Path, document: dict[str, Any], *options: str) -> Traced:
    path = write_notebook(server.root / "traced.ipynb", document)
    found = run_nbrun(
        "run", path.name, "--server", server.url, "--json", "-", "--no-loss-note", "--secret", "K", "--trace", trace,
        *options, env={"NBRUN_TOKEN": server.token, "K": SECRET},
    )  # fmt: skip
    return Traced(json.loads(found.stdout), read_notebook(path), trace)


def forms(value: str) -> list[str]:
    """Return a secret as it is, in JSON, and what its base64 has in common at each offset."""
    raw = value.encode()
    inner = [base64.b64encode(b"\0" * before + raw).decode()[4:-4] for before in range(3)]
    return [value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], *inner]


@pytest.mark.parametrize(
    ("cells", "options", "outcome"),
    [
        (["for i in range(3000): display(i)", "1"], [], "passed"),
        (["1", "2", "3", "for i in range(3000): display(i)", "4"], ["--no-resend"], "incomplete"),
        (["print('before')", "import os\nos._exit(3)", "2"], [], "kernel-died"),
        (["print('before')", "while True: pass", "2"], ["--cell-timeout", "1"], "timed-out"),
        ([RAISES], [], "failed"),
    ],
    ids=["lost and brought back", "lost", "a dead kernel", "a time-out", "an error"],
)
def test_a_trace_replays_to_the_result_of_the_run(
    cells: list[str], options: list[str], outcome: str, strict_server: RunningServer, tmp_path: Path
) -> None:
    run = traced(strict_server, tmp_path / "run.jsonl", notebook(SHOWN, *cells), *options)
    assert run.result["outcome"] == outcome
    [transcript] = Transcript.of_trace(run.path)
    assert replayed(transcript) == recorded(run.result)
    played = transcript.play()
    assert {i: played.outputs(i) for i in played.execution.cells} == {
        i: outputs for i, outputs in run.outputs.items() if i in played.execution.cells
    }
    text = run.path.read_text("utf-8")
    assert "***" in text
    assert not [form for secret in (SECRET, strict_server.token) for form in forms(secret) if form in text]
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o600
    assert main([str(run.path), "--save", "kept", "--folder", str(tmp_path)]) == 0
    kept = Transcript.read(tmp_path / "kept.jsonl")
    assert replayed(kept) == recorded(run.result)


def test_a_run_that_is_killed_leaves_a_trace_that_can_be_read(tmp_path: Path) -> None:
    cell = "import os, signal, time\nprint('here')\ntime.sleep(0.1)\nos.kill(os.getppid(), 0)\nsignal.pause()"
    write_notebook(tmp_path / "nb.ipynb", notebook(cell))
    command = [sys.executable, "-m", "nbrun", "run", "nb.ipynb", "--trace", "t.jsonl", "--log-output"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "here" in line:
                process.kill()
    [transcript] = Transcript.of_trace(tmp_path / "t.jsonl")
    assert transcript.result is None
    assert [message.content["text"] for message in transcript.received() if message.type == "stream"] == ["here\n"]


def test_the_runs_of_a_batch_share_a_trace(tmp_path: Path) -> None:
    for name in "ab":
        write_notebook(tmp_path / f"{name}.ipynb", notebook(f"print({name!r})"))
    found = run_nbrun("run", ".", "--no-save", "-j", "2", "--trace", "logs/t.jsonl", cwd=tmp_path)
    assert_exit(found, ExitCode.OK)
    runs = Transcript.of_trace(tmp_path / "logs/t.jsonl")
    assert sorted(run.setting["about"] for run in runs) == ["a.ipynb", "b.ipynb"]
    assert [replayed(run) for run in runs] == [recorded(run.result or {}) for run in runs]


def test_a_trace_that_cannot_be_written_any_more_is_told_and_changes_the_exit_code(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no device that is always full")
    write_notebook(tmp_path / "nb.ipynb", notebook("1"))
    found = run_nbrun("run", "nb.ipynb", "--no-save", "--trace", "/dev/full", cwd=tmp_path)
    assert_exit(found, ExitCode.SERVER)
    assert "/dev/full: the trace is not complete: No space left on device" in found.stderr


async def test_python_writes_traces_too(tmp_path: Path) -> None:
    write_notebook(tmp_path / "nb.ipynb", notebook("1"))
    result = await nbrun.run_async(tmp_path / "nb.ipynb", save=False, trace=tmp_path / "t.jsonl")
    [transcript] = Transcript.of_trace(tmp_path / "t.jsonl")
    assert replayed(transcript) == recorded(result.as_dict())
    exchanges = [line["http"] for line in map(json.loads, (tmp_path / "t.jsonl").open()) if "http" in line]
    shown = [(one["method"], one["path"].partition("?")[0].rpartition("/")[2], one["status"]) for one in exchanges]
    assert [each for each in shown if each[1] in ("nb.ipynb", "sessions", "channels")] == [
        ("GET", "nb.ipynb", 200),
        ("POST", "sessions", 201),
        ("GET", "channels", 101),
    ]
    with pytest.raises(nbrun.NbrunError, match="a trace goes into a file"):
        await nbrun.run_async(tmp_path / "nb.ipynb", save=False, trace="-")
    assert os.fspath(Trace("x.jsonl")) == str(Path.cwd() / "x.jsonl")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("-", "a trace goes into a file"),
        ("/dev/stderr", "a trace goes into a file"),
        ("s3://bucket/t.jsonl", "nbrun cannot write to s3://"),
        ("https://example.org/t", "nbrun cannot write to https://"),
        ("nb.ipynb", "a trace does not go into a notebook"),
        ("nb.ipynb/t.jsonl", "cannot be written"),
        ("", "the path is empty"),
        ("same.json", "name the same file"),
    ],
)
def test_a_place_where_no_trace_can_be_written_is_refused_before_the_run(
    target: str, words: str, tmp_path: Path
) -> None:
    before = write_notebook(tmp_path / "nb.ipynb", notebook("1")).read_bytes()
    found = run_nbrun("run", "nb.ipynb", "--trace", target, "--json", "same.json", cwd=tmp_path)
    assert_exit(found, ExitCode.USAGE)
    assert words in found.stderr
    assert (tmp_path / "nb.ipynb").read_bytes() == before
