"""A local notebook on a remote server: upload, download, and no files left."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from nbrun.core.planning.job import OnConflict
from nbrun.errors import NoSuchNotebook, NotANotebook, NotFound, SaveFailed
from nbrun.jupyter.client import Client
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.http.retry import SAVE
from nbrun.storage.uploaded import UploadedNotebook
from tests.support.notebooks import code, markdown, notebook, read_notebook, stdout, write_notebook
from tests.support.other_servers import kernel_gateway
from tests.support.proxy import Proxy
from tests.support.servers import RunningServer, jupyter_server

pytestmark = pytest.mark.usefixtures("quickly")
EXECUTED = notebook(code("6 * 7", outputs=[stdout("42")]))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of this module alone, whose folder is empty when a test begins."""
    with jupyter_server(tmp_path_factory.mktemp("files")) as server:
        yield server


@pytest.fixture
async def client(wire: Proxy, server: RunningServer) -> AsyncIterator[Client]:
    """A client of the server, through the proxy."""
    async with Client(Endpoint(wire.url, token=server.token)) as client:
        yield client


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A notebook on this machine."""
    return write_notebook(tmp_path / "my nb é.ipynb", notebook("6 * 7"))


def visible(folder: Path) -> list[Path]:
    """Return what is in a folder, but for what the server keeps there of its own (.ipynb_checkpoints)."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def uploaded(client: Client, local: Path, warnings: list[str]) -> UploadedNotebook:
    return UploadedNotebook(client.contents, local, local, warn=warnings.append)


async def test_a_notebook_is_brought_there_and_its_result_back(
    client: Client, server: RunningServer, local: Path
) -> None:
    warnings: list[str] = []
    there = uploaded(client, local, warnings)
    content = await there.load()
    assert content["cells"][0]["source"] == "6 * 7"
    assert (server.root / there.path).read_bytes() == local.read_bytes()
    assert await there.save(EXECUTED, SAVE) == str(local)
    await there.close()
    assert read_notebook(local)["cells"][0]["outputs"][0]["text"] == "42"
    assert visible(server.root) == []
    assert warnings == []


async def test_files_that_the_notebook_wrote_stay_and_are_named(
    client: Client, server: RunningServer, local: Path
) -> None:
    warnings: list[str] = []
    there = uploaded(client, local, warnings)
    await there.load()
    folder = (server.root / there.path).parent
    (folder / "table.csv").write_text("1,2")
    await there.close()
    [warning] = warnings
    assert folder.name in warning
    assert "table.csv" in warning
    assert [path.name for path in visible(folder)] == ["table.csv"]
    (folder / "table.csv").unlink()
    shutil.rmtree(folder)


async def test_an_upload_that_the_notebook_removed_itself_is_no_matter(
    client: Client, server: RunningServer, local: Path
) -> None:
    warnings: list[str] = []
    there = uploaded(client, local, warnings)
    await there.load()
    (server.root / there.path).unlink()
    await there.close()
    assert (warnings, visible(server.root)) == ([], [])


async def test_two_uploads_of_one_name_are_two_folders(client: Client, local: Path) -> None:
    one, other = uploaded(client, local, []), uploaded(client, local, [])
    assert one.path != other.path


async def test_an_upload_that_cannot_be_removed_is_told(client: Client, wire: Proxy, local: Path) -> None:
    warnings: list[str] = []
    there = uploaded(client, local, warnings)
    await there.load()
    wire.answer(403, "DELETE", times=1)
    wire.answer(403, "GET", times=1)
    await there.close()
    [warning] = warnings
    assert "is left on the server" in warning
    await there.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(None, NoSuchNotebook, id="no file"),
        pytest.param(b"\xff\xfe", NotANotebook, id="no text"),
        pytest.param(b"", NotANotebook, id="no JSON"),
    ],
)
async def test_what_is_no_notebook_is_told_and_nothing_is_left_on_the_server(
    text: bytes | None, expected: type[Exception], client: Client, server: RunningServer, local: Path
) -> None:
    warnings: list[str] = []
    local.unlink() if text is None else local.write_bytes(text)
    there = uploaded(client, local, warnings)
    with pytest.raises(expected, match="my nb é") as raised:
        await there.load()
    await there.close()
    assert visible(server.root) == []
    assert warnings == [], "there is nothing to say of an upload that was never made"
    assert str(local) in str(raised.value)


