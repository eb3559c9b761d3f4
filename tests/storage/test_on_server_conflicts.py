"""Another client edits, runs or deletes a notebook during its run: nothing is lost."""

import asyncio
import copy
import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from nbrun.core.notebook.request_body import NotebookBody
from nbrun.core.planning.job import CheckpointUse
from nbrun.errors import SaveFailed, ServerUnreachable, UsageError
from nbrun.jupyter.client import Client
from nbrun.jupyter.endpoint import Endpoint
from nbrun.local_server.launcher import EmbeddedServer
from tests.storage.places import BRISK, EXECUTED, ORIGINAL, Place
from tests.support.environments import missing
from tests.support.notebooks import code, markdown, notebook, read_notebook, stdout, write_notebook
from tests.support.proxy import FOR_EVER, Proxy
from tests.support.save_hooks import ROOT
from tests.support.servers import RunningServer, jupyter_server, python_path

Notebook = dict[str, Any]


pytestmark = pytest.mark.usefixtures("quickly")


def with_text(document: Notebook) -> Notebook:
    """Return the notebook as somebody left it who put a text at its top."""
    edited = copy.deepcopy(document)
    edited["cells"].insert(0, markdown("Read this first.") | {"id": "theirs"})
    return edited


# Edits ---------------------------------------------------------------------------------------------------------------


async def test_an_edit_stays_and_the_results_come_into_it(place: Place) -> None:
    opened = await place.loaded()
    place.write(with_text(ORIGINAL))
    assert await opened.save(EXECUTED, BRISK) == f"{place.folder.name}/nb.ipynb"
    text, cell = read_notebook(place.file)["cells"]
    assert text["source"] == "Read this first."
    assert cell["outputs"] == [stdout("42")]
    assert place.names() == [".ipynb_checkpoints", "nb.ipynb"]
    [warning] = place.warnings
    assert "their changes are kept, and the results are in it" in warning


async def test_results_without_a_place_are_kept_beside_and_the_others_come_in(place: Place) -> None:
    before = notebook("1", "2")
    place.write(before)
    opened = await place.loaded()
    edited = with_text(before)
    edited["cells"][2]["source"] = "2 + 2"
    place.write(edited)
    executed = notebook(code("1", outputs=[stdout("one")]), code("2", outputs=[stdout("two")]))

    assert await opened.save(executed, BRISK) == f"{place.folder.name}/nb-nbrun.ipynb"

    assert [cell["source"] for cell in read_notebook(place.file)["cells"]] == ["Read this first.", "1", "2 + 2"]
    assert [place.text_of(1), read_notebook(place.file)["cells"][2]["outputs"]] == ["one", []]
    assert [cell["outputs"] for cell in read_notebook(place.folder / "nb-nbrun.ipynb")["cells"]] == [
        [stdout("one")],
        [stdout("two")],
    ]
    [warning] = place.warnings
    assert "cells at index 1, which they changed, removed or ran" in warning


async def test_results_of_their_own_are_not_overwritten(place: Place) -> None:
    opened = await place.loaded()
    theirs = notebook(code("6 * 7", outputs=[stdout("theirs")]))
    place.write(theirs)
    assert await opened.save(EXECUTED, BRISK) == f"{place.folder.name}/nb-nbrun.ipynb"
    assert (place.text(), place.text("nb-nbrun.ipynb")) == ("theirs", "42")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nbformat": 3}'])
async def test_what_is_no_notebook_any_more_is_left_alone(text: str, place: Place) -> None:
    opened = await place.loaded()
    place.file.write_text(text)
    assert await opened.save(EXECUTED, BRISK) == f"{place.folder.name}/nb-nbrun.ipynb"
    assert place.file.read_text() == text


async def test_a_save_of_theirs_right_after_ours_is_not_taken_for_ours(place: Place, wire: Proxy) -> None:
    opened = await place.loaded()
    looks = 0

    async def edit_before_the_look_after() -> None:
        nonlocal looks
        while True:
            hold = wire.hold("GET", "nb.ipynb")
            await hold.reached.wait()
            looks += 1
            if looks == 2:
                place.write(with_text(read_notebook(place.file)))
            hold.release()

    editing = asyncio.create_task(edit_before_the_look_after())
    await opened.save(EXECUTED, BRISK)
    editing.cancel()
    assert [cell["source"] for cell in read_notebook(place.file)["cells"]] == ["Read this first.", "6 * 7"]
    assert place.text_of(-1) == "42"


