"""Who runs the notebooks, and how each is called.

Each is called as its users call it, with its progress bar off where it has one. A contender gives its command for a
workload, or None where the workload is not for it; every command reads ``in/`` and leaves its results in ``out/``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.workloads import Workload

CLIENTS = Path(__file__).with_name("clients")
_SINGLE = ("W1", "W2", "W3", "W4", "W5", "W8")
_PARALLEL = "ls in | xargs -P2 -I@ "


@dataclass(frozen=True, slots=True)
class FarServer:
    """A server that is there before the clock starts: its address, and the port of its far end (W7)."""

    url: str
    token: str


Command = Callable[[Workload, FarServer | None], Sequence[str] | None]


@dataclass(frozen=True, slots=True)
class Contender:
    """A runner of notebooks."""

    name: str
    command: Command
    environment: str = "nbrun"
    """The environment in which it is measured, where each has its own."""
    is_slow: bool = False
    """It takes many seconds at the long workloads, and is run less often there."""
    in_place: bool = False
    """It writes into ``in/``."""
    most_rounds: int = 100
    """Rounds at most: one for those whom no target names."""

    def rounds(self, workload: Workload, given: int | None = None) -> int:
        """Return how often it runs the workload; `given` is what the command line says."""
        return given or min(workload.slow_rounds if self.is_slow else workload.rounds, self.most_rounds)


def needs_server(contender: str, workload: str) -> bool:
    """Return whether a running server belongs to this measurement."""
    return workload == "W7" or contender == "nbrun on a server"


def _nbrun(workload: Workload, server: FarServer | None) -> Sequence[str] | None:
    if server is not None:
        return ["nbrun", "run", "-q", "in/0.ipynb", "-o", "out/0.ipynb", "--server", server.url, "--pipeline", "auto"]
    if workload.name == "W6":
        return ["nbrun", "run", "-q", *_inputs(workload), "-j", "2", "-o", "out/{stem}.ipynb"]
    return ["nbrun", "run", "-q", "in/0.ipynb", "-o", "out/0.ipynb"] if workload.name in _SINGLE else None


def _nbrun_in_turn(workload: Workload, server: FarServer | None) -> Sequence[str] | None:
    if workload.name != "W7" or server is None:
        return None
    return ["nbrun", "run", "-q", "in/0.ipynb", "-o", "out/0.ipynb", "--server", server.url, "--pipeline", "1"]


def _nbrun_on_server(workload: Workload, server: FarServer | None) -> Sequence[str] | None:
    if workload.name not in ("W2", "W6") or server is None:
        return None
    return ["nbrun", "run", "-q", *_inputs(workload), "--server", server.url, "-j", "2", "-o", "out/{stem}.ipynb"]


def _inputs(workload: Workload) -> Sequence[str]:
    return [f"in/{number}.ipynb" for number in range(workload.copies)]


def _papermill(workload: Workload, _: FarServer | None) -> Sequence[str] | None:
    if workload.name == "W6":
        return ["sh", "-c", f"{_PARALLEL} papermill --no-progress-bar in/@ out/@"]
    single = ["papermill", "--no-progress-bar", "in/0.ipynb", "out/0.ipynb"]
    return single if workload.name in _SINGLE else None


def _jupyter_execute(workload: Workload, _: FarServer | None) -> Sequence[str] | None:
    if workload.name == "W6":
        return ["sh", "-c", f"{_PARALLEL} jupyter execute in/@ --output ../out/@"]
    single = ["jupyter", "execute", "in/0.ipynb", "--output", "../out/0.ipynb"]
    return single if workload.name in _SINGLE else None


def _nbconvert(workload: Workload, _: FarServer | None) -> Sequence[str] | None:
    single = ["jupyter", "nbconvert", "--to", "notebook", "--execute", "in/0.ipynb", "--output-dir", "out"]
    return single if workload.name in _SINGLE else None


def _nbmake(workload: Workload, _: FarServer | None) -> Sequence[str] | None:
    if workload.name != "W6":
        return None
    return ["python", "-m", "pytest", "--nbmake", "--overwrite", "-n2", "-q", "-p", "no:cacheprovider", "in"]


def _kernel_client(workload: Workload, server: FarServer | None) -> Sequence[str] | None:
    if workload.name not in (*_SINGLE, "W7"):
        return None
    where = [server.url] if server else []
    return ["python", "-P", str(CLIENTS / "kernel_client.py"), "in/0.ipynb", "out/0.ipynb", *where]


def _floor(workload: Workload, _: FarServer | None) -> Sequence[str] | None:
    if workload.name not in _SINGLE:
        return None
    return ["python", "-P", str(CLIENTS / "floor.py"), "in/0.ipynb", "out/0.ipynb"]


def _words(*command: str) -> Command:
    return lambda workload, _: command if workload.name == "help" else None


CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("nbrun", _nbrun),
        Contender("nbrun, one cell at a time", _nbrun_in_turn, is_slow=True),
        Contender("nbrun on a server", _nbrun_on_server),
        Contender("papermill", _papermill, "papermill", is_slow=True),
        Contender("jupyter execute", _jupyter_execute, "nbclient", is_slow=True),
        Contender("nbconvert --execute", _nbconvert, "nbconvert", most_rounds=1),
        Contender("nbmake -n2", _nbmake, "nbmake", is_slow=True, in_place=True),
        Contender("jupyter-kernel-client", _kernel_client, "jupyter-kernel-client", most_rounds=1),
        Contender("bare ZeroMQ loop", _floor, "jupyter-client"),
        Contender("nbrun --help", _words("nbrun", "--help")),
        Contender("nbrun --version", _words("nbrun", "--version")),
        Contender('python -c "import click"', _words("python", "-c", "import click")),
    )
}
