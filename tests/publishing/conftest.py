"""A new store in a folder or on S3."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stores import S3Server, s3_by_moto


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_by_moto() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a new store."""
    if request.param == "folder":
        return str(tmp_path / "site")
    server: S3Server = request.getfixturevalue("s3")
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    return f"s3://{server.bucket()}/site"
