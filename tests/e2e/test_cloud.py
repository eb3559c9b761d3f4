"""Runs whose notebooks and reports are in object stores."""

import asyncio
import json
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import nbrun
from nbrun.core.events import CellFinished, Event
from nbrun.core.results import Outcome
from nbrun.errors import ExitCode, UsageError
from nbrun.storage.object_stores.by_url import open_store
from tests.support.notebooks import notebook, run_nbrun, write_notebook
from tests.support.stores import (
    SECRET,
    S3Server,
    azure_by_azurite,
    faulty,
    google_by_emulator,
    s3_by_moto,
    web_store,
)

REPORTS = ("--json", "--junit", "--events", "--html")


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_by_moto() as server:
        yield server


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: S3Server) -> Path:
    """The current folder, with a notebook in it, and the environment for S3."""
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "in.ipynb", notebook("print('ran')"))
    return tmp_path


@dataclass
class Emulator:
    """A running store: the URL of its bucket, the URL of a bucket that it does not have, and what ends it."""

    url: str
    missing: str
    end: Callable[[], None]


@pytest.fixture(params=["s3", "az", "gs"])
def emulator(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Emulator]:
    """A store of each kind, for one test."""
    match request.param:
        case "s3":
            with s3_by_moto() as s3:
                for name, value in s3.env.items():
                    monkeypatch.setenv(name, value)
                yield Emulator(f"s3://{s3.bucket()}", "s3://no-such-bucket", s3.stop)
        case "az":
            with azure_by_azurite(tmp_path_factory.mktemp("azurite")) as azurite:
                monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection)
                yield Emulator("az://reports", "az://no-such-container", azurite.process.kill)
        case _:
            with google_by_emulator() as google:
                monkeypatch.setenv("STORAGE_EMULATOR_HOST", google.address)
                yield Emulator("gs://reports", "gs://no-such-bucket", google.process.kill)


async def test_a_stored_notebook_has_the_bytes_of_a_local_one_and_a_dead_store_costs_no_result(
    here: Path, emulator: Emulator
) -> None:
    options: dict[str, Any] = {"record_timing": False, "parameters": {"day": 7}}

    def observe(event: Event) -> None:
        if isinstance(event, CellFinished):
            emulator.end()

    async with nbrun.private_server(here) as server:
        await server.run("in.ipynb", output="local.ipynb", **options)
        result = await server.run("in.ipynb", output=f"{emulator.url}/a b/x.ipynb", **options)
        assert result.output == f"{emulator.url}/a b/x.ipynb"
        stored = await open_store(emulator.url).get("a b/x.ipynb")
        assert stored is not None
        assert stored.data == (here / "local.ipynb").read_bytes()
        with pytest.raises(UsageError, match="there is no such"):
            await server.run("in.ipynb", output=f"{emulator.missing}/x.ipynb")
        result = await server.run("in.ipynb", output=f"{emulator.url}/y.ipynb", observe=observe)
        assert (result.outcome, result.exit_code) == (Outcome.SERVER_FAILED, ExitCode.SERVER)
        assert result.output is not None
        assert "ran" in Path(result.output).read_text()
        with pytest.raises(UsageError, match="cannot be written"):
            await server.run("in.ipynb", output=f"{emulator.url}/y.ipynb")


def everything(base: str) -> list[str]:
    """Return options that write a notebook and all reports below a URL."""
    names = {"-o": "out/{stem}-{params.day}.ipynb", "--json": "r.json", "--junit": "r.xml", "--events": "e.jsonl"}
    given = [part for option, name in names.items() for part in (option, f"{base}/{name}")]
    return [*given, "--html", f"{base}/site", "-p", "day", "7"]


def test_a_notebook_and_its_reports_go_into_a_store_and_nothing_else_does(here: Path, s3: S3Server) -> None:
    bucket = s3.bucket()
    done = run_nbrun("run", "in.ipynb", "-vv", *everything(f"s3://{bucket}/n"), cwd=here)
    assert done.returncode == 0, done.stderr
    assert f"saved in s3://{bucket}/n/out/in-7.ipynb" in done.stderr
    keys = s3.keys(bucket)
    assert keys == [
        "n/e.jsonl", "n/out/in-7.ipynb", "n/r.json", "n/r.xml", "n/site/in.html", "n/site/index.html",
    ]  # fmt: skip
    assert json.loads(s3.read(bucket, "n/r.json"))["output"] == f"s3://{bucket}/n/out/in-7.ipynb"
    assert [path.name for path in here.iterdir()] == ["in.ipynb"]
    written = [s3.read(bucket, key).decode() for key in keys]
    assert SECRET not in "".join([*written, done.stdout, done.stderr])


