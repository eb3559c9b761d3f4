"""The conflict rule, with notebooks in memory that another client changes during the run."""

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest

from nbrun.core.planning.job import OnConflict
from nbrun.errors import SaveFailed
from nbrun.storage.base import Written
from nbrun.storage.conflicts import GuardedTarget
from nbrun.storage.file_version import FileVersion
from nbrun.storage.in_memory import MemoryFile
from tests.storage.places import BRISK, EXECUTED, ORIGINAL
from tests.support.notebooks import code, markdown, notebook, stdout

pytestmark = pytest.mark.usefixtures("quickly")


def with_text(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the notebook as somebody left it who put a text at its top."""
    edited = copy.deepcopy({**document})
    edited["cells"].insert(0, markdown("Read this first.") | {"id": "theirs"})
    return edited


EDITED = with_text(ORIGINAL)


class Run:
    """A run whose notebook is in memory."""

    def __init__(self, rule: OnConflict, file: MemoryFile | None = None) -> None:
        self.file = file or MemoryFile("nb.ipynb")
        self.warnings: list[str] = []
        self.target = GuardedTarget(self.file, warn=self.warnings.append, on_conflict=rule)

    async def load(self) -> None:
        """Load the notebook as it was."""
        self.edit(ORIGINAL)
        self.target.loaded(ORIGINAL, await self.file.stat())

    def edit(self, document: Mapping[str, Any] | None) -> None:
        """Change the notebook as another client does, or delete it."""
        self.file.content = None if document is None else json.dumps(document).encode()

    def outputs(self, suffix: str = "") -> list[Any]:
        """Return the outputs of all code cells of the notebook, or of the one beside it."""
        data = (self.file.beside(suffix) if suffix else self.file).content
        assert data is not None
        return [cell["outputs"][0]["text"] for cell in json.loads(data)["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("rule", OnConflict)
async def test_without_a_change_the_notebook_takes_its_own_place(rule: OnConflict) -> None:
    run = Run(rule)
    await run.load()
    assert await run.target.save_meanwhile(notebook(code("6 * 7", outputs=[stdout("4")])))
    assert await run.target.save(EXECUTED, BRISK) == "nb.ipynb"
    assert (run.outputs(), run.warnings) == ([["42"]], [])


@pytest.mark.parametrize(
    ("rule", "saved_as", "cells", "warning"),
    [
        (OnConflict.MERGE, "nb.ipynb", 2, "their changes are kept, and the results are in it"),
        (OnConflict.BESIDE, "nb-nbrun.ipynb", 2, "during the run; the executed notebook is nb-nbrun.ipynb"),
        (OnConflict.OVERWRITE, "nb.ipynb", 1, ""),
    ],
)
async def test_a_notebook_that_changed_is_merged_or_left_or_overwritten(
    rule: OnConflict, saved_as: str, cells: int, warning: str
) -> None:
    run = Run(rule)
    await run.load()
    run.edit(EDITED)
    before = run.file.content
    assert await run.target.save(EXECUTED, BRISK) == saved_as
    assert run.file.content is not None
    assert len(json.loads(run.file.content)["cells"]) == cells
    if rule is OnConflict.BESIDE:
        assert run.file.content == before
        assert run.outputs("-nbrun") == [["42"]]
    else:
        assert run.outputs() == [["42"]]
        assert not await run.file.beside("-nbrun").exists()
    assert [warning in told for told in run.warnings] == [True] * bool(warning)


@pytest.mark.parametrize(
    ("rule", "saved_as"),
    [
        (OnConflict.MERGE, "nb-nbrun.ipynb"),
        (OnConflict.BESIDE, "nb-nbrun.ipynb"),
        (OnConflict.OVERWRITE, "nb.ipynb"),
    ],
)
async def test_a_notebook_that_was_deleted_comes_back_only_where_it_is_to_be_overwritten(
    rule: OnConflict, saved_as: str
) -> None:
    run = Run(rule)
    await run.load()
    run.edit(None)
    assert await run.target.save(EXECUTED, BRISK) == saved_as
    assert await run.file.exists() is (rule is OnConflict.OVERWRITE)


@pytest.mark.parametrize("rule", OnConflict)
async def test_a_change_ends_the_saves_meanwhile_unless_it_is_to_be_overwritten(rule: OnConflict) -> None:
    run = Run(rule)
    await run.load()
    run.edit(EDITED)
    assert await run.target.save_meanwhile(EXECUTED) is (rule is OnConflict.OVERWRITE)
    assert [warning.partition(";")[0] for warning in run.warnings] == ["nb.ipynb was changed by somebody else"] * (
        rule is not OnConflict.OVERWRITE
    )


@pytest.mark.parametrize("rule", OnConflict)
async def test_a_file_that_was_not_loaded_from_is_replaced_whatever_is_there(rule: OnConflict) -> None:
    run = Run(rule)
    run.edit(EDITED)
    run.target.loaded(ORIGINAL, None)
    assert await run.target.save(EXECUTED, BRISK) == "nb.ipynb"
    assert (run.outputs(), run.warnings) == ([["42"]], [])


async def test_a_name_beside_is_one_that_nobody_has() -> None:
    run = Run(OnConflict.BESIDE)
    await run.load()
    run.edit(EDITED)
    for suffix in ("-nbrun", "-nbrun2"):
        run.file.beside(suffix).content = b"taken"
    assert await run.target.save(EXECUTED, BRISK) == "nb-nbrun3.ipynb"


async def test_where_every_name_beside_is_taken_the_save_has_failed() -> None:
    run = Run(OnConflict.BESIDE)
    await run.load()
    run.edit(EDITED)
    for number in range(1, 1000):
        run.file.beside(f"-nbrun{'' if number == 1 else number}").content = b"taken"
    with pytest.raises(SaveFailed, match="no free name"):
        await run.target.save(EXECUTED, BRISK)


class Contended(MemoryFile):
    """A notebook that somebody else changes just before each write."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.edits = 0

    async def write(self, content: Mapping[str, Any], unless_changed_since: FileVersion | None) -> Written | None:
        """Change the notebook, then write."""
        if self.edits < 9:
            self.edits += 1
            self.content = json.dumps(with_text(notebook(code("6 * 7", outputs=[stdout("old")]), "1"))).encode()
            self.content += b"\n" * self.edits
        return await super().write(content, unless_changed_since)


@pytest.mark.parametrize("rule", [OnConflict.MERGE, OnConflict.BESIDE])
async def test_no_write_replaces_a_version_that_came_at_the_last_moment(rule: OnConflict) -> None:
    run = Run(rule, Contended("nb.ipynb"))
    await run.load()
    assert await run.target.save(EXECUTED, BRISK) == "nb-nbrun.ipynb"
    assert run.outputs("-nbrun") == [["42"]]
    [warning] = run.warnings
    over_and_over = "is being changed by somebody else over and over"
    assert (over_and_over if rule is OnConflict.MERGE else "was changed by somebody else") in warning
