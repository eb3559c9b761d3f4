"""``nbrun doctor``: its findings on this machine and on servers."""

from pathlib import Path

from nbrun.errors import ExitCode
from tests.support.notebooks import run_nbrun
from tests.support.servers import free_port, jupyter_server


def test_this_machine_can_run_notebooks() -> None:
    found = run_nbrun("doctor")
    assert found.returncode == ExitCode.OK, found.stdout
    assert "a private server starts" in found.stdout
    assert "kernel python3 answers" in found.stdout
    assert "binary frames (v1)" in found.stdout


def test_a_server_is_examined_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with jupyter_server(tmp_path / "root") as server:
        good = run_nbrun("doctor", "--server", server.url, "--clean", env={"NBRUN_TOKEN": server.token})
        bad = run_nbrun("doctor", "--server", server.url, env={"NBRUN_TOKEN": "wrong"})
        assert server.sessions() == []
    assert good.returncode == ExitCode.OK, good.stdout
    assert "accepts the token" in good.stdout
    assert "limit_rate=False" in good.stdout
    assert "no session of a killed nbrun is there to be ended" in good.stdout
    assert server.token not in good.stdout + good.stderr
    assert bad.returncode == ExitCode.SERVER
    assert "token" in bad.stdout
    assert list((tmp_path / "root").iterdir()) == []


def test_a_server_that_is_not_there_is_told_with_its_address() -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    found = run_nbrun("doctor", "--server", url)
    assert found.returncode == ExitCode.SERVER
    assert url in found.stdout


def test_an_unknown_kernel_is_told_with_those_that_exist() -> None:
    found = run_nbrun("doctor", "--kernel", "cobol")
    assert found.returncode == ExitCode.USAGE
    assert "'cobol'" in found.stdout
    assert "python3" in found.stdout


def test_only_a_server_that_is_named_can_be_cleaned() -> None:
    found = run_nbrun("doctor", "--clean")
    assert found.returncode == ExitCode.USAGE
    assert "--clean needs --server" in found.stderr
    assert found.stdout == ""
