"""Actions are pinned, workflows have few permissions, and only a version with a changelog is released."""

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"[\w-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+|\./\.github/workflows/\w+\.yml")
RELEASE = str(ROOT / ".github" / "release.py")

CHANGELOG = """# Changes

## 0.2.0 (2027-01-05)

- One.
- Two.

## 0.1.1

## 0.1.0 (unreleased)

- First.
"""


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_each_action_is_pinned_by_its_commit(path: Path) -> None:
    used = re.findall(r"^\s*(?:- )?uses: (.*)$", path.read_text(), re.MULTILINE)
    assert used
    assert [action for action in used if not PINNED.fullmatch(action)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_no_permissions_and_a_job_those_it_needs(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {}
    assert "concurrency" in workflow
    written = {
        (name, what)
        for name, job in workflow["jobs"].items()
        for what, access in job["permissions"].items()
        if access == "write"
    }
    assert written == ({("pypi", "id-token"), ("github", "contents")} if path.name == "release.yml" else set())


def notes(tag: str, version: str) -> Any:
    return runpy.run_path(RELEASE)["notes"](tag, version, CHANGELOG)


def test_the_notes_of_a_release_are_its_section_of_the_changelog() -> None:
    assert notes("v0.2.0", "0.2.0") == "- One.\n- Two."


@pytest.mark.parametrize(
    ("tag", "version", "message"),
    [
        ("v0.3.0", "0.2.0", "the tag v0.3.0 is not v0.2.0"),
        ("0.2.0", "0.2.0", "the tag 0.2.0 is not v0.2.0"),
        ("v0.3.0", "0.3.0", "no section 0.3.0"),
        ("v0.2", "0.2", "no section 0.2"),
        ("v0.1.0", "0.1.0", "calls 0.1.0 unreleased"),
        ("v0.1.1", "0.1.1", "the section 0.1.1 of CHANGELOG.md is empty"),
    ],
)
def test_another_tag_is_not_released(tag: str, version: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        notes(tag, version)


def test_the_changelog_has_a_section_of_the_current_version() -> None:
    version = runpy.run_path(str(ROOT / "nbrun" / "version.py"))["__version__"]
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_command_refuses_a_tag_that_is_no_version() -> None:
    found = subprocess.run([sys.executable, RELEASE, "v0.0"], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (1, "")
    assert "the tag v0.0 is not v" in found.stderr
