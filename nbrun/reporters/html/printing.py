"""Print pages as PDF, with a Chromium-family browser of this machine or with WeasyPrint.

The page has no scripts and loads nothing. The browser gets an empty profile and a proxy that does not exist. It is in a
process group of its own, which is killed when it takes too long, and when nbrun has ended.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

WEASYPRINT = "weasyprint"
_EXTRA = (WEASYPRINT, "ziamath")
"""What prints pages and formulas without a browser, from the extra ``pdf``."""
PRINT_LIMIT = 120.0
"""Time limit for printing one page in seconds."""
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
    "--no-default-browser-check", "--no-pdf-header-footer", "--generate-pdf-document-outline",
    "--proxy-server=http://127.0.0.1:9", "--proxy-bypass-list=<-loopback>",
)  # fmt: skip


class PrintFailed(Exception):
    """A page could not be printed; the message says why."""


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

    def print_page(self, page: str, target: Path, program: str) -> None:
        """Write the page in the text `page` as the PDF file `target`; raise :class:`PrintFailed` or OSError."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="nbrun-pdf-", ignore_cleanup_errors=True) as folder:
            source, made = Path(folder, "page.html"), Path(folder, "page.pdf")
            source.write_text(page, encoding="utf-8", errors="replace")
            if program == WEASYPRINT:
                _print_by_weasyprint(source, made)
            else:
                self._print_by_browser(program, source, made)
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

    def _print_by_browser(self, program: str, source: Path, made: Path) -> None:
        sandboxes = [["--no-sandbox"]] if os.geteuid() == 0 else [[], ["--no-sandbox"]]
        for sandbox in sandboxes:  # in many containers there is none to be had; the page runs nothing
            said = self._run([program, *_OPTIONS, *sandbox], source, made)
            if made.is_file() and made.read_bytes()[:5] == b"%PDF-":
                return
            if "sandbox" not in said:
                break
        lines = [line for line in said.splitlines() if line.strip()]
        raise PrintFailed(f"{program} printed nothing: {lines[-1][:200] if lines else 'it said nothing'}")

    def _run(self, command: list[str], source: Path, made: Path) -> str:
        profile = f"--user-data-dir={source.parent / 'profile'}"
        self._running = process = subprocess.Popen(  # noqa: S603 (the user's browser)
            [*command, profile, f"--print-to-pdf={made}", source.as_uri()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            return process.communicate(timeout=PRINT_LIMIT)[1].decode(errors="replace")
        except subprocess.TimeoutExpired:
            raise PrintFailed(f"{command[0]} did not print the page in {PRINT_LIMIT:.0f} s") from None
        finally:
            self.stop()  # whatever the browser started, too
            process.communicate()
            self._running = None


def _print_by_weasyprint(source: Path, made: Path) -> None:
    import weasyprint
    from weasyprint.urls import URLFetcher

    fetcher = URLFetcher(allowed_protocols={"data"})
    weasyprint.HTML(string=source.read_text(encoding="utf-8"), url_fetcher=fetcher).write_pdf(made)
