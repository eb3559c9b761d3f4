"""The files of reports that are put into a store."""

from pathlib import Path

import pytest

from nbrun.cli.stored_reports import _files


@pytest.mark.parametrize("key", ["page.html", "reports/page.html"])
def test_the_artefacts_of_a_single_page_are_put_beside_it(key: str, tmp_path: Path) -> None:
    for name in ("page.html", "page_files/out/a.csv", "other.html"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    found = _files(tmp_path / "page.html", key)
    above = key.removesuffix("page.html")
    assert {name: path.read_text() for name, path in found.items()} == {
        key: "page.html",
        f"{above}page_files/out/a.csv": "page_files/out/a.csv",
    }
