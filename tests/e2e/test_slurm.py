"""The guide for Slurm on a real one: an array of shards, and what happens to its elements.

The tests are not part of the suite, because Slurm's packages take longer to install than the tests take.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from nbrun.core.batch.scheduling import Durations, in_shard
from nbrun.core.batch.terms import Shard
from nbrun.errors import ExitCode
from tests.house.test_clusters import blocks
from tests.support.notebooks import notebook, read_notebook, run_nbrun, write_notebook
from tests.support.processes import processes_of
from tests.support.servers import pause
from tests.support.slurm import Slurm, slurm

pytestmark = pytest.mark.soak
ARRAY, SUBMIT = blocks("bash")
SIZE = 12
MARKED = "import os, time\nwith open({marks!r}, 'a') as file:\n    print({number}, file=file)"
HANG = "print('so far', flush=True)\nwhile not os.path.exists({goes_on!r}):\n    time.sleep(0.1)"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with slurm(tmp_path_factory.mktemp("slurm")) as one:
        yield one


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with twelve notebooks that leave marks, and the files of the guide."""
    for number in range(SIZE):
        source = MARKED.format(marks=str(tmp_path / "marks"), number=number)
        write_notebook(tmp_path / "notebooks" / f"{number:02}.ipynb", notebook(source, "1 + 1"))
    (tmp_path / "nightly.sbatch").write_text(ARRAY)
    (tmp_path / "submit.sh").write_text(SUBMIT)
    return tmp_path


def hang(project: Path, number: int) -> None:
    """Let a notebook wait for the file ``goes-on`` in its second cell."""
    source = MARKED.format(marks=str(project / "marks"), number=number)
    goes_on = HANG.format(goes_on=str(project / "goes-on"))
    write_notebook(project / "notebooks" / f"{number:02}.ipynb", notebook(source, goes_on))


def submit(cluster: Slurm, project: Path) -> tuple[str, str]:
    """Run the guide's ``submit.sh``; return the numbers of the array job and of the job that merges."""
    said = cluster.call("bash", "submit.sh", cwd=project)
    (merging,) = re.findall(r"Submitted batch job (\d+)", said)
    return str(int(merging) - 1), merging


def marks(project: Path) -> Counter[int]:
    path = project / "marks"
    return Counter(map(int, path.read_text().split())) if path.exists() else Counter()


def await_mark(project: Path, number: int, times: int = 1, within: float = 90.0) -> None:
    """Wait until a notebook has been started so often."""
    until = time.monotonic() + within
    while marks(project)[number] < times:
        logs = "".join(path.read_text() for path in project.glob("slurm-*"))
        assert time.monotonic() < until, (marks(project), logs)
        pause(0.1)


def shards() -> list[int]:
    """Return the shards of the notebooks."""
    keys = [f"notebooks/{number:02}.ipynb" for number in range(SIZE)]
    mine = {shard: in_shard(keys, Shard(shard, 8), Durations()) for shard in range(1, 9)}
    return [next(shard for shard in mine if place in mine[shard]) for place in range(SIZE)]


def jobs_of(cluster: Slurm) -> list[psutil.Process]:
    """Return the processes of Slurm's jobs."""
    daemons = ("munged", "slurmctld", "slurmd", "slurmstepd")
    return [process for process in processes_of(cluster.mark) if process.name() not in daemons]


def merged(cluster: Slurm, project: Path, job: str) -> tuple[str, dict[str, Any]]:
    """Wait for the job that merges; return its exit code in Slurm's words, and the merged result."""
    fields = cluster.await_state(job, "COMPLETED", "FAILED")
    return fields["ExitCode"], json.loads((project / "all.json").read_text())


def test_the_array_of_the_guide_runs_all_shards_and_merges_them(cluster: Slurm, project: Path) -> None:
    write_notebook(project / "notebooks" / "07.ipynb", notebook("1/0"))
    array, merging = submit(cluster, project)
    code, result = merged(cluster, project, merging)
    assert (code, result["tally"]) == (f"{ExitCode.NOTEBOOK_FAILED.value}:0", {"passed": SIZE - 1, "failed": 1})
    assert (project / "all.xml").read_text().count("<testsuite ") == SIZE
    assert len([*(project / "site").rglob("[01]?.html")]) == SIZE
    assert cluster.show(f"{array}_{shards()[7]}")["ExitCode"] == code
    assert cluster.show(f"{array}_{shards()[0]}")["ExitCode"] == "0:0"


def test_a_cancelled_element_saves_its_notebook_and_leaves_no_process(cluster: Slurm, project: Path) -> None:
    hang(project, 3)
    array, merging = submit(cluster, project)
    await_mark(project, 3)
    element = f"{array}_{shards()[3]}"
    cluster.call("scancel", element)
    assert cluster.await_state(element, "CANCELLED", "FAILED", within=30)["ExitCode"] == "143:0"
    code, result = merged(cluster, project, merging)
    assert code == "143:0"
    assert result["tally"] == {"passed": SIZE - 1, "interrupted": 1}
    partial = read_notebook(project / "results" / "out" / "notebooks" / "03.ipynb")
    assert "so far" in json.dumps(partial["cells"][1]["outputs"])
    assert jobs_of(cluster) == []


