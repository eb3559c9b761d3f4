"""Outputs of a run open trusted in the user's JupyterLab, and other outputs do not.

A server signs what it saves if the code cells say that they are trusted; whoever opens the file then on a server with
the same data folder is told so, cell by cell.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nbrun
from nbrun.errors import ExitCode
from tests.support.live_runs import Place, outcomes
from tests.support.notebooks import code, markdown, notebook, write_notebook
from tests.support.servers import RunningServer, jupyter_server

HTML = "from IPython.display import HTML\nHTML('<b>bold</b>')"
FOREIGN = {"output_type": "display_data", "data": {"text/html": "<script>theirs()</script>"}, "metadata": {}}
"""An output of somebody else's, which nobody here has made or looked at."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's Jupyter data folder, with the key that notebooks are signed with."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def users_server(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[RunningServer]:
    """The server on which the user opens notebooks."""
    with jupyter_server(tmp_path_factory.mktemp("users"), env={"JUPYTER_DATA_DIR": str(data)}) as server:
        yield server


@pytest.fixture(params=["private", "existing"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, users_server: RunningServer, data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Place:  # fmt: skip
    """A folder on the user's server; runs are on that server, or on private ones with the same data folder."""
    folder = users_server.root / tmp_path.name
    folder.mkdir()
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(data))
    return Place(folder, users_server if request.param == "existing" else None, f"{tmp_path.name}/")


def opened(server: RunningServer, place: Place, name: str = "notebook.ipynb") -> dict[str, Any]:
    """Open a notebook as JupyterLab does: through the server."""
    content: dict[str, Any] = server.get(f"api/contents/{place.prefix}{name}?type=notebook&content=1")["content"]
    return content


def trusted(server: RunningServer, place: Place, name: str = "notebook.ipynb") -> list[bool]:
    """Return the server's word on each code cell."""
    cells = opened(server, place, name)["cells"]
    return [cell["metadata"]["trusted"] for cell in cells if cell["cell_type"] == "code"]


async def test_a_notebook_that_ran_in_place_opens_trusted(users_server: RunningServer, place: Place) -> None:
    result = await place.run(markdown("# Title"), HTML, "print('text')", "1 + 1", "", code("", outputs=[FOREIGN]))

    assert result.exit_code == ExitCode.OK
    assert trusted(users_server, place) == [True] * 5
    assert opened(users_server, place)["cells"][1]["outputs"][0]["data"]["text/html"] == "<b>bold</b>"


async def test_a_run_that_fails_half_way_leaves_a_trusted_notebook(users_server: RunningServer, place: Place) -> None:
    result = await place.run(HTML, "1 / 0", code("print('never')", outputs=[FOREIGN]))

    assert outcomes(result) == ["passed", "failed", "not-run"]
    assert trusted(users_server, place) == [True] * 3
    assert "script" not in str(opened(users_server, place)["cells"]), "what did not run shows nothing of before"


async def test_a_notebook_with_foreign_outputs_that_were_not_run_stays_untrusted(
    users_server: RunningServer, place: Place
) -> None:
    path = place.write(notebook(HTML, code("print('kept')", tags=["skip-execution"], outputs=[FOREIGN])))
    assert trusted(users_server, place) == [False, False], "nobody has signed it"

    result = await nbrun.run_async(path, **place.options)

    assert outcomes(result) == ["passed", "skipped"]
    assert opened(users_server, place)["cells"][1]["outputs"][0]["data"] == FOREIGN["data"]
    assert trusted(users_server, place) == [False, False]


async def test_what_was_trusted_and_is_skipped_stays_trusted(users_server: RunningServer, place: Place) -> None:
    skipped = code("print('kept')", tags=["skip-execution"], outputs=[FOREIGN])
    path = place.write(notebook(HTML, skipped))
    users_server.call("POST", f"api/contents/{place.prefix}notebook.ipynb/trust")
    assert trusted(users_server, place) == [True, True]

    await nbrun.run_async(path, **place.options)

    assert trusted(users_server, place) == [True, True]


async def test_a_notebook_without_ids_and_with_flags_where_none_belong_opens_trusted(
    users_server: RunningServer, place: Place
) -> None:
    words = markdown("# Title")
    words["metadata"]["trusted"] = True
    document = notebook(words, HTML, HTML)
    document["cells"][1]["id"] = document["cells"][2]["id"] = "twice"
    path = place.write(document)

    result = await nbrun.run_async(path, **place.options)

    assert result.exit_code == ExitCode.OK
    assert trusted(users_server, place) == [True, True]
    ids = [cell["id"] for cell in opened(users_server, place)["cells"]]
    assert len(set(ids)) == 3
    assert ids[1] == "twice"


async def test_an_output_file_opens_trusted_and_the_notebook_itself_is_as_it_was(
    users_server: RunningServer, place: Place
) -> None:
    path = place.write(notebook(code(HTML, outputs=[FOREIGN])))

    await nbrun.run_async(path, output=place.name("out.ipynb"), **place.options)

    assert trusted(users_server, place, "out.ipynb") == [True]
    assert trusted(users_server, place) == [False]


async def test_a_user_with_another_key_does_not_trust_what_ran_here(place: Place, tmp_path: Path) -> None:
    """The check of the checks: trust comes from the signature and not from something in the file."""
    await place.run(HTML)
    root = tmp_path / "elsewhere"
    write_notebook(root / "notebook.ipynb", place.read())

    with jupyter_server(root) as stranger:
        assert trusted(stranger, Place(root)) == [False]
