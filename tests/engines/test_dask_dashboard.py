"""What the dashboards and the scheduler of a Dask cluster show of a batch: its seats, and nothing of its notebooks."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbrun.errors import ExitCode
from tests.support import dask_looks
from tests.support.dask_cluster import DaskCluster
from tests.support.environments import environment
from tests.support.notebooks import notebook, write_notebook
from tests.support.processes import live_nbrun

SECRETS = {
    "a variable of the worker": "tomato-4711-variable",
    "a file of the worker": "tomato-4711-file",
    "the token of the call": "tomato-4711-token",
    "the place of notifications": "tomato-4711-notify",
}
CONTENT = {"a parameter": "tomato-4711-parameter", "the name of the notebook": "tomato-4711-notebook"}
"""Passes through the scheduler, which does not show it."""
CONTROL = "cabbage-4711"
"""Is planted where Dask shows it, so that the same looks would find a secret there."""
FINDS_CONTROL = {
    "tasks", "events", "transitions", "stream", "story", "logs of workers", "page /info/main/exceptions.html",
    "page /info/task/KEY.html", "page /info/logs/WORKER.html", "diagrams /tasks", "diagrams /status", "diagrams /graph",
    "diagrams /exceptions", "diagrams /individual-task-stream",
}  # fmt: skip
SESSIONS = "DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__BOKEH_APPLICATION__UNUSED_SESSION_LIFETIME_MILLISECONDS"
"""How long a page that is closed is still updated; fifteen seconds of fifty pages would hold up the scheduler."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskCluster]:
    """A scheduler and a worker with two threads, all with the dashboards that bokeh draws."""
    folder = tmp_path / "dask"
    folder.mkdir()
    (site,) = environment("charts").folder.glob("lib/*/site-packages")
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.path.append({str(site)!r})\n")
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    variables = {"PYTHONPATH": path, SESSIONS: "1"}
    shown = ("--dashboard-address", "127.0.0.1:0")
    with contextlib.closing(DaskCluster(folder)) as one:
        one.start(variables, shown)
        planted = {**variables, "PLANTED": SECRETS["a variable of the worker"]}
        one.add_worker("worker", "--nthreads", "2", environment=planted, dashboard=shown)
        yield one


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")
def test_neither_the_scheduler_nor_a_page_has_a_secret(tmp_path: Path, cluster: DaskCluster) -> None:
    here, file, name = tmp_path / "here", tmp_path / "secret", f"{CONTENT['the name of the notebook']}.ipynb"
    file.write_text(SECRETS["a file of the worker"])
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(here / 'goes-on')!r}).exists():\n    time.sleep(0.1)"
    write_notebook(here / name, notebook("print('begun', TOKEN, FILED, x)", wait, "raise ValueError(TOKEN + FILED)"))
    options = ("--secret", "TOKEN=PLANTED", "--secret-file", f"FILED={file}", "-p", "x", CONTENT["a parameter"])
    notify = f"http://127.0.0.1:9/{SECRETS['the place of notifications']}"
    batch = (name, "--engine", cluster.url, *options, "--notify", notify, "--events", "events.jsonl")
    token = {"NBRUN_TOKEN": SECRETS["the token of the call"]}
    with live_nbrun(*batch, cwd=here, json_file=here / "r.json", env=token) as live:
        live.await_file(here / "events.jsonl", words=f"begun *** *** {CONTENT['a parameter']}")
        secrets = {**SECRETS, "the token of the private server": token_of_server(cluster)}
        during = looks(cluster)
        (here / "goes-on").touch()
        assert live.end() == ExitCode.NOTEBOOK_FAILED, live.said()
    cluster.await_nothing_left()
    after = looks(cluster)
    logs = {log.name: log.read_text() for log in cluster.folder.glob("*.log")}

    for found in (during, after):
        assert {shortened(place) for place, text in found.items() if CONTROL in text} >= FINDS_CONTROL
        assert dask_looks.plant.__name__ in found["profile"]
        assert [place for place, text in found.items() if text.startswith("HTTP Error 5")] == []
        for what, word in {**secrets, **CONTENT}.items():
            assert [place for place, text in {**found, **logs}.items() if word in text] == [], what
    assert all("nbrun-seat" in during[place] for place in ("tasks", "diagrams /status", "diagrams /graph"))
    assert cluster.scheduler is not None
    words = (CONTROL, *secrets.values())
    assert in_memory(cluster.scheduler.pid, words) == {CONTROL}


def looks(cluster: DaskCluster) -> dict[str, str]:
    """Return the texts of all pages, and of what the scheduler knows; plants the control before."""
    command = [sys.executable, str(dask_looks.__file__), cluster.address, CONTROL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cluster.folder)
    assert "RESULT" in done.stdout, done.stderr
    found: dict[str, str] = json.loads(done.stdout.rpartition("RESULT")[2])
    return found


def shortened(place: str) -> str:
    return re.sub(r"/tcp\S+(?=\.html)", "/WORKER", place.replace(f"{CONTROL}-key", "KEY"))


TOKEN_OF_SERVER = """
import sys, distributed
def find(path):
    import gc, pathlib
    (server,) = [one for one in gc.get_objects() if type(one).__name__ == "EmbeddedServer"]
    pathlib.Path(path).write_text(server.endpoint.token)
with distributed.Client(sys.argv[1], timeout=20) as client:
    client.run(find, sys.argv[2])
"""


def token_of_server(cluster: DaskCluster) -> str:
    """Return the token of the seat's private server, which a file brings here from the worker."""
    path = cluster.folder / "token"
    command = [sys.executable, "-c", TOKEN_OF_SERVER, cluster.address, str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path.read_text()


def in_memory(pid: int, words: tuple[str, ...]) -> set[str]:
    """Return which words are in the writable memory of a process, in use or not."""
    found = set()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            start, end = (int(part, 16) for part in span.split("-"))
            if rights.startswith("rw"):
                memory.seek(start)
                with contextlib.suppress(OSError):  # such as guard pages
                    content = memory.read(end - start)
                    found |= {word for word in words if word.encode() in content}
    return found
