"""Connecting to an address: the API is found, access is checked, and errors are nbrun's."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbrun.errors import AccessDenied, NbrunError, NotAJupyterServer, RequestRefused, ServerUnreachable
from nbrun.jupyter.client import Client, connect
from nbrun.jupyter.endpoint import Endpoint
from tests.jupyter.doubles import Double, Heard, Reply, double, json_reply, moved, page
from tests.support.other_servers import other_server
from tests.support.servers import RunningServer, free_port, jupyter_server


@pytest.mark.parametrize("page", ["", "lab", "lab/tree/dir/nb.ipynb", "tree", "api/contents", "no/such/page"])
async def test_any_page_of_a_server_leads_to_it(token_server: RunningServer, page: str) -> None:
    async with connect(f"{token_server.url}{page}?token={token_server.token}") as client:
        assert client.endpoint.base_url == token_server.url
        assert (await client.status()).started
        assert int((await client.version()).split(".")[0]) >= 2
        assert (await client.me()).username


async def test_a_base_url_without_its_slash_is_as_good(token_server: RunningServer) -> None:
    async with connect(token_server.url.rstrip("/"), token=token_server.token) as client:
        assert client.endpoint.base_url == token_server.url


async def test_a_server_mounted_where_a_page_would_be_is_found(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    with jupyter_server(tmp_path / "files", base_url="/lab/") as server:
        async with connect(f"{server.url}lab/tree/nb.ipynb", token=server.token) as client:
            assert client.endpoint.base_url == server.url


async def test_a_wrong_prefix_is_named(token_server: RunningServer) -> None:
    elsewhere = token_server.url.replace("/pre/fix/", "/other/")
    with pytest.raises(NotAJupyterServer, match="/other/api"):
        async with connect(elsewhere, token=token_server.token):
            pass


async def test_whether_there_is_an_api_and_whether_it_lets_us_in_is_asked_at_once() -> None:
    let_in = asyncio.Event()

    async def answer(heard: Heard) -> Reply:
        if heard.path == "/api":
            await let_in.wait()
            return json_reply({"version": "2.0"})
        let_in.set()
        return json_reply({})

    async with asyncio.timeout(10), double(answer) as server, connect(server.url, token="token"):
        assert sorted(server.lines()) == ["GET /api", "GET /api/me"]


async def test_a_read_that_is_sent_ahead_is_answered_while_the_server_is_checked() -> None:
    """If it needs authentication and succeeds, no other request checks the token."""
    read = asyncio.Event()

    async def answer(heard: Heard) -> Reply:
        if heard.path == "/api":
            await read.wait()
            return json_reply({"version": "2.0"})
        read.set()
        return json_reply({"default": "py", "kernelspecs": {}})

    async with asyncio.timeout(10), double(answer) as server:
        async with connect(server.url, token="token", read_ahead=Client.read_kernelspecs_ahead) as client:
            assert (await client.kernelspecs()).default == "py"
        assert sorted(server.lines()) == ["GET /api", "GET /api/kernelspecs"]


async def test_a_refused_token_is_reported_and_not_what_a_read_that_was_sent_ahead_got() -> None:
    def answer(heard: Heard) -> Reply:
        if heard.path == "/api":
            return json_reply({"version": "2.0"})
        return json_reply({"message": "Forbidden"}, 403) if heard.path == "/api/me" else Reply(500)

    async with double(answer) as server:
        with pytest.raises(AccessDenied):
            async with connect(server.url, token="wrong", read_ahead=Client.read_kernelspecs_ahead):
                pass


@pytest.mark.parametrize(("path", "password"), [("", "secret"), ("hub/home", None)])
async def test_nothing_is_read_ahead_where_the_check_comes_first(path: str, password: str | None) -> None:
    def fail(_: Client) -> None:
        raise AssertionError("this must not be called")

    async with double(lambda heard: page("Our Wiki", 404)) as server:
        with pytest.raises((NotAJupyterServer, AccessDenied)):
            async with connect(f"{server.url}{path}", password=password, read_ahead=fail):
                pass


async def test_a_place_that_is_no_server_is_not_given_the_password() -> None:
    async with double(lambda heard: page("Our Wiki")) as server:
        with pytest.raises(NotAJupyterServer, match="Our Wiki"):
            async with connect(server.url, password="secret"):
                pass
        assert server.lines() == ["GET /api"]


async def test_nothing_listening_is_told_soon() -> None:
    async with asyncio.timeout(10):
        with pytest.raises(ServerUnreachable) as caught:
            async with connect(f"http://127.0.0.1:{free_port()}/"):
                pass
    assert "running" in caught.value.hint


async def test_a_web_page_is_no_server_and_its_title_is_quoted() -> None:
    async with double(lambda heard: page("Our Wiki")) as server:
        with pytest.raises(NotAJupyterServer, match="Our Wiki"):
            async with connect(server.url):
                pass


async def test_a_server_is_shut_down(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    with jupyter_server(tmp_path / "files") as server:
        async with connect(server.url, token=server.token) as client:
            await client.shutdown()
        assert await asyncio.to_thread(server.process.wait, 30) == 0


async def test_the_server_says_how_many_kernels_it_has(client: Client) -> None:
    before = (await client.status()).kernels or 0
    kernel = await client.kernels.create("python3")
    assert (await client.status()).kernels == before + 1
    await client.kernels.delete(kernel.id)


# Hubs


def hub(heard: Heard) -> Reply:
    """Answer as a hub and, for /user/alice@home/, as a single-user server."""
    if heard.headers.get("authorization") != "token t":
        return json_reply({"message": "Forbidden"}, 403)
    match heard.path:
        case "/hub/api/user":
            return json_reply({"kind": "user", "name": "alice@home"})
        case "/hub/api" | "/user/alice@home/api":
            return json_reply({"version": "5.3"})
        case "/api":
            return moved("/hub/api")
        case "/user/alice@home/api/me":
            return json_reply({"identity": {"username": "alice@home"}})
        case _:
            return page("JupyterHub", 404)


@pytest.mark.parametrize("address", ["hub/user-redirect/lab/tree/nb.ipynb", "hub/home", "", "user/alice@home/lab"])
async def test_the_address_of_a_hub_leads_to_the_users_own_server(address: str) -> None:
    async with double(hub) as server, connect(server.url + address, token="t") as client:
        assert client.endpoint.base_url == f"{server.url}user/alice@home/"


async def test_a_hub_that_does_not_know_the_token_is_access_denied() -> None:
    async with double(hub) as server:
        with pytest.raises(AccessDenied):
            async with connect(server.url + "hub/home", token="wrong"):
                pass


async def test_a_stopped_server_behind_a_hub_is_told() -> None:
    def answer(heard: Heard) -> Reply:
        if heard.path.startswith("/hub/user/"):
            return json_reply({"message": "alice's server is not running"}, 424)
        return moved(f"/hub{heard.target}")

    async with double(answer) as server:
        with pytest.raises(RequestRefused, match="not running") as caught:
            async with connect(server.url + "user/alice/lab", token="t"):
                pass
    assert "hub's control panel" in caught.value.hint


async def test_a_gateway_has_no_files_and_lets_us_in_all_the_same() -> None:
    def answer(heard: Heard) -> Reply:
        known = {"/api": {"version": "3"}, "/api/kernelspecs": {"default": "py", "kernelspecs": {}}}
        return json_reply(known[heard.path]) if heard.path in known else json_reply({"message": "not here"}, 404)

    async with double(answer) as server, connect(server.url) as client:
        assert (await client.kernelspecs()).default == "py"


# Garbage

CALLS: tuple[Callable[[Client], Awaitable[object]], ...] = (
    lambda client: client.probe(),
    lambda client: client.version(),
    lambda client: client.status(),
    lambda client: client.me(),
    lambda client: client.kernelspecs(),
    lambda client: client.contents.get("x"),
    lambda client: client.contents.directory(""),
    lambda client: client.contents.notebook("x"),
    lambda client: client.contents.text("x"),
    lambda client: client.contents.data("x"),
    lambda client: client.contents.save_file("x", ""),
    lambda client: client.contents.rename("x", "y"),
    lambda client: client.contents.checkpoints("x"),
    lambda client: client.contents.create_checkpoint("x"),
    lambda client: client.sessions.list(),
    lambda client: client.sessions.get("x"),
    lambda client: client.sessions.start("x", "python3"),
    lambda client: client.sessions.attach("x", "k"),
    lambda client: client.sessions.delete("x"),
    lambda client: client.kernels.list(),
    lambda client: client.kernels.get("x"),
    lambda client: client.kernels.restart("x"),
)

_KEYS = st.sampled_from(
    ["name", "path", "type", "content", "id", "kernel", "kernelspecs", "spec", "argv", "env", "default", "version",
     "identity", "username", "last_modified", "size", "message", "metadata", "language"]
)  # fmt: skip
_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["notebook", "directory"])
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS | st.text(), inner, max_size=6),
    max_leaves=12,
)
_BODIES = _VALUES.map(lambda value: json.dumps(value).encode()) | st.binary()


@settings(max_examples=60)
@given(body=_BODIES, status=st.sampled_from([200, 201, 204, 400, 403, 404, 409, 418]))
def test_no_body_makes_the_client_raise_anything_but_its_own_errors(body: bytes, status: int) -> None:
    async def call_all() -> None:
        reply = Reply(status, b"" if status == 204 else body, {"Content-Type": "application/json"})
        async with double(lambda heard: reply) as server:
            await asyncio.gather(*(one_call(server, call) for call in CALLS))

    async def one_call(server: Double, call: Callable[[Client], Awaitable[object]]) -> None:
        async with Client(Endpoint(server.url, token="t")) as client:
            with contextlib.suppress(NbrunError):
                await call(client)

    asyncio.run(call_all())


# Servers of other ages


@pytest.mark.parametrize("kind", ["server-1.24", "notebook-6.5"])
async def test_an_older_server_is_used_without_what_it_does_not_know(kind: str, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    with other_server(kind, tmp_path / "files") as server:
        async with connect(server.url, token=server.token) as client:
            await client.contents.save_file("x.txt", "text")
            model = await client.contents.stat("x.txt")
            assert (model.hash, model.last_modified is None) == (None, False)
            session = await client.sessions.start("x.ipynb", (await client.kernelspecs()).choose(None, {}).name)
            await client.sessions.delete(session.id)
            assert await client.kernels.list() == ()
        with pytest.raises(AccessDenied):
            async with connect(server.url, token="wrong"):
                pass
