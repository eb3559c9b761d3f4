"""The declarations of options for reports: pages, schedules, locks and notifications.

They exist on the command line and in the settings only. :mod:`nbrun.runner.options` has those that Python has too.
"""

import os
from collections.abc import Sequence
from typing import Annotated, Literal, TypedDict

from nbrun.core.batch.terms import Keep
from nbrun.core.planning.option_types import (
    Checked,
    Choice,
    Duration,
    Flag,
    Moment,
    Option,
    PathName,
    PathOrTrue,
    Text,
    Texts,
    Words,
)

_Path = str | os.PathLike[str] | None
NOTIFY_ON = ("failure", "recovery", "success", "start", "slow", "always")
"""The causes of ``--notify-on``."""


def _check_keep(word: str) -> None:
    Keep.parse([word])


def _check_notify_on(word: str) -> None:
    if word not in NOTIFY_ON:
        raise ValueError(f"{word!r} is none of {', '.join(NOTIFY_ON)}")


def _read_cron(text: str) -> str:
    from nbrun.core.batch.schedule import read_cron

    return read_cron(text)


def _read_zone(text: str) -> str:
    from nbrun.core.batch.schedule import read_zone

    return read_zone(text)


class SharedReportOptions(TypedDict, total=False):
    """Options for HTML pages, PDF files and published reports; for the command line and the settings."""

    html_code: Annotated[
        Literal["show", "fold", "hide"] | None,
        Option(
            Choice(("show", "fold", "hide")),
            "What HTML pages and PDF files show of the code. hide also leaves out prompts and standard error. The "
            "default is show, and hide with --report-mode.",
        ),
    ]
    html_failures: Annotated[
        Literal["show", "hide"],
        Option(
            Choice(("show", "hide")),
            "Whether HTML pages and PDF files show the code and the traceback of a failed cell.",
            default="show",
        ),
    ]
    html_template: Annotated[
        _Path,
        Option(
            PathName(folder=True),
            "Folder with templates (page.html.j2, index.html.j2, cells.html.j2) and a style sheet (style.css) for "
            "HTML pages and PDF files.",
            metavar="DIR",
        ),
    ]
    pdf: Annotated[
        str | bool | None,
        Option(
            PathOrTrue(),
            "Write each executed notebook as a PDF file into this folder. For a single notebook, FILE.pdf names the "
            "file. Needs Chromium, Chrome or Edge (NBRUN_BROWSER names the program), or WeasyPrint.",
            metavar="DIR|FILE.pdf",
        ),
    ]
    publish: Annotated[
        str | None,
        Option(
            Text(),
            "Publish the run below this folder or store (s3://, gs://, az://): its page, its notebook, and an index of "
            "all published runs. Without -o and --in-place the notebook is saved only there.",
            metavar="BASE",
        ),
    ]
    latest: Annotated[
        Literal["passed", "always"],
        Option(
            Choice(("passed", "always")),
            "Which published runs may become the latest one: those that passed, or all.",
            default="passed",
        ),
    ]
    keep: Annotated[
        str | Sequence[str],
        Option(
            Words(_check_keep),
            "Delete published runs beyond this age, number, or both (example: 30d,100). The newest passed run is "
            "always kept.",
            default=(),
            metavar="AGE,NUMBER",
        ),
    ]
    missing_only: Annotated[
        bool,
        Option(
            Flag(),
            "Run only the combinations of --matrix that have not passed before, according to the published runs, or "
            "to those on this machine.",
            default=False,
        ),
    ]
    scheduled: Annotated[
        str | None,
        Option(
            Moment(),
            "The time that the run is for: its place among published runs, and the date of parameter templates. The "
            "default is $NBRUN_SCHEDULED, or the start of the schedule, or the start of the run.",
            metavar="TIME",
        ),
    ]


class SharedScheduleOptions(TypedDict, total=False):
    """When a batch is to be run; for the command line and the settings. nbrun starts nothing by itself."""

    schedule: Annotated[
        str | None,
        Option(
            Checked(_read_cron),
            "When the batch is to be run, as a cron expression of five fields, for nbrun schedule.",
            only_setting=True,
        ),
    ]
    timezone: Annotated[
        str,
        Option(
            Checked(_read_zone),
            "The time zone of schedule and of parameter-templates, such as Europe/Berlin. The default for schedule is "
            "UTC.",
            only_setting=True,
        ),
    ]
    grace: Annotated[
        float | str,
        Option(
            Duration(),
            "How late a scheduled run may begin before nbrun schedule check reports it. The default is 1h.",
            only_setting=True,
        ),
    ]
    notify: Annotated[
        Sequence[str],
        Option(
            Texts(),
            "Send a notification to this URL: mailtos://USER:PASSWORD@HOST/?to=…, https://… (POST of JSON), or a "
            "service of apprise. env:NAME and file:PATH name the place of a URL that is a secret. May be repeated.",
            default=(),
            metavar="URL",
        ),
    ]
    notify_on: Annotated[
        str | Sequence[str],
        Option(
            Words(_check_notify_on),
            "When to notify, separated by commas: failure, recovery, success, start, slow, always.",
            default=("failure", "recovery"),
            metavar="CAUSES",
            show_default=True,
        ),
    ]
    ping: Annotated[
        str | None,
        Option(
            Text(),
            "Signal the start and the end of the run to this URL, as healthchecks.io expects it. env:NAME and "
            "file:PATH name the place of the URL.",
            metavar="URL",
        ),
    ]
    lock: Annotated[
        Literal["wait", "skip", "fail"] | None,
        Option(
            Choice(("wait", "skip", "fail")),
            "If another run of this batch, or of this output, is active: wait for its end, skip this run with exit "
            "code 0, or fail with exit code 2. With --publish, runs on other machines are noticed too.",
        ),
    ]
    lock_timeout: Annotated[
        float | str,
        Option(Duration(), "How long --lock wait waits.", default=3600.0, show_default=True),
    ]
    if_due: Annotated[
        str | None,
        Option(
            Checked(_read_cron),
            "The cron line in UTC that called nbrun. Run only if its last start is also a start of the batch's "
            "schedule; otherwise exit with code 0. nbrun schedule export adds this option for schedulers without time "
            "zones.",
            metavar="CRON",
        ),
    ]
