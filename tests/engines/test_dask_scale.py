"""A thousand notebooks on Dask: what one costs, and what is kept of it after its delivery.

``NBRUN_TESTS_RUNS`` is another number of notebooks. The test prints what it measured (``pytest -s -m soak``).
"""

import os
import resource
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from nbrun.errors import ExitCode
from tests.support.dask_cluster import DaskCluster, dask_cluster
from tests.support.notebooks import notebook, write_notebook
from tests.support.processes import live_nbrun
from tests.support.servers import pause

RUNS = int(os.environ.get("NBRUN_TESTS_RUNS", "1000"))
LOOKS = (RUNS // 10, RUNS // 2, RUNS * 9 // 10)
"""Numbers of delivered notebooks after which the memory of nbrun is measured."""
MOST_CPU = 0.2
"""Seconds of CPU that a notebook may cost more on Dask."""
MOST_GROWTH = 16_000_000
"""Bytes by which nbrun may grow between the first look and the last one; it keeps the results without outputs."""
KEPT = (
    "[[str(key) for key in scheduler.tasks], list(map(str, scheduler.task_prefixes)),"
    " sum(map(len, scheduler.get_events().values())),"
    " repr([scheduler.get_events(), list(scheduler.transition_log), scheduler.identity()])]"
)
"""What the scheduler knows: tasks, their prefixes, the number of events, and its log as text."""


def processor_time(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and of the children that it has waited for."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def of_ended_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def share_of_memory(pid: int) -> int:
    """Return the proportional set size of a process in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def run_all(folder: Path, *options: str, at_half: Callable[[], None] = lambda: None) -> tuple[float, list[int]]:
    """Run the notebooks; return the CPU seconds of nbrun and all its children, and its memory at the looks."""
    before, sizes, journal = of_ended_children(), [], folder / "out" / ".nbrun-journal.jsonl"
    call = (".", "-q", "-o", "out", "-j2", "--startup-timeout", "120", *options)
    # With -q, because nobody reads the lines of a thousand runs before its end.
    with live_nbrun(*call, cwd=folder, json_file=folder / "r.json") as live:
        for number in LOOKS:
            while not journal.exists() or journal.read_bytes().count(b"\n") <= number:
                assert live.process.poll() is None, live.said()
                pause(0.1)
            sizes.append(share_of_memory(live.process.pid))
            if number == LOOKS[1]:
                at_half()
        assert live.end(600) == ExitCode.OK, live.said()
        assert live.report()["tally"] == {"passed": RUNS}
    return of_ended_children() - before, sizes


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is measured from Linux's /proc")
def test_a_notebook_on_dask_costs_little_more_than_here_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    for name in ("dask", "here"):
        for number in range(RUNS):
            write_notebook(tmp_path / name / f"n{number:04}.ipynb", notebook(f"x = {number}", "print(x)"))

    with dask_cluster(tmp_path / "cluster") as cluster:
        while len(cluster.ask("list(scheduler.workers)")) < 2:
            pause(0.2)
        assert cluster.scheduler is not None
        processes = [psutil.Process(each.pid) for each in (cluster.scheduler, *cluster.nannies)] + cluster.workers()
        before = sum(map(processor_time, processes))
        there, sizes = run_all(
            tmp_path / "dask", "--engine", cluster.url, at_half=lambda: check_scheduler(cluster, seats=2)
        )
        cluster.await_nothing_left()
        there += sum(map(processor_time, processes)) - before
        check_scheduler(cluster, seats=0)
    here, sizes_here = run_all(tmp_path / "here")

    print(f"CPU seconds of a notebook: {there / RUNS:.3f} on Dask, {here / RUNS:.3f} here")
    for where, found in (("on Dask", sizes), ("here", sizes_here)):
        shown = ", ".join(f"{size / 1e6:.1f}" for size in found)
        print(f"MB of nbrun {where} after {', '.join(map(str, LOOKS))} notebooks: {shown}")
    assert (there - here) / RUNS <= MOST_CPU
    assert sizes[-1] - sizes[0] <= MOST_GROWTH


def check_scheduler(cluster: DaskCluster, *, seats: int) -> None:
    """Check that the scheduler knows the seats and no notebook."""
    tasks, prefixes, events, log = cluster.ask(KEPT)
    assert len(tasks) == seats
    assert prefixes == ["nbrun-seat"]
    assert ".ipynb" not in log
    print(f"the scheduler keeps {len(tasks)} tasks and {events} events")
