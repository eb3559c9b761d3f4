"""Files, notebooks and folders of a real server, with unusual names."""

import asyncio
import base64
import json
from pathlib import Path

import pytest

from nbrun.errors import NotANotebook, NotFound, RequestRefused, UsageError
from nbrun.jupyter.client import Client, connect
from tests.jupyter.doubles import CUT, Heard, Reply, double, passed_on
from tests.support.servers import RunningServer

NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code",
            "execution_count": 1,
            "id": "a",
            "metadata": {"trusted": True},
            "outputs": [{"name": "stdout", "output_type": "stream", "text": "1\n2\n"}],
            "source": "print(1)\nprint(2)",
        }
    ],
    "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}

ODD_NAMES = [
    "plain.ipynb", "two words.ipynb", "#1.ipynb", "100%.ipynb", "a%20b.ipynb", "why?.ipynb", "a+b;c&d=e.ipynb",
    "é中.ipynb", "e\u0301.ipynb", "🙂.ipynb", "a:b.ipynb", "back\\slash.ipynb", "'quotes\".ipynb", "[x](y).ipynb",
    "~.ipynb",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_a_notebook_of_any_name_comes_back_as_it_was_saved(client: Client, root: Path, name: str) -> None:
    path = f"odd names/{name}"
    await client.contents.make_parents(path)
    saved = await client.contents.save_notebook(path, NOTEBOOK)
    assert (saved.created, saved.model.path, saved.model.name, saved.model.message) == (True, path, name, None)
    assert (root / path).is_file()
    model = await client.contents.notebook(path)
    assert model.content == NOTEBOOK
    assert (model.type, model.format, model.writable) == ("notebook", "json", True)
    assert name in [entry.name for entry in await client.contents.directory("odd names")]


async def test_saving_again_is_no_creation_and_changes_the_hash(client: Client) -> None:
    assert (await client.contents.save_file("twice.txt", "one")).created
    before = await client.contents.stat("twice.txt")
    assert not (await client.contents.save_file("twice.txt", "second")).created
    after = await client.contents.stat("twice.txt")
    assert before.hash != after.hash
    assert (after.size, after.hash_algorithm, after.content) == (6, "sha256", None)
    assert after.last_modified
    assert before.last_modified
    assert after.last_modified >= before.last_modified


async def test_a_notebook_that_is_not_valid_is_saved_and_the_server_says_why(client: Client) -> None:
    saved = await client.contents.save_notebook(
        "invalid.ipynb",
        NOTEBOOK | {"cells": [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": "", "odd": 1}]},
    )
    assert saved.model.message
    assert "Notebook validation failed" in saved.model.message


async def test_a_bare_nan_in_a_file_is_read_as_null(client: Client, root: Path) -> None:
    text = json.dumps(NOTEBOOK | {"metadata": {"x": float("nan"), "y": [float("-inf")]}})
    (root / "nan.ipynb").write_text(text)
    model = await client.contents.notebook("nan.ipynb")
    assert model.content["metadata"] == {"x": None, "y": [None]}


async def test_a_notebooks_text_is_what_is_on_disk(client: Client, root: Path) -> None:
    text = json.dumps(NOTEBOOK, indent=7)
    (root / "raw.ipynb").write_text(text)
    assert await client.contents.text("raw.ipynb") == text


async def test_bytes_come_back_as_they_were_saved(client: Client, root: Path) -> None:
    data = bytes(range(256))
    await client.contents.save_file("data.bin", data)
    assert (root / "data.bin").read_bytes() == data
    assert await client.contents.data("data.bin") == data
    model = await client.contents.get("data.bin")
    assert (model.format, base64.b64decode(model.content)) == ("base64", data)


@pytest.mark.parametrize("path", ["missing.ipynb", ".hidden.ipynb", "no/such/folder.ipynb"])
async def test_what_is_missing_or_hidden_is_not_found(client: Client, root: Path, path: str) -> None:
    (root / ".hidden.ipynb").write_text(json.dumps(NOTEBOOK))
    with pytest.raises(NotFound, match=r"does not exist|not found"):
        await client.contents.notebook(path)
    assert not await client.contents.exists(path)


async def test_a_path_upwards_is_refused_before_it_is_sent(client: Client) -> None:
    with pytest.raises(UsageError):
        await client.contents.get("../secrets.txt")


@pytest.mark.parametrize("text", ["", "not json", "\ufeff{}", "[]", '{"nbformat": 5}'], ids=repr)
async def test_a_file_that_holds_no_notebook_is_none(client: Client, root: Path, text: str) -> None:
    (root / "none.ipynb").write_text(text)
    with pytest.raises(NotANotebook):
        await client.contents.notebook("none.ipynb")


async def test_a_folder_is_no_notebook_and_a_file_no_folder(client: Client) -> None:
    await client.contents.make_directory("folder.ipynb")
    with pytest.raises(NotANotebook):
        await client.contents.notebook("folder.ipynb")
    await client.contents.save_file("file.txt", "")
    with pytest.raises(RequestRefused) as caught:
        await client.contents.directory("file.txt")
    assert caught.value.status == 400


async def test_parents_are_made_from_the_top_and_may_be_there_already(client: Client, root: Path) -> None:
    for name in ("x.ipynb", "y.ipynb"):
        await client.contents.make_parents(f"/one/two #/three/{name}")
    assert [path.name for path in (root / "one" / "two #").iterdir()] == ["three"]


async def test_parents_may_be_made_by_several_at_once(client: Client, root: Path) -> None:
    for folder in ("p", "q", "r"):
        await asyncio.gather(*(client.contents.make_parents(f"at once/{folder}/{number}/x") for number in range(8)))
    assert sum(1 for _ in (root / "at once").rglob("*")) == 3 + 3 * 8


async def test_a_missing_parent_is_a_refusal_that_quotes_the_server(client: Client) -> None:
    with pytest.raises(RequestRefused, match="Errno 2") as caught:
        await client.contents.save_file("nowhere/x.txt", "")
    assert caught.value.status == 500


async def test_the_server_names_what_is_untitled(client: Client, root: Path) -> None:
    await client.contents.make_directory("untitled")
    notebook = await client.contents.create_untitled("untitled")
    again = await client.contents.create_untitled("untitled")
    file = await client.contents.create_untitled("untitled", kind="file", extension=".md")
    folder = await client.contents.create_untitled("untitled", kind="directory")
    assert (notebook.type, file.type, folder.type) == ("notebook", "file", "directory")
    assert notebook.path != again.path
    assert file.name.endswith(".md")
    assert {path.name for path in (root / "untitled").iterdir()} >= {notebook.name, again.name, file.name, folder.name}


async def test_a_copy_gets_a_name_of_its_own(client: Client) -> None:
    await client.contents.save_file("original #1.txt", "text")
    copy = await client.contents.copy("original #1.txt", "")
    assert copy.path != "original #1.txt"
    assert await client.contents.text(copy.path) == "text"


async def test_a_file_is_renamed_but_never_over_another(client: Client) -> None:
    await client.contents.save_file("old ?.txt", "old")
    assert (await client.contents.rename("old ?.txt", "new %20.txt")).path == "new %20.txt"
    await client.contents.save_file("old ?.txt", "other")
    with pytest.raises(RequestRefused) as caught:
        await client.contents.rename("old ?.txt", "new %20.txt")
    assert caught.value.status == 409
    assert await client.contents.text("new %20.txt") == "old"


async def test_what_is_deleted_is_gone_and_cannot_be_deleted_again(client: Client, root: Path) -> None:
    await client.contents.save_file("doomed.txt", "")
    await client.contents.delete("doomed.txt")
    assert not (root / "doomed.txt").exists()
    with pytest.raises(NotFound):
        await client.contents.delete("doomed.txt")


async def test_the_root_is_not_deleted(client: Client) -> None:
    with pytest.raises(UsageError):
        await client.contents.delete("/")


async def test_a_file_goes_back_to_its_checkpoint(client: Client) -> None:
    await client.contents.save_file("undo.txt", "good")
    made = await client.contents.create_checkpoint("undo.txt")
    await client.contents.save_file("undo.txt", "bad")
    assert [checkpoint.id for checkpoint in await client.contents.checkpoints("undo.txt")] == [made.id]
    await client.contents.restore_checkpoint("undo.txt", made.id)
    assert await client.contents.text("undo.txt") == "good"
    await client.contents.delete_checkpoint("undo.txt", made.id)
    assert await client.contents.checkpoints("undo.txt") == ()


async def test_a_save_is_repeated_through_a_proxy_that_loses_the_answer(token_server: RunningServer) -> None:
    async def answer(heard: Heard) -> Reply | None:
        reply = await passed_on(heard, token_server)
        return CUT if len([one for one in proxy.heard if one.method == heard.method]) == 1 else reply

    path = f"{token_server.url.split('/', 3)[3]}"
    async with double(answer) as proxy, connect(proxy.url + path, token=token_server.token) as client:
        await client.contents.save_file("lost.txt", "found")
        assert await client.contents.text("lost.txt") == "found"
        await client.contents.delete("lost.txt")  # repeated, and then no longer there: no error
    assert not (token_server.root / "lost.txt").exists()
    assert [heard.method for heard in proxy.heard].count("PUT") == 2
    assert [heard.method for heard in proxy.heard].count("DELETE") == 2
