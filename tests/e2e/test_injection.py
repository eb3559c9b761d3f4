"""Untrusted text in the command's output never controls a CI runner or a terminal."""

import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nbrun.cli.main import _exit_code
from nbrun.errors import ExitCode
from nbrun.reporters.safe_stream import SafeStream
from tests.support.ci_runners import foreign_commands_in, other_commands_in
from tests.support.notebooks import assert_exit, code, markdown, notebook, run_nbrun, write_notebook

HOSTILE = (
    "x\r::error::a\n::error::b\x1b]0;t\x07\x1b[0m::error::c\n##[error]d\u2028::error::e\x85f\x9b2J\v::error::g\n"
    "##vso[task.complete]h\nsection_start:0:i\n\t\u3000::set-output name=o::j"
)
"""What each runner would take a command from, in lines of its own."""
NAME = HOSTILE.replace("/", "") + ".ipynb"
ACTS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def assert_is_text(text: str) -> None:
    assert ACTS.search(text) is None, repr(text)
    assert foreign_commands_in(text) == []
    assert list(other_commands_in(text)) == []


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Call the command line in a folder with a notebook, on GitHub; return its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    write_notebook(tmp_path / "nb.ipynb", notebook(code("x = 1", tags=["parameters"]), "print(x)"))

    def call(*arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "argv", ["nbrun", *arguments])
        monkeypatch.setattr(sys, "stdout", SafeStream(out))
        monkeypatch.setattr(sys, "stderr", SafeStream(err))
        code = _exit_code()
        sys.stdout.close()
        sys.stderr.close()
        return code, out.getvalue(), err.getvalue()

    return call


CALLS = [
    [HOSTILE],
    ["run", HOSTILE],
    ["run", NAME],
    ["run", f"{HOSTILE}://x.ipynb"],
    ["run", f"--{HOSTILE}", "nb.ipynb"],
    ["run", "nb.ipynb", "--timeout", HOSTILE],
    ["run", "nb.ipynb", "--jobs", HOSTILE],
    ["run", "nb.ipynb", "--order", HOSTILE],
    ["run", "nb.ipynb", "--retry-on", HOSTILE],
    ["run", "nb.ipynb", "--shard", HOSTILE],
    ["run", "nb.ipynb", "--matrix", HOSTILE],
    ["run", "nb.ipynb", "--durations", HOSTILE],
    ["run", "nb.ipynb", "--config", HOSTILE],
    ["run", "nb.ipynb", "--server", HOSTILE],
    ["run", "nb.ipynb", "--max-output", HOSTILE],
    ["run", "nb.ipynb", "--secret", HOSTILE],
    ["run", "nb.ipynb", "--secret-file", f"A={HOSTILE}"],
    ["run", "nb.ipynb", "-f", HOSTILE],
    ["run", "nb.ipynb", "-y", f"- {HOSTILE}"],
    ["run", "nb.ipynb", "-b", HOSTILE],
    ["run", "nb.ipynb", "-o", f"s3://{HOSTILE}/x.ipynb"],
    ["run", "nb.ipynb", "--json", f"nb.ipynb/{HOSTILE}"],
    ["run", "nb.ipynb", "--prepare-only", "-o", "out.ipynb", "-p", HOSTILE, "1"],
    ["batch", HOSTILE],
    ["plan", NAME],
    ["plan", "nb.ipynb", "-p", HOSTILE, "1"],
    ["plan", "nb.ipynb", "-k", HOSTILE],
    ["plan", "hostile.ipynb", "--allow-new", "-p", "y", HOSTILE],
    ["doctor", HOSTILE],
]


