"""Print pages as PDF, with a Chromium-family browser of this machine or with WeasyPrint.

The browser gets an empty profile and a proxy that does not exist. It is in a process group of its own, which is killed
when it takes too long, and when nbrun has ended. It is controlled by the DevTools protocol over pipes, which no other
user of the machine can reach.
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from threading import Timer
from typing import Any

WEASYPRINT = "weasyprint"
_EXTRA = (WEASYPRINT, "ziamath")
"""What prints pages and formulas without a browser, from the extra ``pdf``."""
PRINT_LIMIT = 120.0
"""Time limit for printing one page in seconds."""
DRAW_LIMIT = 30.0
"""Time limit for the scripts of one page in seconds."""
VARIABLE = "NBRUN_BROWSER"
_NAMES = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "chrome-headless-shell",
    "microsoft-edge", "microsoft-edge-stable", "msedge", "brave-browser",
)  # fmt: skip
_APPLICATIONS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)
_OPTIONS = (
    "--headless", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking",
    "--disable-component-update", "--disable-default-apps", "--disable-sync", "--disable-quic", "--no-first-run",
    "--no-default-browser-check", "--hide-scrollbars", "--remote-debugging-pipe",
    "--proxy-server=http://127.0.0.1:9", "--proxy-bypass-list=<-loopback>",
    # A mouse, because charts show their tools all the time on a screen that is touched.
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4",
)  # fmt: skip
_ON_PIPES = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null'
"""Starts a browser that is asked on its file descriptor 3 and answers on 4."""
_PAPER = {"width": 728, "height": 1000, "deviceScaleFactor": 2, "mobile": False}
"""A window in which outputs are as wide as on A4 paper."""
_DRAWN = """new Promise((done) => {
  const root = document.documentElement;
  const look = () => { if ("drawn" in root.dataset || !document.querySelector("main > iframe")) done(true); };
  new MutationObserver(look).observe(root, { attributes: true });
  setTimeout(() => done(false), %d);
  look();
})"""


class PrintFailed(Exception):
    """A page could not be printed; the message says why."""


class NotDrawn(Exception):
    """The scripts of a page did not finish; the message says it."""


def find_printer(environ: Mapping[str, str]) -> str | None:
    """Return the path of a browser, the name of WeasyPrint, or None; raise :class:`PrintFailed` for a wrong choice."""
    if chosen := environ.get(VARIABLE):
        found = shutil.which(chosen)
        if found is None:
            raise PrintFailed(f"{VARIABLE}={chosen} names no program")
        return found
    named = (shutil.which(name) for name in (*_NAMES, *_APPLICATIONS))
    found = next(filter(None, named), None)
    return found or (WEASYPRINT if all(map(find_spec, _EXTRA)) else None)


class Printer:
    """Prints pages one after the other; another thread may stop it."""

    def __init__(self) -> None:
        self._running: subprocess.Popen[bytes] | None = None

    def print_page(self, page: str, target: Path, program: str, *, scripts: bool = False) -> None:
        """Write the page in the text `page` as the PDF file `target`, with `scripts` when they have drawn its outputs.

        Raises :class:`PrintFailed`, :class:`NotDrawn` or OSError.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="nbrun-pdf-", ignore_cleanup_errors=True) as folder:
            source, made = Path(folder, "page.html"), Path(folder, "page.pdf")
            source.write_text(page, encoding="utf-8", errors="replace")
            if program == WEASYPRINT:
                _print_by_weasyprint(source, made)
            else:
                made.write_bytes(self._printed_by_browser(program, source, scripts))
            written = target.with_name(f".{target.name}.tmp")
            try:
                shutil.copyfile(made, written)
                written.replace(target)
            finally:
                written.unlink(missing_ok=True)

    def stop(self) -> None:
        """Kill the browser that is running."""
        if self._running is not None:
            with contextlib.suppress(OSError):
                os.killpg(self._running.pid, signal.SIGKILL)

    def _printed_by_browser(self, program: str, source: Path, scripts: bool) -> bytes:
        if os.geteuid() != 0:
            try:
                return self._printed([program, *_OPTIONS], source, scripts)
            except PrintFailed as error:
                if "sandbox" not in str(error):
                    raise
        # In many containers there is no sandbox to be had. Scripts of the page are in a frame of their own.
        return self._printed([program, *_OPTIONS, "--no-sandbox"], source, scripts)

    def _printed(self, command: list[str], source: Path, scripts: bool) -> bytes:
        with self._started([*command, f"--user-data-dir={source.parent / 'profile'}"]) as browser:
            browser.open_tab()
            browser.call("Page.enable")
            browser.call("Emulation.setDeviceMetricsOverride", **_PAPER)
            browser.call("Page.navigate", url=source.as_uri())
            if scripts:
                browser.wait_for("Page.domContentEventFired")
                asked = {"expression": _DRAWN % (DRAW_LIMIT * 1000), "awaitPromise": True}
                if not browser.call("Runtime.evaluate", **asked)["result"].get("value"):
                    raise NotDrawn(f"the scripts of its outputs did not finish in {DRAW_LIMIT:.0f} s")
            browser.wait_for("Page.loadEventFired")
            options = {"printBackground": True, "preferCSSPageSize": True, "generateDocumentOutline": True}
            return base64.b64decode(browser.call("Page.printToPDF", **options)["data"])

    @contextlib.contextmanager
    def _started(self, command: list[str]) -> "Iterator[_Browser]":
        """Run a browser for the length of the block."""
        with tempfile.TemporaryFile() as said:
            self._running = process = subprocess.Popen(  # noqa: S603 (the user's browser)
                ["/bin/sh", "-c", _ON_PIPES, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,
            )
            began, limit = time.monotonic(), Timer(PRINT_LIMIT, self.stop)
            limit.start()
            try:
                yield _Browser(process)
            except (EOFError, BrokenPipeError):
                if time.monotonic() - began >= PRINT_LIMIT:
                    raise PrintFailed(f"{command[0]} did not print the page in {PRINT_LIMIT:.0f} s") from None
                said.seek(0)
                lines = [line for line in said.read().decode(errors="replace").splitlines() if line.strip()]
                raise PrintFailed(
                    f"{command[0]} printed nothing: {lines[-1][:200] if lines else 'it said nothing'}"
                ) from None
            finally:
                limit.cancel()
                self.stop()  # whatever the browser started, too
                process.communicate()
                self._running = None


class _Browser:
    """A browser that is controlled by the DevTools protocol; raises EOFError when it has ended."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._asks, self._answers = process.stdin, process.stdout
        self._number = 0
        self._session: dict[str, str] = {}
        self._events: list[str] = []
        self._read = bytearray()

    def open_tab(self) -> None:
        """Open a tab, which all further calls are for."""
        tab = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]}

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method and return its result; raise :class:`PrintFailed` if the browser refuses."""
        self._number += 1
        asked = {"id": self._number, "method": method, "params": parameters, **self._session}
        self._asks.write(json.dumps(asked).encode() + b"\0")
        self._asks.flush()
        while (answer := self._next()).get("id") != self._number:
            self._events.append(answer.get("method", ""))
        if "error" in answer:
            raise PrintFailed(f"the browser refused {method}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer["result"]
        return result

    def wait_for(self, event: str) -> None:
        """Wait until an event was sent."""
        while event not in self._events:
            self._events.append(self._next().get("method", ""))

    def _next(self) -> dict[str, Any]:
        while (end := self._read.find(b"\0")) < 0:
            more = os.read(self._answers.fileno(), 1 << 20)
            if not more:
                raise EOFError
            self._read += more
        message: dict[str, Any] = json.loads(self._read[:end])
        del self._read[: end + 1]
        return message


def _print_by_weasyprint(source: Path, made: Path) -> None:
    import weasyprint
    from weasyprint.urls import URLFetcher

    fetcher = URLFetcher(allowed_protocols={"data"})
    weasyprint.HTML(string=source.read_text(encoding="utf-8"), url_fetcher=fetcher).write_pdf(made)
