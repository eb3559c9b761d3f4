"""Azure by Azurite, Google's store by its emulator and by its XML API, and an S3 server that ignores conditions."""

import asyncio
import base64
import importlib.util
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from nbrun.errors import UsageError
from nbrun.publishing.reporter import reachable_store
from nbrun.storage.in_object_store import check_store
from nbrun.storage.object_stores.base import ConditionsIgnored, ObjectExists, ObjectStore, StoreError, VersionChanged
from nbrun.storage.object_stores.by_url import open_store
from tests.support.environments import environment
from tests.support.servers import free_port
from tests.support.stores import AZURE_KEY, azure_by_azurite, google_by_emulator, running, web_store

ODD = "a folder/é#b.ipynb"


async def keeps_the_rules(store: ObjectStore) -> None:
    """Check what every store does."""
    await store.check()
    first = await store.put(ODD, b"one", only_new=True)
    with pytest.raises(ObjectExists):
        await store.put(ODD, b"two", only_new=True)
    state = await store.stat(ODD)
    assert state is not None
    assert (state.version, state.size) == (first, 3)
    second = await store.put(ODD, b"two", if_version=first)
    with pytest.raises(VersionChanged):
        await store.put(ODD, b"three", if_version=first)
    found = await store.get(ODD)
    assert found is not None
    assert (found.data, found.version) == (b"two", second)
    await store.delete(ODD)
    await store.delete(ODD)
    assert await store.get(ODD) is None
    with pytest.raises(VersionChanged):
        await store.put(ODD, b"three", if_version=second)


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with azure_by_azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server.connection


async def test_azure_keeps_the_rules(azurite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite)
    store = open_store("az://reports/some/prefix")
    await keeps_the_rules(store)
    await store.put("a/1", b"")
    await store.put("a/2", b"")
    assert await store.keys("a/") == ["a/1", "a/2"]
    with pytest.raises(StoreError, match="there is no such container"):
        await open_store("az://nowhere/x").check()


async def test_a_wrong_key_of_azure_is_named_and_not_shown(azurite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = base64.b64encode(b"another key").decode()
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.replace(AZURE_KEY, wrong))
    with pytest.raises(UsageError, match="refuses the credentials") as raised:
        await check_store("-o", "az://reports/x", guarded=True)
    assert wrong not in f"{raised.value} {raised.value.hint}"


async def test_google_s_xml_api_keeps_the_rules_by_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    with web_store() as web:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", web.url)
        await keeps_the_rules(open_store("gs://reports/some/prefix"))


async def test_google_s_emulator_stores_the_same_bytes_and_keeps_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    with google_by_emulator() as google:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", google.address)
        store = open_store("gs://reports/some/prefix")
        await keeps_the_rules(store)
        content = bytes(range(256)) * 5000
        await store.put(ODD, content)
        path = f"/storage/v1/b/reports/o/{quote(f'some/prefix/{ODD}', safe='')}?alt=media"
        with urllib.request.urlopen(f"{google.address}{path}", timeout=20) as answer:  # by the other API
            assert answer.read() == content
        assert await store.keys() == [ODD]
        nowhere = open_store("gs://nowhere/x")
        for request in (nowhere.check(), nowhere.put("y", b""), nowhere.put("y", b"", if_version="1")):
            with pytest.raises(StoreError, match=r"^gs://nowhere/x: there is no such bucket$"):
                await request


async def test_an_s3_server_that_ignores_conditions_is_detected_and_left_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, port = environment("object-stores").node_programs / "s3rver", free_port()
    place: list[str | Path] = ["-d", tmp_path, "-a", "127.0.0.1", "-p", str(port), "--configure-bucket", "reports"]
    with running([program, *place], port):
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "S3RVER")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        store = open_store("s3://reports/x")
        with pytest.raises(ConditionsIgnored):
            await store.check()
        assert await store.keys() == []
        with pytest.raises(UsageError, match=r"--publish: s3://reports/x: the store ignores conditions"):
            await asyncio.to_thread(reachable_store, "s3://reports/x")


async def test_a_profile_of_aws_provides_the_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text("[nightly]\naws_access_key_id = FROMPROFILE\naws_secret_access_key = x\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_PROFILE", "nightly")
    with web_store() as web:
        monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
        await open_store("s3://reports").put("x", b"")
    assert "Credential=FROMPROFILE/" in web.requests[-1]
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with pytest.raises(UsageError, match="AWS_PROFILE=no-such-profile"):
        open_store("s3://reports")


def test_a_profile_without_boto3_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_PROFILE", "nightly")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="s3://reports: AWS_PROFILE needs boto3") as refused:
        open_store("s3://reports")
    assert "pip install boto3" in refused.value.hint


LAST = """
import asyncio, sys
from nbrun.storage.object_stores.by_url import open_store
asyncio.run(open_store(sys.argv[1]).stat("x"))
"""


def test_a_process_that_ends_directly_after_a_request_has_its_own_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """With obstore's functions for asyncio, two of three such processes end with SIGABRT."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with web_store() as web:
        monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
        web.objects["/reports/x"] = b""
        processes = [subprocess.Popen([sys.executable, "-c", LAST, "s3://reports"]) for _ in range(6)]
        assert [process.wait(60) for process in processes] == [0] * 6
