"""Azure by Azurite, Google's store by its emulator and by its XML API, and an S3 server that ignores conditions."""

import base64
import contextlib
import hashlib
import hmac
import json
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from email.utils import formatdate
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

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
    with web_store() as web:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", web.url)
        await keeps_the_rules(open_store("gs://reports/some/prefix"))


@contextlib.contextmanager
def google_by_emulator() -> Iterator[str]:
    """Run Google's emulator with the bucket ``reports`` behind a gateway; return the gateway's address.

    Of the XML API, which obstore uses, the emulator has GET, but neither PUT nor DELETE: it answers a PUT with "invalid
    uploadType" (fake-gcs-server issue 331). The gateway translates both into requests of the JSON API with the same
    condition, and adds the headers of the XML API to the answers.
    """
    (program,) = environment("object-stores").folder.glob("lib/python*/site-packages/**/fake-gcs-server-linux-*")
    port = free_port()
    place: list[str | Path] = ["-host", "127.0.0.1", "-port", str(port), "-public-host", f"127.0.0.1:{port}"]

    class Gateway(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._pass(self.command, self.path)

        do_HEAD = do_GET  # noqa: N815

        def do_DELETE(self) -> None:
            bucket, _, key = self.path[1:].partition("/")
            self._pass("DELETE", f"/storage/v1/b/{bucket}/o/{quote(unquote(key), safe='')}")

        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            bucket, _, key = self.path[1:].partition("/")
            about = json.dumps({"name": unquote(key), "contentType": self.headers["Content-Type"]}).encode()
            line = b"\r\n--8f1e\r\n"
            kinds = (b"Content-Type: application/json\r\n\r\n", b"Content-Type: application/octet-stream\r\n\r\n")
            body = line + kinds[0] + about + line + kinds[1] + data + b"\r\n--8f1e--"
            match = self.headers.get("x-goog-if-generation-match")
            condition = f"&ifGenerationMatch={match}" if match else ""
            path = f"/upload/storage/v1/b/{bucket}/o?uploadType=multipart{condition}"
            self._pass("POST", path, body, {"Content-Type": "multipart/related; boundary=8f1e"})

        def _pass(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
            passed = {"Range": self.headers["Range"]} if "Range" in self.headers else {}
            connection = HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request(method, path, body, {**passed, **(headers or {})})
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length", "date"):
                    self.send_header(name, value)
            if method == "POST" and answer.status == 200:
                stored = json.loads(content)
                self.send_header("ETag", stored["etag"])
                self.send_header("x-goog-generation", stored["generation"])
                content = b""
            length = answer.getheader("Content-Length", "0") if method == "HEAD" else len(content)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(content)
            connection.close()

    with running([program, "-scheme", "http", "-backend", "memory", *place], port) as address:
        made = json.dumps({"name": "reports"}).encode()
        request = urllib.request.Request(
            f"{address}/storage/v1/b?project=p", made, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=20).close()
        server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


async def test_google_s_emulator_stores_the_same_bytes_and_keeps_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    with google_by_emulator() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        store = open_store("gs://reports/some/prefix")
        await keeps_the_rules(store)
        content = bytes(range(256)) * 5000
        await store.put(ODD, content)
        path = f"/storage/v1/b/reports/o/{quote(f'some/prefix/{ODD}', safe='')}?alt=media"
        with urllib.request.urlopen(f"{address}{path}", timeout=20) as answer:  # by the other API
            assert answer.read() == content
        assert await store.keys() == [ODD]


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
