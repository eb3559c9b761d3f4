"""Plan a call for one notebook or many: from its arguments to a checked list of runs.

The steps are: find the notebooks, filter them, multiply them by the matrix, choose each run's output, check everything
that can be checked, select the shard, and order the runs. Nothing starts before. A call that names one notebook is
planned like any other. It keeps the notebook's name as it was given, and writes it in place by default.

The module imports little, so that the private server can be started before the slow imports.
"""

import asyncio
import functools
import logging
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from nbrun.core.batch.matrix import combinations, run_name
from nbrun.core.batch.output_paths import (
    Destination,
    Fields,
    Stamp,
    Template,
    free_stem,
    is_template,
    refuse_collisions,
    template_for,
)
from nbrun.core.batch.terms import Order, Override, Shard
from nbrun.core.formats.globs import Patterns
from nbrun.core.planning.destinations import (
    MATRIX,
    is_source_url,
    refuse_unreachable,
    require_choice,
    without_credentials,
)
from nbrun.core.planning.job import STARTUP_LIMIT, OnConflict, Secret
from nbrun.core.planning.option_types import AUTO, options_in, read_option
from nbrun.errors import NbrunError, UsageError
from nbrun.jupyter.endpoint import contents_path
from nbrun.runner.batch.discovery import FoundNotebook, local_notebooks, notebooks_on_server
from nbrun.runner.job import (
    ARTEFACTS,
    Access,
    BatchOptions,
    NotebookPaths,
    PlannedRun,
    RunOptions,
    access_of,
    check_choice,
    endpoint_of,
    engine_name,
    is_on_server,
    job_of,
    parts_of_name,
    path_on_server,
    paths_of,
    trace_of,
)
from nbrun.runner.options import SharedBatchOptions
from nbrun.runner.stop import Stopped, StopSwitch
from nbrun.storage.paths import OWN_PLACE, absolute, local_notebook, names_folder, tree_path
from nbrun.storage.writable import check_folder

if TYPE_CHECKING:
    from nbrun.core.results import Part
    from nbrun.jupyter.contents import Contents
    from nbrun.runner.batch.cache import Cache
    from nbrun.runner.batch.resume import RunJournal
    from nbrun.runner.engine import ControlledSeat, Engine

    OpenContents = Callable[[], AbstractAsyncContextManager[Contents]]

_OF_BATCH = {*options_in(SharedBatchOptions)}
_SHARED = {
    "in_place", "prepare_only", "server", "token", "password", "headers", "ca_file", "verify", "max_response",
    "max_frame", "upload", "observe", "stop", "content", "deliver", "trace", "artefacts_dir",
    "engine", "engine_options",
}  # fmt: skip
"""Options that must be the same for all runs of a batch."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The planned runs of one call, in order, and their server.

    ``one`` means that the call returns the result of its only run instead of a batch's. ``left_out`` counts the runs
    that were found and deliberately left out. ``since`` is the start of the call on the monotonic clock, ``began`` in
    UTC. ``part`` is the shard that the runs are, or None for the whole batch.
    ``journal`` records the results for ``--resume``. ``engine`` provides the seats of ``--engine``, each within
    ``startup`` seconds.
    """

    named: Sequence[str]
    runs: Sequence[PlannedRun]
    options: BatchOptions
    access: Access
    one: bool
    left_out: int
    cache: "Cache | None"
    began: datetime
    since: float
    part: "Part | None" = None
    journal: "RunJournal | None" = None
    engine: "Engine | None" = None
    startup: float = STARTUP_LIMIT

    @property
    def paths(self) -> list[NotebookPaths]:
        """Return the paths of all runs."""
        return [planned.paths for planned in self.runs]


