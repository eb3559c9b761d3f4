"""Saves are verified by the file: lost saves, changes of others, gateways, old servers."""

import asyncio
import contextlib
import json
import os
import shutil
import threading
import urllib.error
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from nbrun.core.planning.job import OnConflict
from nbrun.errors import NoSuchNotebook, NotANotebook, SaveFailed, UsageError
from nbrun.jupyter.client import Client
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.http.retry import SAVE
from nbrun.storage.on_server import ServerNotebook
from tests.storage.places import BRISK, EXECUTED, ORIGINAL, Place
from tests.support.notebooks import code, notebook, stdout, write_notebook
from tests.support.other_servers import other_server
from tests.support.proxy import Proxy
from tests.support.servers import RunningServer

pytestmark = pytest.mark.usefixtures("quickly")


async def test_an_executed_notebook_takes_its_own_place(place: Place) -> None:
    opened = await place.loaded()
    assert await opened.save(EXECUTED, BRISK) == f"{place.folder.name}/nb.ipynb"
    assert place.text() == "42"
    assert place.warnings == []
    assert list(place.folder.glob("*.ipynb")) == [place.file]
    await opened.close()


async def test_it_can_be_saved_again_and_its_own_save_is_nobodys_change(place: Place) -> None:
    opened = await place.loaded()
    await opened.save(EXECUTED, BRISK)
    await opened.save(notebook(code("1", outputs=[stdout("later")])), BRISK)
    assert place.text() == "later"
    assert place.warnings == []


async def test_a_notebook_that_is_what_it_was_is_saved_all_the_same(place: Place, wire: Proxy) -> None:
    opened = await place.loaded()
    for _ in range(2):
        await opened.save(EXECUTED, BRISK)
    assert len(wire.lines("PUT")) == 2, "its hash does not change, and that is no lost save"


async def test_the_name_that_a_user_is_told_is_the_one_that_the_user_knows(place: Place) -> None:
    path = f"{place.folder.name}/nb.ipynb"
    opened = ServerNotebook(
        place.client.contents, path, path, warn=place.warnings.append, name_for_user=lambda path: f"here/{path}"
    )
    await opened.load()
    write_notebook(place.file, notebook("edited"))
    assert await opened.save(EXECUTED, BRISK) == f"here/{place.folder.name}/nb-nbrun.ipynb"
    [warning] = place.warnings
    assert warning.startswith("here/")


async def test_a_path_with_a_drive_as_jupyterlab_shows_it_is_found_without_it(place: Place) -> None:
    path = f"RTC:{place.folder.name}/nb.ipynb"
    notebook = ServerNotebook(place.client.contents, path, path, warn=print)
    await notebook.load()
    assert notebook.path == path.removeprefix("RTC:")
    assert await notebook.save(EXECUTED, BRISK) == notebook.path
    assert place.text() == "42"


async def test_folders_on_the_way_to_the_output_are_created(place: Place) -> None:
    opened = await place.loaded("not yet/there/out.ipynb")
    assert await opened.save(EXECUTED, BRISK) == f"{place.folder.name}/not yet/there/out.ipynb"
    assert place.text("not yet/there/out.ipynb") == "42"
    assert place.text() == "old"


async def test_an_output_that_is_there_is_replaced(place: Place) -> None:
    write_notebook(place.folder / "out.ipynb", notebook("another"))
    opened = await place.loaded("out.ipynb")
    await opened.save(EXECUTED, BRISK)
    assert place.text("out.ipynb") == "42"


@pytest.mark.parametrize("taken", [0, 1])
async def test_a_notebook_that_somebody_edited_meanwhile_is_left_alone(taken: int, place: Place) -> None:
    opened = await place.loaded()
    edited = write_notebook(place.file, notebook("edited")).read_bytes()
    if taken:
        write_notebook(place.folder / "nb-nbrun.ipynb", notebook("an earlier one"))
    name = "nb-nbrun2.ipynb" if taken else "nb-nbrun.ipynb"
    assert await opened.save(EXECUTED, BRISK) == f"{place.folder.name}/{name}"
    assert place.file.read_bytes() == edited
    assert place.text(name) == "42"
    [warning] = place.warnings
    assert "was changed by somebody else" in warning
    assert name in warning


