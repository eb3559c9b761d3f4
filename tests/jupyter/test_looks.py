"""What two looks at a file tell, and what they cannot tell."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nbrun.core.document import Document
from nbrun.jupyter.contents import ContentsModel
from nbrun.jupyter.looks import arrived, differ, is_of, written_since
from tests.support.notebooks import code, notebook, stdout
from tests.support.servers import RunningServer

EXECUTED = notebook(code("6 * 7", outputs=[stdout("42")]))
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def model(**fields: Any) -> ContentsModel:
    return ContentsModel("nb.ipynb", "nb.ipynb", "notebook", **fields)


def test_without_hash_and_date_nothing_is_known_and_nothing_is_held_against_a_save() -> None:
    assert not differ(model(), model())
    assert arrived(EXECUTED, model(), model())
    assert not written_since(model(), model(last_modified=NOW))
    assert is_of(EXECUTED, model())


def test_a_file_that_is_gone_is_another_one() -> None:
    assert differ(model(hash="a"), None)


def test_the_hash_counts_before_the_date() -> None:
    later = NOW + timedelta(seconds=10)
    assert not differ(model(hash="a", last_modified=NOW), model(hash="a", last_modified=later))
    assert differ(model(hash="a", last_modified=NOW), model(hash="b", last_modified=NOW))
    assert differ(model(last_modified=NOW), model(last_modified=later))


def test_a_file_without_a_byte_has_not_arrived() -> None:
    assert not arrived(EXECUTED, None, model(size=0))
    assert arrived(EXECUTED, None, model(size=None))


def test_an_algorithm_that_is_unknown_here_proves_nothing() -> None:
    assert not is_of(EXECUTED, model(hash="a", hash_algorithm="no-such-hash"))
    assert not arrived(EXECUTED, model(hash="a"), model(hash="a", hash_algorithm="no-such-hash"))


def test_a_later_date_than_that_of_the_answer_means_another_save() -> None:
    assert written_since(model(last_modified=NOW), model(last_modified=NOW + timedelta(microseconds=1)))
    assert not written_since(model(last_modified=NOW), model(last_modified=NOW))


def test_the_hash_is_that_of_the_file(token_server: RunningServer, root: Path) -> None:
    put = {"type": "notebook", "format": "json", "content": EXECUTED}
    token_server.call("PUT", "api/contents/hashed.ipynb", put)
    seen = token_server.get("api/contents/hashed.ipynb?content=0&hash=1")
    described = model(hash=seen["hash"], hash_algorithm=seen["hash_algorithm"])
    assert is_of(Document(json.loads(json.dumps(EXECUTED))).content, described)
    assert is_of((root / "hashed.ipynb").read_text(encoding="utf-8"), described)
