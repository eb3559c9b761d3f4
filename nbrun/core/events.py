"""The events of a run, the only input of reporters.

``notebook`` is the run's name: the notebook as named in the call, plus the parameters if a batch runs it several times.
The events of a batch's runs are interleaved.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from nbrun.core.outputs.mimebundle import Output
from nbrun.core.results import BatchResult, CellResult, NotebookResult
from nbrun.version import __version__


class Stage(StrEnum):
    """The stage of a run, as text for the user."""

    STARTING_SERVER = "starting the server"
    CONNECTING = "connecting to the server"
    LOADING = "loading the notebook"
    STARTING_KERNEL = "starting the kernel"
    RUNNING = "running"
    SAVING = "saving"
    STOPPING = "stopping the kernel"


class BatchStarted(Struct, frozen=True):
    """A batch starts, with these runs in this order."""

    notebooks: Sequence[str]


class StageEntered(Struct, frozen=True):
    """The run enters its next stage."""

    notebook: str
    stage: Stage


class CellStarted(Struct, frozen=True):
    """A cell was sent to the kernel: number ``number`` of ``total`` cells to run; ``source`` is its code."""

    notebook: str
    index: int
    number: int
    total: int
    source: str = ""


class OutputArrived(Struct, frozen=True):
    """A cell produced an output; a stream arrives in the pieces in which it was written."""

    notebook: str
    index: int
    output: Output


class CellFinished(Struct, frozen=True):
    """A cell has its outcome."""

    notebook: str
    result: CellResult


class Warned(Struct, frozen=True):
    """A warning for the user that does not end the run."""

    notebook: str
    text: str


class RunFinished(Struct, frozen=True):
    """The run is finished and saved.

    ``content`` is the executed notebook, if there is one. It may be read only during the call, because it can be large
    and belongs to the run. ``report_mode`` is true if the run hides the notebook's code. ``error`` is the reason why
    nothing was executed, which ``nbrun.run`` raises.
    """

    notebook: str
    result: NotebookResult
    content: Mapping[str, Any] | None = None
    report_mode: bool = False
    error: Exception | None = None


class BatchFinished(Struct, frozen=True):
    """All runs of a batch are finished."""

    result: BatchResult


def as_dict(event: "Event") -> dict[str, Any]:
    """Return the JSON object for an event, without its time."""
    match event:
        case BatchStarted(notebooks):
            return {"event": "batch-started", "version": __version__, "notebooks": list(notebooks)}
        case StageEntered(notebook, stage):
            return {"event": "stage-entered", "notebook": notebook, "stage": stage.name.lower()}
        case CellStarted(notebook, index, number, total, source):
            place = {"index": index, "number": number, "total": total, "source": source}
            return {"event": "cell-started", "notebook": notebook, **place}
        case OutputArrived(notebook, index, output):
            return {"event": "output", "notebook": notebook, "index": index, "output": output}
        case CellFinished(notebook, cell):
            return {"event": "cell-finished", "notebook": notebook, "cell": cell.as_dict()}
        case Warned(notebook, text):
            return {"event": "warning", "notebook": notebook, "text": text}
        case RunFinished(notebook, result):
            return {"event": "run-finished", "notebook": notebook, "result": result.as_dict()}
        case _:
            return {"event": "batch-finished", "result": event.result.as_dict()}


Event = BatchStarted | StageEntered | CellStarted | OutputArrived | CellFinished | Warned | RunFinished | BatchFinished
Observer = Callable[[Event], None]
"""A function called with each event in the run's event loop. It must return quickly; its errors become warnings."""


class Journal:
    """Sends the events of one run to an observer, and collects the warnings for the result.

    If the observer raises an exception, one warning is recorded and the run continues.
    """

    def __init__(self, notebook: str, observe: Observer) -> None:
        self.notebook = notebook
        self.warnings: list[str] = []
        self.mask: Callable[[str], str] = str
        """Masks secrets in text. Outputs and errors of cells are masked earlier."""
        self._observe = observe
        self._complained = False

    def tell(self, event: Event) -> None:
        """Send an event to the observer."""
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
        except Exception as error:  # noqa: BLE001  (an error of the observer must not end the run)
            if not self._complained:
                self._complained = True
                self.warnings.append(f"an observer of the run raised {type(error).__name__}: {error}")

    def enter(self, stage: Stage) -> None:
        """Report that the run enters its next stage."""
        self.tell(StageEntered(self.notebook, stage))

    def warn(self, text: str) -> None:
        """Report a warning to the user."""
        self.tell(Warned(self.notebook, text))