async def plan_runs(
    named: Sequence[str],
    options: BatchOptions,
    *,
    one: bool = False,
    wanted: Callable[[PlannedRun], bool] = lambda _: True,
) -> BatchPlan:
    """Plan the runs of a call; raise :class:`UsageError`.

    With `one`, `named` contains a single notebook, which may be overwritten. Otherwise it contains notebooks, folders
    and patterns. `wanted` returns whether a run is not left out.
    """
    began, since = datetime.now(UTC), time.monotonic()
    for name in named if options["content"] is None else ():
        refuse_unreachable("", name, reads=True, stores=True)
    chosen = check_choice(options) or one
    if not chosen and (len(named) != 1 or options["matrix"]):
        require_choice(named, message=MATRIX if options["matrix"] else "")
    options["trace"] = trace_of(options)  # one file, however often a server is opened
    access = access_of(options)
    if access.server:
        endpoint_of(access)
    engine, startup = _engine(options, access), options["startup_timeout"]
    _check_secrets(options, engine)
    assert isinstance(startup, float)
    cache = _cache(options)
    opening = functools.partial(_contents, options, engine, startup)
    runs, left_out, part = await _plan(named, options, began, cache, wanted, opening, one=one, chosen=chosen)
    is_one = one and len(runs) == 1 and part is None  # a shard is merged, however few notebooks it has
    if is_one and (options["resume"] or options["journal"] is not None):
        raise UsageError("--resume and --journal are for several notebooks", hint="A single run starts again.")
    journal = None if is_one else _journal(named, options, [planned.paths for planned in runs])
    return BatchPlan(
        named, runs, options, access, is_one, left_out, cache, began, since, part, journal, engine, startup
    )


def _engine(options: BatchOptions, access: Access) -> "Engine | None":
    """Return the engine of the call; raise :class:`UsageError` for an unknown one, and for what no engine has."""
    url, startup = options["engine"], options["startup_timeout"]
    if url is None:
        return None
    for name, is_given in {
        "--server": bool(options["server"]), "--cache": bool(options["cache"]),
        "--prepare-only with --no-upload": options["prepare_only"] and is_on_server(options),
    }.items():  # fmt: skip
        if is_given:
            raise UsageError(f"--engine and {name} contradict each other", hint="Leave one of them out.")
    if options["jobs"] == AUTO:
        raise UsageError("--engine needs the number of seats", hint="Write -j N instead of -j auto.")
    from nbrun.runner.engine import EngineCall
    from nbrun.runner.plugins import make_engine

    assert isinstance(startup, float)
    on_server = is_on_server(options)
    engine = make_engine(EngineCall(url, access, options["engine_options"], startup, on_server=on_server))
    if engine.executes and access.trace is not None:
        hint = "Run the notebook without --engine to record its messages."
        raise UsageError("--trace is not possible with this engine: its seats keep the messages", hint=hint)
    if engine.executes and on_server:
        hint = "Such a seat has no files that nbrun reads or writes from here."
        raise UsageError(f"--no-upload: {engine_name(url)} runs notebooks of this machine", hint=hint)
    return engine


def _check_secrets(options: BatchOptions, engine: "Engine | None") -> None:
    """Raise :class:`UsageError` for a secret without a value here, unless the seats read the values."""
    if engine is None or not engine.executes:
        for secret in options["secrets"].values():
            if isinstance(secret, Secret) and secret.problem is not None:
                raise secret.problem


@asynccontextmanager
async def _contents(options: BatchOptions, engine: "Engine | None", startup: float) -> "AsyncIterator[Contents]":
    """Connect to the server that the notebooks are on; an engine starts one for the length of the block."""
    if engine is None:
        from nbrun.runner.servers import connect_to

        async with connect_to(access_of(options)) as client:
            yield client.contents
        return
    from nbrun.runner.batch.seats import SeatPool

    pool, stop = SeatPool(engine, 1, startup=startup), options["stop"] or StopSwitch()
    try:
        seat = await stop.guard(pool.take())
        yield cast("ControlledSeat", seat).host.server.client.contents
    except Stopped:
        error = NbrunError(f"{stop.reason} before the notebooks were found")
        error.exit_code = stop.exit_code or error.exit_code
        raise error from None
    finally:
        await pool.close()


