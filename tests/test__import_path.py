"""The standard library is imported even if PYTHONPATH has modules with its names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nbrun._import_path import shadows_standard_library, standard_library_first


def test_the_standard_library_goes_first_and_the_rest_keeps_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = str(Path(os.__file__).parent)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", ["/one", str(tmp_path), library, f"{library}/lib-dynload", "/two"])
    standard_library_first()
    assert sys.path == [library, f"{library}/lib-dynload", "/one", str(tmp_path), "/two"]
    standard_library_first(users_last=True)
    assert sys.path == [library, f"{library}/lib-dynload", "/one", "/two", str(tmp_path)]


@pytest.mark.parametrize(
    ("file", "shadows"),
    [
        ("token.py", True),
        ("json/__init__.py", True),
        ("_json.cpython-311-x86_64-linux-gnu.so", True),
        ("json/readme.txt", False),
        ("mine.py", False),
        ("types.txt", False),
    ],
)
def test_what_shadows_the_standard_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, shadows: bool
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/nowhere", str(tmp_path), ""]))
    assert shadows_standard_library() is shadows


@pytest.mark.parametrize("module", ["token", "types", "json", "logging", "secrets", "typing"])
def test_the_command_starts_where_a_module_in_pythonpath_has_the_name_of_one_it_needs(
    tmp_path: Path, module: str
) -> None:
    shadowing = tmp_path / "shadowing"
    shadowing.mkdir()
    (shadowing / f"{module}.py").write_text("raise RuntimeError('not the real one')")
    # Some versions of pip write a script that imports `re`, and so `types`, before nbrun. That
    # import is not nbrun's, so the test has a script of its own.
    script = tmp_path / "bin" / "nbrun"
    script.parent.mkdir()
    script.write_text("import sys\nfrom nbrun.__main__ import main\nsys.exit(main())\n")
    process = subprocess.run(
        [sys.executable, script, "plan", "nowhere.ipynb"],
        env={**os.environ, "PYTHONPATH": str(shadowing)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2, process.stderr
    assert "not the real one" not in process.stderr
