"""Published reports: runs of a job in a folder and on S3, their index, and stores that fail."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from nbrun.errors import ExitCode
from nbrun.publishing import store_lock
from nbrun.publishing.locks import acquire
from nbrun.runner.stop import StopSwitch
from nbrun.storage.object_stores.by_url import open_store
from tests.support.notebooks import Notebook, code, markdown, notebook, run_nbrun, write_notebook
from tests.support.stores import SECRET, S3Server, faulty, s3_by_moto, web_store

SETTINGS = """
[batch.sales]
notebooks = ["reports/sales.ipynb"]
html-code = "hide"
publish = "{base}"
keep = ["30d", "100"]
"""


def report() -> Notebook:
    """Return a notebook that fails without sales, and shows their number in a table and as text."""
    table = "print('sales of', region, amount); HTML(f'<table><tr><td>{region}</td><td>{amount}</td></tr></table>')"
    return notebook(
        markdown("# Sales by region"),
        code("from IPython.display import HTML\namount, region = 0, ''", tags=["parameters"]),
        f"assert amount, 'no sales'  # planted\n{table}",
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return the folder of a project with the job ``sales``, which is published in the folder ``site``."""
    write_notebook(tmp_path / "reports" / "sales.ipynb", report())
    (tmp_path / "nbrun.toml").write_text(SETTINGS.format(base="site"))
    return tmp_path


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_by_moto() as server:
        yield server


class _Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [link or "" for name, link in attrs if tag == "a" and name == "href"]


def test_a_job_is_published_night_after_night_and_a_failure_does_not_replace_the_latest_run(project: Path) -> None:
    source = (project / "reports" / "sales.ipynb").read_bytes()
    amounts = ("100", "110", "0")
    runs = [
        run_nbrun(
            "batch",
            "sales",
            "-p",
            "region",
            "hunter2-north",
            "-p",
            "amount",
            amount,
            "--secret",
            "key=SALES_KEY",
            cwd=project,
            env={"SALES_KEY": "hunter2", "NBRUN_SCHEDULED": f"2026-11-0{day}T06:00+01:00"},
        )
        for day, amount in enumerate(amounts, 1)
    ]
    assert [run.returncode for run in runs] == [0, 0, ExitCode.NOTEBOOK_FAILED], runs[0].stderr
    assert "nbrun: published at site/sales/" in runs[0].stderr
    assert (project / "reports" / "sales.ipynb").read_bytes() == source
    site = project / "site"
    records = [json.loads(path.read_bytes()) for path in sorted(site.glob("sales/*/run.json"))]
    assert [record["outcome"] for record in records] == ["passed", "passed", "failed"]
    assert [record["scheduled"][:16] for record in records] == [f"2026-11-0{day}T05:00" for day in (1, 2, 3)]
    assert json.loads((site / "sales" / "latest.json").read_bytes())["run_id"] == records[1]["run_id"]
    index = (site / "sales" / "index.html").read_text()
    assert re.findall(r"<del>(.*?)</del> <ins>(.*?)</ins>.*?number quiet\">(.*?)<", index) == [
        ("100", "110", "+10.0 %"),
        ("sales of ***-north 100", "sales of ***-north 110", ""),
    ]
    assert "no sales" in index
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert "hunter2" not in text
        assert ("planted" in text) == (records[2]["run_id"] in str(page))  # the failed cell is shown
        for link in _Links(text).found:
            assert link.startswith("#") or (page.parent / unquote(link).partition("#")[0]).is_file(), link
    assert not any(b"hunter2" in path.read_bytes() for path in site.rglob("*") if path.is_file())


def test_an_error_before_the_first_cell_is_in_the_history_too(project: Path) -> None:
    found = run_nbrun("batch", "sales", "-p", "no_such", "1", cwd=project)
    assert found.returncode == ExitCode.USAGE
    (path,) = project.glob("site/sales/*/run.json")
    record = json.loads(path.read_bytes())
    assert (record["outcome"], record["exit_code"]) == ("not-run", 2)
    assert "no_such" in (project / "site" / "sales" / "index.html").read_text()


def test_a_job_is_published_on_s3_and_the_command_repairs_its_index(project: Path, s3: S3Server) -> None:
    bucket = s3.bucket()
    base = f"s3://{bucket}/reports"
    (project / "nbrun.toml").write_text(SETTINGS.format(base=base))
    for amount in ("100", "110"):
        run = run_nbrun("batch", "sales", "-p", "amount", amount, "-q", cwd=project, env=s3.env)
        assert (run.returncode, run.stderr) == (0, "")
    index = s3.read(bucket, "reports/sales/index.html")
    assert b"2 runs, 2 passed" in index
    run_ids = sorted({key.split("/")[2] for key in s3.keys(bucket) if key.endswith("/run.json")})
    assert json.loads(s3.read(bucket, "reports/sales/latest.json"))["run_id"] == run_ids[1]
    s3.client.delete_object(Bucket=bucket, Key="reports/sales/index.html")
    repaired = run_nbrun("publish", base, "--keep", "1", env=s3.env)
    assert repaired.returncode == 0
    assert "sales: 1 run, latest" in repaired.stderr
    assert b"1 run, 1 passed" in s3.read(bucket, "reports/sales/index.html")
    assert not [key for key in s3.keys(bucket) if run_ids[0] in key]
    content = b"".join(s3.read(bucket, key) for key in s3.keys(bucket))
    assert SECRET.encode() not in content


