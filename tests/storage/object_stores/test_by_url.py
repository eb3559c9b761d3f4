"""The rules that every object store keeps, on a folder, on S3 and on a web server; and what is special to folders."""

import asyncio
import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from nbrun.core.planning.destinations import is_store_url
from nbrun.errors import UsageError
from nbrun.publishing.reporter import reachable_store
from nbrun.storage.in_object_store import check_store
from nbrun.storage.object_stores import base
from nbrun.storage.object_stores.base import (
    ConditionsIgnored,
    ObjectExists,
    ObjectStore,
    StoreError,
    Unanswered,
    VersionChanged,
    content_type_of,
)
from nbrun.storage.object_stores.by_url import open_parent, open_store
from nbrun.storage.on_disk import write_notebook
from tests.support.notebooks import notebook
from tests.support.stores import SECRET, S3Server, ftp_server, s3_by_moto, web_store

ODD = "a folder/é#b%20{c}?.ipynb"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_by_moto() as server:
        yield server


@pytest.fixture
def aws(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    return s3


@pytest.fixture(params=["folder", "file-url", "s3", "web", "memory", "ftp"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    match request.param:
        case "folder":
            yield open_store(str(tmp_path / "store"))
        case "file-url":
            yield open_store((tmp_path / "a store").as_uri())
        case "s3":
            server = request.getfixturevalue("aws")
            yield open_store(f"s3://{server.bucket()}/some/prefix")
        case "memory":
            pytest.importorskip("fsspec")
            yield open_store(f"memory://{tmp_path.name}/store")
        case "ftp":
            with ftp_server(tmp_path) as url:
                yield open_store(f"{url}/some/store")
        case _:
            with web_store() as web:
                yield open_store(f"{web.url}/dav")


def has_conditions(store: ObjectStore) -> bool:
    return not store.url.startswith(("memory:", "ftp:"))


async def test_an_object_is_what_was_put(store: ObjectStore) -> None:
    assert await store.get(ODD) is None
    assert await store.stat(ODD) is None
    first = await store.put(ODD, b"one")
    found = await store.get(ODD)
    assert found is not None
    state = await store.stat(ODD)
    assert state is not None
    assert (found.data, found.version, state.version, state.size) == (b"one", first, first, 3)
    second = await store.put(ODD, b"")
    assert first != second
    found = await store.get(ODD)
    assert found is not None
    assert found.data == b""
    await store.delete(ODD)
    await store.delete(ODD)
    assert await store.get(ODD) is None


async def test_the_conditions_of_a_put_are_kept(store: ObjectStore) -> None:
    first = await store.put("x", b"one", only_new=True)
    with pytest.raises(ObjectExists):
        await store.put("x", b"two", only_new=True)
    second = await store.put("x", b"three", if_version=first)
    with pytest.raises(VersionChanged):
        await store.put("x", b"four", if_version=first)
    await store.put("x", b"five", if_version=second)
    found = await store.get("x")
    assert found is not None
    assert found.data == b"five"
    with pytest.raises(VersionChanged):
        await store.put("missing", b"six", if_version=second)


async def test_a_check_leaves_nothing(store: ObjectStore) -> None:
    await store.put("there", b"1")
    with nullcontext() if has_conditions(store) else pytest.raises(ConditionsIgnored, match="no conditional writes"):
        await store.check()
    if not store.url.startswith("http"):
        assert [key for key in await store.keys() if not key.startswith(".nbrun-lock")] == ["there"]


async def test_of_many_writers_of_a_new_object_one_wins(store: ObjectStore) -> None:
    if not has_conditions(store) or store.url.startswith("http"):
        pytest.skip("this store does not promise it")

    async def claim(number: int) -> bool:
        try:
            await store.put("lock", str(number).encode(), only_new=True)
        except ObjectExists:
            return False
        return True

    won = await asyncio.gather(*(claim(number) for number in range(20)))
    found = await store.get("lock")
    assert found is not None
    assert [number for number, has_won in enumerate(won) if has_won] == [int(found.data)]


async def test_keys_are_listed_by_their_beginning(store: ObjectStore) -> None:
    if store.url.startswith("http"):
        with pytest.raises(StoreError, match="cannot list"):
            await store.keys()
        return
    for key in ("a/1", "a/12", "a/b/3", "b"):
        await store.put(key, b"")
    assert await store.keys() == ["a/1", "a/12", "a/b/3", "b"]
    assert await store.keys("a/1") == ["a/1", "a/12"]
    assert await store.keys("a/b/") == ["a/b/3"]
    assert await store.keys("none/") == []


async def test_a_folder_holds_no_trace_of_puts(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    await store.put("a/b/c", b"1")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["c"]
    await store.delete("a/b/c")
    assert not (tmp_path / "a").exists()


async def test_a_folder_whose_lock_is_never_released_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "LIMIT", 0.1)
    store = open_store(str(tmp_path))
    with (tmp_path / ".nbrun-lock").open("w") as held:  # as by a process that was stopped
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Unanswered, match="the store did not answer within 0 s"):
            await store.put("x", b"1")
        assert await store.get("x") is None


async def test_an_object_in_a_folder_has_the_usual_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.delattr(os, "umask")  # it is the same for all threads, and asking for it means changing it
            await open_store(str(tmp_path)).put("x", b"1")
            write_notebook(tmp_path / "x.ipynb", notebook("1"))
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("x", "x.ipynb")] == [0o640, 0o640]


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a\0b"])
async def test_a_key_stays_in_its_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(StoreError, match="is not a key"):
        await open_store(str(tmp_path)).put(key, b"")


async def test_a_folder_that_is_a_file_is_found_by_the_check(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        await open_store(str(tmp_path / "file")).check()


async def _refused(url: str) -> StoreError:
    with pytest.raises(StoreError) as raised:
        await open_store(url).check()
    return raised.value


async def test_a_missing_bucket_and_a_dead_endpoint_are_found_by_the_check(
    aws: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert str(await _refused("s3://nowhere/reports")) == "s3://nowhere/reports: there is no such bucket"
    with pytest.raises(StoreError, match="no such bucket"):
        await open_store("s3://nowhere/reports").put("x", b"")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    error = await _refused("s3://nowhere/reports")
    assert str(error) == "s3://nowhere/reports: the store cannot be reached (connection refused)"
    assert "AWS_ENDPOINT_URL" in error.hint


async def test_a_store_that_ignores_conditions_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    with web_store(honours_conditions=False) as web:
        monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        with pytest.raises(ConditionsIgnored):
            await open_store("s3://bucket/reports").check()


async def test_a_web_server_is_asked_with_the_query_and_the_password_of_the_url() -> None:
    with web_store() as web:
        url = web.url.replace("//", "//me:pa%40ss@")
        store = open_store(f"{url}/dav?sig=abc")
        await store.put("x.html", b"page")
        assert web.requests == ["PUT /dav/x.html?sig=abc Basic bWU6cGFAc3M="]
        assert store.url == f"{web.url}/dav"


async def test_folders_of_a_webdav_server_are_created_for_many_objects_at_once() -> None:
    with web_store(folders={"", "/dav"}) as web:
        store = open_store(f"{web.url}/dav/site")
        names = [f"a b/{number}.html" for number in range(8)]
        await asyncio.gather(*(store.put(name, b"page", only_new=True) for name in names))
        assert sorted(web.objects) == [f"/dav/site/a%20b/{number}.html" for number in range(8)]
        with pytest.raises(ObjectExists):
            await store.put(names[0], b"page", only_new=True)


async def test_a_conflict_that_is_not_about_folders_is_reported() -> None:
    with web_store(folders=set()) as web, pytest.raises(StoreError, match="the server answered HTTP 409 Conflict"):
        await open_store(f"{web.url}/dav").put("x", b"page")


async def test_a_put_is_never_redirected() -> None:
    with web_store() as target, web_store(redirect_to=f"{target.url}/x") as web:
        with pytest.raises(StoreError, match="redirects to another address"):
            await open_store(web.url).put("x", b"secret")
        assert target.requests == []
        target.objects["/x"] = b"found"
        found = await open_store(web.url).get("x")
        assert found is not None
        assert found.data == b"found"


async def test_refused_credentials_are_found_by_the_check() -> None:
    with web_store(password="Basic something") as web:
        error = await _refused(web.url.replace("//", f"//me:{SECRET}@"))
        assert "refuses the credentials (HTTP 401" in str(error)
        assert SECRET not in f"{error} {error.hint}"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3:///x", "names no bucket"),
        ("https://", "names no host"),
        ("https://host:port/", "not a valid URL"),
    ],
)
def test_a_url_that_names_no_store_is_refused(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_store(url)


@pytest.mark.parametrize(
    ("url", "parent", "name"),
    [
        ("s3://bucket/a/b c#?.ipynb", "s3://bucket/a", "b c#?.ipynb"),
        ("s3://bucket/x", "s3://bucket", "x"),
        ("https://me:pw@host/a/x%20y.html?sig=1", "https://host/a/", "x y.html"),
    ],
)
def test_the_url_of_an_object_is_a_store_and_a_key(url: str, parent: str, name: str) -> None:
    store, key = open_parent(url)
    assert (store.url, key) == (parent, name)


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/", "https://host", "https://host/a/"])
def test_a_url_without_a_name_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="names no object"):
        open_parent(url)


def test_media_types_follow_from_the_name() -> None:
    kinds = ["x.ipynb", "x.html", "x.pdf", "x.json", "x.unknown-kind"]
    assert [content_type_of(name) for name in kinds] == [
        "application/x-ipynb+json",
        "text/html; charset=utf-8",
        "application/pdf",
        "application/json",
        "application/octet-stream",
    ]


def test_urls_and_paths_are_told_apart() -> None:
    texts: dict[str, Any] = {
        "s3://b/x": True,
        "HTTPS://h/x": True,
        "out/x": False,
        "C:/x": False,
        "ftp://x/y": True,
        "file:///x": False,
    }
    assert {text: is_store_url(text) for text in texts} == texts


async def test_fsspec_replaces_whole_objects_and_shows_no_password(tmp_path: Path) -> None:
    with ftp_server(tmp_path) as url:
        store = open_store(f"{url}/reports")
        assert "@" not in store.url
        await store.put("a/x.html", b"one")
        await store.put("a/x.html", b"two" * 100_000)
        assert [path.name for path in (tmp_path / "reports" / "a").iterdir()] == ["x.html"]
        assert (tmp_path / "reports" / "a" / "x.html").read_bytes() == b"two" * 100_000
        wrong = open_store(url.replace(SECRET, "wr0ng-passw0rd"))
        with pytest.raises(StoreError, match="the store failed") as refused:
            await wrong.check()
        assert "wr0ng" not in f"{refused.value} {refused.value.hint}"
    with pytest.raises(StoreError, match="the store failed"):
        await store.get("a/x.html")
    with pytest.raises(StoreError, match="Connection refused"):
        await store.put("a/x.html", b"three")


async def test_a_store_without_conditions_takes_reports_and_with_force_notebooks(tmp_path: Path) -> None:
    with ftp_server(tmp_path) as url:
        await check_store("--json", f"{url}/r.json", guarded=False)
        with pytest.raises(UsageError, match=r"-o ftp://.*has no conditional writes") as refused:
            await check_store("-o", f"{url}/x.ipynb", guarded=True)
        assert "--force" in refused.value.hint
        with pytest.raises(UsageError, match=r"--publish: ftp://.*has no conditional writes"):
            await asyncio.to_thread(reachable_store, url)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("url", "message"),
    [("foo://host/x", "nbrun knows no store foo://"), ("webdav://ann:pw@host/x", "webdav:// needs webdav4")],
)
def test_a_scheme_that_fsspec_cannot_open_is_refused(url: str, message: str) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(UsageError, match=message) as refused:
        open_store(url)
    assert "pw" not in str(refused.value)