async def test_with_force_an_edited_notebook_is_overwritten(place: Place) -> None:
    opened = await place.loaded(on_conflict=OnConflict.OVERWRITE)
    write_notebook(place.file, notebook("edited"))
    await opened.save(EXECUTED, BRISK)
    assert place.text() == "42"
    assert place.warnings == []


async def test_a_notebook_that_was_only_touched_is_no_changed_one(place: Place) -> None:
    opened = await place.loaded()
    place.file.write_bytes(place.file.read_bytes())
    await opened.save(EXECUTED, BRISK)
    assert place.text() == "42"
    assert place.warnings == []


async def test_a_notebook_that_was_deleted_meanwhile_does_not_come_back_under_its_name(place: Place) -> None:
    opened = await place.loaded()
    place.file.unlink()
    await opened.save(EXECUTED, BRISK)
    assert not place.file.exists()
    assert place.text("nb-nbrun.ipynb") == "42"
    [warning] = place.warnings
    assert "was deleted or renamed" in warning


async def test_a_save_that_the_server_undid_is_repeated(place: Place, wire: Proxy) -> None:
    opened = await place.loaded()
    model = {"name": "nb.ipynb", "path": f"{place.folder.name}/nb.ipynb", "type": "notebook"}
    wire.answer(200, "PUT", times=2, body=json.dumps(model).encode(), headers={"Content-Type": "application/json"})
    await opened.save(EXECUTED, BRISK)
    assert place.text() == "42"
    assert len(wire.lines("PUT")) == 3


async def test_a_save_that_is_undone_three_times_has_failed(place: Place, wire: Proxy) -> None:
    opened = await place.loaded()
    model = {"name": "nb.ipynb", "path": f"{place.folder.name}/nb.ipynb", "type": "notebook"}
    wire.answer(200, "PUT", times=9, body=json.dumps(model).encode(), headers={"Content-Type": "application/json"})
    with pytest.raises(SaveFailed, match="said three times") as raised:
        await opened.save(EXECUTED, BRISK)
    assert "reading the notebook" in raised.value.hint
    assert place.text() == "old"


async def test_a_reader_who_destroys_the_first_save_does_not_destroy_the_result(
    place: Place, server: RunningServer
) -> None:
    # What makes a real server bring the old file back: a GET of the content while the new one is being written.
    big = notebook(*[code(f"{number}", outputs=[stdout("x" * 400)]) for number in range(12_000)])
    write_notebook(place.file, big)
    opened = await place.loaded()
    stop = threading.Event()

    def read_until_it_has_happened() -> None:
        while not stop.is_set() and not list(place.folder.glob("*.invalid")):
            with contextlib.suppress(urllib.error.HTTPError):
                server.get(f"api/contents/{place.folder.name}/nb.ipynb?content=1")

    reading = asyncio.create_task(asyncio.to_thread(read_until_it_has_happened))
    executed = replace_text(big, "42")
    try:
        await opened.save(executed, BRISK)
    finally:
        stop.set()
        await reading
    assert place.text() == "42"


def replace_text(document: dict[str, Any], text: str) -> dict[str, Any]:
    cells = [{**cell, "outputs": [stdout(text)]} for cell in document["cells"]]
    return {**document, "cells": cells}


@pytest.mark.parametrize("forward", [False, True], ids=["before the server had it", "after the server had it"])
async def test_a_gateway_that_answers_502_once_is_forgiven(forward: bool, place: Place, wire: Proxy) -> None:
    opened = await place.loaded()
    wire.answer(502, "PUT", times=2, forward=forward)
    await opened.save(EXECUTED, BRISK)
    assert place.text() == "42"
    assert place.warnings == []


