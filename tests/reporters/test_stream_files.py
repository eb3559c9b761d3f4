"""Streams of cells in files."""

from pathlib import Path

import pytest

from nbrun.core.events import Event, OutputArrived, Stage, StageEntered
from nbrun.reporters.stream_files import stream_files

OUTPUTS = (
    {"output_type": "stream", "name": "stdout", "text": "one\r"},
    {"output_type": "stream", "name": "stderr", "text": "two"},
    {"output_type": "display_data", "data": {"text/plain": "three"}},
    {"output_type": "stream", "name": "stdout", "text": "f\u00fcnf\udcff\n"},
)


def events() -> list[Event]:
    return [StageEntered("a", Stage.LOADING), *(OutputArrived("a", 0, output) for output in OUTPUTS)]


def tell(stdout: str | None, stderr: str | None) -> None:
    files = stream_files(stdout, stderr)
    for event in events():
        for file in files:
            file.observe(event)
    for file in files:
        file.close()


def test_each_stream_has_its_file_and_an_old_one_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "err").write_text("old and long")
    tell(str(tmp_path / "new" / "out"), str(tmp_path / "err"))
    assert (tmp_path / "new" / "out").read_bytes() == "one\rf\u00fcnf?\n".encode()
    assert (tmp_path / "err").read_text() == "two"


def test_both_may_share_a_file(tmp_path: Path) -> None:
    tell(str(tmp_path / "both"), str(tmp_path / "both"))
    assert (tmp_path / "both").read_bytes() == "one\rtwof\u00fcnf?\n".encode()


def test_what_is_written_is_there_at_once(tmp_path: Path) -> None:
    (file,) = stream_files(str(tmp_path / "out"), None)
    for event in events()[:2]:
        file.observe(event)
    assert (tmp_path / "out").read_bytes() == b"one\r"
    file.close()


@pytest.mark.parametrize("target", ["-", "/dev/stdout"])
def test_standard_output_is_not_opened_anew_and_stays_open(
    target: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    tell(target, None)
    print("still open", flush=True)
    assert capfdbinary.readouterr().out.replace(b"\r\n", b"\n").endswith(b"?\nstill open\n")
