"""The notebook's file is edited, deleted, replaced or read during the run, or unusual before it.

Nobody's edits are overwritten unasked, and a save that did not arrive is not called one.
"""

import asyncio
import contextlib
import json
import urllib.error
from pathlib import Path
from typing import Any

import pytest

import nbrun
from nbrun.errors import ExitCode
from tests.support.live_runs import LiveRun, Place, live_run, outcomes
from tests.support.notebooks import code, notebook, read_notebook
from tests.support.proxy import proxy

WAITS = "import pathlib, time\nprint('here', flush=True)\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.02)"
"""A cell that says that it has begun, and ends when a file ``go`` is there."""


async def edit(place: Place, run: LiveRun, change: Any) -> nbrun.NotebookResult:
    """Change the place while the run's cell waits, then let the run end."""
    await run.watch.printed("here")
    change()
    (place.folder / "go").touch()
    return await run.result()


async def test_a_notebook_that_somebody_edits_during_the_run_keeps_the_edit(place: Place) -> None:
    theirs = notebook("print('edited')")
    async with place.live(WAITS, "6 * 7") as run:
        result = await edit(place, run, lambda: place.write(theirs))

    assert (result.exit_code, outcomes(result)) == (ExitCode.OK, ["passed", "passed"])
    assert place.read() == theirs
    assert place.outputs("notebook-nbrun.ipynb")[1][0]["data"]["text/plain"] == "42"
    assert result.output is not None
    assert result.output.endswith("notebook-nbrun.ipynb")
    assert any("changed by somebody else" in warning for warning in result.warnings)


async def test_with_force_the_result_takes_the_place_of_an_edit(on_stock: Place) -> None:
    async with on_stock.live(WAITS, "6 * 7", force=True) as run:
        result = await edit(on_stock, run, lambda: on_stock.write(notebook("print('edited')")))

    assert result.exit_code == ExitCode.OK
    assert on_stock.outputs()[1][0]["data"]["text/plain"] == "42"
    assert [path.name for path in on_stock.folder.glob("*.ipynb")] == ["notebook.ipynb"]


async def test_with_the_rule_beside_an_edit_stays_and_gets_no_results(place: Place) -> None:
    theirs = notebook(WAITS, "6 * 7", "'edited'")
    async with place.live(WAITS, "6 * 7", on_conflict="beside") as run:
        result = await edit(place, run, lambda: place.write(theirs))

    assert result.exit_code == ExitCode.OK
    assert place.read() == theirs
    assert place.outputs("notebook-nbrun.ipynb")[1][0]["data"]["text/plain"] == "42"
    assert any("the executed notebook is" in warning for warning in result.warnings)


async def test_a_notebook_that_is_deleted_during_the_run_does_not_come_back(place: Place) -> None:
    async with place.live(WAITS, "6 * 7") as run:
        result = await edit(place, run, (place.folder / "notebook.ipynb").unlink)

    assert result.exit_code == ExitCode.OK
    assert [path.name for path in place.folder.glob("*.ipynb")] == ["notebook-nbrun.ipynb"]
    assert any("deleted or renamed" in warning for warning in result.warnings)


async def test_a_folder_that_takes_the_notebooks_place_is_left_alone(on_stock: Place, here: Path) -> None:
    def replace() -> None:
        (on_stock.folder / "notebook.ipynb").unlink()
        (on_stock.folder / "notebook.ipynb").mkdir()

    async with on_stock.live(WAITS, "6 * 7") as run:
        result = await edit(on_stock, run, replace)

    assert list((on_stock.folder / "notebook.ipynb").iterdir()) == []
    assert (result.exit_code, result.rescued) == (ExitCode.SERVER, True)
    [rescued] = here.iterdir()
    assert read_notebook(rescued)["cells"][1]["outputs"][0]["data"]["text/plain"] == "42"


async def test_a_file_that_is_only_touched_is_not_taken_for_edited(on_stock: Place) -> None:
    async with on_stock.live(WAITS, "6 * 7") as run:
        result = await edit(on_stock, run, (on_stock.folder / "notebook.ipynb").touch)

    assert (result.exit_code, result.warnings) == (ExitCode.OK, ())
    assert on_stock.outputs()[1][0]["data"]["text/plain"] == "42"


async def test_of_two_runs_of_one_notebook_neither_overwrites_the_other(on_stock: Place) -> None:
    taking_turns = "import os\nmine = 'go-2' if os.path.exists('taken') else 'go-1'\nopen('taken', 'w').close()"
    async with on_stock.live(taking_turns, WAITS.replace("'go'", "mine"), "mine") as first:
        await first.watch.printed("here")
        async with live_run(on_stock.name(), **on_stock.options) as second:
            await second.watch.printed("here")
            (on_stock.folder / "go-1").touch()
            results = [await first.result()]
            (on_stock.folder / "go-2").touch()
            results.append(await second.result())

    assert [result.exit_code for result in results] == [ExitCode.OK, ExitCode.OK]
    names = [str(result.output).rsplit("/", 1)[-1] for result in results]
    assert names == ["notebook.ipynb", "notebook-nbrun.ipynb"]
    assert [on_stock.outputs(name)[2][0]["data"]["text/plain"] for name in names] == ["'go-1'", "'go-2'"]