async def test_a_server_that_takes_no_files_is_told_as_such(tmp_path: Path, local: Path) -> None:
    warnings: list[str] = []
    with kernel_gateway(tmp_path) as gateway:
        async with Client(Endpoint(gateway.url, token=gateway.token)) as client:
            there = uploaded(client, local, warnings)
            with pytest.raises(NotFound, match="takes no files") as raised:
                await there.load()
            await there.close()
    assert "gateway" in raised.value.hint
    assert warnings == []


async def test_a_result_that_cannot_be_written_here_has_failed(client: Client, local: Path) -> None:
    there = UploadedNotebook(client.contents, local, local / "in a file" / "out.ipynb", warn=print)
    with pytest.raises(SaveFailed):
        await there.save(EXECUTED, SAVE)


@pytest.mark.parametrize("gone", [False, True], ids=["edited", "deleted"])
async def test_a_notebook_that_was_changed_here_meanwhile_is_left_alone(
    client: Client, local: Path, gone: bool
) -> None:
    warnings: list[str] = []
    there = uploaded(client, local, warnings)
    await there.load()
    local.unlink()
    if not gone:
        write_notebook(local, notebook("'edited'"))
    beside = local.with_name("my nb é-nbrun.ipynb")
    assert await there.save(EXECUTED, SAVE) == str(beside)
    await there.close()
    assert local.exists() is not gone
    assert read_notebook(beside)["cells"][0]["outputs"][0]["text"] == "42"
    assert ("was deleted or renamed" if gone else "was changed by somebody else") in warnings[0]


async def test_a_notebook_that_was_edited_here_meanwhile_gets_the_results(client: Client, local: Path) -> None:
    warnings: list[str] = []
    there = uploaded(client, local, warnings)
    await there.load()
    assert await there.save_meanwhile(EXECUTED)
    edited = read_notebook(local)
    edited["cells"].insert(0, markdown("Read this.") | {"id": "theirs"})
    write_notebook(local, edited)
    assert not await there.save_meanwhile(EXECUTED)
    later = notebook(code("6 * 7", outputs=[stdout("later")]))
    assert await there.save(later, SAVE) == str(local)
    await there.close()
    text, cell = read_notebook(local)["cells"]
    assert (text["source"], cell["outputs"]) == ("Read this.", [stdout("later")])
    stopped, warning = warnings
    assert "not saved again before the run has ended" in stopped
    assert "their changes are kept" in warning


@pytest.mark.parametrize("meanwhile", [True, False])
async def test_an_edit_in_the_moment_of_a_save_is_not_written_over(
    meanwhile: bool, client: Client, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = uploaded(client, local, [])
    await there.load()
    edited = notebook(markdown("Read this.") | {"id": "theirs"}, "6 * 7")

    def edit(descriptor: int) -> None:
        monkeypatch.undo()
        write_notebook(local, edited)

    monkeypatch.setattr("nbrun.storage.on_disk.os.fsync", edit)
    if meanwhile:
        assert not await there.save_meanwhile(EXECUTED)
    assert await there.save(EXECUTED, SAVE) == str(local)
    await there.close()
    text, cell = read_notebook(local)["cells"]
    assert (text["source"], cell["outputs"]) == ("Read this.", [stdout("42")])


async def test_results_that_find_no_place_in_a_notebook_that_was_edited_here_are_kept_beside(
    client: Client, local: Path
) -> None:
    warnings: list[str] = []
    write_notebook(local, notebook("1", "2"))
    there = uploaded(client, local, warnings)
    await there.load()
    write_notebook(local, notebook("1", "2 + 2"))
    executed = notebook(code("1", outputs=[stdout("one")]), code("2", outputs=[stdout("two")]))
    saved_as = await there.save(executed, SAVE)
    await there.close()
    assert saved_as == str(local.with_name(f"{local.stem}-nbrun.ipynb"))
    assert [cell["outputs"] for cell in read_notebook(Path(saved_as))["cells"]] == [[stdout("one")], [stdout("two")]]
    assert [cell["outputs"] for cell in read_notebook(local)["cells"]] == [[stdout("one")], []]
    [warning] = warnings
    assert "cells at index 1, which they changed, removed or ran" in warning


async def test_a_notebook_that_was_changed_here_is_overwritten_if_that_is_wanted(client: Client, local: Path) -> None:
    there = UploadedNotebook(client.contents, local, local, warn=print, on_conflict=OnConflict.OVERWRITE)
    await there.load()
    write_notebook(local, notebook("'edited'"))
    assert await there.save(EXECUTED, SAVE) == str(local)
    await there.close()
    assert read_notebook(local)["cells"][0]["outputs"][0]["text"] == "42"