def _journal(named: Sequence[str], options: BatchOptions, paths: Sequence[NotebookPaths]) -> "RunJournal | None":
    """Return the journal of a batch whose notebooks are on this machine; raise :class:`UsageError`."""
    path, output = options["journal"], options["output"]
    is_local = not is_on_server(options) and not any(each.in_memory or each.stored for each in paths)
    if not is_local or not options["save"] or options["prepare_only"]:
        if options["resume"] or path is not None:
            hint = "The notebooks and the executed notebooks must be files of this machine."
            raise UsageError("--resume and --journal are for notebooks that are read and saved here", hint=hint)
        return None
    if path is None and output is not None:
        template = output if isinstance(output, Template) else _template(options, one=False)
        shard = f"-{options['shard'].replace('/', '-of-')}" if options["shard"] else ""
        path = Path(template.top if template else "", f".nbrun-journal{shard}.jsonl")
    if path is None:
        if options["resume"]:
            raise UsageError("--resume needs -o or --journal", hint="Without -o, name the file: --journal FILE.")
        return None
    refuse_unreachable("--journal", os.fspath(path))
    if not paths:
        return None
    from nbrun.runner.batch.resume import JournalInUse, RunJournal

    try:
        return RunJournal(Path(path), named, options["shard"], resume=options["resume"])
    except JournalInUse as error:
        if options["resume"] or options["journal"] is not None:
            raise
        # Two batches may write different files of one folder.
        _log.warning("%s; this batch has none, so --resume cannot continue it", error)
        return None


def _cache(options: BatchOptions) -> "Cache | None":
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
    from nbrun.runner.batch.cache import Cache

    return Cache(Path(folder), refresh=options["refresh"])


async def _plan(
    named: Sequence[str],
    options: BatchOptions,
    began: datetime,
    cache: "Cache | None",
    wanted: Callable[[PlannedRun], bool],
    opening: "OpenContents",
    *,
    one: bool,
    chosen: bool,
) -> "tuple[list[PlannedRun], int, Part | None]":
    """Return the planned runs in order, the number of runs that were found but left out, and the shard."""
    template = _template(options, one=one)
    outputs = template.top if template else ""
    found = await _named(named[0], options) if one else await _find(named, options, outputs, opening)
    same = _comparable_on_server if is_on_server(options) else _comparable
    if not chosen and [same(each.name) for each in found] != [same(name) for name in named]:
        require_choice(named)  # a folder or a pattern, not a single notebook
    all_found = len(found)
    if (since := options["changed_since"]) and found:
        if is_on_server(options):
            raise UsageError("--changed-since asks git, which knows nothing of a server's files")
        if any(each.origin for each in found):
            raise UsageError("--changed-since asks git about files of this machine, and a notebook is a URL")
        from nbrun.runner.batch.git_changes import changed_only

        changed = await asyncio.to_thread(changed_only, [each.name for each in found], since)
        found = [each for each, has_changed in zip(found, changed, strict=True) if has_changed]
    # A notebook that is passed as text has no path, so patterns do not apply to it.
    given = options["overrides"] if options["content"] is None else ()
    overrides = [(Patterns(override.match), override) for override in given]
    axes = combinations(options["matrix"])
    planned_runs: list[tuple[FoundNotebook, PlannedRun]] = []
    for each in found:
        run_options = options_of_one(
            options, [override for patterns, override in overrides if patterns.name(_seen(each, override))]
        )
        if run_options is not None:
            planned_runs += [(each, _planned_run(each, run_options, combination)) for combination in axes]
    if template is not None:
        planned_runs = _with_outputs(planned_runs, template, began)
        for _, planned in planned_runs if template.is_folder else ():
            if same(planned.paths.output or "") == same(planned.paths.origin or planned.paths.notebook):
                raise UsageError(f"-o: {planned.paths.output} would overwrite the notebook itself", hint=OWN_PLACE)
    # Now, so that {index} is the same whatever is left out.
    planned_runs = [(each, planned) for each, planned in planned_runs if wanted(planned)]
    left_out = (all_found * len(axes)) - len(planned_runs)
    planned_runs = _with_artefacts(planned_runs, options)
    _check_destinations([planned for _, planned in planned_runs], options)
    mine, part = _cut_and_order([planned for _, planned in planned_runs], options, cache)
    await _check_stores([planned_runs[index][1].paths for index in mine], options)
    if options["artefacts_dir"] is not None or any(
        run.job.artefacts and run.job.artefacts_dir for _, run in planned_runs
    ):
        check_folder("--artefacts-dir", options["artefacts_dir"] or ARTEFACTS)
    if not is_on_server(options):
        await asyncio.to_thread(_check_paths, [planned_runs[index][1].paths for index in mine])
    return [planned_runs[index][1] for index in mine], left_out + len(planned_runs) - len(mine), part


