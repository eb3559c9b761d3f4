"""A real browser for the tests: the system's Chromium, without a sandbox, because tests may run as root."""

import contextlib
import shutil
from collections.abc import Iterator

from playwright.sync_api import Browser, Playwright

from tests.support.environments import missing

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def browser() -> str:
    """Return the path of the browser; skip the test if there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    return found or missing("a browser", install="chromium, from the system's packages")


@contextlib.contextmanager
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """Run the browser for the length of the block."""
    running = playwright.chromium.launch(executable_path=browser(), args=OPTIONS)
    try:
        yield running
    finally:
        running.close()
