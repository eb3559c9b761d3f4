"""Owner marks in paths, and their renewal on a real server that sometimes refuses."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nbrun.jupyter.client import Client
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.kernel_session import Server
from nbrun.jupyter.owner_mark import LIFETIME, MARGIN, OwnerMark, marked, may_be_unmarked
from nbrun.jupyter.sessions import SessionModel
from tests.support.other_servers import kernel_gateway
from tests.support.proxy import FOR_EVER, Proxy
from tests.support.servers import RunningServer

LIMIT = 30.0
ID = "3f2a9c1d-0000-4000-8000-0123456789ab"
EXPIRY = datetime(2026, 11, 30, 6, 35, tzinfo=UTC)


@pytest.mark.parametrize(
    ("path", "mark"),
    [
        (f"reports/nbrun-{ID}-until-20261130T063500Z", OwnerMark(ID, EXPIRY)),
        (f"nbrun-{ID}-until-20261130T063500Z", OwnerMark(ID, EXPIRY)),
        (f"nbrun-{ID}", OwnerMark(ID)),
        (f"reports/nbrun-{ID}/weekly.ipynb", None),
        (f"reports/nbrun-{ID}-until-20261399T063500Z", None),
        (f"reports/nbrun-{ID}-until-20261130T063500Z.ipynb", None),
        (f"reports/{ID}", None),
        ("reports/nbrun-until-20261130T063500Z", None),
        ("nbrun-report.ipynb", None),
        ("", None),
    ],
)
def test_a_path_tells_whose_a_session_is(path: str, mark: OwnerMark | None) -> None:
    assert OwnerMark.read(path) == mark
    if mark is not None:
        assert path.rpartition("/")[2] == mark.segment


def test_a_mark_expires_a_while_after_its_time_and_one_without_a_time_never() -> None:
    mark = OwnerMark(ID, EXPIRY)
    assert not mark.has_expired(EXPIRY + MARGIN)
    assert mark.has_expired(EXPIRY + MARGIN + timedelta(seconds=1))
    assert not OwnerMark(ID).has_expired(EXPIRY + timedelta(days=999))


def test_only_a_console_at_a_bare_id_may_be_of_an_nbrun_before_marks() -> None:
    assert may_be_unmarked(f"reports/{ID}", "console")
    assert not may_be_unmarked(f"reports/{ID}", "notebook")
    assert not may_be_unmarked(f"console-1-{ID}", "console")


@pytest.fixture
async def client(wire: Proxy, server: RunningServer) -> AsyncIterator[Client]:
    async with Client(Endpoint(wire.url, token=server.token)) as client:
        yield client


@pytest.fixture
async def session(client: Client) -> AsyncIterator[SessionModel]:
    session = await client.sessions.start("some/nb.ipynb", "python3")
    yield session
    await client.sessions.delete(session.id)


async def path_when(client: Client, session: SessionModel, wire: Proxy, patches: int) -> str:
    """Return the session's path when so many PATCHes have come and the last one has been answered."""
    async with asyncio.timeout(LIMIT):
        while len(wire.lines("PATCH")) < patches:
            await asyncio.sleep(0.01)
        before = await client.sessions.get(session.id)
        while patches and (OwnerMark.read(before.path) or OwnerMark("")).expiry is None:
            before = await client.sessions.get(session.id)
    return before.path


async def test_a_session_is_marked_in_the_servers_time_and_keeps_folder_name_and_kernel(
    client: Client, session: SessionModel, wire: Proxy
) -> None:
    start = OwnerMark.read(session.path)
    assert start
    assert start.expiry is None
    async with marked(client.sessions, session):
        path = await path_when(client, session, wire, 1)
    mark = OwnerMark.read(path)
    assert mark
    assert mark.expiry
    assert (path.rpartition("/")[0], mark.id) == ("some", start.id)
    assert abs(mark.expiry - client.sessions.server_time() - LIFETIME) < timedelta(seconds=60)
    now = await client.sessions.get(session.id)
    assert now.kernel == session.kernel, "neither state nor last activity has changed"
    assert (now.name, now.type) == (session.name, session.type)


async def test_a_mark_is_renewed(client: Client, session: SessionModel, wire: Proxy) -> None:
    async with marked(client.sessions, session, every=0.01):
        await path_when(client, session, wire, 4)


async def test_a_renewal_that_is_lost_or_refused_is_tried_again(
    client: Client, session: SessionModel, wire: Proxy
) -> None:
    wire.drop("PATCH", times=2)
    async with marked(client.sessions, session, every=0.01, again=0.01):
        await path_when(client, session, wire, 4)
        wire.answer(403, "PATCH", times=2, body=b'{"message": "Forbidden"}')
        heard = len(wire.lines("PATCH"))
        await path_when(client, session, wire, heard + 5)


@pytest.mark.parametrize("status", [403, 404, 405, 500, 501])
async def test_a_server_that_takes_no_marks_is_asked_once_and_the_session_has_none_that_could_expire(
    client: Client, session: SessionModel, wire: Proxy, status: int
) -> None:
    wire.answer(status, "PATCH", times=FOR_EVER, body=b'{"message": "no"}')
    async with marked(client.sessions, session, every=0.0, again=0.0) as renewing:
        await asyncio.wait_for(asyncio.wait({renewing}), LIMIT)
        assert renewing.exception() is None
    assert len(wire.lines("PATCH")) == 1
    assert (await client.sessions.get(session.id)).path == session.path


async def test_a_kernel_gateway_which_keeps_no_marks_is_not_asked(tmp_path: Path) -> None:
    with kernel_gateway(tmp_path) as gateway:
        async with Client(Endpoint(gateway.url, token=gateway.token)) as client:
            session = await client.sessions.start("nb.ipynb", "python3")
            async with marked(client.sessions, session) as renewing:
                await asyncio.wait_for(asyncio.wait({renewing}), LIMIT)
                assert renewing.exception() is None
            await client.sessions.delete(session.id)
        assert "PATCH" not in gateway.log.read_text()


async def test_a_private_server_needs_no_mark(client: Client, wire: Proxy) -> None:
    python = (await client.kernelspecs()).specs["python3"]
    async with Server.private(client, str).session("nb.ipynb", python, startup=LIMIT, warn=print):
        pass
    async with Server(client).session("nb.ipynb", python, startup=LIMIT, warn=print):
        await path_when(client, (await client.sessions.list())[0], wire, 1)
    assert len(wire.lines("PATCH")) == 1
