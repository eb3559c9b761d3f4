"""The engine of a hub: a real JupyterHub with its proxy, whose named servers are the seats."""

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import nbrun
import nbrun.engines.hub
from nbrun.core.results import Outcome
from nbrun.engines.hub import Hub as HubEngine
from nbrun.engines.hub import has_expired
from nbrun.errors import AccessDenied, ExitCode, NbrunError, ServerError, ServerUnreachable, UsageError
from nbrun.jupyter.hub import NamedServer
from nbrun.runner.engine import EngineCall
from nbrun.runner.job import Access
from tests.support.hub import USER, Hub, hub
from tests.support.notebooks import notebook, read_notebook, run_nbrun, write_notebook
from tests.support.processes import LiveNbrun, live_nbrun
from tests.support.resuming import check_resumed
from tests.support.servers import free_port, pause

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="JupyterHub does not run on Windows")

CONFIG = """
import json
from pathlib import Path

class Allowed:
    def __bool__(self):
        return not Path(__file__).with_name("no-named-servers").exists()

c.JupyterHub.allow_named_servers = True
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0, "allow_named_servers": Allowed()}
c.JupyterHub.services.append({"name": "stopper", "api_token": "stopper-token-12345678"})
c.JupyterHub.load_roles.append({"name": "stopper", "services": ["stopper"],
    "scopes": ["delete:servers", "read:servers", "list:users"]})
# bob may have one named server, no server of carol starts, and those of erin are never ready.
c.JupyterHub.named_server_limit_per_user = lambda handler: 1 if "/users/bob" in handler.request.path else 0

def before(spawner):
    if spawner.user.name == "carol":
        raise RuntimeError("carol has no quota left")
    if spawner.user.name == "erin":
        spawner.cmd, spawner.args = ["sleep", "600"], []
    spawner.environment = {"OPTIONS": json.dumps(spawner.user_options)}

c.Spawner.pre_spawn_hook = before
"""
SECRET = "planted-7d1f4b0e"


@pytest.fixture(scope="module")
def a_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with hub(tmp_path_factory.mktemp("hub"), started=False, config=CONFIG) as found:
        for name in ("bob", "carol", "erin"):
            found.call("POST", f"users/{name}")
        yield found


@pytest.fixture(scope="module")
def token(a_hub: Hub) -> str:
    """Return a token of the user."""
    return a_hub.token_of(note="of the tests")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    return folder


def left_on(hub: Hub) -> tuple[list[str], list[str]]:
    """Return the named servers of the user, and the tokens that nbrun created."""
    tokens = hub.call("GET", f"users/{USER}/tokens")["api_tokens"]
    return hub.servers(), [each["note"] for each in tokens if "nbrun:" in each["note"]]


