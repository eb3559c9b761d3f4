"""The local history keeps how runs ended, and survives lines that are no runs."""

from pathlib import Path

from nbrun.publishing.local_history import KEPT, LocalHistory, PastRun, report_key, state_folder

RUN = PastRun("2026-11-30T06:00:00.000+00:00", 1.5, "passed", 0)


def test_runs_are_read_newest_first_and_broken_lines_are_left_out(tmp_path: Path) -> None:
    history = LocalHistory("sales", tmp_path)
    assert history.runs() == []
    later = PastRun("2026-11-30T07:00:00", 2, "failed", 1, scheduled="2026-11-30T06:30:00Z")
    history.add(RUN)
    with history.file.open("ab") as file:
        file.write(b'{"started": "x"}\n{"cut\n[1]\n{"started": 1, "seconds": 1, "outcome": "", "exit_code": 0}\n')
    history.add(later)
    assert history.runs() == [later, RUN]
    assert history.file.stat().st_mode & 0o077 == 0
    times = later.as_started
    assert times.scheduled is not None
    assert times.started > times.scheduled


def test_a_long_history_is_shortened(tmp_path: Path) -> None:
    history = LocalHistory("sales", tmp_path)
    history.add(RUN)
    line = history.file.read_bytes()
    history.file.write_bytes(line * (2 * KEPT - 2))
    history.add(RUN)
    assert len(history.runs()) == 2 * KEPT - 1
    history.add(RUN)
    assert len(history.runs()) == KEPT


def test_each_report_has_its_own_file() -> None:
    keys = {report_key(name, folder) for name, folder in [("a", "/x"), ("a", "/y"), ("a/b", "/x"), ("a-b", "/x")]}
    assert len(keys) == 4
    assert all("/" not in key for key in keys)
    assert state_folder({"XDG_STATE_HOME": "/s"}) == Path("/s/nbrun")
    assert state_folder({"XDG_STATE_HOME": "relative"}) == Path.home() / ".local" / "state" / "nbrun"
