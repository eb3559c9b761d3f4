"""A nightly report for weeks: published, notified and checked on a fake clock, in a folder and on S3.

Three nights are real calls of ``nbrun batch`` with a kernel: one passes, one fails, one passes again. The
other nights publish the stored files of the first one, with their own times and parameters. So each night takes the
same code for publishing and notifications, but only three need a kernel, pages and a PDF file.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from click.testing import CliRunner
from playwright.sync_api import Page, sync_playwright

from nbrun.cli import clock
from nbrun.cli.main import cli
from nbrun.core.batch.schedule import Schedule
from nbrun.core.batch.terms import Keep
from nbrun.errors import ExitCode
from nbrun.publishing.around_run import Report, RunWatch
from nbrun.publishing.history import PublishedHistory, RunRecord, new_run_id
from nbrun.publishing.local_history import state_folder
from nbrun.publishing.locks import FileLock
from nbrun.publishing.publish import publish
from nbrun.storage.object_stores.by_url import open_store
from tests.publishing.notifications.servers import MailBox, mail_server
from tests.support.browsers import chromium
from tests.support.notebooks import code, markdown, notebook, write_notebook
from tests.support.stores import s3_by_moto

SETTINGS = """
[tool.nbrun.batch.sales]
notebooks = ["reports/sales.ipynb"]
parameter-templates = {{ day = "{{date:%Y-%m-%d}}" }}
html-code = "hide"
pdf = true
publish = "{base}"
keep = "{keep}d"
notify = ["env:REPORT_MAIL"]
notify-on = ["failure", "recovery"]
schedule = "0 6 * * 1-5"
timezone = "Europe/Berlin"
grace = "30m"
lock = "skip"
"""
WORDS = [f"planted{number:02}word" for number in range(20)]
"""Words that the code of the report contains, and nothing that people read."""


def tagged(source: str, *tags: str, **metadata: object) -> dict[str, Any]:
    """Return a code cell with metadata of others."""
    cell = code(source, tags=[*tags])
    cell["metadata"] |= metadata
    return cell


REPORT = notebook(
    markdown(f"# Sales of the day\n\n<!-- {WORDS[0]} -->"),
    code(f"day = ''  # {WORDS[1]}", tags=["parameters"]),
    tagged(
        f"import logging, warnings  # {WORDS[2]}\n{WORDS[3]} = '{WORDS[4]}'\n"
        f'def lookup(name):\n    """{WORDS[5]}"""\n    return {{}}[name]  # {WORDS[6]}\n'
        f"warnings.warn('old')  # {WORDS[7]}\nprint('loaded')  # {WORDS[8]}",
        WORDS[9],
        **{WORDS[10]: {"x": WORDS[11]}},
    ),
    tagged(f"lookup('north')  # {WORDS[12]}", "raises-exception"),
    tagged(f"try:\n    lookup('south')  # {WORDS[13]}\nexcept KeyError:\n    logging.exception('no sales')"),
    tagged(f"{WORDS[14]} = 4711\n{WORDS[14]}  # {WORDS[15]}", "hide-input"),
    tagged(f"print('{WORDS[16]}')", "remove-cell"),
    tagged(f"print('{WORDS[17]}')", "remove-output"),
    tagged(f"# {WORDS[18]}\nfrom IPython.display import Markdown\nMarkdown('in _Markdown_')  # {WORDS[19]}"),
    code(
        "from pathlib import Path\nfrom IPython.display import HTML\n"
        "assert not Path('broken').exists(), 'no sales'\namount = int(day.replace('-', '')) % 97\n"
        "print('sales of', day)\nHTML(f'<table><tr><td>north</td><td>{amount}</td></tr></table>')"
    ),
    markdown("Sums are in [euro](https://example.org/euro)."),
)
NIGHTS = 40
FAILED, RECOVERED, MISSED, OVERLAPPING = 25, 26, 30, 33
LATE = 22
"""The first night of the short test, which has the nights that differ."""
FIRST_DAY = datetime(2026, 10, 5, tzinfo=UTC)
"""A Monday. The clock in Berlin changes on 25 October."""
AT = """
import sys
from datetime import datetime
from nbrun.cli import clock
real = clock.now
ahead = datetime.fromisoformat(sys.argv.pop(1)) - real()
clock.now = lambda: real() + ahead
from nbrun.cli.main import main
main()
"""


@dataclass
class Project:
    """The project of the report, and the store that it is published in."""

    folder: Path
    base: str
    web: str
    """The address of the store for a browser."""
    mail: str
    """The URL for notifications, which nbrun removes from the environment of a process."""
    first: int
    """The number of the first night."""
    keep: int
    """Days for which runs are kept."""
    recorded: RunRecord | None = None
    latest_id: str = ""

    def call(self, when: datetime, *words: str) -> "subprocess.CompletedProcess[str]":
        """Call nbrun as if it were `when`."""
        command = [sys.executable, "-c", AT, when.isoformat(), *words]
        env = {**os.environ, "REPORT_MAIL": self.mail}
        return subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=120, check=False
        )

    def check(self, when: datetime) -> tuple[int, str]:
        """Return the exit code and the messages of ``nbrun schedule check`` at this time."""
        with pytest.MonkeyPatch.context() as here:
            here.setattr(clock, "now", lambda: when)
            here.setenv("REPORT_MAIL", self.mail)
            here.chdir(self.folder)
            found = CliRunner().invoke(cli, ["schedule", "check", "sales"], standalone_mode=False, obj=[])
        assert found.exception is None, found.output
        return found.return_value, found.output

    def records(self) -> list[RunRecord]:
        return asyncio.run(PublishedHistory(open_store(self.base)).records("sales"))

    def latest(self) -> dict[str, Any]:
        found = asyncio.run(open_store(self.base).get("sales/latest.json"))
        assert found is not None
        content: dict[str, Any] = json.loads(found.data)
        return content

    def keep_files(self) -> None:
        """Store the files of the newest run for the nights without a kernel."""
        self.recorded = self.records()[0]

        async def copy(record: RunRecord) -> None:
            store = open_store(self.base)
            for file in record.files:
                found = await store.get(f"sales/{record.run_id}/{file.path}")
                assert found is not None
                (self.folder / "stored").mkdir(exist_ok=True)
                (self.folder / "stored" / file.path).write_bytes(found.data)

        asyncio.run(copy(self.recorded))

    def publish_again(self, began: datetime, night: datetime) -> None:
        """Publish the stored files as the run of another night, and notify as a call of nbrun does."""
        assert self.recorded is not None
        day = {"day": f"{night:%Y-%m-%d}"}
        ended = began + timedelta(seconds=60 + night.day)
        (made,) = self.recorded.notebooks
        numbers = tuple(replace(value, text=str(night.day)) for value in made.numbers)
        record = replace(
            self.recorded,
            run_id=new_run_id(began),
            started=began.isoformat(timespec="milliseconds"),
            ended=ended.isoformat(timespec="milliseconds"),
            seconds=60.0 + night.day,
            scheduled=night.isoformat(timespec="milliseconds"),
            parameters=day,
            notebooks=(replace(made, parameters=day, numbers=numbers),),
        )
        options = {"publish": self.base, "notify": [self.mail], "notify_on": ("failure", "recovery")}
        watch = RunWatch(Report("sales", str(self.folder)), options, lambda: began)
        store = open_store(self.base)
        keep = Keep.parse([f"{self.keep}d"])
        asyncio.run(publish(store, [(record, self.folder / "stored")], keep=keep, now=ended))
        watch.scheduled = night
        assert watch.finish(0, None) == []


@contextmanager
def folder_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    yield "site", (folder / "site").as_uri()


@contextmanager
def s3_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    with s3_by_moto() as s3:
        for name, value in s3.env.items():
            monkeypatch.setenv(name, value)
        bucket = s3.bucket()
        everybody = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::{bucket}/*",
        }
        s3.client.put_bucket_policy(
            Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [everybody]})
        )
        yield f"s3://{bucket}/reports", f"{s3.endpoint}/{bucket}/reports"


STORES = {"folder": folder_store, "s3": s3_store}


def nights() -> list[datetime]:
    """Return the starts of the schedule."""
    starts = Schedule("0 6 * * 1-5", "Europe/Berlin").starts(FIRST_DAY, FIRST_DAY + timedelta(days=80))
    return [start for start, _ in zip(starts, range(NIGHTS), strict=False)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize(
    ("first", "keep"), [(LATE, 20), pytest.param(0, 30, marks=pytest.mark.soak)], ids=["eighteen", "forty"]
)
def test_many_nights_of_a_report(
    first: int, keep: int, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = tmp_path / "project"
    write_notebook(folder / "reports" / "sales.ipynb", REPORT)
    with STORES[kind](folder, monkeypatch) as (base, web), mail_server() as box:
        monkeypatch.chdir(folder)
        (folder / "pyproject.toml").write_text(SETTINGS.format(base=base, keep=keep))
        project = Project(folder, base, web, box.url, first, keep)
        for number, night in [*enumerate(nights())][first:]:
            run_night(project, number, night)
        assert_published(project)
        assert_notified(project, box)
        assert_without_code(project, box)
        with sync_playwright() as playwright, chromium(playwright) as browser:
            page = browser.new_page()
            assert_index(project, page)
            assert_links(project, page)


def run_night(project: Project, number: int, night: datetime) -> None:
    """Run the report of one night, and check that its schedule is kept."""
    began = night + timedelta(minutes=2)
    broken = project.folder / "reports" / "broken"
    if number in (project.first, FAILED, RECOVERED):
        before = project.latest() if number > project.first else {}
        if number == FAILED:
            broken.touch()
        found = project.call(began, "batch", "sales")
        broken.unlink(missing_ok=True)
        assert found.returncode == int(number == FAILED), found.stderr
        newest = project.records()[0]
        assert (newest.parameters, newest.templated) == ({"day": f"{night:%Y-%m-%d}"}, ("day",))
        assert newest.scheduled == night.isoformat(timespec="milliseconds")
        assert (project.latest() == before) == (number == FAILED)
        if number == project.first:
            project.keep_files()
    elif number != MISSED:
        project.publish_again(began, night)
    if number == OVERLAPPING:
        lock = FileLock(state_folder() / "locks" / f"{Report('sales', str(project.folder)).key}.lock")
        assert lock.acquire()
        found = project.call(began + timedelta(minutes=1), "batch", "sales")
        lock.release()
        assert found.returncode == 0, found.stderr
        assert "skipped: sales is being run by process" in found.stderr
    if number % 8 and number not in (FAILED, MISSED, MISSED + 1, OVERLAPPING):
        return
    code, said = project.check(night + timedelta(minutes=31))
    missing = f"nbrun: sales: the run of {night:%Y-%m-%d} 06:00 Europe/Berlin is missing\n"
    assert (code, said) == ((ExitCode.OVERDUE, missing) if number == MISSED else (ExitCode.OK, ""))


def expected(project: Project) -> list[tuple[str, str]]:
    """Return the nights whose runs are kept, the latest first, with their outcomes."""
    every = nights()
    kept = [number for number, night in enumerate(every) if every[-1] - night < timedelta(days=project.keep)]
    assert kept[0] > project.first, "the first run is deleted"
    return [
        (every[number].isoformat(timespec="milliseconds"), "failed" if number == FAILED else "passed")
        for number in reversed(kept)
        if number != MISSED
    ]


def assert_published(project: Project) -> None:
    records = project.records()
    assert [(record.when, record.outcome) for record in records] == expected(project)
    project.latest_id = records[0].run_id
    assert project.latest()["run_id"] == project.latest_id
    stored = asyncio.run(open_store(project.base).keys("sales/"))
    runs = {record.run_id: {*(file.path for file in record.files), "run.json"} for record in records}
    listed = {f"sales/{run_id}/{path}" for run_id, paths in runs.items() for path in paths}
    pages = {"sales/index.html", "sales/latest.json", "sales/latest/index.html"}
    assert {*stored} == listed | pages | {"sales/.lock"}


def assert_notified(project: Project, box: MailBox) -> None:
    """Check that there is one mail for the failure, the recovery and the missing run, with the failing cell."""
    failure, recovery, missing = box.mails
    subjects = [mail["Subject"] for mail in (failure, recovery, missing)]
    assert subjects == ["nbrun: sales failed", "nbrun: sales passed again", "nbrun: sales is late or missing"]
    assert "no sales" in text_of(failure)
    assert "started    2026-11-09 06:02 CET" in text_of(failure)
    assert f"published  {project.base}/sales/2026" in text_of(failure)
    for mail, names in ((failure, ["sales.html", "sales.pdf"]), (recovery, ["sales.html", "sales.pdf"]), (missing, [])):
        assert [part.get_filename() for part in mail.iter_attachments()] == names
    assert "2026-11-16 06:00 Europe/Berlin is missing" in text_of(missing)


def assert_without_code(project: Project, box: MailBox) -> None:
    """Check that no planted word is in a byte of what people read: pages, PDF files, records and mails."""
    store = open_store(project.base)

    async def stored() -> dict[str, bytes]:
        found = {key: await store.get(key) for key in await store.keys("")}
        return {key: one.data for key, one in found.items() if one is not None}

    files = asyncio.run(stored())
    texts = {
        f"mail {number}, {part.get_filename() or part.get_content_type()}": bytes(part.get_payload(decode=True))
        for number, mail in enumerate(box.mails)
        for part in mail.walk()
        if not part.is_multipart()
    }
    notebooks = [files.pop(key) for key in [*files] if key.endswith(".ipynb")]
    assert [word for word in WORDS if word.encode() not in notebooks[0]] == []
    texts |= files
    pdfs = {name: text_of_pdf(content) for name, content in texts.items() if name.endswith(".pdf")}
    assert all("4711" in text and "loaded" in text for text in pdfs.values())
    assert len(pdfs) == len(notebooks) + 2
    for name, text in pdfs.items():
        texts[f"{name}, its text"] = text.encode()
    assert [(name, word) for name, text in texts.items() for word in WORDS if word.encode() in text] == []


def text_of_pdf(content: bytes) -> str:
    return subprocess.run(["pdftotext", "-", "-"], input=content, check=True, capture_output=True).stdout.decode()


def text_of(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    assert body is not None
    text: str = body.get_content()
    return text


def assert_index(project: Project, page: Page) -> None:
    """Check that the index shows the kept runs in order, and what changed."""
    page.goto(f"{project.web}/sales/index.html")
    rows = page.eval_on_selector_all(
        ".runs > li", "rows => rows.map(row => [row.querySelector('time').dateTime, row.className])"
    )
    assert [tuple(row) for row in rows] == expected(project)
    assert page.locator(".trend rect").count() == len(rows)
    assert page.locator(".latest").count() == 1
    assert page.locator("time").first.inner_text() == "2026-11-27 06:00 CET"
    assert "day=2026-11-27" in page.locator(".runs > li").first.inner_text()
    changes = " ".join(page.locator(".changes").first.inner_text().split())
    assert changes == "1 change since 2026-11-26 06:00 CET Sales of the day · north · column 2 26 27 +3.8 %"


def assert_links(project: Project, page: Page) -> None:
    """Follow every link of every page from the index of all reports on."""
    waiting, seen = [f"{project.web}/index.html"], set[str]()
    anchors: dict[str, set[str]] = {}
    wanted: set[str] = set()
    while waiting:
        address = waiting.pop()
        if address in seen:
            continue
        seen.add(address)
        if not address.endswith(".html"):
            assert content(page, address), address
            continue
        answer = page.goto(address)
        assert answer is not None
        assert answer.ok, address
        if address.endswith("/latest/index.html"):
            page.wait_for_url(f"**/sales/{project.latest_id}/index.html")
            page.set_content(content(page, address).decode().replace('http-equiv="refresh"', f'name="{address}"'))
        anchors[address] = {*page.eval_on_selector_all("[id]", "all => all.map(one => one.id)")}
        for link in page.eval_on_selector_all("a[href]", "all => all.map(one => one.getAttribute('href'))"):
            if link != "https://example.org/euro":
                wanted.add(urljoin(address, link))
                waiting.append(urldefrag(urljoin(address, link)).url)
    assert all(url.startswith(project.web) for url in seen)
    assert all(not name or name in anchors[url] for url, name in map(urldefrag, wanted))
    assert len([url for url in seen if url.endswith(".pdf")]) == len(expected(project))


def content(page: Page, address: str) -> bytes:
    """Return a file of the site."""
    if address.startswith("file://"):
        return Path(unquote(address.removeprefix("file://"))).read_bytes()
    answer = page.request.get(address)
    assert answer.ok, address
    return answer.body()
