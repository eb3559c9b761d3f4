"""Plan a batch: from the named notebooks to a checked, ordered list of runs.

The steps are: find the notebooks, filter them, multiply them by the matrix, choose each run's output, check everything
that can be checked, select the shard, and order the runs. Nothing starts before. :func:`run_many` and
:func:`run_many_async` are the entry points from Python.
"""

import asyncio
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Unpack

from nbrun.core.batch.matrix import combinations, run_name
from nbrun.core.batch.output_paths import (
    Destination,
    Fields,
    Stamp,
    Template,
    is_template,
    refuse_collisions,
    template_for,
)
from nbrun.core.batch.scheduling import Durations, Policy, in_shard, run_key, slowest_first
from nbrun.core.batch.terms import Cause, Order, Override, Shard
from nbrun.core.events import BatchFinished, BatchStarted, Journal, Observer
from nbrun.core.formats.globs import Patterns
from nbrun.core.planning.destinations import MATRIX, refuse_unreachable, require_choice
from nbrun.core.planning.options import options_in, read_option
from nbrun.core.results import BatchResult, NotebookResult, Problem, outcome_of
from nbrun.errors import NbrunError, UsageError
from nbrun.jupyter.client import connect
from nbrun.jupyter.endpoint import Endpoint, contents_path
from nbrun.runner.batch.cache import Cache, read_durations
from nbrun.runner.batch.discovery import FoundNotebook, local_notebooks, notebooks_on_server
from nbrun.runner.batch.git_changes import changed_only
from nbrun.runner.batch.run import PlannedRun, run_planned
from nbrun.runner.job import (
    BatchOptions,
    RunOptions,
    access_of,
    check_choice,
    is_on_server,
    job_of,
    place_of,
    read_batch_options,
)
from nbrun.runner.options import SharedBatchOptions
from nbrun.runner.prepare_only import host_to_prepare_on, not_prepared, prepare_unless_stopped
from nbrun.runner.servers import Access, Place, check_local, existing_host, private_host
from nbrun.runner.stop import StopSwitch
from nbrun.runner.synchronous import run_to_end
from nbrun.storage.paths import OWN_PLACE, absolute, names_folder
from nbrun.version import __version__

_OF_BATCH = {*options_in(SharedBatchOptions)}
_OF_ONE = {"content", "deliver"}
_SHARED = {
    "in_place", "prepare_only", "server", "token", "password", "ca_file", "verify", "max_response", "max_frame",
    "upload", "observe", "stop",
} | _OF_ONE  # fmt: skip
"""The options in which the runs of a batch cannot differ."""


def run_many(notebooks: Sequence[str | os.PathLike[str]], **options: Unpack[BatchOptions]) -> BatchResult:
    """Run notebooks, folders of notebooks and patterns over one server; see :class:`BatchOptions`.

    Notebooks that fail are no exception: look at the result. Raises :class:`~nbrun.errors.UsageError` when the call was
    wrong, and nothing was run then. May be called where an event loop is already running.
    """
    return run_to_end(run_many_async(notebooks, **options))


async def run_many_async(notebooks: Sequence[str | os.PathLike[str]], **given: Unpack[BatchOptions]) -> BatchResult:
    """Run many as :func:`run_many` does, in the loop that is running. Cancellation saves what there is first."""
    if one := given.keys() & _OF_ONE:
        raise TypeError(f"for one notebook, which nbrun.run runs: {', '.join(sorted(one))}")
    options = read_batch_options(given)
    began, clock = datetime.now(UTC), asyncio.get_running_loop().time
    since = clock()
    observe = options["observe"] or (lambda _: None)
    policy = _policy(options)
    cache = _cache(options)
    named = [os.fspath(name) for name in notebooks]
    for name in named:
        refuse_unreachable("", name, reads=True)
    if not (chosen := check_choice(options)) and (len(named) != 1 or options["matrix"]):
        require_choice(named, message=MATRIX if options["matrix"] else "")
    planned_runs, left_out = await _plan(named, options, began, cache, chosen=chosen)
    access = access_of(options)
    places = [planned.place for planned in planned_runs]
    observe(BatchStarted([planned.name for planned in planned_runs]))
    stop = options["stop"] or StopSwitch()
    if options["prepare_only"]:
        results = await prepare_planned_runs(planned_runs, access, observe=observe, stop=stop)
    else:
        results = await run_planned(
            planned_runs,
            lambda: existing_host(access) if access.server else private_host(access, places),
            policy=policy,
            observe=observe,
            stop=stop,
            cache=cache,
            replaceable=not access.server,
        )
    if cache is not None:
        cache.remember(results)
    started = began.isoformat(timespec="milliseconds")
    nothing = Problem(f"no notebook matches {' '.join(named)}", "Folders and patterns are searched for .ipynb files.")
    problem = None if results or left_out else nothing
    result = BatchResult(__version__, started, clock() - since, results, left_out, problem)
    observe(BatchFinished(result))
    return result