def test_a_store_that_is_not_there_is_refused_before_the_first_cell(project: Path, s3: S3Server) -> None:
    for base, words in (("s3://no-such-bucket/x", "no-such-bucket"), ("reports/sales.ipynb/x", "reports/sales.ipynb")):
        found = run_nbrun("batch", "sales", "--publish", base, cwd=project, env=s3.env)
        assert found.returncode == ExitCode.USAGE, found.stderr
        assert words in found.stderr
        assert "cell 1" not in found.stderr


def test_a_store_that_fails_during_the_run_costs_no_result(project: Path) -> None:
    (project / "site").mkdir()
    killer = code("import pathlib, shutil\nshutil.rmtree('../site'); pathlib.Path('../site').write_text('')")
    write_notebook(project / "reports" / "sales.ipynb", notebook(markdown("# Sales"), killer, "6 * 7"))
    found = run_nbrun("batch", "sales", "--json", "result.json", cwd=project)
    assert found.returncode == ExitCode.SERVER, found.stderr
    (rescued,) = project.glob("nbrun-unpublished-sales-*")
    assert str(rescued) in found.stderr
    assert "42" in (rescued / "index.html").read_text()
    assert json.loads((project / "result.json").read_bytes())["outcome"] == "passed"


WITH_DIVIDED_LIMITS = """
import sys
from nbrun.publishing import around_run, store_lock
from nbrun.publishing.notifications import delivery
from nbrun.storage.wait_budget import WaitBudget
parts, (total,), rest = int(sys.argv.pop(1)), WaitBudget.__init__.__defaults__, WaitBudget.__init__.__kwdefaults__
WaitBudget.__init__.__defaults__ = (total / parts,)
rest["short"] /= parts
rest["pause"] /= parts
delivery.NOTIFY_LIMIT /= parts
around_run._LEAST_LIMIT /= parts
store_lock._RELEASE_LIMIT /= parts
from nbrun.__main__ import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("parts", [4, pytest.param(1, marks=pytest.mark.soak)])
async def test_stores_and_notifications_that_stop_answering_cost_at_most_half_a_minute_together(
    project: Path, s3: S3Server, parts: int
) -> None:
    """Each limit is divided by `parts`, but not what the process does beside; five seconds are for that."""
    bucket, other = s3.bucket(), s3.bucket()
    (project / "nbrun.toml").write_text(SETTINGS.format(base=f"s3://{bucket}"))
    wait = "from pathlib import Path; import time\nPath('../begun').touch()\n"
    wait += "while not Path('../go').exists(): time.sleep(0.02)"
    write_notebook(project / "reports" / "sales.ipynb", notebook(markdown("# Sales"), wait))
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and reads and writes nothing
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        targets = {"MAIL": f"mailto://{host}/?to=ann@example.org", "HOOK": f"http://{host}/", "PING": f"http://{host}/"}
        words = ["--lock", "skip", "--json", "result.json", "--junit", f"s3://{other}/r.xml", "--notify-on", "always"]
        words += ["--notify", "env:MAIL", "--notify", "env:HOOK", "--ping", "env:PING"]
        async with faulty(s3.endpoint) as wire:
            env = {**s3.env, **targets, "AWS_ENDPOINT_URL": wire.url, "XDG_STATE_HOME": str(project / "state")}
            command = [sys.executable, "-c", WITH_DIVIDED_LIMITS, str(parts), "batch", "sales", *words]
            call = partial(
                subprocess.run, command, cwd=project, env={**os.environ, **env}, capture_output=True, text=True
            )
            running = asyncio.create_task(asyncio.to_thread(call))
            while not (project / "begun").exists():
                assert not running.done(), running.result().stderr
                await asyncio.sleep(0.02)
            wire.black_hole = True
            began = time.monotonic()
            (project / "go").touch()
            found = await running
            took = time.monotonic() - began
    assert took < 30 / parts + (5 if parts > 1 else 0), found.stderr
    result = json.loads((project / "result.json").read_bytes())
    assert (found.returncode, result["outcome"]) == (ExitCode.SERVER, "passed"), found.stderr
    for target in ("--notify env:MAIL", "--notify env:HOOK", "--ping env:PING"):
        assert f"nbrun: warning: {target}: not delivered in time" in found.stderr
    assert [*project.glob("nbrun-unpublished-sales-*/run.json")]
    assert [*project.glob("r.rescued-*.xml")]


def test_calls_that_cannot_be_published_are_refused(project: Path) -> None:
    for words, said in (
        (["run", "reports/sales.ipynb", "reports/sales.ipynb", "--publish", "site"], "needs a name"),
        (["run", "reports/sales.ipynb", "--keep", "30d"], "--keep needs --publish"),
        (["run", "reports/sales.ipynb", "--publish", "site", "--keep", "soon"], "soon"),
        (["run", "reports/sales.ipynb", "--publish", "site", "--scheduled", "soon"], "soon"),
        (["run", "reports/sales.ipynb", "--publish", "site", "--prepare-only", "-o", "x.ipynb"], "--prepare-only"),
        (["publish", "nowhere"], "there is no published report"),
    ):
        found = run_nbrun(*words, cwd=project)
        assert found.returncode == ExitCode.USAGE, found.stderr
        assert said in found.stderr
    assert not (project / "site").exists()


LEASE = 1.0
WITH_SHORT_LEASE = f"""
from nbrun.publishing import store_lock
store_lock.LEASE = {LEASE}
from nbrun.__main__ import main
main()
"""


def locked_run(project: Path, machine: str, **env: str) -> subprocess.Popen[str]:
    """Start the job with a lock, as a machine of this name would do; its notebook waits for the file ``go``."""
    wait = (
        "import pathlib, time\nprint('begun', flush=True)\nwhile not pathlib.Path('../go').exists(): time.sleep(0.02)"
    )
    write_notebook(project / "reports" / "sales.ipynb", notebook(markdown("# Sales"), wait))
    command = [sys.executable, "-c", WITH_SHORT_LEASE, "batch", "sales", "--lock", "skip", "--log-output"]
    state = {"XDG_STATE_HOME": str(project / machine), "HOSTNAME": machine}
    return subprocess.Popen(command, cwd=project, env={**os.environ, **state, **env}, stderr=subprocess.PIPE, text=True)


def begun(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if "begun" in line:
            return
    pytest.fail("".join(seen))


def test_a_lock_excludes_other_machines_and_a_run_that_lost_it_is_not_published(
    project: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_lock, "LEASE", LEASE)
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    bucket = s3.bucket()
    (project / "nbrun.toml").write_text(SETTINGS.format(base=f"s3://{bucket}/reports"))
    first = locked_run(project, "first")
    try:
        begun(first)
        second = locked_run(project, "second")
        _, said = second.communicate(timeout=60)
        assert (second.returncode, "skipped: sales is being run by process" in said) == (0, True), said
        first.send_signal(signal.SIGSTOP)
        lock = store_lock.StoreLock(open_store(f"s3://{bucket}/reports"), "sales")
        assert asyncio.run(acquire(lock, "wait", time.monotonic() + 60, "sales", StopSwitch()))
        (project / "go").touch()
        first.send_signal(signal.SIGCONT)
        _, said = first.communicate(timeout=60)
    finally:
        first.kill()
    lock.release()
    assert first.returncode == ExitCode.SERVER, said
    assert "the lock of this run (fence 1) was taken over by process" in said
    (rescued,) = project.glob("nbrun-unpublished-sales-*")
    assert str(rescued) in said
    assert "begun" in (rescued / "index.html").read_text()
    assert s3.keys(bucket) == ["reports/sales/.lock"]


def test_a_killed_run_is_replaced_on_its_machine_at_once_and_a_terminated_one_releases_its_lock(project: Path) -> None:
    lock = project / "site" / "sales" / ".lock"
    for fence, number in ((1, signal.SIGKILL), (2, signal.SIGTERM)):
        run = locked_run(project, "here")
        try:
            begun(run)
            holder = json.loads(lock.read_bytes())
            assert (holder["fence"], holder["pid"]) == (fence, run.pid)
            run.send_signal(number)
            run.communicate(timeout=60)
        finally:
            run.kill()
        assert bool(json.loads(lock.read_bytes())["owner"]) == (number is signal.SIGKILL)
    (record,) = project.glob("site/sales/*/run.json")
    assert (json.loads(record.read_bytes())["outcome"], run.returncode) == ("interrupted", ExitCode.TERMINATED)


def test_a_web_server_that_cannot_list_is_refused_before_the_first_cell(project: Path) -> None:
    with web_store() as web:
        found = run_nbrun("batch", "sales", "--publish", f"{web.url}/dav", cwd=project)
    assert (found.returncode, "a web server cannot list what it stores" in found.stderr) == (ExitCode.USAGE, True)
    assert "cell 1" not in found.stderr