@pytest.mark.parametrize("arguments", CALLS, ids=[f"{number}-{call[0][:6]}" for number, call in enumerate(CALLS)])
def test_what_is_said_of_a_call_is_text(
    arguments: list[str], said: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    hostile = code(f"x = {HOSTILE!r}  # {HOSTILE}", tags=["parameters"])
    hostile["id"] = "hostile"
    document = notebook(hostile, code(HOSTILE, tags=[HOSTILE]), markdown(HOSTILE), kernel=HOSTILE)
    write_notebook(tmp_path / "hostile.ipynb", document)
    exit_code, out, err = said(*arguments)
    assert_is_text(out + err)
    is_plan = arguments in (CALLS[-2], CALLS[-3])
    assert exit_code == (0 if is_plan else 2), err
    assert out + err


@pytest.mark.parametrize(
    "settings",
    [
        {"x::": HOSTILE},
        {"kernel": HOSTILE, "timeout": HOSTILE},
        {"notebooks": [HOSTILE], "batch": {HOSTILE: {"unknown": 1}}},
        {"overrides": [{"match": HOSTILE, HOSTILE: 1}]},
    ],
)
def test_what_is_said_of_settings_is_text(
    settings: dict[str, object], said: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "nbrun.toml").write_text(_toml(settings))
    exit_code, out, err = said("run", "nb.ipynb")
    assert exit_code == 2
    assert_is_text(out + err)


def _toml(settings: dict[str, object]) -> str:
    # JSON's strings, arrays and, inline, tables are TOML's but for the sign between key and value.
    def value(it: object) -> str:
        if isinstance(it, dict):
            return "{" + ", ".join(f"{json.dumps(key)} = {value(inner)}" for key, inner in it.items()) + "}"
        return "[" + ", ".join(map(value, it)) + "]" if isinstance(it, list) else json.dumps(it)

    return "".join(f"{json.dumps(key)} = {value(it)}\n" for key, it in settings.items())


@pytest.mark.parametrize(
    "content", ["{", '{"nbformat": "::error::x\\n::error::y"}', f'["{HOSTILE}', "<<<<<<< ::error::\n"]
)
def test_what_is_said_of_an_unreadable_file_is_text(
    content: str, said: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / NAME).write_text(content)
    exit_code, out, err = said("plan", NAME)
    assert exit_code == 2
    assert_is_text(out + err)


def test_a_plan_as_json_keeps_its_values(said: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    write_notebook(tmp_path / "hostile.ipynb", notebook(code(HOSTILE, tags=["parameters"]), kernel=HOSTILE))
    exit_code, out, _ = said("plan", "hostile.ipynb", "--json")
    assert exit_code == 0
    assert_is_text(out)
    plan = json.loads(out)
    assert (plan["kernel"], plan["cells"][0]["source"]) == (HOSTILE, HOSTILE)


def test_a_bug_is_told_in_text(said: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(HOSTILE)

    monkeypatch.setattr("nbrun.cli.main.cli.main", fail)
    exit_code, _, err = said("run", "nb.ipynb")
    assert exit_code == 70
    assert_is_text(err)
    assert "this is a bug in nbrun" in err


class _Hostile(BaseHTTPRequestHandler):
    """Answers like a Jupyter server, with hostile text in every field, and refuses whatever changes something."""

    def do_GET(self) -> None:
        spec = {"name": HOSTILE, "spec": {"display_name": HOSTILE, "language": HOSTILE, "argv": []}, "resources": {}}
        answers: dict[str, object] = {
            "/api": {"version": HOSTILE},
            "/api/kernelspecs": {"default": HOSTILE, "kernelspecs": {HOSTILE: spec, "python3": spec}},
            "/api/me": {"identity": {"username": HOSTILE, "name": HOSTILE}, "permissions": {}},
            "/api/kernels": [],
            "/api/sessions": [],
        }
        path = self.path.partition("?")[0]
        self._answer(200 if path in answers else 400, answers.get(path, {"message": HOSTILE, "reason": HOSTILE}))

    def do_POST(self) -> None:
        self._answer(500, {"message": HOSTILE, "reason": HOSTILE, "traceback": HOSTILE})

    do_PUT = do_POST  # noqa: N815

    def _answer(self, status: int, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def hostile_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hostile) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "arguments", [["run", "nb.ipynb"], ["run", "nb.ipynb", "--upload"], ["plan", "nb.ipynb"], ["doctor"]]
)
def test_what_a_server_says_is_text(
    arguments: list[str], said: Callable[..., tuple[int, str, str]], hostile_server: str
) -> None:
    exit_code, out, err = said(*arguments, "--server", hostile_server)
    assert exit_code in (2, 4, 5), err
    assert_is_text(out + err)
    assert "::error" in out + err


def test_the_summary_and_the_outputs_of_a_step_hold_text_only(
    said: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
        monkeypatch.setenv(name, str(tmp_path / name))
    write_notebook(tmp_path / NAME, notebook(code(HOSTILE, tags=[HOSTILE]), kernel=HOSTILE))
    exit_code, out, err = said("run", NAME, "--no-save", "--json", "result.json", "-k", HOSTILE)
    assert exit_code == 2
    assert_is_text(out + err)
    assert ACTS.search((tmp_path / "GITHUB_STEP_SUMMARY").read_text()) is None
    lines = (tmp_path / "GITHUB_OUTPUT").read_text().splitlines()
    assert ACTS.search("".join(lines)) is None
    assert [line.partition("<<")[0] for line in lines[::3]] == [
        "outcome",
        "exit-code",
        "passed",
        "failed",
        "results-json",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--stdout-file", "-"),
        ("--stdout-file", "/dev/fd/1"),
        ("--stderr-file", "/proc/self/fd/2"),
        ("--stderr-file", "link"),
        ("--junit", "/dev/stdout"),
    ],
)
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="these names are Linux's")
def test_raw_output_is_not_written_into_the_log_of_a_runner_under_any_name(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    write_notebook(tmp_path / "nb.ipynb", notebook("print('::error::x')"))
    (tmp_path / "link").symlink_to("/dev/fd/2")
    process = run_nbrun("run", "nb.ipynb", "--no-save", *arguments, cwd=tmp_path, env={"TF_BUILD": "True"})
    assert_exit(process, ExitCode.USAGE)
    assert "the CI runner would take commands from what notebooks write there" in process.stderr
    assert process.stdout == ""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with a name are Unix's")
def test_events_through_a_pipe_with_a_name_are_safe_to_show(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    write_notebook(tmp_path / "nb.ipynb", notebook(f"print({HOSTILE!r})"))
    command = [sys.executable, "-m", "nbrun", "run", "nb.ipynb", "--no-save", "--events", "pipe"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        text = (tmp_path / "pipe").read_text()
        assert process.wait(60) == ExitCode.OK
    assert_is_text(text)
    printed = [json.loads(line) for line in text.splitlines() if '"event":"output"' in line]
    assert "".join(event["output"]["text"] for event in printed) == f"{HOSTILE}\n"
