"""Notebooks in object stores: the bytes, the rule for concurrent edits, and stores that fail."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbrun.core.planning.job import OnConflict
from nbrun.errors import NoSuchNotebook, NotANotebook, SaveFailed, UsageError
from nbrun.jupyter.http.retry import ONCE
from nbrun.storage.conflicts import GuardedTarget
from nbrun.storage.in_object_store import StoreFile, check_store, fetch, put_notebook
from nbrun.storage.object_stores.base import StoreError, Unanswered
from nbrun.storage.object_stores.by_url import open_parent, open_store
from nbrun.storage.on_disk import DiskFile
from tests.support.notebooks import code, notebook, stdout
from tests.support.stores import SECRET, S3Server, faulty, s3_by_moto, web_store

OLD = notebook(code("6 * 7", outputs=[stdout("old")]))
NEW = notebook(code("6 * 7", outputs=[stdout("42 é😀")]))


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_by_moto() as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    return s3.bucket()


def stored(url: str) -> StoreFile:
    return StoreFile(*open_parent(url))


async def test_an_object_has_the_bytes_of_the_local_file(s3: S3Server, bucket: str, tmp_path: Path) -> None:
    written = await stored(f"s3://{bucket}/a/nb.ipynb").write(NEW, None)
    assert written is not None
    assert written.created
    await DiskFile(tmp_path / "nb.ipynb").write(NEW, None)
    assert s3.read(bucket, "a/nb.ipynb") == (tmp_path / "nb.ipynb").read_bytes()
    head = s3.client.head_object(Bucket=bucket, Key="a/nb.ipynb")
    assert head["ContentType"] == "application/x-ipynb+json"


async def test_a_write_over_a_changed_object_is_refused(s3: S3Server, bucket: str) -> None:
    file = stored(f"s3://{bucket}/nb.ipynb")
    assert await file.stat() is None
    await file.write(OLD, None)
    assert await file.write(NEW, None) is None
    before = await file.stat()
    s3.client.put_object(Bucket=bucket, Key="nb.ipynb", Body=b"theirs")
    assert await file.write(NEW, before) is None
    assert (await file.read())[0] == b"theirs"
    assert file.beside("-nbrun").name == f"s3://{bucket}/nb-nbrun.ipynb"


async def test_the_conflict_rule_is_the_one_of_files(s3: S3Server, bucket: str) -> None:
    warnings: list[str] = []
    file = stored(f"s3://{bucket}/nb.ipynb")
    await file.write(OLD, None)
    target = GuardedTarget(file, warn=warnings.append, on_conflict=OnConflict.BESIDE)
    target.loaded(OLD, await file.stat())
    s3.client.put_object(Bucket=bucket, Key="nb.ipynb", Body=b"theirs")
    assert await target.save(NEW, ONCE) == f"s3://{bucket}/nb-nbrun.ipynb"
    assert s3.read(bucket, "nb.ipynb") == b"theirs"
    assert "changed by somebody else" in warnings[0]


async def test_a_prepared_notebook_does_not_replace_a_changed_object(bucket: str) -> None:
    url = f"s3://{bucket}/nb.ipynb"
    assert await put_notebook(url, OLD, "") == url
    version = (await fetch(url)).version
    await put_notebook(url, NEW, version)
    with pytest.raises(SaveFailed, match="somebody else changed it"):
        await put_notebook(url, OLD, version)


async def test_a_cut_put_leaves_no_object(s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with faulty(s3.endpoint) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        store = open_store(f"s3://{bucket}")
        wire.reset_above = 100_000
        with pytest.raises(Unanswered, match="cannot be reached"):
            await store.put("x", b"1" * 1_000_000, only_new=True)
    assert s3.keys(bucket) == []


async def test_a_put_whose_answer_is_lost_has_arrived(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with faulty(s3.endpoint) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        wire.drop("PUT", forward=True)
        version = await open_store(f"s3://{bucket}").put("x", b"1", only_new=True)
        assert wire.lines("PUT") == [f"PUT /{bucket}/x"]
    assert s3.client.head_object(Bucket=bucket, Key="x")["ETag"] == version


async def test_a_store_that_does_not_answer_is_given_up(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.storage.object_stores.base.LIMIT", 0.3)
    async with faulty(s3.endpoint) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        wire.black_hole = True
        async with asyncio.timeout(60):
            with pytest.raises(UsageError, match="did not answer within"):
                await check_store("-o", f"s3://{bucket}/x", guarded=True)


async def test_refused_credentials_are_named_and_not_shown(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with faulty(s3.endpoint) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        body = f"<Error><Code>SignatureDoesNotMatch</Code><Message>{SECRET}</Message></Error>".encode()
        wire.answer(403, body=body)
        with pytest.raises(UsageError) as raised:
            await check_store("--json", f"s3://{bucket}/x", guarded=False)
    assert str(raised.value) == (
        f"--json s3://{bucket}/x: cannot be written: the store refuses the credentials (HTTP 403 SignatureDoesNotMatch)"
    )
    assert SECRET not in raised.value.hint


async def test_a_store_that_ignores_conditions_takes_notebooks_with_force_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with web_store(honours_conditions=False) as web:
        monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        with pytest.raises(UsageError, match="ignores conditions") as raised:
            await check_store("-o", "s3://bucket/x", guarded=True)
        assert "--force" in raised.value.hint
        await check_store("-o", "s3://bucket/x", guarded=False)


async def test_a_notebook_is_read_from_a_url(s3: S3Server, bucket: str) -> None:
    s3.client.put_object(Bucket=bucket, Key="in.ipynb", Body=b"{}")
    found = await fetch(f"s3://{bucket}/in.ipynb")
    assert found.data == b"{}"
    with pytest.raises(NoSuchNotebook, match=f"s3://{bucket}/none.ipynb: there is no such notebook"):
        await fetch(f"s3://{bucket}/none.ipynb")
    with pytest.raises(UsageError, match="no such bucket"):
        await fetch("s3://not-a-bucket/none.ipynb")


async def test_a_web_page_is_not_taken_for_a_notebook() -> None:
    objects = {"/lab/tree/x.ipynb": b"\n<!DOCTYPE html>"}
    with web_store(objects=objects) as web, pytest.raises(NotANotebook, match="a web page") as raised:
        await fetch(f"{web.url}/lab/tree/x.ipynb")
    assert "--server" in raised.value.hint


async def test_a_server_that_shows_nothing_is_believed_that_it_took_a_notebook() -> None:
    with web_store(shows_nothing=True) as web:
        target = GuardedTarget(stored(f"{web.url}/nb.ipynb?sig=x"), warn=print, on_conflict=OnConflict.MERGE)
        target.loaded(OLD, None)
        assert await target.save(NEW, ONCE) == f"{web.url}/nb.ipynb"
        assert list(web.objects) == ["/nb.ipynb"]


async def test_a_dead_store_does_not_take_a_notebook(monkeypatch: pytest.MonkeyPatch, bucket: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StoreError, match="connection refused"):
        await stored(f"s3://{bucket}/x.ipynb").write(NEW, None)
