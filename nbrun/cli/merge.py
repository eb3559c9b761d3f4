"""``nbrun merge``: make one result and its reports of the results of a batch's shards."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import click

from nbrun._lazy_imports import put_off_imports
from nbrun.cli.options.reports import merged_reports, merging_options
from nbrun.errors import BadFrame, NbrunError, UsageError

if TYPE_CHECKING:
    from nbrun.core.batch.shards import Merged, Placed
    from nbrun.core.events import Observer
    from nbrun.core.notebook.document import Document

_HINT = "Write it again with nbrun run --shard K/N --json FILE, or remove it."


@click.command("merge", short_help="Merge the results of --shard K/N into one result and its reports.")
@click.argument("sources", nargs=-1, required=True, metavar="FILE|DIR...")
@merging_options
def command(sources: tuple[str, ...], **given: Any) -> int:
    """Merge the results of nbrun run --shard K/N into one result and its reports.

    FILE is the JSON result of a shard (--json). In a folder DIR, all results of shards are found, also in its
    subfolders.

    Pages need the executed notebooks. They are looked for beside the JSON result, under the path of the shard's output
    or its last parts, and then under that path itself.

    The exit code is that of the batch as if it had run in one job. If shards are missing, the reports contain the
    others, and the exit code is 4.
    """
    reports = merged_reports(given)
    put_off_imports()
    try:
        merged = _merged(sources)
        notebooks = [_executed(run) for run in merged.runs]
        if given["html_folder"] or given["pdf"]:
            _check_notebooks(merged, notebooks)
        reports.open()
        _report(merged, notebooks, reports.observe)
    except NbrunError as error:
        reports.could_not_begin(None, error)
        raise
    finally:
        reports.close()
    problem = merged.batch.problem
    if problem is not None:
        click.echo(f"nbrun: {problem.message}\n  {problem.hint}", err=True)
    from nbrun.core.results import with_lost_reports

    return int(with_lost_reports(merged.batch.exit_code, reports.lost()))


def _merged(sources: Sequence[str]) -> "Merged":
    """Read and merge the results; raise :class:`UsageError`."""
    from nbrun.core.batch.shards import ShardFile, merge, read_shard, why_not_started

    files: list[ShardFile] = []
    failed: dict[str, str] = {}
    for path, content in _contents(sources):
        if why := why_not_started(content):
            failed[path] = why
        else:
            files.append(read_shard(path, content))
    if not files:
        reasons = "".join(f" {path}: {why}." for path, why in failed.items())
        where = ", ".join(sources)
        raise UsageError(f"{where}: there is no result of a shard", hint=f"{_HINT}{reasons}")
    return merge(files, failed)


def _contents(sources: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the results of batches and their files; raise :class:`UsageError` for a file that cannot be read."""
    from nbrun.core.batch.shards import is_batch, why_not_started

    seen: set[str] = set()
    for source in sources:
        is_folder = os.path.isdir(source)  # noqa: PTH112  (also for a path that Path refuses)
        paths = sorted(Path(source).rglob("*.json")) if is_folder else [Path(source)]
        for path in paths:
            hidden = any(part.startswith(".") for part in path.relative_to(source).parts) if is_folder else False
            if hidden or (real := os.path.realpath(path)) in seen:
                continue
            seen.add(real)
            content = _json(path, is_named=not is_folder)
            # Folders also have other files, such as the merged result of an earlier call.
            is_result = is_batch(content) and (content.get("shard") is not None or why_not_started(content))
            if is_result or not is_folder:
                yield str(path), content


def _json(path: Path, *, is_named: bool) -> Any:
    """Return the JSON in a file, or None for text in a folder that is no JSON and not the beginning of a result."""
    from nbrun.core.formats.json_text import loads

    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}", hint=_HINT) from None
    try:
        return loads(raw)
    except BadFrame:
        if is_named or b'"version"' in raw[:100]:
            raise UsageError(f"{path}: no JSON; it may be cut off", hint=_HINT) from None
        return None


def _check_notebooks(merged: "Merged", notebooks: Sequence[Path | None]) -> None:
    """Raise :class:`UsageError` if pages cannot be made, because executed notebooks are not here."""
    pairs = zip(merged.runs, notebooks, strict=True)
    lost = [run for run, path in pairs if path is None and not run.result.rescued and run.result.kernel is not None]
    if lost:
        first = lost[0].result.output or f"that of {lost[0].name}, which was not saved"
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        hint = (
            "Save them with -o in each shard, and copy that folder beside the shard's JSON result. Or omit the pages."
        )
        raise UsageError(f"--html and --pdf need the executed notebooks; not found: {first}{more}", hint=hint)


def _report(merged: "Merged", notebooks: Sequence[Path | None], observe: "Observer") -> None:
    """Send the events of all runs to the reports, with one notebook in memory at a time."""
    from nbrun.core.batch.replay import events_of
    from nbrun.core.events import BatchFinished, BatchStarted

    observe(BatchStarted([run.name for run in merged.runs]))
    for run, path in zip(merged.runs, notebooks, strict=True):
        for event in events_of(run.name, run.result, _document(path)):
            observe(event)
    observe(BatchFinished(merged.batch))


def _executed(run: "Placed") -> Path | None:
    """Return the file of a run's executed notebook, or None if it was not saved or is not here."""
    from nbrun.core.batch.replay import is_notebook_of
    from nbrun.core.results import DELIVERED

    if not run.result.output or run.result.output == DELIVERED:
        return None
    output, beside = PurePath(run.result.output), Path(run.source).parent
    parts = output.parts[1:] if output.is_absolute() else output.parts
    tails = [beside.joinpath(*parts[start:]) for start in range(len(parts))]
    for path in (*tails, Path(output)):
        document = _document(path)
        if document is not None and is_notebook_of(run.result, document):
            return path
    return None


def _document(path: Path | None) -> "Document | None":
    from nbrun.core.formats.json_text import loads
    from nbrun.core.notebook.document import Document

    try:
        return None if path is None else Document(loads(path.read_bytes()))
    except (OSError, BadFrame, NbrunError):
        return None
