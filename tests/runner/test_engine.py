"""Engines of plug-ins: the example of the documentation runs a batch, and wrong calls say what is wrong."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from nbrun.core.planning.option_types import Integer, Text
from nbrun.errors import ExitCode, UsageError
from nbrun.runner.engine import EngineCall
from nbrun.runner.job import Access
from tests.support.notebooks import notebook, read_notebook, run_nbrun, write_notebook
from tests.support.resuming import check_resumed
from tests.support.servers import pause, python_path

DOCS = Path(__file__).parents[2] / "docs" / "engines.md"
KILL_SERVER = "import os, psutil, signal; os.kill(psutil.Process().parent().pid, signal.SIGKILL)"


@pytest.fixture
def plugin(tmp_path: Path) -> dict[str, str]:
    """Install the example of the documentation, and return the environment in which it is found."""
    text = DOCS.read_text(encoding="utf-8")
    folder = tmp_path / "plug-ins"
    info = folder / "servers_engine-1.dist-info"
    info.mkdir(parents=True)
    (folder / "servers_engine.py").write_text(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0])
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: servers-engine\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[nbrun.engines]\nservers = servers_engine:engine\n")
    return python_path(folder)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def servers_of(folder: Path) -> list[psutil.Process]:
    """Return the processes that were started with a working directory in `folder`."""
    return [one for one in psutil.process_iter(["cwd"]) if (one.info["cwd"] or "").startswith(str(folder))]


def test_the_example_runs_a_batch_on_its_servers_and_stops_them(here: Path, plugin: dict[str, str]) -> None:
    # Each of the first two waits for the other, which is on the other server.
    meet = "Path('{0}/{1}').touch()\nwhile not Path('{0}/{2}').exists():\n    time.sleep(0.02)"
    for name, other in (("a", "b"), ("b", "a"), ("c", "a")):
        waits = f"import os, time\nfrom pathlib import Path\n{meet.format(here, name, other)}\nos.getppid()"
        write_notebook(here / f"{name}.ipynb", notebook(f"print('{name}')", waits))
    write_notebook(here / "wrong.ipynb", notebook("1 / 0"))
    done = run_nbrun("run", ".", "-o", "out", "-j2", "--engine", "servers://local", "--json", "-", cwd=here, env=plugin)
    assert done.returncode == ExitCode.NOTEBOOK_FAILED, done.stderr
    runs = json.loads(done.stdout)["runs"]
    assert [(run["notebook"], run["outcome"], run["attempts"]) for run in runs] == [
        ("a.ipynb", "passed", 1), ("b.ipynb", "passed", 1), ("c.ipynb", "passed", 1), ("wrong.ipynb", "failed", 1),
    ]  # fmt: skip
    made = [read_notebook(here / "out" / f"{name}.ipynb") for name in "abc"]
    assert [cells["cells"][0]["outputs"][0]["text"] for cells in made] == ["a\n", "b\n", "c\n"]
    assert len({cells["cells"][1]["outputs"][0]["data"]["text/plain"] for cells in made}) == 2  # two servers
    assert not servers_of(here)


def test_a_run_whose_server_is_killed_is_repeated_once_on_another_one(here: Path, plugin: dict[str, str]) -> None:
    mark = f"from pathlib import Path\nmark = Path({str(here / 'mark')!r})\nprint('begun')"
    kill = f"if not mark.exists():\n    mark.touch()\n    {KILL_SERVER}\nprint('done')"
    write_notebook(here / "once.ipynb", notebook(mark, kill))
    write_notebook(here / "bad.ipynb", notebook("print('before')", KILL_SERVER, "'never'"))
    write_notebook(here / "good.ipynb", notebook("print('good')"))
    names = ("once.ipynb", "bad.ipynb", "good.ipynb")
    # One cell at a time: a server that dies at once has not passed on the output of the cell before.
    options = ("-o", "out", "--engine", "servers://local", "--pipeline", "1", "--json", "-")
    done = run_nbrun("run", *names, *options, cwd=here, env=plugin)
    once, bad, good = json.loads(done.stdout)["runs"]
    assert done.returncode == ExitCode.SERVER, done.stderr
    assert (once["outcome"], [each["outcome"] for each in once["tries"]]) == ("passed", ["seat-lost", "passed"])
    assert read_notebook(here / "out" / "once.ipynb")["cells"][1]["outputs"][0]["text"] == "done\n"
    assert (bad["outcome"], bad["exit_code"], bad["attempts"]) == ("seat-lost", 4, 2)
    saved = read_notebook(here / "out" / "bad.ipynb")
    assert saved["cells"][0]["outputs"][0]["text"] == "before\n"
    assert saved["metadata"]["nbrun"]["run"]["outcome"] == "seat-lost"
    assert good["outcome"] == "passed"
    assert "is left on the server" not in done.stderr


def test_after_sigterm_all_servers_stop_and_the_partial_notebooks_are_saved(here: Path, plugin: dict[str, str]) -> None:
    for name in "ab":
        touch = f"from pathlib import Path; Path({str(here / name)!r}).touch()"
        write_notebook(here / f"{name}.ipynb", notebook("print('before')", f"{touch}\nimport time; time.sleep(600)"))
    command = [sys.executable, "-m", "nbrun", "run", ".", "-o", "out", "-j2", "--engine", "servers://local"]
    with subprocess.Popen(command, cwd=here, env={**os.environ, **plugin}, stderr=subprocess.PIPE) as process:
        while not ((here / "a").exists() and (here / "b").exists()):
            pause(0.1)
            assert process.poll() is None
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == ExitCode.TERMINATED
    for name in "ab":
        assert read_notebook(here / "out" / f"{name}.ipynb")["cells"][0]["outputs"][0]["text"] == "before\n"
    assert family
    assert not psutil.wait_procs(family, timeout=5)[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--engine", "server://x"], ["there is no engine server://", "Did you mean servers://?"]),
        (["--engine", "nbclient"], ["not the URL of an engine", "servers://", "-k NAME"]),
        (["--engine", "servers://x", "--server", "http://localhost"], ["--engine and --server contradict"]),
        (["--engine", "servers://x", "--cache", "c"], ["--engine and --cache contradict"]),
        (["--engine", "servers://x", "-j", "auto"], ["--engine needs the number of seats", "-j N"]),
        (["--engine", "servers://x", "--checkpoint"], ["no checkpoint"]),
        (["--engine", "servers://x", "--no-upload", "--prepare-only"], ["--prepare-only with --no-upload contradict"]),
        (["--engine", "servers://x", "--no-upload", "--help-notebook"], ["that the engine has yet to start"]),
        (["--engine", "dask://127.0.0.1:1", "--no-upload"], ["--no-upload: dask runs notebooks of this machine"]),
        (
            ["--engine", "servers://x", "--config", "wrong.toml"],
            ["[tool.nbrun.engine.servers]", "Did you mean python?"],
        ),
    ],
    ids=lambda value: " ".join(value[::-1]) if value[0].startswith("--") else "",
)
def test_a_wrong_call_ends_with_exit_code_2(
    here: Path, plugin: dict[str, str], arguments: list[str], said: list[str]
) -> None:
    write_notebook(here / "a.ipynb", notebook("1"))
    (here / "wrong.toml").write_text('[engine.servers]\npyhton = "3"\n')
    done = run_nbrun("run", "a.ipynb", *arguments, cwd=here, env=plugin)
    assert done.returncode == ExitCode.USAGE, done.stderr
    for words in said:
        assert words in done.stderr


def test_the_settings_of_an_engine_are_read_by_their_kinds() -> None:
    call = EngineCall("hub+https://x/", Access(), {"profile": "large", "users": 3})
    assert call.read({"profile": Text(), "users": Integer(1)}) == {"profile": "large", "users": 3}
    with pytest.raises(UsageError, match=r"\[tool.nbrun.engine.hub\]: users takes text"):
        call.read({"profile": Text(), "users": Text()})


@pytest.mark.slow
@pytest.mark.soak
def test_a_killed_batch_on_a_plug_in_is_resumed(tmp_path: Path, plugin: dict[str, str]) -> None:
    check_resumed(tmp_path, 4, ["--engine", "servers://local"], env=plugin, leaves=True)