def test_a_password_of_a_url_is_nowhere(here: Path) -> None:
    with web_store() as web:
        base = f"{web.url}/dav".replace("//", f"//me:{SECRET}@")
        web.objects["/dav/p.yaml"] = b"day: 7"
        web.objects["/dav/in.ipynb"] = (here / "in.ipynb").read_bytes()
        paths = ["--inject-output-path", "--allow-new", "--trace", "trace.jsonl", "-f", f"{base}/p.yaml"]
        done = run_nbrun("run", f"{base}/in.ipynb", "-vv", *paths, *everything(base)[:-3], cwd=here)
        assert done.returncode == 0, done.stderr
        assert "/dav/out/in-7.ipynb" in web.objects
        assert "/dav/site/index.html" in web.objects
        written = b"".join([*web.objects.values(), *(path.read_bytes() for path in here.iterdir() if path.is_file())])
        assert SECRET not in written.decode() + done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [("-o", "s3://no-bucket/x.ipynb"), ("--no-save", "--json", "s3://no-bucket/x")])
def test_a_missing_bucket_is_found_before_the_first_cell(arguments: tuple[str, ...], here: Path) -> None:
    write_notebook(here / "in.ipynb", notebook("open('ran', 'w')"))
    done = run_nbrun("run", "in.ipynb", *arguments, cwd=here)
    assert done.returncode == ExitCode.USAGE
    assert "cannot be written: there is no such bucket" in done.stderr
    assert [path.name for path in here.iterdir()] == ["in.ipynb"]


