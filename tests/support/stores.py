"""Object stores on this machine: S3 by moto, and a web server that takes PUT."""

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
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote, urlsplit

import pytest

from tests.support.environments import environment
from tests.support.proxy import Proxy
from tests.support.servers import RunningServer, free_port

SECRET = "cl0udS3cret"
"""The secret key of the S3 server, which must not appear anywhere."""


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running S3 server, and the environment with which a client finds it."""

    endpoint: str
    env: dict[str, str]
    client: Any
    """boto3's client, which checks what nbrun stored."""
    stop: Callable[[], None]
    """Ends the server."""

    def bucket(self) -> str:
        """Create a new bucket and return its name."""
        name = f"reports-{uuid.uuid4().hex[:8]}"
        self.client.create_bucket(Bucket=name)
        return name

    def read(self, bucket: str, key: str) -> bytes:
        """Return the content of an object."""
        content: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    def keys(self, bucket: str) -> list[str]:
        """Return the keys of a bucket."""
        return [each["Key"] for each in self.client.list_objects_v2(Bucket=bucket).get("Contents", [])]


def aws_env(endpoint: str) -> dict[str, str]:
    """Return the environment variables for an S3 server at this address."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "nbrun-tests",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@dataclass(frozen=True, slots=True)
class _Address:
    url: str
    port: int


@contextlib.asynccontextmanager
async def faulty(endpoint: str) -> AsyncIterator[Proxy]:
    """Run a proxy with faults in front of a store for the length of a block."""
    wire = Proxy(cast(RunningServer, _Address(endpoint, urlsplit(endpoint).port or 0)))
    await wire.listen()
    try:
        yield wire
    finally:
        await wire.end()


@contextlib.contextmanager
def s3_by_moto() -> Iterator[S3Server]:
    """Start moto's S3 server in this process for the length of a block."""
    pytest.importorskip("moto")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    stopped = contextlib.ExitStack()
    stopped.callback(server.stop)
    with stopped:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="nbrun-tests",
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )
        yield S3Server(endpoint, aws_env(endpoint), client, stopped.close)


@dataclass
class WebStore:
    """A web server that stores what is PUT, asks for a password if it has one, and can redirect."""

    password: str = ""
    redirect_to: str = ""
    honours_conditions: bool = True
    shows_nothing: bool = False
    folders: set[str] | None = None
    """The folders of a WebDAV server, in which alone an object can be put; other servers need none."""
    objects: dict[str, bytes] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)
    """The generations of objects, which are their versions in the XML API of Google's store."""
    requests: list[str] = field(default_factory=list)
    """Method, path with query, and authorization of each request."""
    port: int = 0

    @property
    def url(self) -> str:
        """Return the address of the server's root."""
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def web_store(**options: Any) -> Iterator[WebStore]:
    """Start a web server that takes PUT, for the length of a block."""
    store = WebStore(**options)

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            store.requests.append(f"{self.command} {self.path} {self.headers.get('Authorization', '')}".strip())
            key = self.path.partition("?")[0]
            old = store.objects.get(key)
            etag = f'"{hashlib.md5(old or b"").hexdigest()}"'
            generation = str(store.generations.get(key, 0))
            if store.password and self.headers.get("Authorization") != store.password:
                self._answer(401)
            elif store.redirect_to:
                self._answer(307, Location=store.redirect_to)
            elif store.shows_nothing and self.command in ("GET", "HEAD"):
                self._answer(403)
            elif self.command == "MKCOL" and store.folders is not None:
                folder = key.rstrip("/")
                is_new, has_parent = folder not in store.folders, folder.rpartition("/")[0] in store.folders
                store.folders |= {folder} if has_parent else set()
                self._answer(405 if not is_new else 201 if has_parent else 409)
            elif self.command == "PUT" and store.folders is not None and key.rpartition("/")[0] not in store.folders:
                self._answer(409)
            elif self.command == "PUT":
                wanted = self.headers.get("If-Match", etag if old is not None else None)
                refused = (self.headers.get("If-None-Match") == "*" and old is not None) or (
                    self.headers.get("If-Match") is not None and (old is None or wanted != etag)
                )
                wanted_generation = self.headers.get("x-goog-if-generation-match", generation)
                refused = refused or wanted_generation != generation
                if refused and store.honours_conditions:
                    self._answer(412)
                else:
                    store.objects[key] = body
                    store.generations[key] = len(store.requests)
                    new = f'"{hashlib.md5(body).hexdigest()}"'
                    self._answer(201, ETag=new, x_goog_generation=str(store.generations[key]))
            elif old is None:
                self._answer(404)
            elif self.command == "DELETE":
                del store.objects[key], store.generations[key]
                self._answer(204)
            else:
                self._answer(200, old, ETag=etag, Last_Modified=formatdate(usegmt=True), x_goog_generation=generation)

        do_GET = do_HEAD = do_PUT = do_DELETE = do_MKCOL = _do  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    store.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def ftp_server(folder: Path) -> Iterator[str]:
    """Serve a folder by FTP for the length of a block; return the URL with user and password."""
    pytest.importorskip("fsspec")
    pytest.importorskip("pyftpdlib")
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.handlers import FTPHandler
    from pyftpdlib.servers import FTPServer

    users = DummyAuthorizer()
    users.add_user("ann", SECRET, str(folder), perm="elradfmwMT")
    handler = type("Handler", (FTPHandler,), {"authorizer": users, "auth_failed_timeout": 0})
    server = FTPServer(("127.0.0.1", 0), handler)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            server.serve_forever(timeout=0.02, blocking=False, handle_exit=False)
        server.close_all()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"ftp://ann:{SECRET}@127.0.0.1:{server.address[1]}"
    finally:
        over.set()
        thread.join()


AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account of every Azurite, and its key, which is public."""


@contextlib.contextmanager
def running(command: list[str | Path], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server on this port for the length of a block; return its process."""
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"{command[0]} did not start"
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
        yield process
    finally:
        process.terminate()
        process.wait(20)


@dataclass(frozen=True, slots=True)
class AzureServer:
    """A running Azurite: the connection string with which a client finds it, and its process."""

    connection: str
    process: "subprocess.Popen[bytes]"


@contextlib.contextmanager
def azure_by_azurite(folder: Path) -> Iterator[AzureServer]:
    """Run an Azurite with the container ``reports``, which stores in `folder`, for the length of a block."""
    program, port = environment("object-stores").node_programs / "azurite-blob", free_port()
    place: list[str | Path] = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", folder]
    with running([program, "--silent", "--skipApiVersionCheck", *place], port) as process:
        account, address = AZURE_ACCOUNT, f"http://127.0.0.1:{port}"
        date, version = formatdate(usegmt=True), "2021-08-06"
        signed = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n/{account}/{account}/reports"
        signed += "\nrestype:container"
        signature = hmac.new(base64.b64decode(AZURE_KEY), signed.encode(), hashlib.sha256).digest()
        headers = {"x-ms-date": date, "x-ms-version": version}
        headers["Authorization"] = f"SharedKey {account}:{base64.b64encode(signature).decode()}"
        url = f"{address}/{account}/reports?restype=container"
        urllib.request.urlopen(urllib.request.Request(url, headers=headers, method="PUT"), timeout=20).close()
        connection = f"AccountName={account};AccountKey={AZURE_KEY};BlobEndpoint={address}/{account};"
        yield AzureServer(connection, process)


@dataclass(frozen=True, slots=True)
class GoogleServer:
    """A running emulator of Google's store: the address of the gateway before it, and its process."""

    address: str
    process: "subprocess.Popen[bytes]"


@contextlib.contextmanager
def google_by_emulator() -> Iterator[GoogleServer]:
    """Run Google's emulator with the bucket ``reports`` behind a gateway, for the length of a block.

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

    with running([program, "-scheme", "http", "-backend", "memory", *place], port) as process:
        made = json.dumps({"name": "reports"}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/storage/v1/b?project=p", made, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=20).close()
        server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield GoogleServer(f"http://127.0.0.1:{server.server_address[1]}", process)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
