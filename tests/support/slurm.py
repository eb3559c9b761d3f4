"""Slurm on this machine alone: its daemons, on loopback, as long as a block.

There are two nodes. The one that is named ``spare`` gets no jobs until a test resumes it.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.environments import missing
from tests.support.processes import MARK, new_mark, processes_of
from tests.support.servers import free_port, pause, stop

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel")
START_LIMIT = 60.0
CONFIGURATION = """
ClusterName=nbrun
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
CommunicationParameters=NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,defer_batch=0
KillWait=30
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 Port={node} CPUs=8 State=UNKNOWN
NodeName=spare NodeHostname={host} NodeAddr=127.0.0.1 Port={spare} CPUs=8 State=DRAIN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True, slots=True)
class Slurm:
    """A running Slurm; ``mark`` finds the processes of its jobs."""

    folder: Path
    environment: Mapping[str, str]
    mark: str

    def call(self, *command: str, cwd: Path | None = None) -> str:
        """Run one of Slurm's commands, which must succeed; return what it prints."""
        done = subprocess.run(command, cwd=cwd, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (command, done.stdout, done.stderr, self.logs())
        return done.stdout

    def show(self, job: str) -> dict[str, str]:
        """Return the fields of a job or of an element of an array, such as ``17_3``."""
        words = self.call("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.partition("=")[::2] for word in words)

    def await_state(self, job: str, *states: str, within: float = 90.0) -> dict[str, str]:
        """Wait until a job is in one of these states, and return its fields."""
        until = time.monotonic() + within
        while (fields := self.show(job))["JobState"] not in states:
            assert time.monotonic() < until, (job, fields, self.logs())
            pause(0.2)
        return fields

    def logs(self) -> str:
        """Return the ends of the daemons' logs."""
        return "\n".join(path.read_text()[-3000:] for path in self.folder.glob("*.log"))


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Start Slurm in a folder, and end it with all jobs; skip the test where Slurm is not installed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
    absent = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if absent or os.geteuid() != 0:
        missing(
            f"{absent[0] if absent else 'root'}, for Slurm",
            install="as root, apt-get install --no-install-recommends munge slurmctld slurmd slurm-client",
        )
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "munge" / "key").write_bytes(os.urandom(1024))
    (folder / "munge" / "key").chmod(0o400)
    host, mark = socket.gethostname().partition(".")[0], new_mark()
    ports = {name: free_port() for name in ("controller", "node", "spare")}
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(host=host, folder=folder, **ports))
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(configuration), MARK: mark}
    one = Slurm(folder, environment, mark)
    own = [f"--{name}={folder}/munge/{name[:-5]}" for name in ("key-file", "pid-file", "log-file", "seed-file")]
    commands = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge/socket", *own],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", "node"],
        ["slurmd", "-D", "-N", "spare"],
    ]
    with contextlib.ExitStack() as stack:
        stack.callback(_kill, mark)
        for command in commands:
            program = shutil.which(command[0], path=path) or command[0]
            log = stack.enter_context((folder / f"{command[0]}.out.log").open("a"))
            process = subprocess.Popen([program, *command[1:]], env=environment, stdout=log, stderr=log)
            stack.callback(stop, process)
        _await_idle(one)
        yield one


def _await_idle(one: Slurm) -> None:
    until = time.monotonic() + START_LIMIT
    while True:
        found = subprocess.run(
            ["sinfo", "-h", "-o", "%N %T"], env=one.environment, capture_output=True, text=True, timeout=60
        )
        if {"node idle", "spare drained"} <= set(found.stdout.splitlines()):
            return
        assert time.monotonic() < until, (found.stdout, found.stderr, one.logs())
        pause(0.2)


def _kill(mark: str) -> None:
    """Kill the jobs that the daemons left."""
    for process in processes_of(mark):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
