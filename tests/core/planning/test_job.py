"""The defaults of a job."""

import math

from nbrun.core.planning.job import STARTUP_LIMIT, Job, Limits


def test_a_run_without_a_word_more_has_no_limits_but_that_of_its_start() -> None:
    job = Job("a.ipynb")
    assert job.limits == Limits(run=None, cell=None, silence=None, startup=STARTUP_LIMIT)
    assert 0 < STARTUP_LIMIT < math.inf


def test_a_run_without_a_word_more_stops_at_errors_and_saves() -> None:
    job = Job("a.ipynb")
    assert (job.kernel, job.allow_errors, job.save, job.raw_streams, job.record_timing) == (
        None, False, True, False, True,
    )  # fmt: skip


def test_two_runs_share_nothing_that_one_could_change() -> None:
    assert Job("a.ipynb") == Job("a.ipynb")
    assert hash(Job("a.ipynb").limits) == hash(Limits())
