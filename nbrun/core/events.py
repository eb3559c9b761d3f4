"""What a run tells its observers while it goes; reporters listen to nothing else.

``notebook`` is the run's name: the notebook as it was named in the call and, in a batch that runs it several times,
what tells its runs apart. Events of different runs of a batch come interleaved.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from nbrun.core.outputs.mimebundle import Output
from nbrun.core.results import BatchResult, CellResult, NotebookResult


class Stage(StrEnum):
    """What a run is doing, in the words that a person reads."""

    STARTING_SERVER = "starting the server"
    CONNECTING = "connecting to the server"
    LOADING = "loading the notebook"
    STARTING_KERNEL = "starting the kernel"
    RUNNING = "running"
    SAVING = "saving"
    STOPPING = "stopping the kernel"


@dataclass(frozen=True, slots=True)
class BatchStarted:
    """Many notebooks are about to be run: these, in this order."""

    notebooks: Sequence[str]


@dataclass(frozen=True, slots=True)
class StageEntered:
    """The run goes on to its next stage."""

    notebook: str
    stage: Stage


@dataclass(frozen=True, slots=True)
class CellStarted:
    """A cell was sent to the kernel: the `number`-th of `total` that are to run; ``source`` is its code."""

    notebook: str
    index: int
    number: int
    total: int
    source: str = ""


@dataclass(frozen=True, slots=True)
class OutputArrived:
    """A cell put something out; a stream comes in the pieces in which it was written."""

    notebook: str
    index: int
    output: Output


@dataclass(frozen=True, slots=True)
class CellFinished:
    """A cell that was sent has its outcome."""

    notebook: str
    result: CellResult


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the user should know that does not end the run."""

    notebook: str
    text: str


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run is over, saved and torn down.

    ``content`` is the notebook as it was executed, where it came to that: for reading during the call only, since it
    may be large and is not the observer's.
    """

    notebook: str
    result: NotebookResult
    content: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class BatchFinished:
    """All runs of a batch are over."""

    result: BatchResult


Event = BatchStarted | StageEntered | CellStarted | OutputArrived | CellFinished | Warned | RunFinished | BatchFinished
Observer = Callable[[Event], None]
"""Called with each event in order, from the run's own loop; it must return at once. What it raises ends no run."""


class Journal:
    """Send the events of one run to an observer, and collect the warnings for the result.

    A run is worth more than the telling of it: an observer that raises is warned of, once, and told the rest.
    """

    def __init__(self, notebook: str, observe: Observer) -> None:
        self.notebook = notebook
        self.warnings: list[str] = []
        self.mask: Callable[[str], str] = str
        """Mask secrets in text; outputs and errors of cells are masked earlier."""
        self._observe = observe
        self._complained = False

    def tell(self, event: Event) -> None:
        """Pass an event on."""
        match event:
            case Warned(notebook, text):
                event = Warned(notebook, self.mask(text))
                self.warnings.append(event.text)
            case CellStarted(source=source):
                event = replace(event, source=self.mask(source))
            case _:
                pass
        try:
            self._observe(event)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is not the run's)
            if not self._complained:
                self._complained = True
                self.warnings.append(f"an observer of the run raised {type(error).__name__}: {error}")

    def enter(self, stage: Stage) -> None:
        """Report that the run enters its next stage."""
        self.tell(StageEntered(self.notebook, stage))

    def warn(self, text: str) -> None:
        """Report a warning to the user."""
        self.tell(Warned(self.notebook, text))
