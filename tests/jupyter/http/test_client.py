"""A request returns a successful answer of the API or raises an error of nbrun."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from nbrun.core.notebook.request_body import NotebookBody
from nbrun.errors import (
    AccessDenied,
    NbrunError,
    NotAJupyterServer,
    NotFound,
    RequestRefused,
    ServerUnreachable,
    TooLarge,
    UsageError,
)
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.http import client as http_client
from nbrun.jupyter.http.client import KEPT_BODY, Http, HttpOptions, json_bytes
from nbrun.jupyter.http.messages import Patience
from nbrun.jupyter.http.retry import ONCE, PATIENT_GET, SAVE
from nbrun.local_server.launcher import EmbeddedServer
from tests.jupyter.doubles import CUT, Double, Heard, Reply, double, json_reply, moved, page
from tests.support.notebooks import FIXTURES, notebook
from tests.support.servers import RunningServer, free_port

SECRET = "5ecre7t0ken"
NOTEBOOK = notebook("1")
SWIFT_GET = replace(PATIENT_GET, first=0.001, longest=0.01)
SWIFT_SAVE = replace(SAVE, first=0.001, longest=0.01)


def script(*replies: Reply | None) -> Callable[[Heard], Reply | None]:
    """Return the replies one after another, the last one for ever."""
    left = list(replies)
    return lambda heard: left.pop(0) if len(left) > 1 else left[0]


async def failure(
    answer: Callable[[Heard], Reply | None], method: str = "GET", path: str = "api/contents/x"
) -> NbrunError:
    """Make one request of a double, without trying again, and return the error it ends in."""
    async with double(answer) as server, Http(Endpoint(server.url, token=SECRET)) as http:
        with pytest.raises(NbrunError) as caught:
            await http.request(method, path, retry=SWIFT_GET if method == "GET" else None)
    assert SECRET not in str(caught.value) + caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (json_reply({"message": "Forbidden", "reason": None}, 403), AccessDenied, "Forbidden"),
        (json_reply({"message": "'_xsrf' argument missing from POST"}, 403), AccessDenied, "_xsrf"),
        (json_reply({"message": "XSRF cookie does not match"}, 403), AccessDenied, "XSRF"),
        (json_reply({"message": "Permission denied: x"}, 403), RequestRefused, "Permission denied: x"),
        (Reply(401), AccessDenied, "401"),
        (page("JupyterHub", 403), AccessDenied, "JupyterHub"),
        (page("Sign in"), NotAJupyterServer, "Sign in"),
        (page("404 &amp; gone", 404), NotAJupyterServer, "404 & gone"),
        (page("405", 405), NotAJupyterServer, "405"),
        (Reply(200, b" <HTML><title>untyped"), NotAJupyterServer, "web page"),
        (Reply(404, b"file '/x' does not exist", {"Content-Type": "application/json"}), NotFound, "does not exist"),
        (json_reply({"message": "Kernel does not exist: k"}, 404), NotFound, "Kernel does not exist"),
        (page("413", 413), TooLarge, "too large"),
        (json_reply({"message": "server is not running"}, 424), RequestRefused, "not running"),
        (json_reply({"message": "exists"}, 409), RequestRefused, "exists"),
        (json_reply({"message": "[Errno 28] No space left"}, 500), RequestRefused, "No space left"),
        (Reply(500, b"\xff\xfe garbage"), RequestRefused, "500"),
        (Reply(502), ServerUnreachable, "502"),
        (page("Bad gateway", 503), ServerUnreachable, "Bad gateway"),
        (Reply(504), ServerUnreachable, "504"),
        (Reply(429), ServerUnreachable, "429"),
        (CUT, ServerUnreachable, "broke"),
    ],
)
async def test_every_unwelcome_answer_has_its_error(reply: Reply | None, kind: type[NbrunError], words: str) -> None:
    error = await failure(script(reply))
    assert type(error) is kind
    assert words in str(error)


async def test_an_error_names_the_request() -> None:
    assert "GET http://127.0.0.1" in str(await failure(script(Reply(500))))


async def test_a_server_that_repeats_the_token_does_not_get_it_into_an_error() -> None:
    error = await failure(script(json_reply({"message": f"no such token: {SECRET}"}, 400)))
    assert "no such token: [secret removed]" in str(error)


async def test_a_get_is_tried_again_and_a_post_is_not() -> None:
    for method, calls in (("GET", 3), ("POST", 1)):
        async with double(script(CUT, Reply(503), json_reply({}))) as server, Http(Endpoint(server.url)) as http:
            try:
                await http.request(method, "api/status", retry=SWIFT_GET if method == "GET" else None)
            except ServerUnreachable:
                assert method == "POST"
            assert len(server.heard) == calls


async def test_a_get_that_was_sent_ahead_is_the_first_attempt_of_the_next_one_for_its_url() -> None:
    answer = script(json_reply(1), json_reply(2), CUT, json_reply(3), json_reply({}, 404), json_reply(4))
    async with double(answer) as server, Http(Endpoint(server.url)) as http:

        async def got() -> Any:
            return json.loads((await http.request("GET", "api/x", params={"a": "b"}, retry=SWIFT_GET)).body)

        def ahead() -> None:
            http.read_ahead("api/x", params={"a": "b"})
            http.read_ahead("api/x", params={"a": "b"})

        ahead()
        assert [await got(), await got()] == [1, 2]
        ahead()
        assert await got() == 3  # the connection was cut, so it was sent again
        ahead()
        with pytest.raises(NotFound):
            await got()
        assert await got() == 4
        assert len(server.heard) == 6


async def test_an_old_answer_to_a_get_that_was_sent_ahead_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "AHEAD_LIMIT", -1.0)
    async with double(script(json_reply(1), json_reply(2))) as server, Http(Endpoint(server.url)) as http:
        http.read_ahead("api/x")
        assert await http.succeeds_ahead("api/x")
        assert (await http.request("GET", "api/x")).body == b"2"


async def test_what_was_sent_ahead_to_another_base_url_is_not_used() -> None:
    async with double(lambda heard: json_reply(heard.path)) as server, Http(Endpoint(server.url)) as http:
        http.read_ahead("api/x")
        http.move(f"{server.url}elsewhere/")
        assert not await http.succeeds_ahead("api/x")
        assert (await http.request("GET", "api/x")).body == b'"/elsewhere/api/x"'


async def test_a_get_that_was_sent_ahead_ends_with_the_client() -> None:
    arrived = asyncio.Event()

    async def never(_: Heard) -> Reply:
        arrived.set()
        return await asyncio.Future[Reply]()

    async with double(never) as server, asyncio.timeout(10), Http(Endpoint(server.url)) as http:
        http.read_ahead("api/x")
        await arrived.wait()


async def test_a_large_answer_is_parsed_while_it_arrives_by_the_rules_of_a_small_one() -> None:
    value = {"content": {"cells": ["a" * KEPT_BODY, float("nan"), "\ud800"]}}
    async with double(script(json_reply(value))) as server, Http(Endpoint(server.url)) as http:
        answer = await http.request("GET", "api/contents/x")
    assert len(answer.body) < KEPT_BODY + 100_000
    assert answer.json() == {"content": {"cells": ["a" * KEPT_BODY, None, "\ufffd"]}}


async def test_a_large_answer_that_is_no_json_is_no_jupyter_server() -> None:
    async with double(script(Reply(200, b'["a",' * KEPT_BODY))) as server, Http(Endpoint(server.url)) as http:
        answer = await http.request("GET", "api/contents/x")
        with pytest.raises(NotAJupyterServer, match=r"answer of more than \d+ bytes is not readable as JSON"):
            answer.json()


async def test_a_server_that_asks_for_a_pause_gets_it() -> None:
    answers = script(Reply(429, headers={"Retry-After": "0"}), json_reply({"fine": True}))
    async with double(answers) as server, Http(Endpoint(server.url)) as http:
        answer = await http.request("GET", "api/status")
        assert answer.json() == {"fine": True}


async def test_nothing_listening_is_an_unreachable_server() -> None:
    async with Http(Endpoint(f"http://127.0.0.1:{free_port()}/")) as http:
        with pytest.raises(ServerUnreachable, match="no connection"):
            await http.request("GET", "api", retry=SWIFT_GET)


async def test_a_silent_server_is_waited_for_as_long_as_was_said() -> None:
    async def never(heard: Heard) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    for patience in (Patience(read=0.1, total=60), Patience(read=60, total=0.1)):
        async with double(never) as server, Http(Endpoint(server.url)) as http:
            with pytest.raises(ServerUnreachable, match="in time"):
                await http.request("GET", "api", patience=patience, retry=replace(SWIFT_GET, tries=1))


async def test_a_proxy_of_the_environment_is_not_asked_about_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with double(script(json_reply({}))) as server, Http(Endpoint(server.url)) as http:
        await http.request("GET", "api")
        assert server.heard[0].target == "/api"


async def test_no_cookie_is_sent_back_beside_a_token() -> None:
    reply = Reply(200, b"{}", {"Set-Cookie": "username-x=abc; Path=/"})
    async with double(script(reply)) as server, Http(Endpoint(server.url, token=SECRET)) as http:
        await http.request("GET", "api")
        await http.request("GET", "api")
        assert [heard.headers.get("cookie") for heard in server.heard] == [None, None]
        assert server.heard[1].headers["authorization"] == f"token {SECRET}"


async def test_extra_headers_go_with_every_request_and_with_the_websocket() -> None:
    options = HttpOptions(headers={"X-Proxy": "let me in"})
    async with double(script(json_reply({}))) as server, Http(Endpoint(server.url, token=SECRET), options) as http:
        await http.request("GET", "api")
        assert server.heard[0].headers["x-proxy"] == "let me in"
        assert await http.websocket_headers() == {"X-Proxy": "let me in", "Authorization": f"token {SECRET}"}
    assert "let me in" not in repr(options)


async def test_extra_headers_are_never_carried_to_another_server_nor_shown() -> None:
    options = HttpOptions(headers={"X-Proxy": "let me in"})
    repeated = json_reply({"message": "no entry for let me in"}, 400)
    async with double(script(json_reply({"is": "no Jupyter server"}))) as stranger:
        for reply, method in ((moved(f"{stranger.url}api/x"), "GET"), (moved(f"{stranger.url}api/x", 307), "POST")):
            async with double(script(reply)) as server, Http(Endpoint(server.url), options) as http:
                with pytest.raises(NbrunError):
                    await http.request(method, "api/x", retry=ONCE)
        assert [heard.path for heard in stranger.heard] == ["/api"]
        assert "x-proxy" not in stranger.heard[0].headers
    async with double(script(repeated)) as server, Http(Endpoint(server.url), options) as http:
        with pytest.raises(RequestRefused, match=r"no entry for \[secret removed\]"):
            await http.request("GET", "api/x", retry=ONCE)


# Redirects


async def test_a_get_follows_redirects_on_the_same_server() -> None:
    def answer(heard: Heard) -> Reply:
        return json_reply({"at": heard.target}) if heard.path == "/there" else moved("/there?x=1", 301)

    async with double(answer) as server, Http(Endpoint(server.url)) as http:
        assert (await http.request("GET", "api/here")).json() == {"at": "/there?x=1"}


async def test_a_get_gives_up_after_five_redirects() -> None:
    async with double(script(moved("/again"))) as server, Http(Endpoint(server.url)) as http:
        with pytest.raises(RequestRefused, match="not followed"):
            await http.request("GET", "api")
        assert len(server.heard) == 6


async def test_a_token_is_never_carried_to_another_server() -> None:
    async with double(script(json_reply({}))) as stranger:
        error = await failure(script(moved(stranger.url + f"api/contents/x?token={SECRET}")))
        assert stranger.heard == []
    assert isinstance(error, RequestRefused)
    assert stranger.url in str(error)


async def test_a_redirect_to_the_login_page_is_a_refused_token() -> None:
    def answer(heard: Heard) -> Reply:
        return page("Jupyter Server") if heard.path == "/login" else moved("/login?next=%2Fapi")

    assert isinstance(await failure(answer), AccessDenied)
    assert isinstance(await failure(answer, "PUT"), AccessDenied)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_write_is_never_turned_into_a_get(status: int) -> None:
    """Clients that follow report the GET's 200, and the notebook that was there before reads like a save."""

    def answer(heard: Heard) -> Reply:
        return json_reply({"name": "x"}) if heard.path == "/elsewhere" else moved("/elsewhere", status)

    async with double(answer) as server, Http(Endpoint(server.url)) as http:
        with pytest.raises(RequestRefused, match="/elsewhere"):
            await http.request("PUT", "api/contents/x", content=[b"{}"])
        assert server.lines() == ["PUT /api/contents/x"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_write_is_sent_again_whole_to_a_server_that_moved_its_prefix(status: int) -> None:
    def answer(heard: Heard) -> Reply:
        if heard.path.startswith("/new/"):
            return json_reply({"version": "2.0"} if heard.path == "/new/old/api" else {"saved": heard.body.decode()})
        return moved(f"/new{heard.target}", status)

    async with double(answer) as server, Http(Endpoint(server.url + "old", token=SECRET)) as http:
        answer_of = (await http.request("PUT", "api/contents/x%20y", content=[b"[1]"])).json()
        assert answer_of == {"saved": "[1]"}
        assert server.lines()[1:] == ["GET /new/old/api", "PUT /new/old/api/contents/x%20y"]
        assert "authorization" not in server.heard[1].headers
        await http.request("PUT", "api/contents/x%20y", content=[b"[2]"])
        assert len(server.heard) == 4
        assert http.endpoint.base_url == server.url + "new/old/"


async def test_a_write_is_not_sent_again_to_what_is_no_jupyter_server() -> None:
    def answer(heard: Heard) -> Reply:
        return page("Wiki") if heard.path.startswith("/new/") else moved(f"/new{heard.target}")

    async with double(answer) as server, Http(Endpoint(server.url)) as http:
        with pytest.raises(RequestRefused, match="not followed"):
            await http.request("DELETE", "api/contents/x")
        assert http.endpoint.base_url == server.url


async def test_a_hub_says_to_a_get_that_the_server_is_stopped() -> None:
    def answer(heard: Heard) -> Reply:
        if heard.method != "GET":
            return page("JupyterHub", 403)
        if heard.path.startswith("/hub/"):
            return json_reply({"message": "alice's server is not running"}, 424)
        return moved(f"/hub{heard.target}")

    async with double(answer) as server, Http(Endpoint(server.url + "user/alice", token=SECRET)) as http:
        with pytest.raises(RequestRefused, match="not running") as caught:
            await http.request("PUT", "api/contents/x", content=[b"{}"])
        assert caught.value.status == 424


# Large bodies, against a real server that takes 2 MB


async def test_a_body_that_the_server_cuts_off_is_too_large(open_server: RunningServer) -> None:
    body = json_bytes({"type": "file", "format": "text", "content": "x" * 6_000_000})
    async with Http(Endpoint(open_server.url)) as http:
        with pytest.raises(TooLarge, match=r"6\.0 MB") as caught:
            await http.request("PUT", "api/contents/large.txt", content=[body], retry=SWIFT_SAVE)
    assert caught.value.status == 413
    assert not (open_server.root / "large.txt").exists()


async def test_a_large_body_that_was_cut_off_by_chance_is_sent_again() -> None:
    def answer(heard: Heard) -> Reply | None:
        if heard.method == "GET":
            return json_reply({"version": "2.0"})
        return (
            CUT if sum(heard.method == "PUT" for heard in server.heard) == 1 else json_reply({"saved": len(heard.body)})
        )

    async with double(answer) as server, Http(Endpoint(server.url)) as http:
        answered = await http.request("PUT", "api/contents/x", content=[b" " * 3_000_000])
    assert answered.json() == {"saved": 3_000_000}


# Bodies and certificates


async def test_a_body_that_is_encoded_while_it_is_sent_comes_whole_with_its_length_in_each_attempt() -> None:
    body = NotebookBody({"cells": [{"source": "x" * 1000}] * 1000})
    async with double(script(CUT, json_reply({}))) as server, Http(Endpoint(server.url)) as http:
        await http.request("PUT", "api/contents/x", content=body, retry=SWIFT_SAVE)
    assert {heard.body for heard in server.heard if heard.method == "PUT"} == {b"".join(body)}
    assert len([heard for heard in server.heard if heard.method == "PUT"]) == 2


async def test_behind_a_unix_socket_a_body_goes_out_in_chunks_and_one_that_is_no_json_is_not_taken(
    tmp_path: Path,
) -> None:
    async with EmbeddedServer(tmp_path) as server, Http(server.endpoint) as http:
        saving = http.request("PUT", "api/contents/nb.ipynb", content=NotebookBody(NOTEBOOK))
        assert (await saving).status == 201
        before = (tmp_path / "nb.ipynb").read_bytes()
        broken = {**NOTEBOOK, "cells": [NOTEBOOK["cells"][0], {"source": object()}]}
        with pytest.raises(UsageError, match="cannot be written as JSON"):
            await http.request("PUT", "api/contents/nb.ipynb", content=NotebookBody(broken))
        assert (tmp_path / "nb.ipynb").read_bytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the socket in /proc")
async def test_a_unix_socket_takes_more_at_a_time_than_by_default(tmp_path: Path) -> None:
    def buffers(path: str) -> Iterator[int]:
        for file in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(file.readlink()).startswith("socket:"):
                    with socket.socket(fileno=os.dup(int(file.name))) as found:
                        if found.getpeername() == path:
                            yield found.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)

    async with EmbeddedServer(tmp_path) as server, Http(server.endpoint) as http:
        await http.request("GET", "api/status")
        with socket.socket(socket.AF_UNIX) as other:
            default = other.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        assert [size > default for size in buffers(server.endpoint.socket or "")] == [True]