async def _check_stores(paths: Sequence[NotebookPaths], options: BatchOptions) -> None:
    """Raise :class:`UsageError` for stores that cannot be written, and for options that stores do not have."""
    stored = [each for each in paths if each.save and each.stored]
    for each in paths:
        if (stored or each.origin) and options["cache"]:
            raise UsageError("the cache is for notebooks of this machine, and there is a URL")
        if each.save and each.origin and not each.output and not each.stored and each.deliver is None:
            hint = "Add -o FILE to write elsewhere, or --no-save."
            raise UsageError(f"{without_credentials(each.origin)}: a git repository is not written", hint=hint)
    if not stored:
        return
    from nbrun.storage.in_object_store import check_store

    # One check for each bucket or host: the check costs a request.
    places = {"/".join(each.stored.split("/", 3)[:3]): each for each in stored}
    for each in places.values():
        option = "-o" if each.output else ""
        await check_store(option, each.stored, guarded=each.on_conflict is not OnConflict.OVERWRITE)


def _check_paths(paths: Sequence[NotebookPaths]) -> None:
    probed: set[Path] = set()
    for each in paths:
        each.check(probed)


def _template(options: BatchOptions, *, one: bool) -> Template | None:
    """Return the template of the outputs, or None if the output is a literal path of one notebook."""
    output = options["output"]
    if isinstance(output, Template):
        return output
    if one or not output:
        return None
    text = os.fspath(output)
    is_folder = not is_template(text) and not is_on_server(options) and names_folder(text)
    return template_for(f"{text}/" if is_folder else text)


async def _named(name: str, options: BatchOptions) -> list[FoundNotebook]:
    """Return the notebook of a call for a single one; raise :class:`NoSuchNotebook`."""
    if options["content"] is None and is_source_url(name):
        return [await _fetched(name)]
    if is_on_server(options):
        return [FoundNotebook(name, path_on_server(name))]
    if options["content"] is None:
        local_notebook(name)
    return [FoundNotebook(name, tree_path(name))]


async def _fetched(url: str) -> FoundNotebook:
    """Read a notebook from a URL; raise :class:`UsageError`."""
    from nbrun.storage.in_object_store import fetch

    found = await fetch(url)
    return FoundNotebook(without_credentials(url), tree_path(url) or "notebook.ipynb", url, found.data, found.version)


def _seen(found: FoundNotebook, override: Override) -> str:
    return f"{override.base}/{found.tree}" if override.base else found.tree


async def _find(
    named: Sequence[str], options: BatchOptions, outputs: str, opening: "OpenContents"
) -> list[FoundNotebook]:
    exclude = options["exclude"]
    urls = [name for name in named if is_source_url(name)]
    if urls:
        fetched = [await _fetched(url) for url in dict.fromkeys(urls)]
        others = [name for name in named if name not in urls]
        return [*(await _find(others, options, outputs, opening) if others else ()), *fetched]
    if not is_on_server(options):
        return await asyncio.to_thread(local_notebooks, named, exclude, outputs)
    async with opening() as contents:
        return await notebooks_on_server(contents, named, exclude, outputs)


def options_of_one(options: RunOptions, overrides: Sequence[Override]) -> RunOptions | None:
    """Return the options of one notebook's runs, or None if it is left out.

    Raises :class:`UsageError` for an override of an option that is shared by all notebooks, and for an invalid value.
    """
    known = options_in(RunOptions)
    run_options: Any = {name: value for name, value in options.items() if name not in _OF_BATCH}
    parameters = dict(options["parameters"])
    skip = False
    for override in overrides:
        if unknown := [name for name in override.options if name not in known or name in _SHARED]:
            raise UsageError(f"no option of a single notebook: {', '.join(sorted(unknown))}")
        run_options |= {
            name: read_option(f"overrides: {name}", known[name], value) for name, value in override.options.items()
        }
        parameters |= override.parameters
        skip = override.skip or skip
    run_options["parameters"] = parameters
    return None if skip else run_options