async def test_what_is_being_changed_over_and_over_is_left_alone(place: Place, wire: Proxy) -> None:
    opened = await place.loaded()
    number = 0

    async def edit_before_each_look() -> None:
        nonlocal number
        while True:
            hold = wire.hold("GET", "nb.ipynb")
            await hold.reached.wait()
            number += 1
            place.write(with_text(notebook(code("6 * 7", outputs=[stdout("old")]), f"{number}")))
            hold.release()

    editing = asyncio.create_task(edit_before_each_look())
    saved_as = await opened.save(EXECUTED, BRISK)
    editing.cancel()
    assert saved_as == f"{place.folder.name}/nb-nbrun.ipynb"
    assert place.text("nb-nbrun.ipynb") == "42"
    assert len(read_notebook(place.file)["cells"]) == 3


@pytest.mark.parametrize("arrives", [True, False])
async def test_an_edit_that_is_made_while_a_save_waits_for_its_repetition_is_not_written_over(
    arrives: bool, place: Place, wire: Proxy
) -> None:
    opened = await place.loaded()
    edited = with_text(EXECUTED if arrives else ORIGINAL)
    wire.answer(502, "PUT", forward=arrives)
    put = wire.hold("PUT", "nb.ipynb")
    saving = asyncio.create_task(opened.save(EXECUTED, BRISK))
    await asyncio.wait_for(put.reached.wait(), 30)
    look = wire.hold("GET", "nb.ipynb")
    put.release()
    await asyncio.wait_for(look.reached.wait(), 30)
    place.write(edited)
    look.release()
    assert await saving == f"{place.folder.name}/nb.ipynb"
    assert [cell["source"] for cell in read_notebook(place.file)["cells"]] == ["Read this first.", "6 * 7"]
    assert place.text_of(1) == "42"


# Saves while it runs -------------------------------------------------------------------------------------------------

HALF = notebook(code("6 * 7", outputs=[stdout("4")]))


async def test_what_was_saved_meanwhile_is_nobodys_change(place: Place) -> None:
    opened = await place.loaded()
    assert await opened.save_meanwhile(HALF)
    assert place.text() == "4"
    assert await opened.save(EXECUTED, BRISK) == f"{place.folder.name}/nb.ipynb"
    assert (place.text(), place.warnings) == ("42", [])


async def test_meanwhile_nobodys_edit_is_touched_and_at_the_end_it_is_merged(place: Place) -> None:
    opened = await place.loaded()
    await opened.save_meanwhile(HALF)
    place.write(with_text(HALF))
    assert not await opened.save_meanwhile(EXECUTED)
    assert place.text_of(1) == "4"
    await opened.save(EXECUTED, BRISK)
    assert place.text_of(1) == "42"
    assert len(read_notebook(place.file)["cells"]) == 2


async def test_an_output_elsewhere_is_there_meanwhile_and_its_edit_counts_too(place: Place) -> None:
    opened = await place.loaded("new/out.ipynb")
    assert await opened.save_meanwhile(HALF)
    assert (place.text("new/out.ipynb"), place.text()) == ("4", "old")
    write_notebook(place.folder / "new" / "out.ipynb", with_text(HALF))
    await opened.save(EXECUTED, BRISK)
    assert len(read_notebook(place.folder / "new" / "out.ipynb")["cells"]) == 2


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_save_meanwhile_of_which_nobody_knows_is_no_change_by_somebody_else(
    arrives: bool, place: Place, wire: Proxy
) -> None:
    opened = await place.loaded()
    wire.answer(502, "PUT", forward=arrives)
    with pytest.raises(ServerUnreachable):
        await opened.save_meanwhile(HALF)
    assert place.text() == ("4" if arrives else "old")
    assert await opened.save(EXECUTED, BRISK) == f"{place.folder.name}/nb.ipynb"
    assert (place.text(), place.warnings) == ("42", [])


async def test_a_save_meanwhile_that_was_undone_is_left_to_the_next_one(place: Place, wire: Proxy) -> None:
    opened = await place.loaded()
    model = {"name": "nb.ipynb", "path": f"{place.folder.name}/nb.ipynb", "type": "notebook"}
    wire.answer(200, "PUT", body=json.dumps(model).encode(), headers={"Content-Type": "application/json"})
    assert await opened.save_meanwhile(HALF)
    assert place.text() == "old"
    assert await opened.save_meanwhile(HALF)
    assert place.text() == "4"