def test_a_lone_surrogate_is_written_as_a_replacement_character() -> None:
    assert json_bytes({"a": "\ud800"}) == '{"a":"\ufffd"}'.encode()


def test_what_json_cannot_hold_is_a_usage_error() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in (object(), {None: 1}, endless):
        with pytest.raises(UsageError, match="as JSON"):
            json_bytes(value)


def test_a_file_without_certificates_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(UsageError, match=name):
            HttpOptions(ca_file=tmp_path / name).ssl_context()


def test_certificates_are_checked_unless_it_is_said_otherwise() -> None:
    assert HttpOptions().ssl_context().verify_mode is ssl.CERT_REQUIRED
    assert HttpOptions(verify=False).ssl_context().verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize("trusted", [None, "ca_file", "verify"])
async def test_certificates_are_checked_behind_a_redirect_from_plain_http(trusted: str | None) -> None:
    certificate = FIXTURES.parent / "tls" / "localhost.pem"
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, certificate.with_suffix(".key"))

    def named(server: Double) -> str:
        return server.url.replace("127.0.0.1", "localhost")

    options = HttpOptions(ca_file=certificate if trusted == "ca_file" else None, verify=trusted != "verify")
    async with (
        double(script(json_reply({})), tls) as target,
        double(lambda _: moved(f"{named(target)}api/status")) as server,
        Http(Endpoint(named(server), SECRET), options) as http,
    ):
        if trusted:
            assert (await http.request("GET", "api/status", retry=ONCE)).json() == {}
        else:
            with pytest.raises(ServerUnreachable, match="not trusted"):
                await http.request("GET", "api/status", retry=ONCE)
    assert len(target.heard) == bool(trusted)


async def test_certificates_are_not_read_for_a_server_without_tls_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("nbrun.jupyter.http.client._ssl_context")
    async with double(script(json_reply({}))) as server, Http(Endpoint(server.url)) as http:
        assert (await http.request("GET", "api/status")).json() == {}