def _planned_run(found: FoundNotebook, run_options: RunOptions, combination: Mapping[str, Any]) -> PlannedRun:
    parameters = {**run_options["parameters"], **combination}
    options: RunOptions = {**run_options, "parameters": parameters}
    name = run_name(found.name, combination)
    if found.content is None:
        return PlannedRun(name, job_of(found.name, options), paths_of(found.name, options), parameters)
    paths = paths_of(found.tree, {**options, "content": found.content})
    paths = replace(paths, origin=found.origin, version=found.version)
    return PlannedRun(name, job_of(found.name, options), paths, parameters)


def _with_outputs(
    planned_runs: Sequence[tuple[FoundNotebook, PlannedRun]], template: Template, began: datetime
) -> list[tuple[FoundNotebook, PlannedRun]]:
    """Fill in the template for each run."""
    stamp = template.stamp or Stamp(began.astimezone(), uuid.uuid4().hex[:8])
    filled = []
    for index, (found, planned) in enumerate(planned_runs, 1):
        output = template.fill(Fields(found.tree, index, stamp.when, stamp.run_id, planned.parameters))
        filled.append((found, replace(planned, paths=replace(planned.paths, output=output))))
    return filled


def _with_artefacts(
    planned_runs: Sequence[tuple[FoundNotebook, PlannedRun]], options: BatchOptions
) -> list[tuple[FoundNotebook, PlannedRun]]:
    """Assign a folder for artefacts to each run, also where a matrix runs a notebook several times."""
    stems: list[str] = []
    found = []
    for each, planned in planned_runs:
        if planned.job.artefacts_dir is not None:
            stems.append(free_stem(parts_of_name(planned.name), stems))
            folder = Path(options["artefacts_dir"] or ARTEFACTS, stems[-1])
            planned = replace(planned, job=replace(planned.job, artefacts_dir=str(folder)))  # noqa: PLW2901
        found.append((each, planned))
    return found


def _check_destinations(planned_runs: Sequence[PlannedRun], options: BatchOptions) -> None:
    """Raise :class:`UsageError` if two runs would write the same file."""
    where = _comparable_on_server if is_on_server(options) else _comparable
    refuse_collisions(
        [
            Destination(
                planned.name,
                where(planned.paths.origin or planned.paths.notebook),
                where(planned.paths.output or planned.paths.origin or planned.paths.notebook),
            )
            for planned in planned_runs
            if planned.job.save
        ]
    )


def _comparable_on_server(path: str) -> str:
    return without_credentials(path) if is_source_url(path) else contents_path(path)


def _comparable(path: str) -> str:
    return without_credentials(path) if is_source_url(path) else os.path.normcase(absolute(path))


def _cut_and_order(
    planned_runs: Sequence[PlannedRun], options: BatchOptions, cache: "Cache | None"
) -> "tuple[list[int], Part | None]":
    """Return the positions of the planned runs of this shard, in the order in which they start, and the shard.

    Shards use only the named durations. Each shard's own cache has different ones, so some runs would be in no shard.
    """
    shard, given, is_as_given = options["shard"], options["durations"], options["order"] == Order.AS_GIVEN.value
    if not (shard or given) and is_as_given:
        return [*range(len(planned_runs))], None
    from nbrun.core.batch.scheduling import Durations, batch_key, in_shard, run_key, slowest_first
    from nbrun.runner.batch.cache import read_durations

    named = read_durations(Path(given)) if given else Durations()
    keys = [run_key(planned.job.notebook, planned.parameters) for planned in planned_runs]
    chosen = Shard.parse(shard) if shard else None
    mine = in_shard(keys, chosen, named) if chosen else [*range(len(keys))]
    if not is_as_given:
        known = Durations({**(cache.durations() if cache else Durations()).seconds, **named.seconds})
        mine = [mine[index] for index in slowest_first([keys[index] for index in mine], known)]
    if chosen is None:
        return mine, None
    from nbrun.core.results import Part

    whole = [*range(len(keys))] if is_as_given else slowest_first(keys, named)
    places = {index: position for position, index in enumerate(whole)}
    positions, names = [places[index] for index in mine], [planned_runs[index].name for index in mine]
    key = batch_key([keys[index] for index in whole])
    return mine, Part(chosen.number, chosen.total, key, len(keys), positions, names)