async def test_a_notebook_that_vanishes_while_it_is_saved_meanwhile_does_not_come_back(
    place: Place, wire: Proxy
) -> None:
    opened = await place.loaded()
    put = wire.hold("PUT", "nb.ipynb")
    saving = asyncio.create_task(opened.save_meanwhile(HALF))
    await asyncio.wait_for(put.reached.wait(), 30)
    look = wire.hold("GET", "nb.ipynb")
    put.release()
    await asyncio.wait_for(look.reached.wait(), 30)
    place.file.unlink()
    look.release()
    assert not await saving
    assert await opened.save(EXECUTED, BRISK) == f"{place.folder.name}/nb-nbrun.ipynb"
    assert not place.file.exists()


async def test_while_a_large_notebook_is_encoded_others_have_their_turn(place: Place) -> None:
    large = notebook(*[code("1", outputs=[stdout('"' * 500_000)]) for _ in range(40)])
    began = time.thread_time()  # CPU time, which other processes do not prolong
    assert b"".join(NotebookBody(large))
    whole = time.thread_time() - began
    opened = await place.loaded()
    turns = [time.thread_time()]
    saving = asyncio.create_task(opened.save_meanwhile(large))
    while not saving.done():
        await asyncio.sleep(0)
        turns.append(time.thread_time())
    assert max(later - earlier for earlier, later in pairwise(turns)) < 0.7 * whole