def seats_of(hub: Hub) -> list[psutil.Process]:
    """Return the processes of the named servers of nbrun on a hub."""
    found = []
    for process in psutil.Process(hub.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.environ().get("JUPYTERHUB_SERVER_NAME", "").startswith("nbrun-"):
                found.append(process)
    return found


KILL = "import os, signal; os.kill(os.getppid(), signal.SIGKILL)"
"""A cell that kills its server."""


def kills_once(mark: Path) -> str:
    """Return a cell that kills its server at its first execution."""
    return f"from pathlib import Path\nmark = Path({str(mark)!r})\nif not mark.exists():\n    mark.touch(); {KILL}"


def test_a_batch_runs_on_two_servers_of_which_one_is_lost_twice_and_leaves_nothing(
    a_hub: Hub, token: str, here: Path
) -> None:
    # Each of the first two waits for the other, which is on the other server.
    meet = "Path('{0}/{1}').touch()\nwhile not Path('{0}/{2}').exists():\n    time.sleep(0.02)"
    for name, other in (("a", "b"), ("b", "a")):
        waits = f"import os, time\nfrom pathlib import Path\n{meet.format(here, name, other)}\nprint(os.getppid())"
        prints = "import os\nprint(len(PLANTED), os.environ['OPTIONS'])\nprint(PLANTED)"
        write_notebook(here / f"{name}.ipynb", notebook(prints, waits))
    write_notebook(here / "c.ipynb", notebook("print('before')", f"import time; time.sleep(1)\n{KILL}"))
    write_notebook(here / "wrong.ipynb", notebook("1 / 0"))
    # A killed nbrun left this token; its server is gone.
    a_hub.call("POST", f"users/{USER}/tokens", {"note": "nbrun: nbrun-00000000-00000000", "expires_in": 600})
    settings = '[engine]\nurl = "hub+{}"\n[engine.hub]\nprofile = "large"\noptions = {{memory = "4G"}}\n'
    (here / "nbrun.toml").write_text(settings.format(a_hub.url))
    reports = ["--json", "-", "--events", "events", "--trace", "trace", "--html", "pages"]
    options = ["-o", "out", "-j2", "--secret", "PLANTED", *reports]
    done = run_nbrun("run", ".", *options, cwd=here, env={"NBRUN_TOKEN": token, "PLANTED": SECRET})
    assert done.returncode == ExitCode.SERVER, done.stderr
    runs = json.loads(done.stdout)["runs"]
    assert [(run["notebook"], run["outcome"], run["attempts"]) for run in runs] == [
        ("a.ipynb", "passed", 1), ("b.ipynb", "passed", 1), ("c.ipynb", "seat-lost", 2), ("wrong.ipynb", "failed", 1),
    ], done.stderr  # fmt: skip
    assert [each["outcome"] for each in runs[2]["tries"]] == ["seat-lost", "seat-lost"]
    assert read_notebook(here / "out" / "c.ipynb")["cells"][0]["outputs"][0]["text"] == "before\n"
    assert "its kernel may still run" not in done.stderr
    made = [read_notebook(here / "out" / f"{name}.ipynb")["cells"] for name in "ab"]
    given = json.dumps({"memory": "4G", "profile": "large"})
    assert [cells[0]["outputs"][0]["text"] for cells in made] == [f"{len(SECRET)} {given}\n***\n"] * 2
    assert len({cells[1]["outputs"][0]["text"] for cells in made}) == 2  # two servers
    assert left_on(a_hub) == ([], [])
    # The upload of a notebook that lost two servers is removed as soon as another server is ready, or named at the end.
    uploads = [path.name for path in a_hub.root.iterdir() if path.name.startswith("nbrun")]
    assert not [name for name in uploads if f"{name}/c.ipynb" not in done.stderr.partition("home folder")[2]]
    # The database of the hub, the log of hub, proxy and servers, the home folder, and all that is written here.
    written = [path for top in (a_hub.log.parent, here) for path in top.rglob("*") if path.is_file()]
    assert {"hub.sqlite", "hub.log", "events", "trace", ".nbrun-journal.jsonl"} <= {path.name for path in written}
    for secret in (SECRET, token):
        assert secret not in done.stdout + done.stderr
        assert [path for path in written if secret.encode() in path.read_bytes()] == []


def test_notebooks_of_the_home_folder_run_where_they_are(a_hub: Hub, token: str, here: Path) -> None:
    folder = a_hub.root / "reports"
    write_notebook(folder / "a.ipynb", notebook("print(open('data.csv').read())"))
    write_notebook(folder / "sub" / "b.ipynb", notebook(kills_once(here / "killed"), "print('b')"))
    (folder / "data.csv").write_text("1,2")
    on_hub = ["--engine", f"hub+{a_hub.url}", "--no-upload", "--json", "-"]
    done = run_nbrun("run", "reports", "-o", "out", *on_hub, cwd=here, env={"NBRUN_TOKEN": token})
    assert done.returncode == ExitCode.OK, done.stderr
    runs = json.loads(done.stdout)["runs"]
    assert [(run["notebook"], run["output"], run["attempts"]) for run in runs] == [
        ("reports/a.ipynb", "out/reports/a.ipynb", 1), ("reports/sub/b.ipynb", "out/reports/sub/b.ipynb", 2),
    ]  # fmt: skip
    made = [read_notebook(a_hub.root / run["output"])["cells"][-1]["outputs"][0]["text"] for run in runs]
    assert made == ["1,2\n", "b\n"]
    # What the lost attempt executed is here, because its server was lost too.
    assert sorted(path.name for path in here.iterdir()) == [Path(runs[1]["tries"][0]["output"]).name, "killed"]
    assert left_on(a_hub) == ([], [])


@pytest.mark.slow
def test_named_servers_of_jupyterhub_5_are_used_over_tls_and_deleted(tmp_path: Path, here: Path) -> None:
    write_notebook(here / "a.ipynb", notebook(kills_once(here / "killed"), "import os; print(os.environ['OPTIONS'])"))
    write_notebook(here / "b.ipynb", notebook("print('b')"))
    settings = '[engine]\nurl = "hub+{}"\n[engine.hub]\nuser = "alice"\nprofile = "large"\n'
    with hub(tmp_path, started=False, config=CONFIG, name="hub-5", tls=True) as older:
        (here / "nbrun.toml").write_text(settings.format(older.url))
        environment = {"NBRUN_TOKEN": older.token}
        done = run_nbrun("run", ".", "-o", "out", cwd=here, env=environment)
        assert done.returncode == ExitCode.SERVER
        assert "--ca-file" in done.stderr
        arguments = [".", "-o", "out", "-j2", "--json", "-", "--ca-file", str(tmp_path / "cert.pem")]
        done = run_nbrun("run", *arguments, cwd=here, env=environment)
        assert done.returncode == ExitCode.OK, done.stderr
        assert [run["attempts"] for run in json.loads(done.stdout)["runs"]] == [2, 1]
        text = read_notebook(here / "out" / "a.ipynb")["cells"][1]["outputs"][0]["text"]
        assert text == '{"profile": "large"}\n'
        assert left_on(older) == ([], [])


# Errors before the first run ------------------------------------------------------------------------------------------


async def refused(url: str, token: str | None, settings: Mapping[str, Any], *, startup: float = 60.0) -> NbrunError:
    """Return the error of an engine that has no seat."""
    try:
        engine = HubEngine(EngineCall(url, Access(token=token), settings, startup))
        async with engine.seats(1) as seats:
            await anext(seats)
    except NbrunError as error:
        return error
    raise AssertionError("there is a seat")


@pytest.mark.parametrize(
    ("token", "settings", "kind", "said"),
    [
        (None, {}, UsageError, ["needs a token", "/hub/token", "NBRUN_TOKEN"]),
        ("wrong", {}, AccessDenied, ["does not accept the token", "/hub/token"]),
        ("service", {}, UsageError, ["the service nbrun", '[tool.nbrun.engine.hub] user = "NAME"']),
        ("service", {"user": "nobody"}, UsageError, ["the hub has no user nobody"]),
        (
            "stopper-token-12345678",
            {"user": USER},
            UsageError,
            ["lacks servers!user=alice, access:servers"],
        ),
        ("service", {"usr": "alice"}, UsageError, ["usr is no setting", "Did you mean user?"]),
        ("service", {"user": "carol"}, NbrunError, ["carol has no quota left"]),
    ],
    ids=["none", "wrong", "service", "user", "scope", "setting", "spawn"],
)
async def test_a_useless_token_or_user_is_an_error_before_the_first_run(
    a_hub: Hub, token: str | None, settings: dict[str, str], kind: type[NbrunError], said: list[str]
) -> None:
    given = a_hub.token if token == "service" else token
    error = await refused(f"hub+{a_hub.url}", given, settings)
    assert isinstance(error, kind)
    for words in said:
        assert words in f"{error}\n{error.hint}"
    assert a_hub.servers("carol") == []


async def test_a_hub_without_named_servers_is_an_error_before_the_first_run(a_hub: Hub) -> None:
    switch = a_hub.log.with_name("no-named-servers")
    switch.touch()
    try:
        error = await refused(f"hub+{a_hub.url}", a_hub.token, {"user": USER})
    finally:
        switch.unlink()
    assert isinstance(error, UsageError)
    assert "the hub has no named servers" in str(error)
    assert "allow_named_servers = True" in error.hint


def test_a_kernel_that_the_servers_do_not_have_is_an_error_before_the_first_run(
    a_hub: Hub, token: str, here: Path
) -> None:
    write_notebook(here / "a.ipynb", notebook(f"open({str(here / 'begun')!r}, 'w')"))
    write_notebook(here / "b.ipynb", notebook("1", kernel="elsewhere"))
    options = ["--no-save", "-j2", "--engine", f"hub+{a_hub.url}"]
    done = run_nbrun("run", ".", *options, cwd=here, env={"NBRUN_TOKEN": token})
    assert done.returncode == ExitCode.USAGE, done.stderr
    assert re.search(r"b\.ipynb: the seat alice/nbrun-\S+ has no kernel 'elsewhere'", done.stderr)
    assert "It has python3" in done.stderr
    assert not (here / "begun").exists()
    assert left_on(a_hub) == ([], [])


def test_servers_that_are_never_ready_end_the_batch_after_the_time_limit_and_are_deleted(
    a_hub: Hub, here: Path
) -> None:
    write_notebook(here / "a.ipynb", notebook("1"))
    (here / "nbrun.toml").write_text('[engine.hub]\nuser = "erin"\n')
    options = ["--no-save", "--engine", f"hub+{a_hub.url}", "--startup-timeout", "2"]
    done = run_nbrun("run", "a.ipynb", *options, cwd=here, env={"NBRUN_TOKEN": a_hub.token})
    assert done.returncode == ExitCode.SERVER, done.stderr
    assert "no seat for 2" in done.stderr
    assert a_hub.servers("erin") == []


async def test_an_address_without_a_hub_is_an_error_before_the_first_run(a_hub: Hub) -> None:
    error = await refused(f"hub+http://127.0.0.1:{free_port()}/", "token", {})
    assert isinstance(error, ServerUnreachable)
    error = await refused(f"hub+{a_hub.url}user/alice/lab", a_hub.token, {})
    assert "is a server of a hub" in str(error)


async def test_the_limit_of_named_servers_makes_fewer_seats_and_not_an_error(
    a_hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    engine = HubEngine(EngineCall(f"hub+{a_hub.url}", Access(token=a_hub.token), {"user": "bob"}))
    async with engine.seats(2) as seats:
        seat = await anext(seats)
        another = asyncio.ensure_future(anext(seats))  # it waits until a seat is lost
        async with asyncio.timeout(30):
            while "maximum of 1 named servers" not in caplog.text:
                await asyncio.sleep(0.05)
        assert "going on with 1" in caplog.text
        error = await refused(f"hub+{a_hub.url}", a_hub.token, {"user": "bob"})
        assert isinstance(error, UsageError)
        assert "maximum of 1" in str(error)
        assert "-j" in error.hint
        assert a_hub.servers("bob") == [seat.name.partition("/")[2]]
        another.cancel()
        await asyncio.wait({another})
    assert a_hub.servers("bob") == []


@pytest.mark.slow
async def test_the_token_of_a_server_and_its_mark_are_renewed(
    a_hub: Hub, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nbrun.engines.hub, "RENEWED_EVERY", 0.3)

    def state() -> tuple[set[str], str]:
        tokens = a_hub.call("GET", f"users/{USER}/tokens")["api_tokens"]
        [server] = a_hub.call("GET", f"users/{USER}")["servers"].values()
        return {each["id"] for each in tokens if "nbrun:" in each["note"]}, server["last_activity"]

    engine = HubEngine(EngineCall(f"hub+{a_hub.url}", Access(token=token)))
    async with engine.seats(1) as seats:
        seat = await anext(seats)
        first, active = await asyncio.to_thread(state)
        later = nbrun.engines.hub.TOKEN_LIFETIME / 2 + 1
        monkeypatch.setattr("nbrun.engines.hub.time", SimpleNamespace(monotonic=lambda: time.monotonic() + later))
        async with asyncio.timeout(60):
            while (now := await asyncio.to_thread(state))[0] & first or len(now[0]) != 1 or now[1] <= active:
                await asyncio.sleep(0.2)
        assert (await seat.host.server.client.kernelspecs()).specs
    assert left_on(a_hub) == ([], [])


# Ends -----------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def live_on(a_hub: Hub, token: str, here: Path, *arguments: str) -> Iterator[LiveNbrun]:
    """Run ``nbrun run`` on a hub while the block is executed."""
    options = ["--engine", f"hub+{a_hub.url}", *arguments]
    with live_nbrun(*options, cwd=here, json_file=here / "result.json", env={"NBRUN_TOKEN": token}) as run:
        yield run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "word"),
    [
        ("spawning", "SIGINT"),
        ("running", "SIGTERM"),
        pytest.param("spawning", "SIGTERM", marks=pytest.mark.soak),
        pytest.param("running", "SIGINT", marks=pytest.mark.soak),
    ],
)
def test_after_a_signal_the_servers_are_deleted_and_the_partial_notebooks_are_saved(
    a_hub: Hub, token: str, here: Path, word: str, when: str
) -> None:
    for name in "abc":
        touch = f"from pathlib import Path; Path({str(here / name)!r}).touch()"
        write_notebook(here / f"{name}.ipynb", notebook("print('before')", f"{touch}\nimport time; time.sleep(600)"))
    with live_on(a_hub, token, here, ".", "-o", "out", "-j2") as run:
        while not (seats_of(a_hub) if when == "spawning" else (here / "a").exists() and (here / "b").exists()):
            pause(0.05)
            assert run.process.poll() is None, run.said()
        run.process.send_signal(getattr(signal, word))
        assert run.end(within=10) == (ExitCode.INTERRUPTED if word == "SIGINT" else ExitCode.TERMINATED), run.said()
    deadline = time.monotonic() + 5
    while left_on(a_hub) != ([], []) or seats_of(a_hub):
        assert time.monotonic() < deadline, left_on(a_hub)
        pause(0.1)
    for name in "ab" if when == "running" else "":
        assert read_notebook(here / "out" / f"{name}.ipynb")["cells"][0]["outputs"][0]["text"] == "before\n"