async def test_a_gateway_that_answers_502_for_ever_ends_in_a_failed_save(place: Place, wire: Proxy) -> None:
    opened = await place.loaded()
    wire.answer(502, "PUT", times=99)
    with pytest.raises(SaveFailed, match=r"nb\.ipynb: not saved: .*502"):
        await opened.save(EXECUTED, BRISK)
    assert len(wire.lines("PUT")) == BRISK.tries


async def test_the_version_is_requested_before_a_save_as_often_as_the_save_itself(place: Place, wire: Proxy) -> None:
    opened = await place.loaded()
    before = len(wire.lines("GET"))
    wire.answer(502, "GET", times=99)
    with pytest.raises(SaveFailed, match=r"nb\.ipynb: not saved: .*502"):
        await opened.save(EXECUTED, BRISK)
    assert len(wire.lines("GET")) - before == BRISK.tries


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        pytest.param(lambda wire: wire.answer(403, "PUT", times=99), "403", id="no permission"),
        pytest.param(lambda wire: wire.answer(413, "PUT", times=99), "413|large", id="too large for a proxy"),
        pytest.param(lambda wire: wire.ask_to_log_in("PUT", times=99), "login|302|page", id="a login page"),
        pytest.param(lambda wire: wire.close(), "connection", id="nobody there"),
    ],
)
async def test_a_refused_save_is_told_with_its_reason(fault: Any, says: str, place: Place, wire: Proxy) -> None:
    opened = await place.loaded()
    fault(wire)
    with pytest.raises(SaveFailed, match=says):
        await opened.save(EXECUTED, replace(BRISK, tries=1))
    assert place.text() == "old"


async def test_a_body_that_is_reset_is_told_to_be_too_large(place: Place, wire: Proxy) -> None:
    opened = await place.loaded()
    wire.reset_above = 1_000_000
    with pytest.raises(SaveFailed, match="cut twice"):
        await opened.save(notebook(code("1", outputs=[stdout("x" * 2_000_000)])), BRISK)


async def test_what_the_server_says_of_a_saved_notebook_is_told(place: Place) -> None:
    opened = await place.loaded()
    odd = notebook(code("1", outputs=[{**stdout("42"), "transient": {}}]))
    await opened.save(odd, BRISK)
    complaint = "it is not valid at cells[0].outputs[0]: Additional properties are not allowed"
    assert place.warnings == [f"the server says of the saved notebook: {complaint} ('transient' was unexpected)"]


async def test_what_the_server_says_of_a_loaded_notebook_is_told(place: Place) -> None:
    write_notebook(place.file, notebook(code("1", outputs=[{**stdout("42"), "transient": {}}])))
    opened = await place.loaded()
    complaint = (
        "the server says of the notebook: it is not valid at cells[0].outputs[0]: "
        "Additional properties are not allowed ('transient' was unexpected)"
    )
    assert place.warnings == [complaint]
    await opened.save(notebook(code("1", outputs=[{**stdout("42"), "transient": {}}])), BRISK)
    assert place.warnings == [complaint], "said once"


async def test_a_notebook_that_cannot_be_written_is_told_of_before_it_runs(place: Place, wire: Proxy) -> None:
    model = json.dumps(
        {"name": "nb.ipynb", "path": "nb.ipynb", "type": "notebook", "content": ORIGINAL, "writable": False}
    ).encode()
    for output, checked, refused in (("nb.ipynb", True, True), ("out.ipynb", True, False), ("nb.ipynb", False, False)):
        wire.answer(200, "GET", "nb.ipynb", body=model, headers={"Content-Type": "application/json"})
        opened = place.opened(output)
        opened.check_output = checked
        with pytest.raises(UsageError, match="cannot be written") if refused else contextlib.nullcontext():
            await opened.load()
        assert place.warnings == []


async def test_a_path_is_known_by_the_servers_name_once_it_is_loaded(place: Place) -> None:
    path = f"/{place.folder.name}/nb.ipynb/"
    opened = ServerNotebook(place.client.contents, path, path, warn=place.warnings.append)
    await opened.load()
    assert opened.path == f"{place.folder.name}/nb.ipynb"
    assert await opened.save(EXECUTED, BRISK) == f"{place.folder.name}/nb.ipynb"


