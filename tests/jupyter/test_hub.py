"""The client of a hub: what a hub or a proxy before it may answer. tests/engines/test_hub.py uses a real hub."""

import json
from collections.abc import Callable

import pytest

from nbrun.errors import NotAJupyterServer, RequestRefused, ServerError, ServerUnreachable
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.http.client import Http
from nbrun.jupyter.http.messages import Fields
from nbrun.jupyter.hub import HubClient, HubIdentity, NamedServer, SpawnFailed
from tests.jupyter.doubles import CUT, Heard, Reply, double, json_reply, moved, page

SERVER = {"name": "n", "url": "/user/a/n/", "ready": True, "pending": None}


def stream(*events: dict[str, object], end: str = "") -> Reply:
    text = "".join(f"\n\ndata: {json.dumps(event)}\n" for event in events)
    return Reply(200, f"{text}{end}".encode(), {"Content-Type": "text/event-stream"})


async def progress(answer: Callable[[Heard], Reply | None]) -> list[str]:
    async with double(answer) as hub, Http(Endpoint(hub.url, "token")) as http:
        return [message async for message in HubClient(http).progress("a", "n")]


async def test_the_messages_of_a_start_are_those_of_the_stream_until_the_server_is_ready() -> None:
    events = [{"progress": 0, "message": "requested"}, {"progress": 50, "message": "pulling"}] * 2
    assert await progress(lambda _: stream(*events, {"ready": True, "message": "done"}, end="data: {garbage")) == [
        "requested", "pulling", "requested", "pulling",
    ]  # fmt: skip


async def test_a_stream_that_breaks_or_is_missing_is_replaced_by_looks_at_the_server() -> None:
    looks = iter([{**SERVER, "ready": False, "pending": "spawn"}, SERVER])

    def answer(heard: Heard) -> Reply | None:
        if heard.path.endswith("/progress"):
            return page("Not Found", 404)
        return json_reply({"servers": {"n": next(looks)}})

    assert await progress(answer) == []


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (stream({"message": "pulling"}, {"failed": True, "message": "no such image"}), "no such image"),
        (stream({"failed": True}), "no reason"),
        (stream({"message": "pulling"}), "pulling"),  # it ended, and the server neither runs nor starts
        (CUT, "could not start"),
    ],
)
async def test_a_failed_start_is_an_error_with_the_hubs_message(reply: Reply | None, said: str) -> None:
    with pytest.raises(SpawnFailed, match=said):
        await progress(lambda heard: reply if heard.path.endswith("/progress") else json_reply({"servers": {}}))


async def test_a_redirect_of_a_write_is_not_followed() -> None:
    async with double(lambda _: moved("/elsewhere/hub/api/users/a/servers/n")) as hub:
        async with Http(Endpoint(hub.url, "token")) as http:
            with pytest.raises(RequestRefused, match="not followed"):
                await HubClient(http).start("a", "n", {}, limit=0)
            with pytest.raises(RequestRefused, match="not followed"):
                await HubClient(http).remove("a", "n", limit=5)
        sent = [
            heard for heard in hub.heard if heard.path.startswith("/elsewhere") and "authorization" in heard.headers
        ]
        assert sent == []


async def test_a_start_whose_answer_is_lost_is_requested_again() -> None:
    replies = iter([CUT, Reply(202)])
    async with double(lambda _: next(replies)) as hub, Http(Endpoint(hub.url, "token")) as http:
        assert await HubClient(http).start("a b", "n", {"profile": "large"}, limit=10)
        assert [heard.path for heard in hub.heard] == ["/hub/api/users/a%20b/servers/n"] * 2
        assert json.loads(hub.heard[1].body) == {"profile": "large"}


async def test_a_removal_is_awaited_until_the_server_is_gone() -> None:
    looks = iter([{"n": {**SERVER, "pending": "stop"}}, {}])

    def answer(heard: Heard) -> Reply:
        return Reply(202) if heard.method == "DELETE" else json_reply({"servers": next(looks)})

    async with double(answer) as hub, Http(Endpoint(hub.url, "token")) as http:
        await HubClient(http).remove("a", "n", limit=10)
        assert json.loads(hub.heard[0].body) == {"remove": True}
    async with (
        double(lambda heard: Reply(202) if heard.method == "DELETE" else json_reply({"servers": {"n": SERVER}})) as hub,
        Http(Endpoint(hub.url, "token")) as http,
    ):
        with pytest.raises(TimeoutError):
            await HubClient(http).remove("a", "n", limit=0.7)
    async with double(lambda _: Reply(503)) as hub, Http(Endpoint(hub.url, "token")) as http:
        with pytest.raises(ServerUnreachable):
            await HubClient(http).remove("a", "n", limit=0.3)


async def test_the_tokens_of_a_user_are_listed_with_their_notes_if_that_is_permitted() -> None:
    listed = {"api_tokens": [{"id": "a1", "note": "mine"}, {"id": "a2", "note": None}]}
    async with double(lambda _: json_reply(listed)) as hub, Http(Endpoint(hub.url, "token")) as http:
        assert await HubClient(http).notes_of_tokens("a") == {"a1": "mine", "a2": ""}
    async with double(lambda _: Reply(403)) as hub, Http(Endpoint(hub.url, "token")) as http:
        assert await HubClient(http).notes_of_tokens("a") == {}


async def test_an_address_of_something_else_is_no_hub() -> None:
    async with double(lambda _: page("Welcome")) as hub, Http(Endpoint(hub.url, "token")) as http:
        with pytest.raises(NotAJupyterServer, match="no JupyterHub answers there"):
            await HubClient(http).me()


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("/user/a/n/", "https://hub.org/user/a/n/"),
        ("https://a.hub.org/user/a/n/", "https://a.hub.org/user/a/n/"),
        ("http://hub.org/user/a/n/", None),
        ("https://evil.org/user/a/n/", None),
        ("https://evilhub.org/", None),
    ],
)
def test_the_address_of_a_server_is_on_the_hubs_host_or_below_it(url: str, found: str | None) -> None:
    client = HubClient(Http(Endpoint("https://hub.org/", "token")))
    server = NamedServer("n", url, is_ready=True, pending="", started=None, last_activity=None)
    if found is not None:
        assert client.url_of(server) == found
    else:
        with pytest.raises(ServerError, match="another host"):
            client.url_of(server)


def test_a_server_is_reached_at_the_given_address_of_the_hub_and_not_at_its_public_one() -> None:
    server = NamedServer.read(Fields({**SERVER, "full_url": "https://public.org/user/a/n/"}, "hub"))
    assert HubClient(Http(Endpoint("http://proxy-public/", "token"))).url_of(server) == "http://proxy-public/user/a/n/"


@pytest.mark.parametrize(
    ("scopes", "may"),
    [
        (["tokens"], True),
        (["tokens!user=a"], True),
        (["tokens!user"], True),
        (["tokens!group=team"], True),
        (["tokens!user=b"], False),
        (["tokens!server=a/n"], False),
        (["read:tokens"], False),
        ([], False),
    ],
)
def test_a_scope_counts_for_its_user(scopes: list[str], *, may: bool) -> None:
    assert HubIdentity("a", "user", tuple(scopes)).may("tokens", "a") is may
