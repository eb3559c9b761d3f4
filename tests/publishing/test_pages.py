"""The pages about published runs are escaped, static, and bounded."""

from typing import Any

from nbrun.publishing.history import NotebookRecord, Value
from nbrun.publishing.pages import MOST_BARS, latest_page, report_index, trend
from tests.publishing.histories import FAILED, record

HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m"


def test_what_notebooks_wrote_is_escaped() -> None:
    notebook = NotebookRecord(HOSTILE, FAILED, title=HOSTILE, page="a b/<x>.html", file="a.ipynb")
    given: dict[str, Any] = {"parameters": {HOSTILE: HOSTILE}, "message": HOSTILE, "notebooks": (notebook, notebook)}
    value = Value("k", HOSTILE, HOSTILE)
    before = record(0, values=[value], texts=[value])
    page = report_index(HOSTILE, [record(2, FAILED, **given), record(1, texts=[Value("k", HOSTILE, "new")]), before])
    text = (page + latest_page(HOSTILE, record(1))).decode()
    assert "<script" not in text
    assert "\x1b" not in text
    assert "a%20b/%3Cx%3E.html" in text
    assert text.count("default-src 'none'".replace("'", "&#39;")) == 2


def test_a_page_loads_nothing_and_has_only_relative_links() -> None:
    text = report_index("sales", [record(1), record(0)]).decode()
    assert "http:" not in text.replace("http-equiv", "")
    assert "https:" not in text
    assert "src=" not in text.replace("default-src", "")


def test_a_report_without_a_passed_run_has_no_latest_one() -> None:
    assert "No run has passed yet." in latest_page("sales", None).decode()
    assert "latest/index.html" not in report_index("sales", [record(0, FAILED)]).decode()
    assert "No run is published." in report_index("sales", []).decode()


def test_times_are_shown_in_the_time_zone_of_the_report() -> None:
    one = record(1, started="2026-10-24T22:30:00.000+00:00", timezone="Europe/Berlin")
    assert "2026-10-25 00:30 CEST" in report_index("sales", [one]).decode()


def test_the_trend_has_the_last_runs_the_oldest_first() -> None:
    bars = trend([record(number) for number in range(99, -1, -1)])
    assert len(bars) == MOST_BARS
    assert [bars[0]["id"], bars[-1]["id"]] == [record(40).run_id, record(99).run_id]
    assert max(bar["height"] for bar in bars) == bars[-1]["height"] == 48


def test_more_changes_than_fit_are_counted() -> None:
    old = record(0, values=[Value(str(each), "n", "1") for each in range(50)])
    new = record(1, values=[Value(str(each), "n", "2") for each in range(50)])
    text = report_index("sales", [new, old]).decode()
    assert "50 changes since" in text
    assert "and 30 more" in text