async def test_a_notebook_that_is_not_there_is_no_such_notebook(place: Place) -> None:
    place.file.unlink()
    with pytest.raises(NoSuchNotebook, match=r"nb\.ipynb"):
        await place.loaded()


async def test_a_file_that_is_no_notebook_is_told_as_such(place: Place) -> None:
    place.file.write_text("")
    with pytest.raises(NotANotebook):
        await place.loaded()


async def test_a_folder_with_no_free_name_ends_in_a_failed_save(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = await place.loaded()
    write_notebook(place.file, notebook("edited"))

    async def exists(path: str) -> bool:
        return True

    monkeypatch.setattr(place.client.contents, "exists", exists)
    with pytest.raises(SaveFailed, match="no free name"):
        await opened.save(EXECUTED, BRISK)


async def test_on_a_server_without_hashes_a_save_is_seen_by_its_date(tmp_path: Path) -> None:
    with other_server("server-1.24", tmp_path) as old:
        async with Client(Endpoint(old.url, token=old.token)) as client:
            folder = old.root / "folder"
            folder.mkdir()
            place = Place(client, folder)
            opened = await place.loaded()
            await opened.save(EXECUTED, BRISK)
            assert place.text() == "42"
            await opened.save(EXECUTED, BRISK)
            write_notebook(place.file, notebook("edited"))
            later = place.file.stat().st_mtime + 10
            os.utime(place.file, (later, later))
            assert await opened.save(EXECUTED, BRISK) == "folder/nb-nbrun.ipynb"


def test_saves_are_patient_by_default() -> None:
    assert SAVE.total >= 60


async def test_a_look_into_somebody_elses_save_is_no_change_yet(place: Place, wire: Proxy) -> None:
    opened = await place.loaded()
    half = {"name": "nb.ipynb", "path": "nb.ipynb", "type": "notebook", "hash": "e3b0c442", "size": 0}
    wire.answer(200, "GET", "nb.ipynb", body=json.dumps(half).encode(), headers={"Content-Type": "application/json"})
    await opened.save(EXECUTED, BRISK)
    assert place.text() == "42"
    assert place.warnings == []


async def test_a_notebook_whose_folder_was_deleted_meanwhile_is_saved_nevertheless(place: Place) -> None:
    opened = await place.loaded()
    shutil.rmtree(place.folder)
    assert await opened.save(EXECUTED, BRISK) == f"{place.folder.name}/nb-nbrun.ipynb"
    assert place.text("nb-nbrun.ipynb") == "42"


@pytest.mark.parametrize("output", ["nb.ipynb", "out.ipynb"])
async def test_a_folder_that_took_the_notebooks_place_is_told_as_one(place: Place, output: str) -> None:
    opened = await place.loaded(output)
    (place.folder / output).unlink(missing_ok=True)
    (place.folder / output).mkdir()
    with pytest.raises(SaveFailed) as raised:
        await opened.save(EXECUTED, replace(BRISK, tries=1))
    assert str(raised.value).endswith(f"{output}: not saved: a folder of that name took its place during the run")
    assert "http" not in f"{raised.value} {raised.value.hint}"


async def test_a_refused_save_names_no_address_of_a_request(place: Place, wire: Proxy) -> None:
    opened = await place.loaded()
    wire.answer(403, "PUT", "nb.ipynb", body=b'{"message": "no"}', headers={"Content-Type": "application/json"})
    with pytest.raises(SaveFailed, match=r"nb\.ipynb: not saved: the server refused with 403: no$"):
        await opened.save(EXECUTED, replace(BRISK, tries=1))


async def test_a_notebook_that_the_server_may_not_read_is_a_wrong_call(place: Place, wire: Proxy) -> None:
    body = b'{"message": "Permission denied: nb.ipynb"}'
    wire.answer(403, "GET", "nb.ipynb", body=body, headers={"Content-Type": "application/json"})
    with pytest.raises(UsageError, match=r"nb\.ipynb: the server may not read this notebook$"):
        await place.loaded()
