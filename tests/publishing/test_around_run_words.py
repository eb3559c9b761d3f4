"""With ``--html-code hide``, words of the code are in no byte of page, index, PDF file or mail."""

import re
import shutil
import subprocess
import zlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nbrun.core.events import RunFinished
from nbrun.core.results import Outcome, Problem
from nbrun.publishing.around_run import Report, RunWatch
from nbrun.reporters.html.reporter import Html, Look
from tests.publishing.notifications.servers import mail_server
from tests.reporters.html.test_pages import WORDS, failed, report
from tests.reporters.streams import result
from tests.support.browsers import browser
from tests.support.environments import missing

OF_FAILING = ["failingword", "tracedword", "evalueword"]
"""The words in the failing cell and its error."""


def text_of(name: str, data: bytes) -> str:
    """Return all that a file contains: its bytes, and what is compressed in a PDF file, and its text."""
    found = data.decode("latin-1")
    if not name.endswith(".pdf"):
        return found
    reader = shutil.which("pdftotext") or missing("pdftotext", install="poppler-utils, from the system's packages")
    done = subprocess.run([reader, "-", "-"], input=data, check=True, capture_output=True)
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL)
    unpacked = [zlib.decompressobj().decompress(one) for one in streams if one[:1] == b"\x78"]
    return "\n".join([found, done.stdout.decode(), *(one.decode("latin-1") for one in unpacked)])


@pytest.mark.browser
@pytest.mark.parametrize("case", ["passed", "failed", "failed, and failures are hidden"])
def test_words_of_the_code_are_nowhere_but_in_a_failing_cell_that_is_shown(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    document, cells = (report(), []) if case == "passed" else failed()
    outcome = Outcome.PASSED if case == "passed" else Outcome.FAILED
    problem = None if case == "passed" else Problem("ValueError: evalueword in cell 7 of 7", cell=7)
    ended = result("sales.ipynb", outcome, cells, problem=problem)
    failures = "hide" if "hidden" in case else "show"
    pages = Html(Path("site"), local=False, look=Look("hide", failures), pdf=Path("site"), printer=browser())
    with mail_server() as box:
        options = {"notify": [box.url], "notify_on": ["always"], "html_failures": failures}
        watch = RunWatch(Report("sales", "."), options, lambda: datetime.now(UTC))
        event = RunFinished("sales.ipynb", ended, document)
        for observe in (pages.observe, watch.observe):
            observe(event)
        pages.close()
        watch.result, watch.pages = ended, ["site"]
        assert watch.finish(int(ended.exit_code), None) == []
    (mail,) = box.mails
    found: dict[str, str] = {}
    for part in mail.walk():
        name, data = part.get_filename() or "text", part.get_payload(decode=True)
        if isinstance(data, bytes):
            found[f"mail: {name}"] = found.get(f"mail: {name}", "") + text_of(name, data)
    found |= {path.name: text_of(path.name, path.read_bytes()) for path in Path("site").iterdir()}
    assert {"sales.html", "index.html", "sales.pdf", "mail: sales.html", "mail: sales.pdf"} <= {*found}
    leaks = {name: [word for word in (*WORDS, "python3") if word in text] for name, text in found.items()}
    assert {name: words for name, words in leaks.items() if words} == {}
    is_shown = case == "failed"
    for name in ("sales.html", "sales.pdf", "mail: text", "mail: sales.html", "mail: sales.pdf"):
        assert [word in found[name] for word in OF_FAILING] == [is_shown] * 3, name
