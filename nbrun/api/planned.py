"""Run a plan, and return the result of a single run or of a batch."""

import time

from nbrun.core.events import BatchFinished, BatchStarted, Event, Journal, RunFinished
from nbrun.core.results import BatchResult, NotebookResult, Problem, moment
from nbrun.local_server.launcher import EmbeddedServer
from nbrun.runner.batch.plan import BatchPlan
from nbrun.runner.batch.run import run_plan
from nbrun.runner.stop import StopSwitch
from nbrun.version import __version__


async def run_planned(plan: BatchPlan, started: EmbeddedServer | None = None) -> NotebookResult | BatchResult:
    """Run the planned runs, on a private server that may have been `started` already.

    Return the result of a single run, or raise the error that kept it from running. Otherwise return the result of the
    batch. If a started server was not used, the caller stops it.
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
    found = f"no notebook matches {' '.join(plan.named)}" if plan.named else "the list of notebooks is empty"
    nothing = Problem(found, "Folders and patterns are searched for .ipynb files.")
    problem = None if results or plan.left_out else nothing
    took = time.monotonic() - plan.since
    batch = BatchResult(__version__, moment(plan.began), took, results, plan.left_out, problem, shard=plan.part)
    journal.tell(BatchFinished(batch))
    return batch