@pytest.mark.slow
@pytest.mark.soak
def test_a_killed_batch_is_resumed_beside_the_server_that_it_left(a_hub: Hub, token: str, tmp_path: Path) -> None:
    try:
        environment = {"NBRUN_TOKEN": token}
        check_resumed(tmp_path, 4, ["--engine", f"hub+{a_hub.url}"], env=environment, leaves=True)
        assert len(a_hub.servers()) == 1
    finally:
        for name in a_hub.servers():
            a_hub.call("DELETE", f"users/{USER}/servers/{name}", {"remove": True})


@pytest.mark.soak
async def test_a_server_that_a_killed_nbrun_left_is_deleted_once_it_is_idle(
    a_hub: Hub, token: str, here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nbrun.engines.hub, "LIFETIME", timedelta(0))
    monkeypatch.setattr(nbrun.engines.hub, "SECONDS_BETWEEN_LOOKS", 1.0)
    waits = f"import time\nfrom pathlib import Path\nPath({str(here / 'begun')!r}).touch()"
    waits += f"\nwhile not Path({str(here / 'go')!r}).exists():\n    time.sleep(0.05)"
    write_notebook(here / "a.ipynb", notebook(waits))
    write_notebook(here / "later.ipynb", notebook("import time; time.sleep(4)"))
    with live_on(a_hub, token, here, "a.ipynb") as run:
        run.await_file(here / "begun")
        run.process.kill()
        run.process.wait(10)
    [left] = left_on(a_hub)[0]
    options: Any = {"engine": f"hub+{a_hub.url}", "token": token, "save": False}
    result = await nbrun.run_async(here / "later.ipynb", **options)
    assert result.outcome is Outcome.PASSED
    assert left_on(a_hub)[0] == [left]  # its kernel is busy
    assert "is still used; it is kept" in caplog.text
    (here / "go").touch()
    await asyncio.sleep(1)  # until the kernel is idle
    result = await nbrun.run_async(here / "later.ipynb", **options)
    assert result.outcome is Outcome.PASSED
    assert left_on(a_hub) == ([], [])
    assert f"{left} was left by an nbrun that was killed; it is deleted" in caplog.text


