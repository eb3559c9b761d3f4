"""Typical mistakes that only a server or a kernel detects. tests/cli/test_mistakes.py has the others."""

import asyncio
import contextlib
import http.server
import logging
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbrun.errors import ExitCode
from nbrun.jupyter import client
from tests.support.notebooks import FIXTURES, assert_exit, notebook, run_nbrun, write_notebook
from tests.support.servers import RunningServer, jupyter_server

CERTIFICATE = FIXTURES.parent / "tls" / "localhost.pem"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with jupyter_server(tmp_path_factory.mktemp("root")) as running:
        yield running


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write_notebook(tmp_path / "report.ipynb", notebook("1"))
    return tmp_path


def assert_is_for_people(said: str, *words: str) -> None:
    for word in words:
        assert word in said
    assert "Traceback" not in said
    assert not re.search(r"\bbug\b", said)
    assert not re.search(r"https?://\S*/api\b", said)


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("path", ["report.ipynb", "./report.ipynb"])
def test_a_local_path_with_a_server_is_told_of_upload(
    server: RunningServer, here: Path, command: str, path: str
) -> None:
    found = run_nbrun(command, path, "--server", server.url, cwd=here, env={"NBRUN_TOKEN": server.token})
    assert_exit(found, ExitCode.USAGE)
    assert_is_for_people(found.stderr, "report.ipynb", "--upload")


@pytest.mark.parametrize(("token", "said"), [("wrong", "does not accept the token"), ("", "none was given")])
def test_a_refused_token_is_told_where_tokens_come_from(
    server: RunningServer, here: Path, token: str, said: str
) -> None:
    env = {"NBRUN_TOKEN": token, "JUPYTER_TOKEN": "", "NBRUN_PASSWORD": ""}
    found = run_nbrun("run", "report.ipynb", "--server", server.url, cwd=here, env=env)
    assert_exit(found, ExitCode.SERVER)
    assert_is_for_people(found.stderr, said, "NBRUN_TOKEN", "--token-file")


def test_a_token_in_the_address_is_used_warned_of_and_never_printed(server: RunningServer, here: Path) -> None:
    write_notebook(server.root / "there.ipynb", notebook("1"))
    found = run_nbrun("plan", "there.ipynb", "--server", f"{server.url}?token={server.token}", cwd=here)
    assert_exit(found, ExitCode.OK)
    assert_is_for_people(found.stderr, "NBRUN_TOKEN", "--token-file")
    assert server.token not in found.stdout + found.stderr


def test_a_kernel_of_another_environment_is_not_said_to_be_missing_on_a_server(here: Path) -> None:
    write_notebook(here / "report.ipynb", notebook("1", kernel="sales-env"))
    found = run_nbrun("run", "report.ipynb", "--no-save", cwd=here)
    assert_exit(found, ExitCode.USAGE)
    assert_is_for_people(found.stderr, "this machine has no kernel 'sales-env'", "-k python3", "ipykernel install")
    assert "server has" not in found.stderr


def test_a_question_to_the_user_is_told_how_to_answer_it_beforehand(here: Path) -> None:
    write_notebook(here / "report.ipynb", notebook("name = input('Your name? ')"))
    found = run_nbrun("run", "report.ipynb", "--no-save", cwd=here)
    assert_exit(found, ExitCode.NOTEBOOK_FAILED)
    assert "-p NAME VALUE" in found.stderr
    assert "--secret NAME" in found.stderr


class _Silent(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def listening(*, tls: bool) -> Iterator[int]:
    """Serve nothing but errors on a port of localhost, with or without TLS; returns the port."""
    served = http.server.ThreadingHTTPServer(("localhost", 0), _Silent)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_suffix(".key"))
        served.socket = context.wrap_socket(served.socket, server_side=True)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    try:
        yield served.server_address[1]
    finally:
        served.shutdown()
        served.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("tls", "address", "options", "words"),
    [
        (True, "https://localhost:{}/", (), ("not trusted", "--ca-file", "--insecure")),
        (True, "https://127.0.0.1:{}/", ("--ca-file", str(CERTIFICATE)), ("another host name", "--insecure")),
        (True, "http://localhost:{}/", (), ("https://",)),
        (False, "https://localhost:{}/", (), ("does not speak TLS", "http://")),
    ],
    ids=["untrusted", "other host", "http on a TLS port", "https on a plain port"],
)
def test_a_wrong_scheme_or_certificate_is_told_with_the_option_to_use(
    tls: bool, address: str, options: tuple[str, ...], words: tuple[str, ...], here: Path
) -> None:
    with listening(tls=tls) as port:
        found = run_nbrun("plan", "report.ipynb", "--server", address.format(port), *options, cwd=here)
    assert_exit(found, ExitCode.SERVER)
    assert_is_for_people(found.stderr, *words)


def test_a_port_on_which_nothing_listens_is_told_as_that(here: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        found = run_nbrun("run", "report.ipynb", "--server", address, cwd=here)
    assert_exit(found, ExitCode.SERVER)
    assert_is_for_people(found.stderr, "connection refused", "jupyter server list")


async def test_a_server_that_does_not_answer_is_told_of_while_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "NOTICE_AFTER", 0.0)
    told = asyncio.Event()

    class Telling(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert "has not answered yet" in record.getMessage()
            assert "s3cret" not in record.getMessage()
            told.set()

    handler = Telling()
    logging.getLogger("nbrun.jupyter").addHandler(handler)
    try:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            address = f"http://127.0.0.1:{silent.getsockname()[1]}/?token=s3cret"
            connecting = asyncio.create_task(client.connect(address).__aenter__())
            await asyncio.wait_for(told.wait(), 30)
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
    finally:
        logging.getLogger("nbrun.jupyter").removeHandler(handler)
