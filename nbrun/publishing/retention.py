"""Choose the published runs that are deleted (``keep``): by age, by number, or by both; pure."""

from collections.abc import Sequence
from datetime import datetime

from nbrun.core.batch.terms import Keep
from nbrun.publishing.history import RunRecord, latest_of


def expired(records: Sequence[RunRecord], keep: Keep, now: datetime) -> list[RunRecord]:
    """Return the runs that are no longer kept; `records` have the latest run first.

    The age of a run counts from its start, so a run that was made up for is kept as long as others. The newest passed
    run and the latest run are always kept.
    """
    newest = next((record for record in records if record.passed), None)
    always = {record.run_id for record in (newest, latest_of(records)) if record is not None}
    found = []
    for place, record in enumerate(records):
        too_many = keep.runs is not None and place >= keep.runs
        too_old = keep.seconds is not None and (now - record.start).total_seconds() > keep.seconds
        if (too_many or too_old) and record.run_id not in always:
            found.append(record)
    return found
