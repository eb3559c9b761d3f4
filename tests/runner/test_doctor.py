"""The findings of the doctor on private, good, old and broken servers and on a gateway."""

import asyncio
import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from nbrun.core.planning.job import STARTUP_LIMIT
from nbrun.errors import ExitCode
from nbrun.runner.doctor import Finding, examine
from nbrun.runner.job import Access
from tests.support.other_servers import kernel_gateway, other_server
from tests.support.servers import free_port, jupyter_server


class Found:
    """Takes findings."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def show(self, finding: Finding) -> None:
        self.findings.append(finding)

    def texts(self, good: bool | None) -> str:
        return "\n".join(finding.text for finding in self.findings if finding.good is good)


@pytest.fixture
def found() -> Found:
    return Found()


async def test_a_private_server_is_started_and_found_good(found: Found) -> None:
    assert await examine(Access(), show=found.show) is None
    assert "nbrun" in found.texts(None)
    assert "jupyter-server" in found.texts(None)
    for words in ("a private server starts", "python3 (python)", "kernel python3 answers", "binary frames"):
        assert words in found.texts(good=True)
    assert found.texts(good=False) == ""


async def test_broken_kernelspecs_of_this_machine_are_told_with_their_files(
    found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {
        "torn": "{not json",
        "gone": '{"argv": ["/no/such/python", "{connection_file}"], "display_name": "Gone", "language": "python"}',
        "empty": '{"argv": [], "display_name": "Empty", "language": "python"}',
        "listed": "[]",
    }
    for name, text in broken.items():
        (tmp_path / "kernels" / name).mkdir(parents=True)
        (tmp_path / "kernels" / name / "kernel.json").write_text(text)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert await examine(Access(), kernel="torn", show=found.show) == ExitCode.USAGE
    told = [finding.text for finding in found.findings if "kernelspec is broken" in finding.text]
    assert {name for name in broken if any(f"{tmp_path / 'kernels' / name}" in text for text in told)} == {*broken}
    assert any("/no/such/python, which is not there" in text for text in told)
    assert "'torn'" in found.texts(good=False)


@pytest.mark.parametrize("missing", ["jupyter_server", "ipykernel"])
def test_a_machine_without_what_a_private_server_needs_is_told_what_to_install(tmp_path: Path, missing: str) -> None:
    python = environment_without(tmp_path / "environment", missing)
    process = subprocess.run(
        [python, "-m", "nbrun", "doctor"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert process.returncode == ExitCode.USAGE, process.stderr
    assert f"there is no {missing}" in process.stdout
    assert "jupyter-nbrun[local]" in process.stdout
    assert process.stderr == ""


def environment_without(folder: Path, package: str) -> Path:
    """Make an environment that has what this one has, but for one package; return its interpreter."""
    venv.create(folder, symlinks=True)
    ours, theirs = (Path(sysconfig.get_path("purelib", vars=where)) for where in (None, {"base": str(folder)}))
    for entry in ours.iterdir():
        if entry.name != package and not entry.name.startswith(f"{package}-"):
            (theirs / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


async def test_a_server_is_examined_and_left_as_it_was(found: Found, tmp_path: Path) -> None:
    with jupyter_server(tmp_path) as server:
        assert await examine(Access(server.url, server.token), show=found.show) is None
        assert (server.sessions(), server.get("api/kernels")) == ([], [])
        for words in ("answers", "accepts the token and takes us for", "it serves files"):
            assert words in found.texts(good=True)
        hints = {finding.text: finding.hint for finding in found.findings}
        assert "limit_rate=False" in hints["limits on output cannot be read over the API"]
        assert "--lift-limits" in hints["its own limit on output can be lifted"]
        assert "max_body_size" in hints["neither can the size of a notebook that may be saved"]

        found.findings.clear()
        assert await examine(Access(server.url, "wr0ng"), show=found.show) == ExitCode.SERVER
        assert "wr0ng" not in str(found.findings)
        assert found.texts(good=False)

        found.findings.clear()
        assert await examine(Access(server.url, server.token), kernel="cobol", show=found.show) == ExitCode.USAGE
        assert "cobol" in found.texts(good=False)


async def test_a_server_that_lets_everybody_in_is_said_to_and_a_kernel_that_hangs_is_replaced_as_in_a_run(
    found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs_once = f'mkdir "$0.called" && exec sleep 600; exec {sys.executable} -m ipykernel_launcher -f "$1"'
    spec = tmp_path / "kernels" / "hangs-once" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = ["sh", "-c", hangs_once, str(spec), "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Hangs once", "language": "python"}))
    monkeypatch.setattr("nbrun.jupyter.kernel_session.FIRST_START", 0.0)
    monkeypatch.setattr("nbrun.jupyter.kernel_session.SECOND_START", STARTUP_LIMIT - 1)
    quick = ["--ServerKernelManager.shutdown_wait_time=0.2"]
    with jupyter_server(tmp_path, token="", args=quick, env={"JUPYTER_PATH": str(tmp_path)}) as server:
        assert await examine(Access(server.url), kernel="hangs-once", show=found.show) is None
    assert "accepts us without a token" in found.texts(good=True)
    assert "kernel hangs-once answers" in found.texts(good=True)


async def test_an_old_server_lacks_what_it_lacks(found: Found, tmp_path: Path) -> None:
    with other_server("notebook-6.5", tmp_path) as server:
        assert await examine(Access(server.url, server.token), show=found.show) is None
    assert "it accepts the token\n" in found.texts(good=True)
    assert "it serves files\n" in found.texts(good=True)
    assert "as JSON" in found.texts(good=True)


@pytest.mark.parametrize("lists", [True, False], ids=["lists its kernels", "as it is by default"])
async def test_a_gateway_serves_no_files_and_can_run_notebooks_from_a_pipe(
    found: Found, tmp_path: Path, lists: bool
) -> None:
    with kernel_gateway(tmp_path, lists=lists) as server:
        assert await examine(Access(server.url, server.token), show=found.show) is None
        if lists:
            assert server.get("api/kernels") == []
    assert "it serves no files" in found.texts(None)
    [hint] = [finding.hint for finding in found.findings if "serves no files" in finding.text]
    assert "nbrun run - --server" in hint
    assert "kernel python3 answers" in found.texts(good=True)
    assert found.texts(good=False) == ""
    assert ("cannot be listed" in found.texts(None)) is not lists
    assert "notebook that may be saved" not in found.texts(None)


async def test_where_nobody_answers_that_is_what_is_found(found: Found) -> None:
    address = f"http://127.0.0.1:{free_port()}/"
    assert await examine(Access(f"{address}?token=s3cret-token"), show=found.show) == ExitCode.SERVER
    [connecting, finding] = found.findings
    assert connecting.text == f"connecting to {address}"
    assert finding.good is False
    assert finding.hint
    assert "s3cret" not in str(found.findings)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "connection"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "connection"),  # what a TLS server answers to plain HTTP
        (b"SSH-2.0-OpenSSH_9.6\r\n", "connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 20\r\n\r\n<title>Shop</title> ", "web page"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]", "JSON"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "502"),
    ],
    ids=["closes", "speaks TLS", "speaks SSH", "a web page", "another API", "a proxy without a server"],
)
async def test_what_is_no_jupyter_server_is_told_with_a_hint(found: Found, answer: bytes, words: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        assert await examine(Access(f"http://127.0.0.1:{port}/"), show=found.show) == ExitCode.SERVER
    finding = found.findings[-1]
    assert finding.good is False
    assert words in finding.text
    assert finding.hint
