"""All functions of a frontend, in order, with nbrun's client on a real server."""

import socket
from pathlib import Path
from typing import Any

import pytest

import nbrun
from nbrun.core.protocol.messages import Channel, Message
from nbrun.errors import AccessDenied, NotFound, ServerUnreachable
from nbrun.jupyter.http.retry import ONCE
from tests.support.servers import jupyter_server


def essence(message: Message) -> str:
    """Name a message of an execution by what it says."""
    content = message.content
    match message.type:
        case "status":
            return str(content["execution_state"])
        case "execute_result":
            return f"execute_result {content['data']['text/plain']}"
        case "execute_reply":
            return f"execute_reply {content['status']}"
        case other:
            return other


def number_of(message: Message) -> int:
    """Return the place of a message among all that the kernel sent: ipykernel ends its ids in a count."""
    return int(message.id.rpartition("_")[2])


async def test_a_frontend_lives_its_whole_life_on_a_server(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "data.csv").write_text("a,b\n1,2\n")
    with jupyter_server(root) as server:
        # The door is closed to those without a token.
        with pytest.raises(AccessDenied):
            async with nbrun.connect(server.url):
                pass

        async with nbrun.connect(server.url, token=server.token) as opened:
            client = opened.client
            assert [entry.name for entry in await client.contents.directory()] == ["data.csv"]

            # A notebook is created, named, and filled with one cell.
            untitled = await client.contents.create_untitled()
            assert untitled.path == "Untitled.ipynb"
            await client.contents.rename("Untitled.ipynb", "sum.ipynb")
            with pytest.raises(NotFound):
                await client.contents.get("Untitled.ipynb")
            notebook = (await client.contents.notebook("sum.ipynb")).content
            cell: dict[str, Any] = {
                "cell_type": "code",
                "id": "sum",
                "source": "1 + 1",
                "metadata": {},
                "outputs": [],
                "execution_count": None,
            }
            notebook["cells"].append(cell)
            saved = await client.contents.save_notebook("sum.ipynb", notebook)
            assert not saved.created
            assert saved.model.message is None

            # A kernel is chosen and started for it.
            specs = await client.kernelspecs()
            assert "python3" in specs.specs
            session = await client.sessions.start("sum.ipynb", specs.choose(None, notebook["metadata"]).name)
            assert session.kernel is not None
            assert [running.id for running in await client.sessions.list()] == [session.id]

            # The cell is executed, and its messages come in order.
            async with client.kernel(session.kernel.id) as kernel:
                info = await kernel.handshake()
                assert info.language_info["name"] == "python"
                messages = [message async for message in kernel.execute("1 + 1", limit=60)]
                completions = await kernel.complete("impor")
                inspection = await kernel.inspect("print")
            # Reply and outputs come over different sockets, so the reply may arrive anywhere among them; the kernel
            # numbers what it sends, and said it all in this order. Each channel by itself arrives in order.
            said = ["busy", "execute_input", "execute_result 2", "execute_reply ok", "idle"]
            assert [essence(message) for message in sorted(messages, key=number_of)] == said
            heard = [message for message in messages if message.channel == Channel.IOPUB]
            assert [essence(message) for message in heard] == [word for word in said if word != "execute_reply ok"]
            assert "import" in completions["matches"]
            assert "print" in inspection["data"]["text/plain"]

            # What came out is saved in the notebook.
            [result] = [message.content for message in messages if message.type == "execute_result"]
            cell["execution_count"] = result["execution_count"]
            cell["outputs"] = [
                {"output_type": "execute_result", **{key: result[key] for key in result if key != "transient"}}
            ]
            await client.contents.save_notebook("sum.ipynb", notebook)
            [kept] = (await client.contents.notebook("sum.ipynb")).content["cells"]
            assert kept["outputs"][0]["data"]["text/plain"] == "2"
            assert kept["execution_count"] == 1

            # The session is closed, the server shut down, and nobody answers any more.
            await client.sessions.delete(session.id)
            assert await client.sessions.list() == ()
            await client.shutdown()
            server.process.wait(15)
            with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", server.port)):
                pass
            with pytest.raises(ServerUnreachable):
                await client.http.request("GET", "api", retry=ONCE)