# Servers with hooks, and edits that hide behind a save ---------------------------------------------------------------


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that does things to what it has just saved."""
    args = ["--FileContentsManager.post_save_hook=tests.support.save_hooks.after_save"]
    with jupyter_server(tmp_path_factory.mktemp("hooked"), args=args, env=python_path(ROOT)) as server:
        yield server


def marked(document: Notebook, **mark: Any) -> Notebook:
    """Return the notebook with the mark of a run, as each run saves it."""
    return {**document, "metadata": {"nbrun": {"run": mark}}}


@pytest.mark.parametrize("meanwhile", [True, False])
@pytest.mark.parametrize("output", ["nb.ipynb", "out.ipynb"])
async def test_an_edit_that_falls_between_a_save_and_its_answer_is_not_taken_for_the_save(
    output: str, meanwhile: bool, hooked: RunningServer, tmp_path: Path
) -> None:
    async def check(place: Place) -> None:
        opened = await place.loaded(output)
        theirs = with_text(marked(HALF if meanwhile else ORIGINAL, outcome="running", saves=1))
        write_notebook(place.folder / output.replace(".ipynb", ".theirs"), theirs)
        if meanwhile:
            assert not await opened.save_meanwhile(marked(HALF, outcome="running", saves=2))
        executed = marked(EXECUTED, outcome="passed", seconds=1.0)
        assert await opened.save(executed, BRISK) == f"{place.folder.name}/{output}"
        saved = read_notebook(place.folder / output)
        assert [cell["source"] for cell in saved["cells"]] == ["Read this first.", "6 * 7"]
        assert saved["cells"][1]["outputs"] == [stdout("42")]
        assert any("their changes are kept, and the results are in it" in warning for warning in place.warnings)

    await on(hooked, hooked.root / tmp_path.name, check)


async def test_what_a_hook_of_the_server_changes_is_nobodys_edit(hooked: RunningServer, tmp_path: Path) -> None:
    async def check(place: Place) -> None:
        opened = await place.loaded()
        place.file.with_suffix(".strip").touch()
        for number in (1, 2):
            assert await opened.save_meanwhile(marked(HALF, outcome="running", saves=number))
        assert await opened.save(marked(EXECUTED, outcome="passed"), BRISK) == f"{place.folder.name}/nb.ipynb"
        assert read_notebook(place.file)["cells"][0]["outputs"] == []
        [warning] = place.warnings
        assert "has not all sources and outputs that were saved: a hook of the server changes them" in warning

    await on(hooked, hooked.root / tmp_path.name, check)


async def test_a_hook_that_writes_the_same_in_another_way_is_not_told_of(hooked: RunningServer, tmp_path: Path) -> None:
    async def check(place: Place) -> None:
        opened = await place.loaded()
        place.file.with_suffix(".compact").touch()
        assert await opened.save(marked(EXECUTED, outcome="passed"), BRISK) == f"{place.folder.name}/nb.ipynb"
        assert (place.text(), place.warnings) == ("42", [])

    await on(hooked, hooked.root / tmp_path.name, check)


async def test_a_save_meanwhile_that_arrived_with_a_complaint_is_not_the_last_one(place: Place, wire: Proxy) -> None:
    opened = await place.loaded()
    wire.answer(500, "PUT", forward=True)
    assert await opened.save_meanwhile(HALF)
    assert await opened.save(EXECUTED, BRISK) == f"{place.folder.name}/nb.ipynb"
    assert place.text() == "42"
    [warning] = place.warnings
    assert "is saved, but the server refused with 500" in warning


async def test_a_save_whose_answer_is_lost_is_known_again_whatever_comes_after(place: Place, wire: Proxy) -> None:
    opened = await place.loaded()
    assert await opened.save_meanwhile(HALF)
    more = notebook(code("6 * 7", outputs=[stdout("4, and more")]))
    wire.answer(502, "PUT", forward=True)
    with pytest.raises(ServerUnreachable):
        await opened.save_meanwhile(more)
    assert await opened.save_meanwhile(more), "it is ours"
    assert place.warnings == []


# The private server --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("meanwhile", [True, False])
async def test_on_a_private_server_nothing_comes_between_the_look_and_the_save(
    meanwhile: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    async with EmbeddedServer(tmp_path) as embedded, Client(embedded.endpoint) as client:
        place = Place(client, folder)
        opened = await place.loaded()
        save = client.contents.save_notebook

        async def edit_and_save(*args: Any, **options: Any) -> Any:
            monkeypatch.undo()
            place.write(with_text(ORIGINAL))
            return await save(*args, **options)

        monkeypatch.setattr(client.contents, "save_notebook", edit_and_save)
        if meanwhile:
            assert not await opened.save_meanwhile(HALF)
        assert await opened.save(EXECUTED, BRISK) == "folder/nb.ipynb"
        assert [cell["source"] for cell in read_notebook(place.file)["cells"]] == ["Read this first.", "6 * 7"]
        assert place.text_of(1) == "42"


async def test_a_private_servers_hash_is_that_of_the_file_whoever_wrote_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    async with EmbeddedServer(tmp_path) as embedded, Client(embedded.endpoint) as client:
        place = Place(client, folder)
        await client.contents.stat("folder/nb.ipynb")
        saved = await client.contents.save_notebook("folder/nb.ipynb", EXECUTED)
        assert saved.model.hash == (await client.contents.stat("folder/nb.ipynb")).hash == hash_of(place.file)
        place.write(ORIGINAL)
        assert saved.model.hash != (await client.contents.stat("folder/nb.ipynb")).hash == hash_of(place.file)


async def test_a_private_server_takes_a_notebook_as_a_plain_file_too(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as embedded, Client(embedded.endpoint) as client:
        await client.contents.save_file("nb.ipynb", json.dumps(EXECUTED))
        assert (await client.contents.stat("nb.ipynb")).hash == hash_of(tmp_path / "nb.ipynb")


def hash_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# The way back --------------------------------------------------------------------------------------------------------


async def test_a_checkpoint_is_the_notebook_as_it_was_before_the_first_write(
    place: Place, server: RunningServer
) -> None:
    opened = await place.loaded(checkpoint=CheckpointUse.KEEP)
    before = place.file.read_bytes()
    await opened.save_meanwhile(HALF)
    await opened.save(EXECUTED, BRISK, passed=False)
    assert place.text() == "42"
    assert (place.folder / ".ipynb_checkpoints" / "nb-checkpoint.ipynb").read_bytes() == before


@pytest.mark.parametrize("written", [True, False])
async def test_a_run_that_does_not_pass_leaves_its_notebook_as_it_was(written: bool, place: Place) -> None:
    opened = await place.loaded(checkpoint=CheckpointUse.RESTORE)
    before = place.file.read_bytes()
    if written:
        await opened.save_meanwhile(HALF)
    assert await opened.save(EXECUTED, BRISK, passed=False) == f"{place.folder.name}/nb-nbrun.ipynb"
    assert place.file.read_bytes() == before
    assert place.text("nb-nbrun.ipynb") == "42"
    [warning] = place.warnings
    assert "is as it was before" in warning


async def test_a_run_that_passes_is_saved_in_place(place: Place) -> None:
    opened = await place.loaded(checkpoint=CheckpointUse.RESTORE)
    assert await opened.save(EXECUTED, BRISK, passed=True) == f"{place.folder.name}/nb.ipynb"
    assert (place.text(), place.warnings) == ("42", [])


async def test_with_an_output_elsewhere_there_is_nothing_to_bring_back(place: Place) -> None:
    opened = await place.loaded("out.ipynb", checkpoint=CheckpointUse.RESTORE)
    assert await opened.save(EXECUTED, BRISK, passed=False) == f"{place.folder.name}/out.ipynb"
    assert (place.text("out.ipynb"), place.text()) == ("42", "old")


async def test_an_edit_is_not_lost_to_the_way_back(place: Place) -> None:
    opened = await place.loaded(checkpoint=CheckpointUse.RESTORE)
    await opened.save_meanwhile(HALF)
    place.write(with_text(HALF))
    assert await opened.save(EXECUTED, BRISK, passed=False) == f"{place.folder.name}/nb-nbrun.ipynb"
    assert len(read_notebook(place.file)["cells"]) == 2
    [warning] = place.warnings
    assert "was left as it is" in warning


async def test_a_checkpoint_that_cannot_be_brought_back_is_told(place: Place, wire: Proxy) -> None:
    opened = await place.loaded(checkpoint=CheckpointUse.RESTORE)
    await opened.save_meanwhile(HALF)
    wire.answer(500, "POST", "checkpoints")
    assert await opened.save(EXECUTED, BRISK, passed=False) == f"{place.folder.name}/nb-nbrun.ipynb"
    [warning] = place.warnings
    assert "could not be brought back" in warning


async def test_a_server_without_checkpoints_is_told_of_before_the_run(place: Place, wire: Proxy) -> None:
    wire.answer(404, "GET", "checkpoints")
    with pytest.raises(UsageError, match="keeps no checkpoint"):
        await place.loaded(checkpoint=CheckpointUse.KEEP)


# A disk that is full -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server over a disk of a megabyte."""
    root = tmp_path_factory.mktemp("small")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)], capture_output=True)
    if mounted.returncode != 0:
        missing("a small disk", install="run the tests as root, who may mount one")
    try:
        with jupyter_server(root) as server:
            yield server
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