async def test_a_scheme_that_needs_more_than_a_url_is_refused_by_the_check() -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(UsageError, match="dir://host/x: dir:// cannot be opened with a URL alone") as refused:
        await asyncio.to_thread(reachable_store, "dir://ann:pw@host/x")
    assert "https://HOST/NAME" in refused.value.hint
    assert "pw" not in str(refused.value)


async def test_errors_of_packages_count_by_their_numbers() -> None:
    """Those of smbprotocol have numbers, and are not Python's own classes for them."""
    fsspec = pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    class OddError(OSError):
        pass

    class Odd(MemoryFileSystem):  # type: ignore[misc]
        protocol = "odd"
        store: dict[str, Any] = {}  # noqa: RUF012
        pseudo_dirs = [""]  # noqa: RUF012

        def info(self, path: str, **given: Any) -> Any:
            try:
                return super().info(path, **given)
            except FileNotFoundError:
                raise OddError(errno.ENOENT, "No such file") from None

        def mv(self, path1: str, path2: str, **given: Any) -> None:
            if self.exists(path2):
                raise OddError(errno.EEXIST, "File exists")
            super().mv(path1, path2, **given)

    fsspec.register_implementation("odd", Odd, clobber=True)
    store = open_store("odd://x/reports")
    assert await store.get("a") is None
    await store.put("a", b"one")
    await store.put("a", b"two")
    found = await store.get("a")
    assert found is not None
    assert found.data == b"two"
    with pytest.raises(ConditionsIgnored):
        await store.check()


def test_fsspec_is_named_if_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.delitem(sys.modules, "nbrun.storage.object_stores.with_fsspec", raising=False)
    with pytest.raises(UsageError, match="sftp:// needs fsspec") as refused:
        open_store("sftp://ann:pw@host/x")
    assert "pip install fsspec" in refused.value.hint
    assert "pw" not in str(refused.value)
