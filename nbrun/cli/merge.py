"""``nbrun merge``: make one result and its reports of the results of a batch's shards."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import click

from nbrun._lazy_imports import put_off_imports
from nbrun.cli.options.reports import merged_reports, merging_options
from nbrun.errors import BadFrame, NbrunError, ServerError, UsageError

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
    found = _found(sources)
    _leave_out_reports(found, {"--json": given["json_file"], "--junit": given["junit_file"]})
    try:
        merged = _merged(sources, found)
        if given["html_folder"] or given["pdf"]:
            _check_notebooks(merged)
        reports.open()
        _report(merged, reports.observe)
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


@dataclass(frozen=True, slots=True)
class _File:
    """A file that may have the result of a shard; ``is_named`` means that it must have one."""

    path: Path
    is_named: bool

    def content(self) -> Any:
        """Return the JSON value, or None for other text that is not the beginning of a result."""
        from nbrun.core.formats.json_text import loads

        try:
            raw = self.path.read_bytes()
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be read: {error.strerror or error}", hint=_HINT) from None
        try:
            return loads(raw)
        except BadFrame:
            if self.is_named or b'"version"' in raw[:100]:
                raise UsageError(f"{self.path}: no JSON; it may be cut off", hint=_HINT) from None
            return None


def _found(sources: Sequence[str]) -> dict[str, _File]:
    """Return the named files, and all JSON files in the folders except hidden ones, by their real paths."""
    found: dict[str, _File] = {}
    for source in sources:
        is_folder = os.path.isdir(source)  # noqa: PTH112  (also for a path that Path refuses)
        for path in sorted(Path(source).rglob("*.json")) if is_folder else [Path(source)]:
            is_hidden = is_folder and any(part.startswith(".") for part in path.relative_to(source).parts)
            if not is_hidden and (path.is_file() or not is_folder):
                found.setdefault(os.path.realpath(path), _File(path, is_named=not is_folder))
    return found


def _leave_out_reports(found: dict[str, _File], targets: Mapping[str, str | None]) -> None:
    """Remove what an earlier call wrote; raise :class:`UsageError` if a report would replace the result of a shard."""
    from nbrun.core.batch.shards import is_shard

    for option, target in targets.items():
        file = found.pop(os.path.realpath(target), None) if target else None
        if file is not None and (file.is_named or is_shard(file.content())):
            raise UsageError(f"{option} {target}: would replace a result that is merged", hint="Name another file.")


def _merged(sources: Sequence[str], found: Mapping[str, _File]) -> "Merged":
    """Read and merge the results; raise :class:`UsageError`."""
    from nbrun.core.batch.shards import ShardFile, is_shard, merge, read_shard, why_not_started

    shards: list[ShardFile] = []
    failed: dict[str, str] = {}
    for file in found.values():
        content, name = file.content(), str(file.path)
        if why := why_not_started(content):
            failed[name] = why
        # Folders also have other files, such as the merged result of an earlier call.
        elif file.is_named or is_shard(content):
            shards.append(read_shard(name, content))
    if not shards and failed:
        raise ServerError("no shard could start", hint=" ".join(f"{path}: {why}." for path, why in failed.items()))
    if not shards:
        raise UsageError(f"{', '.join(sources)}: there is no result of a shard", hint=_HINT)
    return merge(shards, failed)


def _check_notebooks(merged: "Merged") -> None:
    """Raise :class:`UsageError` if pages cannot be made, because executed notebooks are not here."""
    lost = [
        run
        for run in merged.runs
        if not run.result.rescued and run.result.kernel is not None and _executed(run) is None
    ]
    if lost:
        first = lost[0].result.output or f"that of {lost[0].name}, which was not saved"
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        hint = (
            "Save them with -o in each shard, and copy that folder beside the shard's JSON result. Or omit the pages."
        )
        raise UsageError(f"--html and --pdf need the executed notebooks; not found: {first}{more}", hint=hint)


def _report(merged: "Merged", observe: "Observer") -> None:
    """Send the events of all runs to the reports, with one notebook in memory at a time."""
    from nbrun.core.batch.replay import events_of
    from nbrun.core.events import BatchFinished, BatchStarted

    observe(BatchStarted([run.name for run in merged.runs]))
    for run in merged.runs:
        for event in events_of(run.name, run.result, _executed(run)):
            observe(event)
    observe(BatchFinished(merged.batch))


def _executed(run: "Placed") -> "Document | None":
    """Return a run's executed notebook, or None if it was not saved or is not here."""
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
            return document
    return None


def _document(path: Path) -> "Document | None":
    from nbrun.core.formats.json_text import loads
    from nbrun.core.notebook.document import Document

    try:
        return Document(loads(path.read_bytes()))
    except (OSError, BadFrame, NbrunError):
        return None
