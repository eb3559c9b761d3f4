"""Rules for the repository: packages are covered by their own tests, modules are short, tests/ mirrors nbrun/."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(("package", "least"), [("core", 100), ("kernel_side", 95)])
def test_the_branches_of_a_package_are_taken_by_its_own_tests(package: str, least: int, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV"))}
    environment["COVERAGE_FILE"] = str(tmp_path / "coverage")
    tests = [
        "-m",
        "pytest",
        f"tests/{package}",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not large and not hypothesis",  # random values take five times as long, and may not take each branch
        f"--cov=nbrun/{package}",
        "--cov-branch",
        "--cov-report=",
    ]
    report = [
        "-m",
        "coverage",
        "report",
        f"--include=*/nbrun/{package}/*",
        "--show-missing",
        "--skip-covered",
        f"--fail-under={least}",
    ]
    for arguments in (tests, report):
        found = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, env=environment)
        assert found.returncode == 0, found.stdout + found.stderr


def test_no_module_has_more_than_600_lines() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / "nbrun").rglob("*.py")}
    assert {str(path): length for path, length in lengths.items() if length > 600} == {}


def test_the_tests_of_a_module_have_the_module_s_path() -> None:
    """``tests/core/outputs/test_area.py`` tests ``nbrun/core/outputs/area.py``; so does ``test_area_….py``."""
    packages = [path.parent for path in (ROOT / "nbrun").rglob("__init__.py")]
    misplaced = []
    for package in packages:
        folder = ROOT / "tests" / package.relative_to(ROOT / "nbrun")
        modules = {path.stem.strip("_") for path in package.iterdir() if path.suffix == ".py" or path.is_dir()}
        for test in folder.glob("test_*.py") if package != ROOT / "nbrun" else ():
            words = test.stem.removeprefix("test_").split("_")
            if not any("_".join(words[:count]) in modules for count in range(1, len(words) + 1)):
                misplaced.append(test.relative_to(ROOT).as_posix())
    assert misplaced == []


def test_no_docstring_starts_with_a_word_that_hides_what_is_returned() -> None:
    start = re.compile(r'"""(Give|Tell|Say|Take)s?\b')
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (ROOT / "nbrun").rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if start.search(line)
    ]
    assert not found
