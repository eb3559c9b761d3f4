"""Authentication by token, password or nothing on real servers, for HTTP and websockets."""

import pytest
import websockets

from nbrun.errors import AccessDenied, NotAJupyterServer
from nbrun.jupyter.client import Client, connect
from nbrun.jupyter.endpoint import Endpoint
from tests.jupyter.conftest import PASSWORD
from tests.jupyter.doubles import Heard, Reply, double, json_reply
from tests.support.servers import RunningServer


async def write_and_read(client: Client, path: str) -> None:
    """Use every kind of method once."""
    await client.contents.save_file(path, "written")
    assert await client.contents.text(path) == "written"
    await client.contents.rename(path, path + ".moved")
    await client.contents.delete(path + ".moved")


async def open_websocket(client: Client) -> str:
    """Start a kernel and shake hands with its websocket; returns the subprotocol agreed upon."""
    session = await client.sessions.start("x.ipynb", "python3")
    assert session.kernel
    try:
        async with websockets.connect(
            client.endpoint.websocket_url(session.kernel.id, "test"),
            additional_headers=await client.http.websocket_headers(),
            subprotocols=[websockets.Subprotocol("v1.kernel.websocket.jupyter.org")],
            open_timeout=130,
            proxy=None,
        ) as socket:
            return str(socket.subprotocol)
    finally:
        await client.sessions.delete(session.id)


async def test_a_token_opens_a_server(token_server: RunningServer) -> None:
    async with connect(token_server.url, token=token_server.token) as client:
        await write_and_read(client, "auth.txt")
        assert await open_websocket(client) == "v1.kernel.websocket.jupyter.org"


async def test_a_password_opens_a_server(password_server: RunningServer) -> None:
    async with connect(password_server.url, password=PASSWORD) as client:
        await write_and_read(client, "auth.txt")
        assert await open_websocket(client) == "v1.kernel.websocket.jupyter.org"


async def test_a_server_that_lets_everybody_in_is_written_to_without_a_secret(open_server: RunningServer) -> None:
    async with connect(open_server.url) as client:
        await write_and_read(client, "auth.txt")
        assert await open_websocket(client) == "v1.kernel.websocket.jupyter.org"


async def test_a_unix_socket_is_opened_by_its_token(socket_endpoint: Endpoint) -> None:
    async with connect(socket_endpoint) as client:
        await write_and_read(client, "auth.txt")
        assert len((await client.kernelspecs()).specs) >= 1


async def test_a_wrong_token_is_access_denied(token_server: RunningServer) -> None:
    with pytest.raises(AccessDenied, match="Forbidden") as caught:
        async with connect(token_server.url, token="wr0ngt0ken"):
            pass
    assert "wr0ngt0ken" not in str(caught.value)


async def test_no_token_is_access_denied(token_server: RunningServer) -> None:
    with pytest.raises(AccessDenied):
        async with connect(token_server.url):
            pass


async def test_a_token_that_fails_at_a_write_is_access_denied(token_server: RunningServer) -> None:
    async with Client(Endpoint(token_server.url, token="wr0ng")) as client:
        with pytest.raises(AccessDenied, match="_xsrf"):
            await client.contents.save_file("never.txt", "")
    assert not (token_server.root / "never.txt").exists()


async def test_a_wrong_password_is_access_denied(password_server: RunningServer) -> None:
    with pytest.raises(AccessDenied, match="password") as caught:
        async with connect(password_server.url, password="wr0ng"):
            pass
    assert "wr0ng" not in str(caught.value)


async def test_a_wrong_token_on_a_unix_socket_is_access_denied(socket_endpoint: Endpoint) -> None:
    assert socket_endpoint.socket
    with pytest.raises(AccessDenied):
        async with connect(Endpoint("http://localhost/", token="wrong", socket=socket_endpoint.socket)):
            pass


async def test_a_login_that_lapsed_is_renewed(password_server: RunningServer) -> None:
    async with connect(password_server.url, password=PASSWORD) as client:
        cookies = client.http._auth._cookies
        for name in set(cookies) - {"_xsrf"}:
            cookies[name] = '"2|1:0|10:1700000000|1:x|0:|forged"'
        await client.contents.save_file("again.txt", "after a new login")
        assert (password_server.root / "again.txt").read_text() == "after a new login"


async def test_a_password_for_a_server_without_a_login_form_is_refused() -> None:
    def answer(heard: Heard) -> Reply:
        return json_reply({"version": "3"}) if heard.path == "/api" else json_reply({}, 404)

    async with double(answer) as server:
        with pytest.raises(NotAJupyterServer):
            async with connect(server.url, password=PASSWORD):
                pass


async def test_a_double_submit_is_tried_once() -> None:
    async with double(lambda heard: json_reply({"message": "'_xsrf' argument missing from POST"}, 403)) as server:
        async with Client(Endpoint(server.url)) as client:
            with pytest.raises(AccessDenied):
                await client.contents.create_untitled()
        first, second = server.heard
    assert "cookie" not in first.headers
    assert second.headers["cookie"] == f"_xsrf={second.headers['x-xsrftoken']}"


async def test_auth_does_not_show_what_it_has(password_server: RunningServer) -> None:
    async with connect(password_server.url, password=PASSWORD) as client:
        assert repr(client.http._auth) == "<Auth by password>"
