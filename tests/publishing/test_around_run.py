"""Every way in which a run ends is notified, and no part of a notification URL is shown."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nbrun.errors import ExitCode
from nbrun.publishing import around_run
from nbrun.publishing.around_run import Report, RunWatch
from nbrun.publishing.notifications import delivery
from nbrun.storage.wait_budget import WaitBudget
from tests.publishing.notifications.servers import MailBox, hook_server, mail_server
from tests.support.notebooks import code, notebook, run_nbrun, write_notebook

PICTURE = (
    "import base64\nfrom IPython.display import Image\n"
    "Image(base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='))"
)
ENDS: dict[str, tuple[Sequence[str], list[str], int]] = {
    "passed": (["1"], [], 0),
    "failed": (["1 / 0"], [], 1),
    "usage": (["1"], ["-k", "no-such-kernel"], 2),
    "nothing to run": ([], [], 3),
    "server": (["1"], ["--server", "http://127.0.0.1:9"], 4),
    "kernel": (["import os; os._exit(1)"], [], 5),
    # The first cells are for the server's own questions to the kernel, beside which one lost message says nothing.
    "lost output": (["1", "2", "3", "print('\\ud800')"], [], 6),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_end_is_notified_and_pinged(end: str, tmp_path: Path) -> None:
    sources, arguments, code = ENDS[end]
    path = tmp_path / "sales"
    if sources:
        path = write_notebook(tmp_path / "sales.ipynb", notebook(*sources))
    else:
        path.mkdir()
    with hook_server() as hook, mail_server() as box:
        env = {"HOOK": hook.url, "XDG_STATE_HOME": str(tmp_path / "state"), "MAIL": box.url}
        options = ["--notify", "env:HOOK", "--notify", "env:MAIL", "--notify-on", "always", "--ping", "env:PING"]
        env["PING"] = hook.url.replace("hook-", "ping-")
        found = run_nbrun("run", path, "--no-save", "-vv", *options, *arguments, env=env)
    assert found.returncode == code, found.stderr
    assert "planted" not in found.stderr + found.stdout
    paths = [path.partition("?")[0] for path, _ in hook.requests]
    pings = [path for path in paths if "ping" in path]
    assert pings == ["/ping-planted-word/start", f"/ping-planted-word/{code}" if code else "/ping-planted-word"]
    payloads = [json.loads(body) for path, body in hook.requests if "hook" in path]
    assert payloads[0]["causes"] == ["start"]
    assert (payloads[-1]["exit_code"], payloads[-1]["report"]) == (code, "sales")
    assert ("failure" in payloads[-1]["causes"]) == (code != 0)
    assert len(box.mails) == 2


def test_a_failure_and_a_recovery_are_mailed_once_each(tmp_path: Path) -> None:
    path = tmp_path / "sales.ipynb"
    (tmp_path / "nbrun.toml").write_text(
        '[batch.sales]\nnotebooks = ["sales.ipynb"]\nno-save = true\nhtml = "site"\nnotify = ["env:MAIL"]\n'
    )
    with mail_server() as box:
        env = {"MAIL": box.url, "XDG_STATE_HOME": str(tmp_path / "state")}
        for source in ("1", "raise ValueError('no data')", PICTURE, "1"):
            write_notebook(path, notebook(source, "import os\nassert 'MAIL' not in os.environ"))
            assert run_nbrun("batch", "sales", cwd=tmp_path, env=env).returncode == int("raise" in source)
    failure, recovery = box.mails
    assert (failure["Subject"], recovery["Subject"]) == ("nbrun: sales failed", "nbrun: sales passed again")
    text = failure.get_body(("plain",))
    assert text is not None
    assert "ValueError: no data" in text.get_content()
    assert [part.get_content_type() for part in recovery.walk() if part.get_content_maintype() == "image"]
    assert [part.get_filename() for part in failure.iter_attachments()] == ["sales.html"]


def test_a_recovery_is_found_among_the_published_runs_with_the_same_parameters(tmp_path: Path) -> None:
    settings = '[batch.sales]\nnotebooks = ["sales.ipynb"]\npublish = "site"\nnotify = ["env:HOOK"]\n'
    (tmp_path / "nbrun.toml").write_text(f'{settings}parameter-templates = {{day = "{{run-id}}"}}\n')
    with hook_server() as hook:
        for number, (region, source) in enumerate((("EU", "1 / 0"), ("US", "1"), ("US", "1"), ("EU", "1"))):
            document = notebook(code("day = region = ''", tags=["parameters"]), source)
            write_notebook(tmp_path / "sales.ipynb", document)
            env = {"HOOK": hook.url, "XDG_STATE_HOME": str(tmp_path / f"state-{number}")}  # a new machine each time
            run_nbrun("batch", "sales", "-p", "region", region, cwd=tmp_path, env=env)
    causes = [json.loads(body)["causes"] for _, body in hook.requests]
    # The first run for the US has no other one to compare with, and the second one is not sent.
    assert causes == [["failure", "always"], ["success", "recovery", "always"], ["success", "recovery", "always"]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_stopped_run_is_notified(number: signal.Signals, tmp_path: Path) -> None:
    path = write_notebook(
        tmp_path / "sales.ipynb", notebook("print('begun', flush=True)\nimport time; time.sleep(600)")
    )
    with hook_server() as hook:
        process = subprocess.Popen(
            [sys.executable, "-m", "nbrun", "run", path, "--no-save", "--notify", hook.url, "--log-output"],
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        for line in process.stderr:
            if "begun" in line:
                break
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 128 + number
    ((_, body),) = hook.requests
    assert (json.loads(body)["outcome"], json.loads(body)["exit_code"]) == ("interrupted", 128 + number)


def test_a_bug_of_nbrun_is_notified(tmp_path: Path) -> None:
    program = (
        "from nbrun.runner.batch import plan\nfrom nbrun.cli.main import main\n"
        "def broken(*_, **__):\n    raise ZeroDivisionError('planted')\nplan.plan_runs = broken\nmain()"
    )
    path = write_notebook(tmp_path / "sales.ipynb", notebook("1"))
    with hook_server() as hook:
        call = [sys.executable, "-c", program, "run", str(path), "--notify", hook.url]
        env = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
        found = subprocess.run(call, env=env, capture_output=True, text=True, timeout=60, check=False)
    ((_, body),) = hook.requests
    assert found.returncode == json.loads(body)["exit_code"] == ExitCode.BUG, found.stderr
    assert json.loads(body)["outcome"] == "bug"


def test_servers_that_never_answer_have_the_time_that_the_stores_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(delivery, "NOTIFY_LIMIT", 0.5)
    monkeypatch.setattr(around_run, "_LEAST_LIMIT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and reads and writes nothing
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        notify = [f"mailto://{host}/?to=ann@example.org", f"http://{host}/x"]
        for spent, limit in ((0.1, 0.4), (0.4, 0.2)):
            watch = watched(notify=notify, ping=f"http://{host}/y", notify_on=["always"])
            watch.budget = WaitBudget(short=0.1, clock=iter([0.0, spent]).__next__)
            with pytest.raises(TimeoutError), watch.budget.measure("s3://a"):
                raise TimeoutError
            began = time.monotonic()
            names = ("--notify http:…", "--notify mailto:…", "--ping http:…")
            assert sorted(watch.finish(0, None)) == [f"{name}: not delivered in time" for name in names]
            assert limit <= time.monotonic() - began < 10


def watched(**options: Any) -> RunWatch:
    return RunWatch(Report("sales", "."), options, lambda: datetime.now(UTC))


def test_a_recovery_is_found_among_the_runs_of_this_machine_with_the_same_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    europe, america = {"region": "EU", "key": "planted"}, {"region": "US", "key": "planted"}
    # The second run has no other one to compare with. The last but one ends before its parameters are known.
    runs = [(europe, 1), (america, 0), (america, 0), (europe, 0), (None, 2), (europe, 0)]
    with hook_server() as hook:
        for kind, code in runs:
            watch = watched(notify=[hook.url], notify_on=["failure", "recovery"])
            watch.kind = kind
            watch.hide(["planted"])
            assert watch.finish(code, None) == []
    sent = [json.loads(body)["causes"] for _, body in hook.requests]
    assert [("recovery" in causes, "failure" in causes) for causes in sent] == [
        (False, True), (True, False), (True, False), (False, True), (True, False),
    ]  # fmt: skip


def test_a_dead_mail_server_changes_nothing_but_a_warning(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "sales.ipynb", notebook("1"))
    env = {"MAIL": MailBox(9).url, "XDG_STATE_HOME": str(tmp_path / "state")}
    found = run_nbrun("run", path, "--no-save", "--notify", "env:MAIL", "--notify-on", "success", env=env)
    assert found.returncode == 0
    assert "nbrun: warning: --notify env:MAIL: Connection refused" in found.stderr
    assert "ann@" not in found.stderr


def test_hidden_failures_stay_out_of_messages(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "sales.ipynb", notebook("planted = 1\nraise ValueError('planted too')"))
    with mail_server() as box:
        env = {"MAIL": box.url, "XDG_STATE_HOME": str(tmp_path / "state")}
        run_nbrun("run", path, "--no-save", "--notify", "env:MAIL", "--html-failures", "hide", env=env)
    (mail,) = box.mails
    assert not any("planted" in str(part.get_content()) for part in mail.walk() if not part.is_multipart())


def test_a_report_that_cannot_be_written_is_notified(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "sales.ipynb", notebook("1"))
    with hook_server() as hook:
        env = {"XDG_STATE_HOME": str(tmp_path / "state")}
        found = run_nbrun("run", path, "--no-save", "--json", "/dev/full", "--notify", hook.url, env=env)
    ((_, body),) = hook.requests
    assert found.returncode == json.loads(body)["exit_code"] == ExitCode.SERVER
    assert "A report could not be written" in json.loads(body)["text"]


def test_a_wrong_target_ends_before_anything_is_run(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "sales.ipynb", notebook("1"))
    for options, said in (
        (["--notify", "env:MISSING"], "the variable is not set"),
        (["--notify", "mailtos://u:planted@host/?to=a@x"], "everybody can read a command line"),
        (["--ping", "mailto://host/?to=a@x"], "no address on the web"),
        (["--notify-on", "sometimes", "--notify", "https://x/"], "is none of failure, recovery"),
    ):
        found = run_nbrun("run", path, *options)
        assert (found.returncode, said in found.stderr) == (ExitCode.USAGE, True), found.stderr
        assert "planted" not in found.stderr