async def on(server: RunningServer, folder: Path, check: Any) -> None:
    """Run a check with a place on a server."""
    folder.mkdir()
    async with Client(Endpoint(server.url, token=server.token)) as client:
        await check(Place(client, folder))
    shutil.rmtree(folder)


LARGE = notebook(code("6 * 7", outputs=[stdout("x" * 3_000_000)]))


async def test_a_full_disk_leaves_the_old_notebook_whole(small_disk: RunningServer) -> None:
    async def check(place: Place) -> None:
        opened = await place.loaded()
        before = place.file.read_bytes()
        with pytest.raises(SaveFailed, match="No space left"):
            await opened.save(LARGE, BRISK)
        assert place.file.read_bytes() == before
        assert [name for name in place.names() if name != ".ipynb_checkpoints"] == ["nb.ipynb"]

    await on(small_disk, small_disk.root / "old", check)


async def test_a_full_disk_leaves_no_half_of_a_new_notebook_or_it_is_told(small_disk: RunningServer) -> None:
    async def check(place: Place) -> None:
        opened = await place.loaded("out.ipynb")
        with pytest.raises(SaveFailed, match="not saved") as raised:  # the server's own words are of another file
            await opened.save(LARGE, BRISK)
        assert "disk full" in raised.value.hint
        # A stock server moves what it deletes to a trash, for which a full disk may have no room.
        assert "out.ipynb" not in place.names() or any("half written" in warning for warning in place.warnings)

    await on(small_disk, small_disk.root / "new", check)


async def test_debris_that_cannot_be_removed_is_told(place: Place, wire: Proxy) -> None:
    opened = await place.loaded("out.ipynb")
    wire.answer(500, "PUT", forward=True)
    wire.answer(500, "DELETE", times=FOR_EVER)
    doubled = notebook(code("1") | {"id": "same"}, code("2") | {"id": "same"})  # the server writes other ids
    with pytest.raises(SaveFailed):
        await opened.save(doubled, BRISK)
    [warning] = place.warnings
    assert "half written" in warning


async def test_a_save_that_arrived_with_a_complaint_has_arrived(place: Place, wire: Proxy) -> None:
    opened = await place.loaded("out.ipynb")
    wire.answer(
        500, "PUT", forward=True, body=b'{"message": "a hook failed"}', headers={"Content-Type": "application/json"}
    )
    await opened.save(EXECUTED, BRISK)
    assert place.text("out.ipynb") == "42"
    [warning] = place.warnings
    assert "is saved, but the server refused with 500" in warning
    assert "a hook failed" in warning
