"""Comparison of file versions by hash, date and size."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from nbrun.core.notebook.document import Document
from nbrun.storage.file_version import (
    FileVersion,
    differ,
    digest,
    has_mark_of,
    is_of,
    is_same,
    version_of,
    was_reverted,
    written_since,
)
from tests.support.notebooks import code, notebook, stdout
from tests.support.servers import RunningServer

EXECUTED = notebook(code("6 * 7", outputs=[stdout("42")]))
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_without_hash_and_date_nothing_is_known_and_nothing_is_held_against_a_save() -> None:
    assert not differ(FileVersion(), FileVersion())
    assert not was_reverted(FileVersion(), FileVersion())
    assert not written_since(FileVersion(), FileVersion(last_modified=NOW))
    assert is_of(EXECUTED, FileVersion())


def test_a_file_that_is_gone_is_another_one() -> None:
    assert differ(FileVersion(hash="a"), None)


def test_no_file_is_the_same_as_no_file_only() -> None:
    assert is_same(None, None)
    assert not is_same(None, FileVersion())
    assert not is_same(FileVersion(hash="a"), None)
    assert is_same(FileVersion(hash="a"), FileVersion(hash="a"))


def test_the_hash_counts_before_the_date() -> None:
    later = NOW + timedelta(seconds=10)
    assert not differ(FileVersion(hash="a", last_modified=NOW), FileVersion(hash="a", last_modified=later))
    assert differ(FileVersion(hash="a", last_modified=NOW), FileVersion(hash="b", last_modified=NOW))
    assert differ(FileVersion(last_modified=NOW), FileVersion(last_modified=later))


def test_a_file_without_a_byte_has_not_arrived() -> None:
    assert was_reverted(None, FileVersion(size=0))
    assert not was_reverted(None, FileVersion(size=None))


def test_a_save_that_left_no_trace_is_seen_by_the_hash_or_the_date() -> None:
    assert was_reverted(FileVersion(hash="a", last_modified=NOW), FileVersion(hash="a"))
    assert not was_reverted(FileVersion(hash="a", last_modified=NOW), FileVersion(hash="b", last_modified=NOW))
    assert was_reverted(FileVersion(last_modified=NOW), FileVersion(last_modified=NOW))
    assert not was_reverted(FileVersion(last_modified=NOW), FileVersion(last_modified=NOW + timedelta(seconds=1)))


def test_an_algorithm_that_is_unknown_here_proves_nothing() -> None:
    assert not is_of(EXECUTED, FileVersion(hash="a", hash_algorithm="no-such-hash"))
    assert digest(EXECUTED, "no-such-hash") == ""


def test_a_later_date_than_that_of_the_answer_means_another_save() -> None:
    assert written_since(FileVersion(last_modified=NOW), FileVersion(last_modified=NOW + timedelta(microseconds=1)))
    assert not written_since(FileVersion(last_modified=NOW), FileVersion(last_modified=NOW))


def test_the_hash_is_that_of_the_file(server: RunningServer) -> None:
    put = {"type": "notebook", "format": "json", "content": EXECUTED}
    server.call("PUT", "api/contents/hashed.ipynb", put)
    seen = server.get("api/contents/hashed.ipynb?content=0&hash=1")
    described = FileVersion(hash=seen["hash"], hash_algorithm=seen["hash_algorithm"])
    assert is_of(Document(json.loads(json.dumps(EXECUTED))).content, described)
    assert is_of((server.root / "hashed.ipynb").read_bytes(), described)
    assert version_of((server.root / "hashed.ipynb").read_bytes()).hash == seen["hash"]


def marked(**mark: Any) -> dict[str, Any]:
    return {**EXECUTED, "metadata": {"nbrun": {"run": mark}} if mark else {}}


def test_what_a_hook_made_of_a_notebook_bears_the_mark_of_its_run() -> None:
    sent = marked(outcome="running", saves=2)
    assert has_mark_of(sent, {**sent, "cells": []})
    assert not has_mark_of(sent, marked(outcome="running", saves=1))
    assert not has_mark_of(sent, EXECUTED)
    assert not has_mark_of(EXECUTED, EXECUTED), "nothing tells it from anybody else's"
    assert not has_mark_of(sent, [])