async def prepare_planned_runs(
    planned_runs: Sequence[PlannedRun], access: Access, *, observe: Observer, stop: StopSwitch
) -> list[NotebookResult]:
    """Prepare all planned runs in order and return their results; a failure of one does not affect the others."""
    results: list[NotebookResult] = []
    async with host_to_prepare_on(access) as host:
        for planned in planned_runs:
            journal = Journal(planned.name, observe)
            try:
                result = await prepare_unless_stopped(planned.job, planned.place, host, journal, stop)
            except NbrunError as error:
                result = not_prepared(planned.job, journal, outcome_of(error), Problem.of(error))
            results.append(result)
    return results


def _policy(options: BatchOptions) -> Policy:
    jobs, wait = options["jobs"], options["server_wait"]
    assert isinstance(wait, float)
    causes = [Cause(cause) for cause in options["retry_on"]]
    at_once = jobs if isinstance(jobs, int) else processors()
    return Policy(at_once, options["max_failures"], options["retries"], causes, wait)


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def _cache(options: BatchOptions) -> Cache | None:
    folder = options["cache"]
    if not folder:
        return None
    if options["server"]:
        hint = "It reads the notebooks and their inputs where they are, which is on this machine only without --server."
        raise UsageError("the cache is for private servers", hint=hint)
    if options["secrets"]:
        hint = "What a secret is decides what comes of a run, and the cache is to know nothing of it."
        raise UsageError("the cache is for runs without secrets", hint=hint)
    refuse_unreachable("--cache", os.fspath(folder))
    return Cache(Path(folder), refresh=options["refresh"])


async def _plan(
    named: Sequence[str], options: BatchOptions, began: datetime, cache: Cache | None, *, chosen: bool
) -> tuple[list[PlannedRun], int]:
    """Return what is to be run, in order, and how many runs were found but left out on purpose."""
    output = options["output"]
    template = _template(output, on_server=is_on_server(options)) if output else None
    found = await _find(named, options, template.top if template else "")
    same = _comparable_on_server if is_on_server(options) else _comparable
    if not chosen and [same(one.name) for one in found] != [same(name) for name in named]:
        require_choice(named)  # a folder or a pattern, and not one notebook by itself
    all_found = len(found)
    if (since := options["changed_since"]) and found:
        if options["server"] and not options["upload"]:
            raise UsageError("--changed-since asks git, which knows nothing of a server's files")
        changed = await asyncio.to_thread(changed_only, [one.name for one in found], since)
        found = [one for one, has_changed in zip(found, changed, strict=True) if has_changed]
    overrides = [(Patterns(override.match), override) for override in options["overrides"]]
    axes = combinations(options["matrix"])
    planned_runs: list[tuple[FoundNotebook, PlannedRun]] = []
    for one in found:
        its = options_of_one(
            options, [override for patterns, override in overrides if patterns.name(_seen(one, override))]
        )
        if its is not None:
            planned_runs += [(one, _planned_run(one, its, combination)) for combination in axes]
    left_out = (all_found * len(axes)) - len(planned_runs)
    if template is not None:
        planned_runs = _with_outputs(planned_runs, template, began)
        for _, planned in planned_runs if template.is_folder else ():
            if same(planned.place.output or "") == same(planned.place.notebook):
                raise UsageError(f"-o: {planned.place.output} would overwrite the notebook itself", hint=OWN_PLACE)
    _check_destinations([planned for _, planned in planned_runs], options)
    mine = _cut_and_order([planned for _, planned in planned_runs], options, cache)
    if not is_on_server(options):
        await asyncio.to_thread(_check_places, [planned_runs[place][1].place for place in mine])
    return [planned_runs[place][1] for place in mine], left_out + len(planned_runs) - len(mine)


