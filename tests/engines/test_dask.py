"""The engine of Dask, with real schedulers, and real workers with their nannies."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import nbrun
from nbrun.errors import ExitCode, UsageError
from nbrun.runner.engine import EngineCall
from nbrun.runner.job import Access
from nbrun.runner.plugins import make_engine
from tests.support.dask_cluster import DaskCluster, dask_cluster
from tests.support.environments import OTHER_PYTHON, environment
from tests.support.notebooks import notebook, read_notebook, run_nbrun, write_notebook
from tests.support.processes import MARK, live_nbrun
from tests.support.resuming import check_resumed
from tests.support.servers import pause, write_certificate

SECRET = "tomato-4711-secret"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """Two workers, which have a secret in their environment."""
    with dask_cluster(tmp_path_factory.mktemp("dask"), environment={"PLANTED": SECRET}) as found:
        yield found


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def mark(path: Path) -> str:
    """Return the source of a cell that adds a line to a file."""
    return f"with open({str(path)!r}, 'a') as file:\n    file.write('x\\n')"


def wait_for(path: Path) -> str:
    """Return the source of a cell that waits until a file exists."""
    return f"import pathlib, time\nwhile not pathlib.Path({str(path)!r}).exists():\n    time.sleep(0.02)"


def marks(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def await_idle(cluster: DaskCluster) -> None:
    """Check that nothing of a batch is left on the workers or at the scheduler."""
    cluster.await_nothing_left()
    assert cluster.ask("[str(key) for key in scheduler.tasks]") == []


def test_a_batch_runs_on_the_workers_and_leaves_nothing(here: Path, cluster: DaskCluster) -> None:
    # Each of the first two waits for the other, which is on the other worker.
    for name, other in ("ab", "ba", "ca"):
        waits = f"{mark(here / name)}\n{wait_for(here / other)}\nimport os\nos.getcwd()"
        source = f"print('{name} ' + TOKEN)"
        write_notebook(here / f"{name}.ipynb", notebook(source, waits))
    write_notebook(here / "wrong.ipynb", notebook("1 / 0"))
    done = run_nbrun(
        "run",
        ".",
        "-o",
        "out",
        "-j2",
        "--engine",
        cluster.url,
        "--secret",
        "TOKEN=PLANTED",
        "--json",
        "-",
        "--events",
        "events.jsonl",
        cwd=here,
    )  # fmt: skip  (the variable is set on the workers only)
    assert done.returncode == ExitCode.NOTEBOOK_FAILED, done.stderr
    runs = json.loads(done.stdout)["runs"]
    assert [(run["notebook"], run["outcome"], run["attempts"]) for run in runs] == [
        ("a.ipynb", "passed", 1), ("b.ipynb", "passed", 1), ("c.ipynb", "passed", 1),
        ("wrong.ipynb", "failed", 1),
    ]  # fmt: skip
    for name in "abc":
        cells = read_notebook(here / "out" / f"{name}.ipynb")["cells"]
        assert cells[-2]["outputs"][0]["text"].startswith(f"{name} ***"), cells
        assert cells[-1]["outputs"][0]["data"]["text/plain"] == repr(str(here))
    assert "distributed" not in done.stderr
    await_idle(cluster)

    # The secret is nowhere except where the kernels run.
    assert SECRET not in done.stdout + done.stderr + (here / "events.jsonl").read_text()
    state = cluster.ask("__import__('builtins').repr([scheduler.get_events(), scheduler.identity()])")
    assert "nbrun-seat" in state
    assert SECRET not in state
    assert "a.ipynb" not in state
    for log in cluster.folder.glob("*.log"):
        assert SECRET not in log.read_text()
        assert "a.ipynb" not in log.read_text()


def test_a_worker_that_is_killed_with_its_nanny_costs_one_attempt_and_leaves_no_orphan(
    here: Path, cluster: DaskCluster
) -> None:
    pid, never = here / "pid", here / "never"
    first = f"{mark(here / 'first')}\nprint('begun')"
    kill = f"import os\nfrom pathlib import Path\nif not Path({str(pid)!r}).exists():\n    print('waits', flush=True)\n"
    kill += f"    Path({str(pid)!r}).write_text(str(os.getpid()))\n    import time; time.sleep(600)\nprint('done')"
    write_notebook(here / "a.ipynb", notebook(first, kill, mark(never)))
    with live_nbrun("a.ipynb", "--engine", cluster.url, cwd=here, json_file=here / "r.json") as live:
        live.await_file(pid)
        kernel = psutil.Process(int(pid.read_text()))
        family = kernel.parents()
        worker = next(one for one in family if one in cluster.workers())
        server = family[: family.index(worker)]
        for process in (worker.parent(), worker):  # the nanny first, so that nobody can clean up
            assert process is not None
            process.kill()
        assert not psutil.wait_procs([kernel, *server], timeout=5)[1]
        cluster.add_worker("another")
        assert live.end() == ExitCode.OK, live.said()
        result = live.report()
    assert (result["outcome"], [each["outcome"] for each in result["tries"]]) == ("passed", ["seat-lost", "passed"])
    assert (marks(here / "first"), marks(never)) == (2, 1)
    await_idle(cluster)


@pytest.mark.parametrize("word", ["SIGINT", "SIGTERM"])
def test_after_a_signal_all_seats_stop_and_the_partial_notebooks_are_saved(
    here: Path, cluster: DaskCluster, word: str
) -> None:
    for name in "ab":
        touch = f"from pathlib import Path; Path({str(here / name)!r}).touch()"
        write_notebook(here / f"{name}.ipynb", notebook("print('before')", f"{touch}\nimport time; time.sleep(600)"))
    with live_nbrun(".", "-o", "out", "-j2", "--engine", cluster.url, cwd=here, json_file=here / "r.json") as live:
        live.await_file(here / "a")
        live.await_file(here / "b")
        live.signal(getattr(signal, word))
        code = live.end(10)
        assert code == (ExitCode.INTERRUPTED if word == "SIGINT" else ExitCode.TERMINATED), live.said()
        assert [run["outcome"] for run in live.report()["runs"]] == ["interrupted"] * 2
    for name in "ab":
        cells = read_notebook(here / "out" / f"{name}.ipynb")["cells"]
        assert cells[0]["outputs"][0]["text"] == "before\n"
        assert cells[1]["outputs"]  # the KeyboardInterrupt
    await_idle(cluster)


def test_a_secret_that_the_workers_do_not_have_is_named_before_the_first_run(here: Path, cluster: DaskCluster) -> None:
    write_notebook(here / "a.ipynb", notebook(mark(here / "begun")))
    done = run_nbrun("run", "a.ipynb", "--engine", cluster.url, "--secret", "A=NOWHERE", cwd=here, env={"A": "x"})
    assert done.returncode == ExitCode.USAGE
    assert re.search(r"Dask worker tcp:\S+: --secret A: the environment variable NOWHERE is not set", done.stderr)
    assert not (here / "begun").exists()


def test_a_killed_batch_is_resumed_on_the_workers(tmp_path: Path, cluster: DaskCluster) -> None:
    check_resumed(tmp_path, 4, ["--engine", cluster.url])
    await_idle(cluster)


def test_seats_end_when_nbrun_is_killed(here: Path, cluster: DaskCluster) -> None:
    touch = f"from pathlib import Path; Path({str(here / 'begun')!r}).touch()"
    write_notebook(here / "a.ipynb", notebook(f"{touch}\nimport time; time.sleep(600)"))
    with live_nbrun("a.ipynb", "--engine", cluster.url, cwd=here, json_file=here / "r.json") as live:
        live.await_file(here / "begun")
        live.process.kill()
        await_idle(cluster)


def test_a_notebook_that_kills_two_workers_is_not_tried_a_third_time(here: Path, cluster: DaskCluster) -> None:
    # It kills when its first output has arrived.
    kill = f"while 'before\\\\n' not in open({str(here / 'events.jsonl')!r}).read():\n    pass\n"
    kill += "import psutil\nparents = psutil.Process().parents()\n"
    kill += "next(one for one in parents if 'spawn_main' in ' '.join(one.cmdline())).kill()\n"
    kill += "import time\ntime.sleep(60)"
    write_notebook(here / "bad.ipynb", notebook("print('before')", mark(here / "runs"), kill, "'never'"))
    write_notebook(here / "good.ipynb", notebook("print('good')"))
    options = ("-o", "out", "-j2", "--engine", cluster.url, "--json", "-", "--events", "events.jsonl")
    done = run_nbrun("run", "bad.ipynb", "good.ipynb", *options, cwd=here)
    bad, good = json.loads(done.stdout)["runs"]
    assert (done.returncode, bad["outcome"], bad["attempts"]) == (ExitCode.SERVER, "seat-lost", 2), done.stderr
    assert "has left the cluster" in bad["problem"]["message"]
    assert good["outcome"] == "passed"
    assert marks(here / "runs") == 2
    saved = read_notebook(here / "out" / "bad.ipynb")
    assert saved["cells"][0]["outputs"][0]["text"] == "before\n"
    assert saved["metadata"]["nbrun"]["run"]["outcome"] == "seat-lost"
    await_idle(cluster)


def test_output_is_seen_while_the_cell_runs_and_a_large_one_arrives_at_the_end(
    here: Path, cluster: DaskCluster
) -> None:
    wait = (
        f"from pathlib import Path\nwhile not Path({str(here / 'go')!r}).exists():\n    import time; time.sleep(0.02)"
    )
    first = f"for n in range(9):\n    print(n, flush=True)\n{wait}"
    write_notebook(here / "a.ipynb", notebook(first, "print('x' * 10**7)"))
    options = ("--engine", cluster.url, "--events", "events.jsonl")
    with live_nbrun("a.ipynb", *options, cwd=here, json_file=here / "r.json") as live:
        live.await_file(here / "events.jsonl", words="8\\n")
        tasks = cluster.ask("[str(key) for key in scheduler.tasks]")
        assert [task.rpartition("-")[0].rpartition("-")[0] for task in tasks] == ["nbrun-seat"]
        (here / "go").touch()
        assert live.end() == ExitCode.OK, live.said()
    text = (here / "events.jsonl").read_text()
    events = [json.loads(line) for line in text.splitlines()]
    texts = [event["output"]["text"] for event in events if event["event"] == "output" and event["index"] == 0]
    assert "".join(texts) == "".join(f"{n}\n" for n in range(9))
    assert len(text) < 10**6
    assert len(read_notebook(here / "a.ipynb")["cells"][1]["outputs"][0]["text"]) == 10**7 + 1


@pytest.mark.parametrize("moment", ["while the seat starts", "while the batch runs"])
def test_a_scheduler_that_is_killed_is_exit_code_4_and_deliveries_are_kept(
    here: Path, tmp_path: Path, moment: str
) -> None:
    write_notebook(here / "a.ipynb", notebook("print('a')"))
    wait = f"from pathlib import Path; Path({str(here / 'begun')!r}).touch()\nimport time; time.sleep(600)"
    write_notebook(here / "b.ipynb", notebook("print('b')", wait))
    write_notebook(here / "c.ipynb", notebook("print('c')"))
    is_early = moment == "while the seat starts"
    with dask_cluster(tmp_path / "cluster", workers=0 if is_early else 1) as cluster:
        options = ("-o", "out", "--engine", cluster.url, "--events", "events.jsonl")
        with live_nbrun("a.ipynb", "b.ipynb", "c.ipynb", *options, cwd=here, json_file=here / "r.json") as live:
            assert cluster.scheduler is not None
            if is_early:
                cluster.await_log("scheduler", "Receive client connection")
            else:
                live.await_file(here / "events.jsonl", words="b\\n")
            cluster.scheduler.kill()
            assert live.end(20) == ExitCode.SERVER
            said, runs = live.said(), live.report()["runs"]
        assert re.search("Dask scheduler (answers )?at tcp", said), said
        assert "Traceback" not in said
        assert "distributed." not in said
        if not is_early:
            assert [run["exit_code"] for run in runs][:2] == [ExitCode.OK, ExitCode.SERVER]
            assert read_notebook(here / "out" / "b.ipynb")["cells"][0]["outputs"][0]["text"] == "b\n"
        cluster.await_nothing_left(10)  # the worker notices that it has no scheduler


def test_a_cluster_without_workers_is_exit_code_4_and_one_that_grows_is_used(here: Path, tmp_path: Path) -> None:
    for name, other in ("ab", "ba"):
        write_notebook(here / f"{name}.ipynb", notebook(mark(here / name), wait_for(here / other)))
    with dask_cluster(tmp_path / "cluster", workers=0) as cluster:
        batch = (".", "-o", "out", "-j2", "--engine", cluster.url, "--startup-timeout")
        done = run_nbrun("run", *batch, "2", cwd=here)
        assert done.returncode == ExitCode.SERVER
        assert "the engine had no seat for 2" in done.stderr
        assert cluster.ask("[str(key) for key in scheduler.tasks]") == []

        with live_nbrun(*batch, "60", cwd=here, json_file=here / "r.json") as live:
            cluster.add_worker("first")
            while not any((here / name).exists() for name in "ab"):
                assert live.process.poll() is None, live.said()
                pause()
            copy = tmp_path / "another-nbrun"
            shutil.copytree(Path(nbrun.__file__).parent, copy / "nbrun", ignore=shutil.ignore_patterns("__pycache__"))
            (copy / "nbrun" / "version.py").write_text('__version__ = "9.9"\n')
            path = os.pathsep.join([str(copy), os.environ.get("PYTHONPATH", "")])
            cluster.add_worker("other", environment={"PYTHONPATH": path})
            cluster.await_log("scheduler", "name: other")
            cluster.add_worker("second")
            assert live.end() == ExitCode.OK, live.said()
            said = live.said()
        assert re.search(r"Dask worker tcp:\S+: the seat has nbrun 9.9, .*; it is not used", said), said
        await_idle(cluster)

        # The worker is there before the first run of the next batch.
        done = run_nbrun("run", *batch, "60", cwd=here)
        assert done.returncode == ExitCode.USAGE
        assert re.search(r"the seat has nbrun 9.9, and this machine has \d", done.stderr), done.stderr


def test_certificates_are_used_and_workers_with_other_kernels_are_refused(here: Path, tmp_path: Path) -> None:
    paths = {"ca_file": tmp_path / "cert.pem", "cert": tmp_path / "cert.pem", "key": tmp_path / "key.pem"}
    write_certificate(paths["cert"], paths["key"])
    security = [f"--tls-{name.replace('_', '-')}={path}" for name, path in paths.items()]
    write_notebook(here / "a.ipynb", notebook("print('over TLS')"))
    with dask_cluster(tmp_path / "cluster", workers=1, security=security) as cluster:
        assert cluster.url.startswith("dask+tls://")
        table = "".join(f'{name} = "{path}"\n' for name, path in paths.items())
        (here / "nbrun.toml").write_text(f"[engine.dask]\n{table}")
        done = run_nbrun("run", "a.ipynb", "--engine", cluster.url, cwd=here)
        assert (done.returncode, "distributed" in done.stderr) == (ExitCode.OK, False), done.stderr
        assert read_notebook(here / "a.ipynb")["cells"][0]["outputs"][0]["text"] == "over TLS\n"

        (here / "nbrun.toml").unlink()  # Dask's own configuration is the default
        names = {"ca_file": "CA_FILE", "cert": "CLIENT__CERT", "key": "CLIENT__KEY"}
        own = {f"DASK_DISTRIBUTED__COMM__TLS__{names[name]}": str(path) for name, path in paths.items()}
        spec = tmp_path / "jupyter" / "kernels" / "extra" / "kernel.json"
        spec.parent.mkdir(parents=True)
        spec.write_text(json.dumps({"argv": ["x"], "display_name": "Extra", "language": "extra"}))
        cluster.add_worker("other", environment={"JUPYTER_PATH": str(spec.parents[2])})
        cluster.await_log("scheduler", "name: other")
        done = run_nbrun("run", "a.ipynb", "--engine", cluster.url, cwd=here, env=own)
        assert done.returncode == ExitCode.USAGE
        assert re.search(r"Dask worker tls:\S+: the seat has other kernelspecs than the first one: extra", done.stderr)


@pytest.mark.slow
def test_a_worker_with_another_python_is_refused_before_the_first_run(here: Path, tmp_path: Path) -> None:
    write_notebook(here / "a.ipynb", notebook(mark(here / "begun")))
    other, path = environment("dask-worker"), str(Path(nbrun.__file__).parents[1])
    with dask_cluster(tmp_path / "cluster", workers=0) as cluster:
        cluster.add_worker("other", python=other.python, environment={"PYTHONPATH": path})
        cluster.await_log("scheduler", "name: other")
        done = run_nbrun("run", "a.ipynb", "--engine", cluster.url, cwd=here)
    assert done.returncode == ExitCode.USAGE, done.stderr
    theirs = re.escape(OTHER_PYTHON)
    assert re.search(rf"tcp:\S+: the seat has Python {theirs}\S*, and this machine has 3\.", done.stderr), done.stderr
    assert not (here / "begun").exists()


ADAPTIVE = """
import sys, distributed
place = dict(host="127.0.0.1", dashboard_address=None, silence_logs=False)
with distributed.LocalCluster(n_workers=0, threads_per_worker=1, **place) as cluster:
    print(cluster.scheduler_address, flush=True)
    for most in sys.stdin:
        cluster.adapt(minimum=0, maximum=int(most), interval="100ms", wait_count=2, target_duration="10ms")
