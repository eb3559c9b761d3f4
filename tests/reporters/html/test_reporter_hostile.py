"""Pages of hostile notebooks in a real browser never contact the server of an attacker."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Frame, sync_playwright

from nbrun.core.events import Event
from nbrun.core.results import Outcome
from nbrun.reporters.html.reporter import Html, Look
from tests.reporters.streams import Speaker, result
from tests.support.browsers import chromium
from tests.support.hostile import Listener, hostile_notebooks, listener

CONTROL = (
    '<meta http-equiv=refresh content="1;url={0}/refresh"><link rel=stylesheet href={0}/sheet><img src={0}/image>'
    "<iframe sandbox=allow-scripts srcdoc=\"<script>fetch('{0}/fetch')</script>\"></iframe>"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, chromium(playwright) as running:
        yield running


@pytest.fixture(scope="module")
def server() -> Iterator[Listener]:
    with listener() as found:
        yield found


@pytest.fixture(scope="module")
def pages(server: Listener, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, list[Path]]:
    """The pages with scripts and without. Of those with scripts, only the pages that have any."""
    written = {
        scripts: write_pages(server, tmp_path_factory.mktemp("html"), scripts=scripts) for scripts in (True, False)
    }
    assert [len(each) for each in written.values()] == [len(hostile_notebooks("")) + 1] * 2
    pairs = zip(written[True], written[False], strict=True)
    return {False: written[False], True: [path for path, other in pairs if path.read_bytes() != other.read_bytes()]}


def write_pages(server: Listener, folder: Path, *, scripts: bool) -> list[Path]:
    pages = Html(folder, local=False, look=Look(scripts=scripts))
    for name, document in hostile_notebooks(server.url).items():
        over: Event = Speaker(name).is_over(result(name, Outcome.PASSED), document)
        pages.observe(over)
    pages.close()
    return sorted(folder.rglob("*.html"))


@pytest.mark.parametrize("scripts", [False, True], ids=["without scripts", "with scripts"])
def test_pages_of_hostile_notebooks_stay_and_ask_no_server(
    browser: Browser, server: Listener, pages: dict[bool, list[Path]], tmp_path: Path, scripts: bool
) -> None:
    written = pages[scripts]
    assert written
    server.lines.clear()
    before = server.connections
    context = browser.new_context()
    left: list[str] = []
    opened = []

    def note(frame: Frame) -> None:
        if frame.parent_frame is None:
            left.append(f"{frame.page.url} went to {frame.url}")

    for path in written:
        page = context.new_page()
        page.goto(path.as_uri())

        page.on("framenavigated", note)
        page.on("download", lambda download: left.append(download.url))
        opened.append(page)
    assert server.lines == []
    connected = server.connections - before

    control = (
        tmp_path / "control.html"
    )  # it is opened last and waits longest: what it reaches, others had time to reach
    control.write_text(CONTROL.format(server.url))
    context.new_page().goto(control.as_uri())
    for name in ("/refresh", "/sheet", "/image", "/fetch"):
        server.wait_for(name)
    assert [
        line
        for line in server.lines
        if line.split()[1] not in ("/refresh", "/sheet", "/image", "/fetch", "/favicon.ico")
    ] == []
    assert scripts or connected == 0  # a script that tries to navigate its frame makes Chromium connect beforehand
    assert left == []
    assert [page.url for page in opened] == [path.as_uri() for path in written]
    assert len(context.pages) == len(written) + 1
    context.close()
