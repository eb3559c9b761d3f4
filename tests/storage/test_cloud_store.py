"""Azure by Azurite, Google's store by its emulator and by its XML API, and an S3 server that ignores conditions."""

import base64
import contextlib
import hashlib
import hmac
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from nbrun.errors import UsageError
from nbrun.storage.in_store import check_store
from nbrun.storage.object_store import (
    ConditionsIgnored,
    ObjectExists,
    ObjectStore,
    StoreError,
    VersionChanged,
    open_store,
)
from tests.support.environments import environment
from tests.support.servers import free_port
from tests.support.stores import web_store

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account of every Azurite, and its key, which is public."""
ODD = "a folder/é#b.ipynb"


@contextlib.contextmanager
def running(command: list[str | Path], port: int) -> Iterator[str]:
    """Run a server on this port for the length of a block; return its address."""
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"{command[0]} did not start"
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


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
    """The connection string of an Azurite with the container ``reports``."""
    program = environment("object-stores").node_programs / "azurite-blob"
    port, folder = free_port(), tmp_path_factory.mktemp("azurite")
    place: list[str | Path] = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", folder]
    with running([program, "--silent", "--skipApiVersionCheck", *place], port) as address:
        date, version = formatdate(usegmt=True), "2021-08-06"
        signed = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n/{ACCOUNT}/{ACCOUNT}/reports"
        signed += "\nrestype:container"
        signature = hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()
        headers = {"x-ms-date": date, "x-ms-version": version}
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}"
        url = f"{address}/{ACCOUNT}/reports?restype=container"
        urllib.request.urlopen(urllib.request.Request(url, headers=headers, method="PUT"), timeout=20).close()
        yield f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={address}/{ACCOUNT};"


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
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.replace(KEY, wrong))
    with pytest.raises(UsageError, match="refuses the credentials") as raised:
        await check_store("-o", "az://reports/x", guarded=True)
    assert wrong not in f"{raised.value} {raised.value.hint}"


async def test_google_s_xml_api_keeps_the_rules_by_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulator does not take the puts of this API."""
    with web_store() as web:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", web.url)
        await keeps_the_rules(open_store("gs://reports/some/prefix"))


async def test_an_object_of_google_s_emulator_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = environment("object-stores").folder.glob("lib/python*/site-packages/**/fake-gcs-server-linux-*")
    port = free_port()
    place: list[str | Path] = ["-host", "127.0.0.1", "-port", str(port), "-public-host", f"127.0.0.1:{port}"]
    with running([program, "-scheme", "http", "-backend", "memory", *place], port) as address:

        def post(path: str, body: bytes) -> None:
            headers = {"Content-Type": "application/json"}
            urllib.request.urlopen(urllib.request.Request(f"{address}{path}", body, headers), timeout=20).close()

        post("/storage/v1/b?project=p", json.dumps({"name": "reports"}).encode())
        post("/upload/storage/v1/b/reports/o?uploadType=media&name=in/nb.ipynb", b"{}")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"127.0.0.1:{port}")
        store = open_store("gs://reports/in")
        found = await store.get("nb.ipynb")
        assert found is not None
        assert found.data == b"{}"
        assert await store.get("none.ipynb") is None


async def test_an_s3_server_that_ignores_conditions_is_detected_and_left_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, port = environment("object-stores").node_programs / "s3rver", free_port()
    place: list[str | Path] = ["-d", tmp_path, "-a", "127.0.0.1", "-p", str(port), "--configure-bucket", "reports"]
    with running([program, *place], port) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "S3RVER")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        store = open_store("s3://reports/x")
        with pytest.raises(ConditionsIgnored):
            await store.check()
        assert await store.keys() == []


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