"""


@pytest.mark.slow
def test_on_an_adaptive_cluster_no_run_is_lost_and_no_delivered_one_is_repeated(here: Path, tmp_path: Path) -> None:
    # The first two runs wait for each other, so there are two workers. Then there is only one, until the end. Now and
    # then Dask ends that one too, and starts another.
    meet = {"a": ["b"], "b": ["a"]}
    for name in "abcd":
        waits = [wait_for(here / other) for other in (*meet.get(name, ()), *(("goes-on",) if name in "bc" else ()))]
        write_notebook(here / f"{name}.ipynb", notebook(mark(here / name), *waits, "print('done')"))
    cluster = DaskCluster(tmp_path)
    adaptive = subprocess.Popen(
        [sys.executable, "-c", ADAPTIVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, MARK: cluster.mark}, cwd=tmp_path, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert adaptive.stdin is not None
    assert adaptive.stdout is not None

    def let(most: int) -> None:
        assert adaptive.stdin is not None
        adaptive.stdin.write(f"{most}\n")
        adaptive.stdin.flush()

    def await_workers(number: int) -> None:
        deadline = time.monotonic() + 30
        while (count := len(cluster.ask("list(scheduler.workers)"))) != number:
            assert time.monotonic() < deadline, f"{count} workers"

    try:
        cluster.address = adaptive.stdout.readline().strip()
        let(2)
        options = ("-o", "out", "-j2", "--engine", cluster.url, "--events", "events.jsonl")
        with live_nbrun(".", *options, cwd=here, json_file=here / "r.json") as live:
            live.await_file(here / "c")
            assert marks(here / "a") == marks(here / "b") == 1
            await_workers(2)
            let(1)
            await_workers(1)
            (here / "goes-on").touch()
            assert live.end() == ExitCode.OK, live.said()
            runs = live.report()["runs"]
        ended_with_seats = cluster.ask(
            "sum(event['action'] == 'remove-worker' and bool(event['processing-tasks'])"
            " for _, event in scheduler.get_events('all') if isinstance(event, dict) and 'action' in event)"
        )
        tries = {Path(run["notebook"]).stem: run["attempts"] for run in runs}
        assert 1 <= sum(tries.values()) - 4 <= ended_with_seats
        assert tries["a"] == 1  # it was delivered before a worker ended
        assert {name: marks(here / name) for name in "abcd"} == tries
        lost = [each for run in runs for each in run["tries"][:-1]]
        assert all("the worker was retired" in each["problem"]["message"] for each in lost)
        await_workers(0)
        await_idle(cluster)
    finally:
        adaptive.kill()
        adaptive.communicate(timeout=10)
        cluster.close()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_workers_cost_an_attempt_each_and_no_delivered_run_is_executed_again(here: Path, tmp_path: Path) -> None:
    number, kills = int(os.environ.get("NBRUN_TESTS_RUNS", "16")), int(os.environ.get("NBRUN_TESTS_KILLS", "2"))
    (here / "marks").mkdir()
    for n in range(number):
        source = f"import time\n{mark(here / 'marks' / str(n))}\ntime.sleep(0.2)\nprint({n})"
        write_notebook(here / f"n{n:03}.ipynb", notebook(source))
    chance = random.Random(4711)
    moments = sorted(chance.sample(range(2, number - 2), kills))
    delivered: dict[str, int] = {}
    with dask_cluster(tmp_path / "cluster") as cluster:
        options = ("-o", "out", "-j2", "--engine", cluster.url, "--events", "events.jsonl", "--startup-timeout", "120")
        with live_nbrun(".", *options, cwd=here, json_file=here / "r.json") as live:
            for moment in moments:
                while len(delivered) < moment:
                    assert live.process.poll() is None, live.said()
                    for name in finished(here / "events.jsonl"):
                        delivered.setdefault(name, marks(here / "marks" / name))
                    pause(0.05)
                while not (workers := cluster.workers()):
                    pause(0.05)
                chance.choice(workers).kill()
            code = live.end(240)
            runs = live.report()["runs"]
        outcomes = {run["outcome"] for run in runs}
        assert len(runs) == number
        assert outcomes <= {"passed", "seat-lost"}, [run["problem"] for run in runs if run["problem"]]
        assert code == (ExitCode.OK if outcomes == {"passed"} else ExitCode.SERVER)
        assert sorted(finished(here / "events.jsonl")) == sorted(str(n) for n in range(number))  # each once
        again = [name for name, count in delivered.items() if marks(here / "marks" / name) != count]
        assert again == []  # nothing that was delivered was executed again
        extra = [marks(here / "marks" / str(n)) - 1 for n in range(number)]
        assert sum(max(0, count) for count in extra) <= kills
        assert sum(run["attempts"] - 1 for run in runs) <= kills
        await_idle(cluster)


def finished(events: Path) -> list[str]:
    """Return the numbers of the runs that are finished, from their events."""
    if not events.exists():
        return []
    lines = [line for line in events.read_text().splitlines(keepends=True) if '"run-finished"' in line]
    names = [json.loads(line)["notebook"] for line in lines if line.endswith("\n")]
    return [str(int(re.sub(r"\D", "", name))) for name in names]


@pytest.mark.parametrize(
    ("url", "settings", "said"),
    [
        ("dask://host", {}, ["missing port", "HOST:PORT"]),
        ("dask://", {}, ["there is no address", "scheduler-address"]),
        ("dask://host:1/path", {}, ["more than a host and a port"]),
        ("dask://host:1", {"ca_file": "ca.pem"}, ["certificates need dask+tls://"]),
        ("dask+tls://host:1", {}, ["needs a CA file and a certificate", "[tool.nbrun.engine.dask]"]),
        ("dask+tls://host:1", {"ca_file": "no.pem", "cert": "no.pem"}, ["a certificate cannot be read", "No such"]),
        ("dask+tls://host:1", {"cafile": "ca.pem"}, ["[tool.nbrun.engine.dask]", "Did you mean ca_file?"]),
    ],
)
def test_a_wrong_address_or_certificate_is_refused_before_anything_starts(
    url: str, settings: dict[str, str], said: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        make_engine(EngineCall(url, Access(), settings))
    for words in said:
        assert words in f"{caught.value} {caught.value.hint}"


def test_a_call_without_dask_imports_nothing_of_it(here: Path) -> None:
    write_notebook(here / "a.ipynb", notebook("1"))
    program = (
        "import sys, nbrun\nfrom nbrun.cli.main import main\n"
        "sys.argv = ['nbrun', 'run', 'a.ipynb']\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('dask', 'distributed')))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=here, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip().endswith("[]"), done


def test_a_missing_extra_is_named(here: Path) -> None:
    write_notebook(here / "a.ipynb", notebook("1"))
    (here / "sitecustomize.py").write_text("import sys\nsys.modules['distributed'] = sys.modules['dask'] = None\n")
    path = os.pathsep.join([str(here), os.environ.get("PYTHONPATH", "")])
    done = run_nbrun("run", "a.ipynb", "--engine", "dask://host:1", cwd=here, env={"PYTHONPATH": path})
    assert done.returncode == ExitCode.USAGE
    assert re.search(r"pip install 'jupyter-nbrun\[dask\]'", done.stderr), done.stderr


def test_a_scheduler_that_does_not_answer_is_exit_code_4(here: Path) -> None:
    write_notebook(here / "a.ipynb", notebook("1"))
    done = run_nbrun("run", "a.ipynb", "--engine", "dask://127.0.0.1:9", "--startup-timeout", "1", cwd=here)
    assert done.returncode == ExitCode.SERVER, done.stderr
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
