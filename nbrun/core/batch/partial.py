"""The partial notebook of a run whose seat was lost, from the events that arrived; pure.

Events have outputs as they arrived. So an output that the kernel changed or cleared later is there in its first form,
and an output that was too large for an event is missing.
"""

from msgspec.structs import replace

from nbrun.core.events import CellFinished, CellStarted, Event, OutputArrived
from nbrun.core.execution.outcomes import unrun
from nbrun.core.notebook.document import Document
from nbrun.core.outputs.mimebundle import Output
from nbrun.core.planning.plan import Action, Plan
from nbrun.core.results import CellError, CellOutcome, CellResult


class PartialRun:
    """Collects the events of a run, and writes them into its notebook if nothing better arrives."""

    def __init__(self, document: Document, plan: Plan) -> None:
        """Collect for `document`, which has the parameters of `plan`."""
        self._document = document
        self._plan = plan
        self._outputs: dict[int, list[Output]] = {}
        self._finished: dict[int, CellResult] = {}

    @property
    def has_begun(self) -> bool:
        """Return whether a cell was started."""
        return bool(self._outputs)

    def observe(self, event: Event) -> None:
        """Add an event of the run."""
        match event:
            case CellStarted(index=index):
                self._outputs[index] = []
            case OutputArrived(index=index, output=output):
                _add(self._outputs.setdefault(index, []), output)
            case CellFinished(result=cell):
                self._finished[cell.index] = cell
            case _:
                pass

    def write(self, reason: str) -> list[CellResult]:
        """Write the outputs into the notebook, and return the results of all cells.

        `reason` is the error of the cells that were started and not finished.
        """
        cells = [self._finished.get(cell.index) or self._unfinished(cell, reason) for cell in unrun(self._plan)]
        for cell in self._plan.cells:
            if cell.action is not Action.KEEP:
                self._document.clear(cell.index)
        for result in cells:
            if result.index in self._outputs:
                self._document.record(result.index, self._outputs[result.index], result.execution_count, {})
            self._document.mark(result.index, result.outcome, result.incomplete, result.truncated)
        return cells

    def _unfinished(self, cell: CellResult, reason: str) -> CellResult:
        if cell.index not in self._outputs:
            return cell
        return replace(cell, outcome=CellOutcome.INTERRUPTED, error=CellError("SeatLost", reason))


def _add(outputs: list[Output], output: Output) -> None:
    """Add an output; the pieces of a stream are joined."""
    last = outputs[-1] if outputs else {}
    if output.get("output_type") == "stream" and last.get("name") == output.get("name") and "text" in last:
        outputs[-1] = {**last, "text": f"{last['text']}{output.get('text', '')}"}
    else:
        outputs.append(output)