def test_a_requeued_element_runs_only_what_has_no_result(cluster: Slurm, project: Path) -> None:
    first, second = (number for number in range(SIZE) if shards()[number] == 1)
    hang(project, second)
    array, merging = submit(cluster, project)
    await_mark(project, second)
    journal = project / "results" / "out" / ".nbrun-journal-1-of-8.jsonl"
    until = time.monotonic() + 30
    while f"{first:02}.ipynb" not in journal.read_text():
        assert time.monotonic() < until
        pause(0.1)
    cluster.call("scontrol", "requeue", f"{array}_1")
    cluster.await_state(f"{array}_1", "PENDING")
    cluster.call("scontrol", "update", f"JobId={array}_1", "StartTime=now")  # instead of in two minutes
    await_mark(project, second, times=2, within=180)
    (project / "goes-on").touch()
    assert merged(cluster, project, merging)[0] == "0:0"
    assert marks(project) == Counter({number: 1 + (number == second) for number in range(SIZE)})


def test_a_shard_that_never_started_is_missing_and_can_be_run_later(cluster: Slurm, project: Path) -> None:
    array, merging = submit(cluster, project)
    cluster.call("scancel", f"{array}_8")  # four elements run at a time
    code, result = merged(cluster, project, merging)
    assert (code, result["problem"]["message"]) == ("4:0", "shard 8 of 8 is missing")
    cluster.call("sbatch", "--wait", "--array=8", "nightly.sbatch", cwd=project)
    again = run_nbrun("merge", "results/", "--json", "all.json", "--html", "site/", cwd=project)
    assert again.returncode == ExitCode.OK, again.stderr
    assert marks(project) == Counter(dict.fromkeys(range(SIZE), 1))


def start_one(cluster: Slurm, project: Path) -> tuple[str, dict[psutil.Process, str]]:
    """Start one element, whose notebook waits; return its name, and its processes with their command lines."""
    hang(project, 3)
    (project / "results").mkdir()
    shard = shards()[3]
    array = cluster.call("sbatch", "--parsable", f"--array={shard}", "nightly.sbatch", cwd=project).strip()
    await_mark(project, 3)
    element = f"{array}_{shard}"
    job = cluster.show(element)["JobId"]
    started = [one for one in jobs_of(cluster) if one.environ().get("SLURM_JOB_ID") == job]
    lines = {process: " ".join(process.cmdline()) for process in started}
    assert all(any(word in line for line in lines.values()) for word in ("nbrun run", "local_server")), lines
    return element, lines


@pytest.mark.parametrize("by", ["kill -9 of nbrun", "scancel --signal=KILL of all processes"])
def test_a_killed_element_leaves_no_server_and_no_kernel(cluster: Slurm, project: Path, by: str) -> None:
    element, lines = start_one(cluster, project)
    if by.startswith("kill"):
        next(process for process, line in lines.items() if "nbrun run" in line).kill()
    else:
        cluster.call("scancel", "--signal=KILL", "--full", element)
    _, left = psutil.wait_procs([*lines], timeout=5)
    assert [lines[process] for process in left] == []
    cluster.await_state(element, "FAILED", "CANCELLED")


def test_an_element_that_moves_to_another_node_does_not_run_beside_what_is_left_on_the_first_one(
    cluster: Slurm, project: Path
) -> None:
    element, lines = start_one(cluster, project)
    (step,) = {parent for process in lines for parent in process.parents() if parent.name() == "slurmstepd"}
    step.kill()  # as on a node that Slurm cannot reach any more; the step's processes go on
    step.wait(5)
    cluster.call("scontrol", "update", "NodeName=node", "State=DOWN", "Reason=test")
    try:
        cluster.call("scontrol", "update", "NodeName=spare", "State=RESUME")
        cluster.await_state(element, "PENDING")
        cluster.call("scontrol", "update", f"JobId={element}", "StartTime=now", "ExcNodeList=node")
        code = cluster.await_state(element, "FAILED")["ExitCode"]
    finally:
        cluster.call("scontrol", "update", "NodeName=spare", "State=DRAIN", "Reason=spare")
        cluster.call("scontrol", "update", "NodeName=node", "State=IDLE")
    said = "".join(path.read_text() for path in project.glob("slurm-*.log"))
    assert (code, "another process runs a batch with this journal" in said) == (f"{ExitCode.USAGE.value}:0", True), said
    assert [lines[process] for process in lines if not process.is_running()] == []
    (project / "goes-on").touch()
    _, left = psutil.wait_procs([*lines], timeout=60)
    assert [lines[process] for process in left] == []
    assert marks(project)[3] == 1
    assert json.loads((project / "results" / f"shard-{shards()[3]}.json").read_text())["exit_code"] == ExitCode.OK
