"""A job whose notebooks contain many commands to the runner, run by act."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.ci_runners import commands_in, foreign_commands_in, other_commands_in
from tests.support.environments import environment

FIXTURES = Path(__file__).parents[1] / "fixtures"
ACTS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
STEPS = ("single", "events", "plain", "delivered", "named", "batch", "wrong")
_ON_ACTS_LOG = re.compile(r"^\[injection/injection\]\s+(?P<mark>\S+)\s+(?P<command>::.*|##\[.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Job:
    """A job that was run: the log that act made of it, what each step printed, and what its steps came to."""

    log: str
    printed: dict[str, str]
    steps: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Run fixtures/workflows/injection.yml in a repository that holds the hostile notebooks."""
    checkout = tmp_path_factory.mktemp("repository")
    for path in (FIXTURES / "hostile").glob("*.ipynb"):
        shutil.copy(path, checkout)
    (checkout / ".github" / "workflows").mkdir(parents=True)
    shutil.copy(FIXTURES / "workflows" / "injection.yml", checkout / ".github" / "workflows")
    git = ["git", "-c", "user.name=n", "-c", "user.email=n@example.org"]
    for command in ([*git, "init", "-q"], [*git, "add", "-A"], [*git, "commit", "-qm", "all"]):
        subprocess.run(command, cwd=checkout, check=True)
    brought = tmp_path_factory.mktemp("brought")
    given = {"BROUGHT_OUT": str(brought), "NBRUN_PYTHON": sys.executable}
    done = subprocess.run(
        [
            environment("action").folder / "bin" / "act", "push", "-P", "ubuntu-latest=-self-hosted",
            *(word for name, value in given.items() for word in ("--env", f"{name}={value}")),
        ],
        cwd=checkout,
        env={**os.environ, "XDG_CACHE_HOME": str(checkout.parent)},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=280,
    )  # fmt: skip
    log = done.stdout + done.stderr
    assert (brought / "steps.json").exists(), log[-8000:]
    printed = {name: (brought / name).read_bytes().decode() for name in STEPS}
    return Job(log, printed, json.loads((brought / "steps.json").read_text()))


@pytest.mark.parametrize("step", STEPS)
def test_no_line_of_a_step_is_a_foreign_command_by_the_runners_rules(job: Job, step: str) -> None:
    text = job.printed[step]
    assert foreign_commands_in(text) == []
    assert list(other_commands_in(text)) == []
    assert ACTS.search(text) is None


def test_act_executes_nbruns_own_commands_and_no_other(job: Job) -> None:
    executed = [found["command"] for found in _ON_ACTS_LOG.finditer(job.log) if found["mark"] != "|"]
    # This is how act tells of the file GITHUB_OUTPUT; what is in it, the next test looks at.
    executed = [command for command in executed if not command.startswith("::set-output:: ")]
    assert any(command.startswith("::error file=github_commands.ipynb") for command in executed), job.log[-4000:]
    assert [command for command in executed if foreign_commands_in(command) or not commands_in(command)] == []


def test_no_step_has_outputs_that_a_notebook_set(job: Job) -> None:
    for name, step in job.steps.items():
        assert set(step["outputs"]) <= {"outcome", "exit-code", "passed", "failed", "results-json"}, name
    assert [job.steps[name]["outputs"]["outcome"] for name in ("single", "events", "named", "batch")] == ["failed"] * 4


def test_what_the_notebooks_said_is_there_to_read(job: Job) -> None:
    for step in ("events", "plain", "batch"):
        for word in ("A1 plain stream", "A7 vt in repr", "B1 cr", "B5 old"):
            assert word in job.printed[step]
    assert "V9 hidden" in job.printed["named"]
    assert "no notebook matches" in job.printed["wrong"]


def test_json_and_notebooks_keep_their_values(job: Job) -> None:
    events = [json.loads(line) for line in job.printed["batch"].splitlines() if line.startswith('{"event"')]
    names = {event["notebook"] for event in events if event["event"] == "run-finished"}
    assert {"notebooks/::error title=pwned::name.ipynb", "notebooks/github_commands.ipynb"} < names
    assert any(
        "\n::error title=pwned::lines \r::set-output name=pwned::1 ##[error]pwned.ipynb" in name for name in names
    )
    (error,) = json.loads(job.printed["delivered"])["cells"][1]["outputs"]
    assert error["evalue"].startswith("x\r::error::B1 cr\ny\x0c::error::B2 ff\n")
    assert "##\x1b[0m[error]B5 old" in error["evalue"]
    result = json.loads(job.printed["plain"][job.printed["plain"].index("\n{\n") :].partition("\n}\n")[0] + "\n}")
    assert result["cells"][1]["error"]["evalue"] == error["evalue"]
