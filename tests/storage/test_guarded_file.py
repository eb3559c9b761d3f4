"""Saves to an object store with opaque versions, conditional writes and lost answers."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from nbrun.core.notebook.file_writing import notebook_text
from nbrun.core.planning.job import OnConflict
from nbrun.errors import NotFound, ServerUnreachable
from nbrun.jupyter.http.retry import PATIENT_GET, RetryPolicy
from nbrun.storage.base import Written
from nbrun.storage.conflicts import GuardedTarget
from nbrun.storage.file_version import FileVersion
from nbrun.storage.guarded_file import GuardedFile, SaveOutcome
from tests.storage.places import BRISK, EXECUTED, ORIGINAL

pytestmark = pytest.mark.usefixtures("quickly")


class Bucket:
    """The objects of a store with conditional writes."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, FileVersion]] = {}
        self.writes = 0
        self.lost_answers = 0
        """How many of the next writes arrive without an answer."""

    def put(self, key: str, data: bytes) -> FileVersion:
        """Write an object as any client does."""
        self.writes += 1
        version = FileVersion(f"tag-{self.writes}", "etag", size=len(data))
        self.objects[key] = data, version
        return version

    def object(self, key: str) -> "StoredObject":
        """Return the storage of one object."""
        return StoredObject(self, key)


class StoredObject:
    """One object: nothing but what the protocol of a storage asks for."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        self.name = name
        self._bucket = bucket

    def beside(self, suffix: str) -> "StoredObject":
        return self._bucket.object(self.name.replace(".ipynb", f"{suffix}.ipynb"))

    async def exists(self) -> bool:
        return self.name in self._bucket.objects

    async def stat(self, retry: RetryPolicy = PATIENT_GET) -> FileVersion | None:
        return self._bucket.objects[self.name][1] if await self.exists() else None

    async def read(self) -> tuple[bytes, FileVersion]:
        if not await self.exists():
            raise NotFound(f"{self.name}: no such object")
        return self._bucket.objects[self.name]

    async def write(self, content: Mapping[str, Any], unless_changed_since: FileVersion | None) -> Written | None:
        if unless_changed_since != await self.stat():
            return None
        version = self._bucket.put(self.name, notebook_text(content).encode())
        if self._bucket.lost_answers:
            self._bucket.lost_answers -= 1
            raise ServerUnreachable("the connection broke")
        return Written(version)


@pytest.fixture
def bucket() -> Bucket:
    bucket = Bucket()
    bucket.put("nb.ipynb", json.dumps(ORIGINAL).encode())
    return bucket


async def target(bucket: Bucket, rule: OnConflict, warnings: list[str]) -> GuardedTarget:
    """Return the save target of a run that has loaded the notebook."""
    file = bucket.object("nb.ipynb")
    target = GuardedTarget(file, warn=warnings.append, on_conflict=rule)
    target.loaded(ORIGINAL, await file.stat())
    return target


def text(bucket: Bucket, name: str = "nb.ipynb") -> Any:
    return json.loads(bucket.objects[name][0])["cells"][0]["outputs"][0]["text"]


@pytest.mark.parametrize("rule", OnConflict)
async def test_a_store_of_tagged_objects_takes_a_notebook(bucket: Bucket, rule: OnConflict) -> None:
    warnings: list[str] = []
    saved = await target(bucket, rule, warnings)
    assert await saved.save_meanwhile(ORIGINAL)
    assert await saved.save(EXECUTED, BRISK) == "nb.ipynb"
    assert (text(bucket), warnings, list(bucket.objects)) == (["42"], [], ["nb.ipynb"])


async def test_a_write_whose_answer_is_lost_is_not_repeated_over_a_version_that_nobody_knows(bucket: Bucket) -> None:
    file = GuardedFile(bucket.object("nb.ipynb"))
    file.seen = await file.stat()
    bucket.lost_answers = 1
    outcome, _ = await file.write(EXECUTED, file.seen, BRISK)
    assert (outcome, bucket.writes) == (SaveOutcome.OVERTAKEN, 2)


async def test_such_a_write_is_merged_with_itself_and_nobody_is_told_of_a_change(bucket: Bucket) -> None:
    warnings: list[str] = []
    bucket.lost_answers = 1
    saved = await target(bucket, OnConflict.MERGE, warnings)
    assert await saved.save(EXECUTED, BRISK) == "nb.ipynb"
    assert (text(bucket), warnings, list(bucket.objects)) == (["42"], [], ["nb.ipynb"])


async def test_a_change_by_somebody_else_is_kept_in_a_store_too(bucket: Bucket) -> None:
    warnings: list[str] = []
    saved = await target(bucket, OnConflict.BESIDE, warnings)
    bucket.put("nb.ipynb", json.dumps(ORIGINAL).encode() + b"\n")
    assert await saved.save(EXECUTED, BRISK) == "nb-nbrun.ipynb"
    assert (text(bucket), text(bucket, "nb-nbrun.ipynb")) == ("old", ["42"])