def test_the_mark_of_a_server_expires_after_its_last_activity() -> None:
    now = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
    created = int((now - timedelta(hours=1)).timestamp())
    for name, active, is_expired in [
        (f"nbrun-{created:08x}-0123abcd", None, True),
        (f"nbrun-{created:08x}-0123abcd", now - timedelta(minutes=16), True),
        (f"nbrun-{created:08x}-0123abcd", now - timedelta(minutes=14), False),
        (f"nbrun-{int(now.timestamp()):08x}-0123abcd", None, False),
        ("nbrun-mine", None, False),
        ("nbrun", now - timedelta(days=9), False),
    ]:
        server = NamedServer(name, "", is_ready=True, pending="", started=None, last_activity=active)
        assert has_expired(server, now) is is_expired, name


@pytest.mark.soak
def test_a_hub_that_is_killed_ends_the_batch_and_the_deliveries_are_kept(tmp_path: Path, here: Path) -> None:
    write_notebook(here / "a.ipynb", notebook("print('a')"))
    begun = f"from pathlib import Path; Path({str(here / 'begun')!r}).touch()\nimport time; time.sleep(600)"
    write_notebook(here / "b.ipynb", notebook("print('before')", begun))
    write_notebook(here / "c.ipynb", notebook("print('c')"))
    with hub(tmp_path, started=False, config=CONFIG) as doomed:
        token = doomed.token_of()
        arguments = [".", "-o", "out", "-j1", "--startup-timeout", "30", "--events", str(here / "events")]
        with live_on(doomed, token, here, *arguments) as run:
            run.await_file(here / "begun")
            run.await_file(here / "events", words="before\\n")
            for process in psutil.Process(doomed.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            doomed.process.kill()
            began = time.monotonic()
            assert run.end(within=120) == ExitCode.SERVER, run.said()
            assert time.monotonic() - began < 100
            outcomes = [each["outcome"] for each in run.report()["runs"]]
    assert outcomes[0] == "passed"
    assert "passed" not in outcomes[1:]
    assert read_notebook(here / "out" / "a.ipynb")["cells"][0]["outputs"][0]["text"] == "a\n"
    assert read_notebook(here / "out" / "b.ipynb")["cells"][0]["outputs"][0]["text"] == "before\n"


@pytest.mark.soak
def test_when_only_the_hub_dies_the_batch_ends_and_the_deliveries_are_kept(tmp_path: Path, here: Path) -> None:
    """The servers go on behind the proxy, and refuse all requests once they have to ask the hub about a token."""
    forgets = '\nc.Spawner.args = ["--allow-root", "--HubOAuth.cache_max_age=1"]\n'
    begun, go = here / "begun", here / "go"
    waits = f"from pathlib import Path; import time\nPath({str(begun)!r}).touch()"
    waits += f"\nwhile not Path({str(go)!r}).exists():\n    time.sleep(0.02)\ntime.sleep(1.5)\nprint('after')"
    for name, cell in {"a": waits, "b": "print('b')", "c": "print('c')"}.items():
        write_notebook(here / f"{name}.ipynb", notebook(cell))
    with (
        hub(tmp_path, started=False, config=CONFIG + forgets) as doomed,
        live_on(doomed, doomed.token_of(), here, ".", "-o", "out", "--startup-timeout", "10") as run,
    ):
        run.await_file(begun)
        family = psutil.Process(doomed.process.pid).children(recursive=True)
        doomed.process.kill()
        doomed.process.wait(10)
        go.touch()
        began = time.monotonic()
        try:
            assert run.end(within=90) == ExitCode.SERVER, run.said()
            took = time.monotonic() - began
        finally:
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        said, outcomes = run.said(), [each["outcome"] for each in run.report()["runs"]]
    assert outcomes[0] == "passed"
    assert "passed" not in outcomes[1:]
    assert read_notebook(here / "out" / "a.ipynb")["cells"][0]["outputs"][0]["text"] == "after\n"
    assert "left on the hub" in said
    assert took < 60


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_servers_are_killed_at_random_moments_and_each_run_is_delivered_once(
    a_hub: Hub, token: str, here: Path
) -> None:
    """NBRUN_TESTS_RUNS is the number of notebooks, and there is one kill for each 30 of them."""
    number = int(os.environ.get("NBRUN_TESTS_RUNS", "60"))
    seed = random.randrange(1_000_000)
    chance, kills = random.Random(seed), number // 30
    log = here / "executed"
    write = f"import os\nfd = os.open({str(log)!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)"
    for index in range(number):
        cell = f"{write}\nos.write(fd, b'{index}\\n'); os.close(fd)\nimport time; time.sleep(0.2)"
        write_notebook(here / f"n{index:03}.ipynb", notebook(cell, f"print({index})"))
    events = here / "events.jsonl"
    arguments = [".", "-o", "out", "-j2", "--events", str(events), "--startup-timeout", "60"]
    killed: list[int] = []
    stopped = threading.Event()

    def kill_some() -> None:
        finished = 0  # until the run that lost its server has ended, because a second loss is its last one
        while len(killed) < kills and not stopped.wait(chance.uniform(1, 8)):
            seats = [seat for seat in seats_of(a_hub) if log.exists()]
            if seats and _finished(events) > finished:
                victim = chance.choice(seats)
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.kill()
                    killed.append(victim.pid)
                    finished = _finished(events) + number // (2 * kills)

    with live_on(a_hub, token, here, *arguments) as run:
        killer = threading.Thread(target=kill_some)
        killer.start()
        try:
            code = run.end(within=60 + 8 * number)
        finally:
            stopped.set()
            killer.join()
        runs = run.report()["runs"]
        failed = [each for each in runs if each["outcome"] != "passed"]
        assert code == ExitCode.OK, f"seed {seed}: {failed}\n{run.said()[-4000:]}"
    assert len(killed) == kills
    assert [each["outcome"] for each in runs] == ["passed"] * number
    for index in range(number):
        assert read_notebook(here / "out" / f"n{index:03}.ipynb")["cells"][1]["outputs"][0]["text"] == f"{index}\n"
    executed = log.read_text().split()
    again = {index: executed.count(str(index)) - 1 for index in range(number)}
    attempts = {index: run["attempts"] - 1 for index, run in enumerate(runs)}
    assert sum(again.values()) <= kills, f"seed {seed}: {again}"
    assert all(again[index] <= attempts[index] for index in range(number)), f"seed {seed}"
    assert _finished(events) == number  # each was delivered once
    assert left_on(a_hub) == ([], [])
    assert not seats_of(a_hub)


def _finished(events: Path) -> int:
    return events.read_text().count('"run-finished"') if events.exists() else 0


class _Home:
    """A home folder with one upload, from which nothing can be deleted as long as `is_full`."""

    is_full = True

    async def delete(self, path: str) -> None:
        if self.is_full:
            raise ServerError(f"{path}: the disk is full")

    async def directory(self, path: str) -> list[Any]:
        return [SimpleNamespace(name="a.ipynb")] if self.is_full else []


async def test_an_upload_of_a_lost_server_is_known_until_it_is_removed() -> None:
    nothing: Any = SimpleNamespace(call=None)
    seats = nbrun.engines.hub._Seats(nothing, nothing, nothing, USER, 2, nothing)
    home, lost, other = _Home(), nbrun.engines.hub._Seat("lost"), nbrun.engines.hub._Seat("other")
    other.client = SimpleNamespace(contents=home)  # type: ignore[assignment]
    lost.upload = "nbrun-1/a.ipynb"
    seats._seats["other"] = other
    await seats._close(lost)
    assert seats._left_uploads == ["nbrun-1/a.ipynb"]
    home.is_full = False
    await seats._remove_uploads()
    assert seats._left_uploads == []