def _check_places(places: Sequence[Place]) -> None:
    probed: set[Path] = set()
    for place in places:
        check_local(place, probed)


def _template(output: str | os.PathLike[str], *, on_server: bool) -> Template:
    if isinstance(output, Template):
        return output
    text = os.fspath(output)
    is_folder = not is_template(text) and not on_server and names_folder(text)
    return template_for(f"{text}/" if is_folder else text)


def _seen(one: FoundNotebook, override: Override) -> str:
    return f"{override.base}/{one.tree}" if override.base else one.tree


async def _find(named: Sequence[str], options: BatchOptions, outputs: str) -> list[FoundNotebook]:
    exclude = options["exclude"]
    if not is_on_server(options):
        return await asyncio.to_thread(local_notebooks, named, exclude, outputs)
    access = access_of(options)
    destination = Endpoint.parse(access.server or "", access.token, access.password)
    async with connect(destination, options=access.http_options) as client:
        return await notebooks_on_server(client.contents, named, exclude, outputs)


def options_of_one(options: RunOptions, overrides: Sequence[Override]) -> RunOptions | None:
    """Return the options of one notebook's runs, None for one that is left out.

    Raises TypeError for an override of what notebooks cannot differ in, :class:`UsageError` for a wrong value.
    """
    known = options_in(RunOptions)
    its: Any = {name: value for name, value in options.items() if name not in _OF_BATCH}
    parameters = dict(options["parameters"])
    skip = False
    for override in overrides:
        if unknown := [name for name in override.options if name not in known or name in _SHARED]:
            raise TypeError(f"no option of a single notebook: {', '.join(sorted(unknown))}")
        its |= {name: read_option(f"overrides: {name}", known[name], value) for name, value in override.options.items()}
        parameters |= override.parameters
        skip = override.skip or skip
    its["parameters"] = parameters
    return None if skip else its


def _planned_run(one: FoundNotebook, its: RunOptions, combination: Mapping[str, Any]) -> PlannedRun:
    parameters = {**its["parameters"], **combination}
    options: RunOptions = {**its, "parameters": parameters}
    name = run_name(one.name, combination)
    return PlannedRun(name, job_of(one.name, options), place_of(one.name, options), parameters)


def _with_outputs(
    planned_runs: Sequence[tuple[FoundNotebook, PlannedRun]], template: Template, began: datetime
) -> list[tuple[FoundNotebook, PlannedRun]]:
    """Fill the template in for each run."""
    stamp = template.stamp or Stamp(began.astimezone(), uuid.uuid4().hex[:8])
    filled = []
    for index, (one, planned) in enumerate(planned_runs, 1):
        output = template.fill(Fields(one.tree, index, stamp.when, stamp.run_id, planned.parameters))
        filled.append((one, replace(planned, place=replace(planned.place, output=output))))
    return filled


def _check_destinations(planned_runs: Sequence[PlannedRun], options: BatchOptions) -> None:
    """Find out before anything runs that two runs would write the same file."""
    where = _comparable_on_server if is_on_server(options) else _comparable
    refuse_collisions(
        [
            Destination(
                planned.name, where(planned.place.notebook), where(planned.place.output or planned.place.notebook)
            )
            for planned in planned_runs
            if planned.job.save
        ]
    )


def _comparable_on_server(path: str) -> str:
    return contents_path(path)


def _comparable(path: str) -> str:
    return os.path.normcase(absolute(path))


def _cut_and_order(planned_runs: Sequence[PlannedRun], options: BatchOptions, cache: Cache | None) -> list[int]:
    """Return the positions of the planned runs that are run here, in the order in which they begin.

    A shard goes by the named durations alone: each shard's own cache knows others, and runs would fall between them.
    """
    given = options["durations"]
    named = read_durations(Path(given)) if given else Durations()
    keys = [run_key(planned.job.notebook, planned.parameters) for planned in planned_runs]
    shard = options["shard"]
    mine = in_shard(keys, Shard.parse(shard), named) if shard else list(range(len(keys)))
    if options["order"] == Order.AS_GIVEN.value:
        return mine
    known = Durations({**(cache.durations() if cache else Durations()).seconds, **named.seconds})
    return [mine[place] for place in slowest_first([keys[place] for place in mine], known)]