async def test_a_save_that_somebodys_reading_undoes_is_done_again_or_told(on_stock: Place) -> None:
    """A reader who comes into a save makes the stock server bring the old file back, and answer 200 all the same."""
    server, over = on_stock.server, asyncio.Event()
    assert server is not None

    def read() -> None:
        with contextlib.suppress(urllib.error.HTTPError):
            server.get(f"api/contents/{on_stock.prefix}notebook.ipynb?type=notebook&content=1")

    async def read_over_and_over() -> None:
        while not over.is_set():
            await asyncio.to_thread(read)

    async with asyncio.TaskGroup() as readers:
        readers.create_task(read_over_and_over())
        result = await on_stock.run("from IPython.display import HTML\nHTML('x' * 5_000_000)")
        over.set()

    if result.exit_code == ExitCode.OK:
        assert on_stock.outputs()[0][0]["data"]["text/html"] == "x" * 5_000_000
    else:
        assert result.exit_code == ExitCode.SERVER
        assert result.rescued


@pytest.mark.parametrize("arrives", [True, False], ids=["arrived", "did not arrive"])
async def test_a_save_whose_connection_is_cut_is_done_again_unless_it(arrives: bool, on_stock: Place) -> None:
    assert on_stock.server is not None
    path = on_stock.write(notebook("6 * 7"))
    async with proxy(on_stock.server) as wire:
        wire.drop("PUT", forward=arrives)
        async with live_run(path, server=wire.url, token=on_stock.server.token) as run:
            result = await run.result()
        assert len(wire.lines("PUT")) == (1 if arrives else 2)

    assert (result.exit_code, result.output) == (ExitCode.OK, path)
    assert on_stock.outputs()[0][0]["data"]["text/plain"] == "42"
    assert [file.name for file in on_stock.folder.glob("*.ipynb")] == ["notebook.ipynb"]


async def test_missing_ids_are_made_once_and_kept(place: Place) -> None:
    document = notebook("1", "2")
    for cell in document["cells"]:
        del cell["id"]
    path = place.write(document)

    result = await nbrun.run_async(path, **place.options)
    first = [cell["id"] for cell in place.read()["cells"]]
    await nbrun.run_async(path, **place.options)

    assert len(set(first)) == 2
    assert [cell.id for cell in result.cells] == first
    assert [cell["id"] for cell in place.read()["cells"]] == first


async def test_ids_in_a_format_that_has_none_are_kept_and_told_of(on_stock: Place) -> None:
    document = notebook(code("1") | {"id": "early"}, minor=4)
    path = on_stock.write(document)

    result = await nbrun.run_async(path, **on_stock.options)

    assert result.exit_code == ExitCode.OK
    saved = on_stock.read()
    assert (saved["nbformat_minor"], saved["cells"][0]["id"]) == (4, "early")
    assert any("nbformat 4.4" in warning for warning in result.warnings)


async def test_an_old_minor_format_stays_as_it_is(on_stock: Place) -> None:
    path = on_stock.write(notebook("6 * 7", minor=2))

    await nbrun.run_async(path, **on_stock.options)

    saved = on_stock.read()
    assert saved["nbformat_minor"] == 2
    assert "id" not in saved["cells"][0]


async def test_an_nbformat_3_notebook_is_upgraded_aloud(place: Place) -> None:
    cell = {"cell_type": "code", "input": "6 * 7", "language": "python", "outputs": [], "metadata": {}}
    sheet = {"cells": [cell], "metadata": {}}
    old = {"metadata": {"name": ""}, "nbformat": 3, "nbformat_minor": 0, "worksheets": [sheet]}
    (place.folder / "notebook.ipynb").write_text(json.dumps(old))

    result = await nbrun.run_async(place.name(), **place.options)

    assert result.exit_code == ExitCode.OK
    saved = place.read()
    assert saved["nbformat"] == 4
    assert "orig_nbformat" not in saved["metadata"]
    assert saved["cells"][0]["outputs"][0]["data"]["text/plain"] == "42"
    assert any("nbformat 3" in warning for warning in result.warnings)


UNREADABLE = {
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(notebook("1")).encode(),
    "an unfinished merge": b'{"cells": [\n<<<<<<< HEAD\n=======\n>>>>>>> theirs\n], "metadata": {}, "nbformat": 4}',
    "nothing in it": b"",
    "another encoding": json.dumps(notebook("print('\u00e9')"), ensure_ascii=False).encode("latin-1"),
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_a_file_on_a_server_is_refused_and_not_written_that_has(text: bytes, on_stock: Place) -> None:
    (on_stock.folder / "notebook.ipynb").write_bytes(text)

    with pytest.raises(nbrun.NbrunError) as caught:
        await nbrun.run_async(on_stock.name(), **on_stock.options)

    assert caught.value.exit_code == ExitCode.USAGE
    assert "notebook.ipynb" in str(caught.value)
    assert (on_stock.folder / "notebook.ipynb").read_bytes() == text
    assert on_stock.nothing_is_left()


async def test_numbers_in_the_file_that_json_has_not_go_out_as_null(on_stock: Place) -> None:
    document = notebook("6 * 7", strange=float("nan"))
    path = on_stock.write(document)
    assert "NaN" in (on_stock.folder / "notebook.ipynb").read_text()

    result = await nbrun.run_async(path, **on_stock.options)

    assert result.exit_code == ExitCode.OK
    assert "NaN" not in (on_stock.folder / "notebook.ipynb").read_text()
    assert read_notebook(on_stock.folder / "notebook.ipynb")["metadata"]["strange"] is None
