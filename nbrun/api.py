"""The Python API: :func:`run`, :func:`run_many` and :func:`connect`.

Without a server address, a private server is started for the call. The difference between one run and many is decided
in two places: :func:`~nbrun.runner.batch.plan.plan_runs` turns arguments into planned runs, and :func:`run_planned`
returns the result.
"""

import os
import time
from collections.abc import Sequence
from typing import Unpack

from nbrun.core.events import BatchFinished, BatchStarted, Event, Journal, RunFinished
from nbrun.core.results import BatchResult, NotebookResult, Problem, moment
from nbrun.jupyter.client import connect
from nbrun.local_server.launcher import EmbeddedServer
from nbrun.runner.batch.plan import BatchPlan, plan_runs
from nbrun.runner.batch.run import run_plan
from nbrun.runner.job import BatchOptions, RunOptions, read_batch_options, read_run_options
from nbrun.runner.stop import StopSwitch
from nbrun.runner.synchronous import run_to_end
from nbrun.version import __version__

__all__ = ["BatchOptions", "RunOptions", "connect", "run", "run_async", "run_many", "run_many_async"]


def run(notebook: str | os.PathLike[str], **options: Unpack[RunOptions]) -> NotebookResult:
    """Run a notebook and return its result; :class:`RunOptions` describes the options.

    A failed notebook is not an exception; see the result's ``outcome``. Raise :class:`~nbrun.errors.NbrunError` if
    nothing could be run; nothing was changed then. Inside a running event loop, for example in a notebook, the run uses
    a thread.
    """
    return run_to_end(run_async(notebook, **options))


async def run_async(notebook: str | os.PathLike[str], **options: Unpack[RunOptions]) -> NotebookResult:
    """Run a notebook as :func:`run` does, in the running event loop. A cancelled run is saved first."""
    plan = await plan_runs([os.fspath(notebook)], read_batch_options(read_run_options(options)), one=True)
    result = await run_planned(plan)
    assert isinstance(result, NotebookResult)
    return result


def run_many(notebooks: Sequence[str | os.PathLike[str]], **options: Unpack[BatchOptions]) -> BatchResult:
    """Run notebooks, folders of notebooks and patterns over one server; see :class:`BatchOptions`.

    Failed notebooks are no exception; see the result. Raise :class:`~nbrun.errors.UsageError` when the call was wrong;
    nothing was run then. May be called where an event loop is already running.
    """
    return run_to_end(run_many_async(notebooks, **options))


async def run_many_async(notebooks: Sequence[str | os.PathLike[str]], **options: Unpack[BatchOptions]) -> BatchResult:
    """Run many as :func:`run_many` does, in the running event loop. Cancellation saves what there is first."""
    if one := options.keys() & {"content", "deliver"}:
        raise TypeError(f"for one notebook, which nbrun.run runs: {', '.join(sorted(one))}")
    result = await run_planned(await plan_runs([os.fspath(name) for name in notebooks], read_batch_options(options)))
    assert isinstance(result, BatchResult)
    return result


async def run_planned(plan: BatchPlan, started: EmbeddedServer | None = None) -> NotebookResult | BatchResult:
    """Run what is planned, on a private server that may have been `started` already, to save time.

    Return the result of the run if the plan is for one, and raise what kept it from running; otherwise return the
    result of the batch. A server that was started is stopped by the caller where it was not used.
    """
    observe, stop = plan.options["observe"] or (lambda _: None), plan.options["stop"] or StopSwitch()
    if plan.one:
        errors: list[Exception] = []

        def notice(event: Event) -> None:
            if isinstance(event, RunFinished) and event.error is not None:
                errors.append(event.error)
            observe(event)

        (result,) = await run_plan(plan, observe=notice, stop=stop, started=started)
        if errors:
            raise errors[0]
        return result
    journal = Journal("", observe)
    journal.tell(BatchStarted([planned.name for planned in plan.runs]))
    results = await run_plan(plan, observe=observe, stop=stop, started=started)
    nothing = Problem(
        f"no notebook matches {' '.join(plan.named)}", "Folders and patterns are searched for .ipynb files."
    )
    problem = None if results or plan.left_out else nothing
    batch = BatchResult(__version__, moment(plan.began), time.monotonic() - plan.since, results, plan.left_out, problem)
    journal.tell(BatchFinished(batch))
    return batch
