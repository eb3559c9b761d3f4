"""The GitHub Action: valid, linted, and run by act."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nbrun.cli.run import command as run_command
from tests.support.environments import environment
from tests.support.notebooks import code, notebook, outputs_of, read_notebook, write_notebook

ROOT = Path(__file__).parents[1]
SETTINGS = """
[batch.sales]
notebooks = ["sales.ipynb"]
schedule = "0 6 * * *"
timezone = "Europe/Berlin"
"""
ODD = 'it\'s "odd" $(touch pwned) `touch pwned`; touch pwned.ipynb'


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("action_main", ROOT / ".github" / "action" / "main.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


action = loaded()


def tool(name: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
    folder = environment("action").folder / "bin"
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [folder / name, *args], cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120
    )


def test_the_action_is_valid_by_githubs_schema() -> None:
    found = tool("check-jsonschema", "--builtin-schema", "vendor.github-actions", "action.yml")
    assert found.returncode == 0, found.stdout + found.stderr


def test_workflows_of_the_project_the_tests_and_the_guides_pass_actionlint(tmp_path: Path) -> None:
    guide = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("github-action.md", "clusters.md"))
    written = [block.partition("```")[0] for block in guide.split("```yaml\n")[1:]]
    workflows = [block for block in written if block.startswith("name:")]
    assert len(workflows) == 6
    files = [*(ROOT / ".github" / "workflows").glob("*.yml"), *(ROOT / "fixtures" / "workflows").glob("*.yml")]
    for number, workflow in enumerate(workflows):
        files.append(tmp_path / f"{number}.yml")
        files[-1].write_text(workflow, encoding="utf-8")
    found = tool("actionlint", "-no-color", *files)
    assert found.returncode == 0, found.stdout + found.stderr
    found = tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_shell_of_the_action_passes_shellcheck_and_holds_no_expression(tmp_path: Path) -> None:
    text = (ROOT / "action.yml").read_text(encoding="utf-8").split("      run: |\n")[1]
    script = tmp_path / "run.sh"
    script.write_text("#!/usr/bin/env bash\n" + "\n".join(line.strip() for line in text.splitlines()) + "\n")
    assert "${{" not in script.read_text()
    found = tool("shellcheck", script)
    assert found.returncode == 0, found.stdout


def test_every_input_of_the_action_reaches_the_script(tmp_path: Path) -> None:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    inputs = [line.strip()[:-1] for line in text.partition("outputs:")[0].splitlines() if line[:2] == "  " != line[2:4]]
    names = [name for name in inputs if " " not in name and name.islower() and f"inputs.{name} }}}}" in text]
    assert "working-directory" in names
    for name in set(names) - {"working-directory"}:
        assert f"NBRUN_INPUT_{name.upper().replace('-', '_')}: ${{{{ inputs.{name} }}}}" in text


def test_inputs_become_arguments_and_each_stays_one(tmp_path: Path) -> None:
    nasty = "a b'\"; rm -rf $(x)"
    given = action.arguments(
        {
            "NOTEBOOKS": f"one.ipynb\n\n  {nasty}  \n-dash.ipynb",
            "JOBS": " 2 ",
            "CELL_TIMEOUT": nasty,
            "OUTPUT_DIR": "out{x}/",
            "SECRETS": "TOKEN, OTHER",
            "PARAMETERS": "a: 1\nb: $(x)\n",
            "EXTRA_ARGS": "--allow-errors --kernel 'my kernel'",
        },
        tmp_path,
    )
    assert given == [
        "run",
        "--jobs=2",
        f"--cell-timeout={nasty}",
        "--output=out{{x}}/{folder}/{stem}.ipynb",
        f"--parameters-file={tmp_path / 'parameters.yaml'}",
        "--secret=TOKEN",
        "--secret=OTHER",
        f"--json={tmp_path / 'results.json'}",
        "--github",
        "--allow-errors",
        "--kernel",
        "my kernel",
        "--",
        "one.ipynb",
        nasty,
        "-dash.ipynb",
    ]
    assert (tmp_path / "parameters.yaml").read_text() == "a: 1\nb: $(x)\n"


def test_a_batch_is_called_by_its_name_and_reports_have_inputs(tmp_path: Path) -> None:
    nasty = "sales; $(x)"
    given = action.arguments(
        {
            "BATCH": nasty,
            "IF_DUE": "0 4 * * 1-5",
            "HTML_CODE": "hide",
            "PDF": "pdf",
            "PUBLISH": "s3://reports/$(x)",
            "KEEP": "30d,100",
            "ARTEFACTS": "out/*.csv\n$(x)/\n",
            "LOCK": "skip",
            "NOTIFY": "REPORT_MAIL HOOK",
            "NOTIFY_ON": "failure,recovery",
            "ENGINE": "dask://h:1",
        },
        tmp_path,
    )
    assert given == [
        "batch",
        nasty,
        "--if-due=0 4 * * 1-5",
        "--engine=dask://h:1",
        "--html-code=hide",
        "--pdf=pdf",
        "--publish=s3://reports/$(x)",
        "--keep=30d,100",
        "--lock=skip",
        "--notify-on=failure,recovery",
        "--notify=env:REPORT_MAIL",
        "--notify=env:HOOK",
        "--artefacts=out/*.csv",
        "--artefacts=$(x)/",
        f"--json={tmp_path / 'results.json'}",
        "--github",
    ]


def test_every_option_of_an_input_exists() -> None:
    parameters = run_command.params
    known = {flag for one in parameters for flag in one.opts}
    assert {*action._OPTIONS.values(), "--secret", "--notify", "--artefacts"} - known == set()


def test_extras_are_those_that_the_inputs_name_or_need() -> None:
    assert action.extras_of({"NOTEBOOKS": "a"}) == "local"
    assert [action.extras_of({name: "x"}) for name in ("HTML", "PDF", "PUBLISH", "BATCH")] == ["html,local"] * 4
    assert action.extras_of({"EXTRAS": "cloud, notify\npdf dask"}) == "cloud,dask,local,notify,pdf"
    with pytest.raises(action.WrongInput, match="'dev];' is none of cloud"):
        action.extras_of({"EXTRAS": "cloud dev]; x"})


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, ["--no-save"]),
        ({"NO_SAVE": "true"}, ["--no-save"]),
        ({"IN_PLACE": " True "}, ["--in-place"]),
        ({"IN_PLACE": "false"}, ["--no-save"]),
        ({"OUTPUT_DIR": "out"}, ["--output=out/{folder}/{stem}.ipynb"]),
        ({"EXTRA_ARGS": "--in-place"}, ["--in-place"]),
        ({"EXTRA_ARGS": "-o 'x y'"}, ["-o", "x y"]),
        ({"EXTRA_ARGS": "--output=x"}, ["--output=x"]),
        ({"EXTRA_ARGS": "--no-save"}, ["--no-save"]),
        ({"BATCH": "sales"}, []),
        ({"BATCH": "sales", "NO_SAVE": "true"}, ["--no-save"]),
    ],
    ids=str,
)
def test_the_arguments_say_once_where_notebooks_go(inputs: dict[str, str], said: list[str], tmp_path: Path) -> None:
    given = action.arguments({"NOTEBOOKS": "a", **inputs}, tmp_path)
    found = given[1 + ("BATCH" in inputs) : given.index("--")]
    assert [word for word in found if not word.startswith(("--json", "--github"))] == said


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"NOTEBOOKS": "a", "IN_PLACE": "yes"}, "in-place: 'yes' is neither true nor false"),
        ({"NOTEBOOKS": "a", "IN_PLACE": "true", "OUTPUT_DIR": "x"}, "output-dir and in-place contradict each other"),
        ({"NOTEBOOKS": "a", "IN_PLACE": "true", "NO_SAVE": "true"}, "in-place and no-save contradict each other"),
        ({"NOTEBOOKS": " \n "}, "none were named"),
        ({"NOTEBOOKS": "a", "EXTRA_ARGS": "'open"}, "No closing quotation"),
        ({"NOTEBOOKS": "a", "SECRETS": "A=$(x)"}, "secrets: 'A=$(x)' is no name of an environment variable"),
        ({"NOTEBOOKS": "a", "NOTIFY": "mailto://x"}, "notify: 'mailto://x' is no name of an environment variable"),
        ({"BATCH": "--help"}, "batch: '--help' is no name"),
    ],
    ids=["no flag", "two choices", "two flags", "nothing", "an open quotation", "a secret", "a URL", "no batch"],
)
def test_wrong_inputs_are_told(inputs: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(action.WrongInput, match=re.escape(said)):
        action.arguments(inputs, tmp_path)


@pytest.mark.parametrize("uv", ["works", "fails", "is not there"])
def test_pip_is_used_where_uv_is_not_there_or_fails_and_installed_where_uv_fails(
    uv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    log = tmp_path / "log"
    for name, status in {"python": 0, "uv": int(uv == "fails")}.items():
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\nexit {status}\n')
        (tmp_path / name).chmod(0o700 if name == "python" or uv != "is not there" else 0o600)
    action._install(tmp_path / "python", "nbrun")
    found = [" ".join(line.split()[:4]) for line in log.read_text().splitlines()]
    with_uv, pip = "uv pip install --quiet", "python -m pip install"
    wanted = {"works": [with_uv], "fails": [with_uv, "python -m ensurepip --default-pip", pip], "is not there": [pip]}
    assert found == wanted[uv]


def test_the_kernelspec_of_the_job_does_not_change_other_environments(tmp_path: Path) -> None:
    """uv installs hard links to the files of its cache."""
    spec = tmp_path / "environment" / "share" / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    cached = tmp_path / "cached.json"
    cached.write_text("{}")
    (spec / "kernel.json").hardlink_to(cached)
    for _ in range(2):
        action._register_kernel(tmp_path / "environment")
        assert json.loads((spec / "kernel.json").read_text())["argv"][0] == sys.executable
        assert cached.read_text() == "{}"


def test_what_the_script_says_is_one_command_and_holds_no_other() -> None:
    said = action._data("no such path: x\r::error::a\n::error::b ##[error]c\x1b[2J\u2028")
    assert said == "no such path: x ::error::a%0A::error::b #\u200b#[error]c [2J "


def test_what_is_installed_is_the_actions_own_code_or_what_was_asked_for(tmp_path: Path) -> None:
    assert action.requirement("", tmp_path, "local") == f"jupyter-nbrun[local] @ {tmp_path.as_uri()}"
    assert action.requirement("v1.2.3", tmp_path, "local,html") == "jupyter-nbrun[local,html]==1.2.3"
    assert action.requirement(str(tmp_path), Path("/none"), "local") == f"jupyter-nbrun[local] @ {tmp_path.as_uri()}"
    with pytest.raises(action.WrongInput):
        action.requirement("1.0; python_version < '3'", tmp_path, "local")


@dataclass(frozen=True)
class Job:
    """A job that was run: what it brought out of the runner, its log, and what its steps came to."""

    brought: Path
    log: str
    steps: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Run fixtures/workflows/notebooks.yml in a repository that holds the action and notebooks."""
    checkout = tmp_path_factory.mktemp("repository")
    for name in ("action.yml", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    shutil.copytree(ROOT / ".github" / "action", checkout / ".github" / "action")
    shutil.copytree(ROOT / "nbrun", checkout / "nbrun", ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / ".github" / "workflows").mkdir()
    shutil.copy(ROOT / "fixtures" / "workflows" / "notebooks.yml", checkout / ".github" / "workflows")
    write_notebook(checkout / "notebooks" / "passing.ipynb", notebook("print('fine')"))
    write_notebook(
        checkout / "notebooks" / "failing.ipynb", notebook("x = 1", "\ny = 2\nraise ValueError('::error::no')")
    )
    write_notebook(checkout / "notebooks" / ODD, notebook("1"))
    writing = "open('out.csv', 'w').write('1')  # planted"
    write_notebook(checkout / "reports" / "sales.ipynb", notebook(writing))
    (checkout / "reports" / "nbrun.toml").write_text(SETTINGS)
    taking = notebook(code("text, numbers = '', []", tags=["parameters"]), "print(repr(text), numbers)", "print(TOKEN)")
    for name in "ab":
        write_notebook(checkout / "notebooks" / "inputs" / f"{name}.ipynb", taking)
    git = ["git", "-c", "user.name=n", "-c", "user.email=n@example.org"]
    for command in ([*git, "init", "-q"], [*git, "add", "-A"], [*git, "commit", "-qm", "all"]):
        subprocess.run(command, cwd=checkout, check=True)
    made = environment("action")
    brought = tmp_path_factory.mktemp("brought")
    uv = Path(sys.executable).parent  # a fast installer beside the tests' own Python, with what it has downloaded
    downloads = subprocess.run([uv / "uv", "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    done = subprocess.run(
        [made.folder / "bin" / "act", "push", "-P", "ubuntu-latest=-self-hosted", "--env", f"BROUGHT_OUT={brought}"],
        cwd=checkout,
        env={
            **os.environ,
            "PATH": f"{uv}{os.pathsep}{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(checkout.parent),
            "UV_CACHE_DIR": downloads,
        },
        capture_output=True,
        text=True,
        timeout=280,
    )
    log = done.stdout + done.stderr
    written = brought / "steps.json"
    assert written.exists(), log[-8000:]
    return Job(brought, log, json.loads(written.read_text()))


def test_a_notebook_that_passes_sets_the_outputs(job: Job) -> None:
    step = job.steps["passing"]
    assert step["outcome"] == "success", job.log[-8000:]
    outputs = step["outputs"]
    assert {name: outputs[name] for name in ("outcome", "exit-code", "passed", "failed")} == {
        "outcome": "passed",
        "exit-code": "0",
        "passed": "1",
        "failed": "0",
    }
    assert outputs["html-dir"].endswith("/pages")
    assert json.loads((job.brought / "results.json").read_text())["outcome"] == "passed"
    assert (job.brought / "workspace" / "pages" / "index.html").exists()
    assert (job.brought / "workspace" / "junit.xml").exists()


def test_a_notebook_that_fails_fails_the_step_with_an_annotation_at_its_line(job: Job) -> None:
    step = job.steps["failing"]
    assert step["outcome"] == "failure"
    assert (step["outputs"]["outcome"], step["outputs"]["exit-code"]) == ("failed", "1")
    lines = (job.brought / "workspace" / "notebooks" / "failing.ipynb").read_text().splitlines()
    line = next(number for number, text in enumerate(lines, start=1) if "raise ValueError" in text)
    wanted = f"::error file=notebooks/failing.ipynb,line={line},title=notebooks/failing.ipynb"
    assert wanted in job.log.replace("%3A", ":")
    assert "::group::notebooks/failing.ipynb" in job.log


def test_each_step_adds_to_the_jobs_summary(job: Job) -> None:
    summary = job.log.partition("Summary - ")[2]  # act prints it
    assert "| ✅ | notebooks/passing.ipynb | passed | 1 cell |" in summary, job.log[-8000:]
    assert "| ❌ | notebooks/failing.ipynb | failed | 1 of 2 cells passed |" in summary, job.log[-8000:]
    assert ">   3 raise ValueError('::error::no')" in summary, job.log[-8000:]


def test_parameters_secrets_and_shards_reach_the_notebooks_and_nothing_else(job: Job) -> None:
    outputs = [job.steps[step]["outputs"] for step in ("inputs", "others")]
    assert [(each["outcome"], each["passed"]) for each in outputs] == [("passed", "1")] * 2, job.log[-8000:]
    folder = job.brought / "workspace" / "out {1} $(touch pwned)" / "notebooks" / "inputs"
    executed = {path.name: outputs_of(read_notebook(path)) for path in folder.iterdir()}
    assert sorted(executed) == ["a.ipynb", "b.ipynb"]
    said = sorted(shown[2][0]["text"] for shown in executed.values())
    hostile = 'it\'s "odd" $(touch pwned) `touch pwned`\n::error::mine'
    assert said == sorted([f"{hostile!r} [1, 2.5, None]\n", "'two' []\n"])
    assert [shown[3][0]["text"] for shown in executed.values()] == ["***\n"] * 2
    everything = b"".join(path.read_bytes() for path in folder.parent.parent.rglob("*") if path.is_file())
    assert b"s3cret" not in everything + job.log.encode()


def test_a_cache_keeps_what_a_step_has_run(job: Job) -> None:
    assert job.steps["kept"]["outputs"]["passed"] == job.steps["cached"]["outputs"]["passed"] == "1"
    run = json.loads((job.brought / "cached.json").read_text())
    assert (run["outcome"], run["cached"]) == ("passed", True)
    assert (job.brought / "workspace" / "kept '$(touch pwned)'").is_dir()


def test_a_batch_is_published_with_its_artefacts_and_says_so_by_a_notification(job: Job) -> None:
    assert job.steps["report"]["outcome"] == "success", job.log[-8000:]
    site = job.brought / "workspace" / "site '$(touch pwned)'"
    (run,) = (site / "sales").glob("2*")
    record = json.loads((run / "run.json").read_text())
    assert (record["outcome"], record["notebooks"][0]["artefacts"]) == ("passed", ["artefacts/out.csv"])
    assert (run / "sales.pdf").read_bytes()[:5] == b"%PDF-"
    assert "planted" not in (run / "index.html").read_text()
    assert "nbrun: warning: --notify env:REPORT_HOOK: the server cannot be reached" in job.log
    assert "hook-secret" not in job.log
    assert job.steps["early"]["outputs"]["outcome"] == "skipped"
    assert "not due: 0 6 * * * in Europe/Berlin has no start now" in job.log


def test_no_input_is_ever_read_by_a_shell(job: Job) -> None:
    assert not list((job.brought / "workspace").rglob("pwned"))
    assert job.steps["hostile"]["outcome"] == "failure"
    assert job.steps["hostile"]["outputs"]["exit-code"] == "2"
    assert job.steps["wrong"]["outputs"]["exit-code"] == "2"