def test_a_dead_endpoint_is_found_before_the_first_cell(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    done = run_nbrun("run", "in.ipynb", "-o", "s3://bucket/x.ipynb", cwd=here, timeout=60)
    assert done.returncode == ExitCode.USAGE
    assert "cannot be reached (connection refused)" in done.stderr


async def test_a_store_that_dies_during_the_run_gets_no_part_and_leaves_a_rescue_file(
    here: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket()
    write_notebook(here / "in.ipynb", notebook("print('x' * 400_000)"))
    async with faulty(s3.endpoint) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)

        def observe(event: Event) -> None:
            if isinstance(event, CellFinished):
                wire.reset_above = 100_000

        result = await nbrun.run_async("in.ipynb", output=f"s3://{bucket}/x.ipynb", observe=observe)
    assert result.outcome is Outcome.SERVER_FAILED
    assert result.exit_code == ExitCode.SERVER
    assert result.problem is not None
    assert result.problem.message.startswith(f"s3://{bucket}/x.ipynb: not saved: ")
    assert result.output is not None
    rescued = Path(result.output)
    assert rescued.parent == here
    assert stat.S_IMODE(rescued.stat().st_mode) == 0o600
    assert "x" * 400_000 in rescued.read_text()
    assert s3.keys(bucket) == []


async def test_a_report_that_cannot_be_put_is_kept_and_changes_the_exit_code(
    here: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket()
    async with faulty(s3.endpoint) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        wire.drop("PUT", f"{bucket}/r.json", times=100)
        options = ["--json", f"s3://{bucket}/r.json", "--junit", f"s3://{bucket}/r.xml", "--no-save"]
        done = await asyncio.to_thread(run_nbrun, "run", "in.ipynb", *options, cwd=here)
    assert done.returncode == ExitCode.SERVER, done.stderr
    (rescued,) = here.glob("r.rescued-*.json")
    assert f"s3://{bucket}/r.json could not be written: " in done.stderr
    assert str(rescued) in done.stderr
    assert stat.S_IMODE(rescued.stat().st_mode) == 0o600
    assert json.loads(rescued.read_text())["outcome"] == "passed"
    assert s3.keys(bucket) == ["r.xml"]


async def test_a_notebook_in_a_store_is_run_in_place_unless_somebody_changes_it(here: Path, s3: S3Server) -> None:
    bucket = s3.bucket()
    url = f"s3://{bucket}/a folder/in.ipynb"
    content = (here / "in.ipynb").read_bytes()
    s3.client.put_object(Bucket=bucket, Key="a folder/in.ipynb", Body=content)
    result = await nbrun.run_async(url)
    assert (result.path, result.output, result.outcome) == (url, url, Outcome.PASSED)
    assert b"ran" in s3.read(bucket, "a folder/in.ipynb")

    def observe(event: Event) -> None:
        if isinstance(event, CellFinished):
            s3.client.put_object(Bucket=bucket, Key="a folder/in.ipynb", Body=b"theirs")

    result = await nbrun.run_async(url, observe=observe, on_conflict="beside")
    assert result.output == f"s3://{bucket}/a folder/in-nbrun.ipynb"
    assert s3.read(bucket, "a folder/in.ipynb") == b"theirs"


async def test_many_notebooks_go_into_a_folder_of_a_store(here: Path, s3: S3Server) -> None:
    bucket = s3.bucket()
    write_notebook(here / "sub" / "other.ipynb", notebook("1"))
    s3.client.put_object(Bucket=bucket, Key="in/third.ipynb", Body=(here / "in.ipynb").read_bytes())
    named = ["in.ipynb", "sub", f"s3://{bucket}/in/third.ipynb"]
    batch = await nbrun.run_many_async(named, output=f"s3://{bucket}/out")
    assert batch.exit_code == 0
    assert s3.keys(bucket) == ["in/third.ipynb", "out/in.ipynb", "out/sub/other.ipynb", "out/third.ipynb"]
    with pytest.raises(UsageError, match="would both write"):
        await nbrun.run_many_async(["in.ipynb", "sub"], output=f"s3://{bucket}/x.ipynb")


async def test_a_notebook_is_prepared_and_planned_in_a_store(here: Path, s3: S3Server) -> None:
    bucket = s3.bucket()
    url = f"s3://{bucket}/in.ipynb"
    s3.client.put_object(Bucket=bucket, Key="in.ipynb", Body=(here / "in.ipynb").read_bytes())
    result = await nbrun.run_async(url, output=f"s3://{bucket}/out.ipynb", prepare_only=True, parameters={"day": 9})
    assert result.output == f"s3://{bucket}/out.ipynb"
    assert b"day = 9" in s3.read(bucket, "out.ipynb")
    done = await asyncio.to_thread(run_nbrun, "plan", url, "-p", "day", "8", cwd=here)
    assert (done.returncode, f"notebook    {url}" in done.stdout) == (0, True), done.stderr


async def test_a_server_that_stays_open_saves_in_a_store(here: Path, s3: S3Server) -> None:
    bucket = s3.bucket()
    async with nbrun.private_server(here) as server:
        result = await server.run("in.ipynb", output=f"s3://{bucket}/x.ipynb")
        assert result.output == f"s3://{bucket}/x.ipynb"
        with pytest.raises(UsageError, match="no such bucket"):
            await server.run("in.ipynb", output="s3://no-bucket/x.ipynb")
        with pytest.raises(UsageError, match="cannot read from s3"):
            await server.run(f"s3://{bucket}/x.ipynb")
    assert s3.keys(bucket) == ["x.ipynb"]
    assert [path.name for path in here.iterdir()] == ["in.ipynb"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("in.ipynb", "-o", "s3://bucket/x.ipynb", "--cache", "c"), "the cache is for notebooks of this machine"),
        (("in.ipynb", "--no-save", "--json", "s3://b/x", "--junit", "s3://b/x"), "name the same object, s3://b/x"),
        (("in.ipynb", "--no-save", "--json", "s3://b/x.ipynb"), "a report does not go into a notebook"),
        (("in.ipynb", "--no-save", "--stdout-file", "s3://b/x"), "cannot write to s3://"),
    ],
)
def test_what_stores_cannot_hold_is_refused(arguments: tuple[str, ...], message: str, here: Path) -> None:
    done = run_nbrun("run", *arguments, cwd=here)
    assert (done.returncode, message in done.stderr) == (ExitCode.USAGE, True), done.stderr


def test_the_missing_extra_is_named(here: Path) -> None:
    (here / "obstore.py").write_text("raise ModuleNotFoundError('No module named obstore', name='obstore')")
    done = run_nbrun("run", "in.ipynb", "-o", "gs://bucket/x.ipynb", cwd=here, env={"PYTHONPATH": str(here)})
    assert done.returncode == ExitCode.USAGE
    assert "-o gs://bucket: gs:// needs obstore" in done.stderr
    assert "pip install 'jupyter-nbrun[cloud]'" in done.stderr
