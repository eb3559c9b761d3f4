from nbrun.api import connect as connect
from nbrun.api import run as run
from nbrun.api import run_async as run_async
from nbrun.api import run_many as run_many
from nbrun.api import run_many_async as run_many_async
from nbrun.core.batch.terms import Override as Override
from nbrun.core.results import Attempt as Attempt
from nbrun.core.results import BatchResult as BatchResult
from nbrun.core.results import CellError as CellError
from nbrun.core.results import CellOutcome as CellOutcome
from nbrun.core.results import CellResult as CellResult
from nbrun.core.results import NotebookResult as NotebookResult
from nbrun.core.results import Outcome as Outcome
from nbrun.core.results import Problem as Problem
from nbrun.errors import ExitCode as ExitCode
from nbrun.errors import NbrunError as NbrunError
from nbrun.runner.job import BatchOptions as BatchOptions
from nbrun.runner.job import RunOptions as RunOptions
from nbrun.runner.stop import StopSwitch as StopSwitch
from nbrun.version import __version__ as __version__

__all__ = [
    "Attempt",
    "BatchOptions",
    "BatchResult",
    "CellError",
    "CellOutcome",
    "CellResult",
    "ExitCode",
    "NbrunError",
    "NotebookResult",
    "Outcome",
    "Override",
    "Problem",
    "RunOptions",
    "StopSwitch",
    "__version__",
    "connect",
    "run",
    "run_async",
    "run_many",
    "run_many_async",
]
