"""The files of docs/clusters.md: their scripts run, as their schedulers would start them."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml

from nbrun.cli.merge import command as merge_command
from nbrun.cli.run import command as run_command
from tests.support.environments import environment
from tests.support.notebooks import notebook, write_notebook

PAGE = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text()
NBRUN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def bash(folder: Path, script: str, programs: Path, **environment: str) -> str:
    """Run a script with bash, with the programs in a folder; return standard output."""
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", **environment},
        check=True,
        timeout=120,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def stub(folder: Path, name: str, script: str) -> None:
    """Write a program that stands for one that cannot run here."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_the_slurm_array_and_its_merge_make_one_site(tmp_path: Path) -> None:
    array, submit = blocks("bash")
    for name in ("a", "b", "c"):
        write_notebook(tmp_path / "notebooks" / f"{name}.ipynb", notebook(f"print({name!r})"))
    stub(tmp_path / "bin", "sbatch", f'printf "%s\\n" "$@" >> {shlex.quote(str(tmp_path / "submitted"))}; echo 17')
    bash(tmp_path, submit, tmp_path / "bin")
    assert ("#SBATCH --array=1-8\n" in array, '/8" \\\n' in array) == (True, True)
    for number in ("1", "2"):
        bash(tmp_path, array.replace("/8", "/2"), NBRUN, SLURM_ARRAY_TASK_ID=number, SLURM_CPUS_PER_TASK="2")
    submitted = (tmp_path / "submitted").read_text().splitlines()
    assert submitted[:4] == ["--parsable", "nightly.sbatch", "--dependency=afterany:17", "--wrap"]
    bash(tmp_path, submitted[4], NBRUN)
    assert sorted(path.name for path in (tmp_path / "site").rglob("[abc].html")) == ["a.html", "b.html", "c.html"]


@pytest.mark.parametrize(
    ("environment", "where"),
    [({"SHARD": "3"}, "github"), ({"JOB_COMPLETION_INDEX": "2"}, "kubernetes")],
)
def test_each_job_of_a_matrix_runs_its_own_shard(environment: Mapping[str, str], where: str, tmp_path: Path) -> None:
    workflow, job, merge, _ = map(yaml.safe_load, blocks("yaml"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    steps = workflow["jobs"]["run"]["steps"]
    script = steps[3]["run"] if where == "github" else container["args"][0]
    stub(tmp_path / "bin", "nbrun", 'printf "%s\\n" "$@"')
    words = bash(tmp_path, script, tmp_path / "bin", **environment).splitlines()
    assert words[words.index("--shard") + 1] == {"github": "3/4", "kubernetes": "3/8"}[where]
    assert len(workflow["jobs"]["run"]["strategy"]["matrix"]["shard"]) == 4
    assert job["spec"]["completions"] == 8
    assert merge["spec"]["template"]["spec"]["containers"][0]["command"][:2] == ["nbrun", "merge"]


def test_the_jobs_are_valid_by_the_schemas_of_kubernetes(tmp_path: Path) -> None:
    _, *jobs, _ = blocks("yaml")
    for number, job in enumerate(jobs):
        (tmp_path / f"{number}.yaml").write_text(job)
    validate = environment("kubernetes").folder / "bin" / "kubernetes-validate"
    found = subprocess.run([validate, "--strict", *tmp_path.iterdir()], capture_output=True, text=True, timeout=60)
    assert (found.returncode, len(jobs)) == (0, 2), found.stdout + found.stderr


ARGO = """
import json, sys, yaml
from hera.workflows.models import Workflow
workflow = Workflow.model_validate(yaml.safe_load(sys.stdin))
print(workflow.model_dump_json(exclude_unset=True, by_alias=True))
"""
"""Reads a workflow with the models that hera generates from Argo's schema; unknown fields are left out."""


def test_argo_knows_all_fields_of_the_workflow() -> None:
    workflow = blocks("yaml")[-1]
    command = [str(environment("argo").python), "-c", ARGO]
    done = subprocess.run(command, input=workflow, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == yaml.safe_load(workflow)


def test_the_workflow_of_argo_runs_as_many_shards_as_there_are_and_merges_all_results() -> None:
    batch, run, merge = yaml.safe_load(blocks("yaml")[-1])["spec"]["templates"]
    (fan_out,), (last,) = batch["steps"]
    assert (fan_out["template"], last["template"]) == (run["name"], merge["name"])
    assert fan_out["withSequence"] == {"start": "1", "end": "8"}
    assert fan_out["continueOn"] == {"failed": True, "error": True}  # a result that is missing is reported
    arguments = run["container"]["args"]
    assert arguments[arguments.index("--shard") + 1] == "{{inputs.parameters.shard}}/8"
    (results,), (shards,) = run["outputs"]["artifacts"], merge["inputs"]["artifacts"]
    assert results["s3"]["key"].rpartition("/")[0] == shards["s3"]["key"]
    assert Path(arguments[-1]).parent == Path(results["path"])
    assert merge["container"]["args"][1] == shards["path"]


OF_POD = {"image", "cmds", "arguments", "container_resources", "volumes", "volume_mounts"}
"""Arguments of KubernetesPodOperator, according to its documentation."""
OF_TASK = {"task_id", "retries", "trigger_rule"}
"""Arguments of Airflow's BaseOperator."""


def of_airflow() -> tuple[Sequence[ast.Call], Mapping[str, Any]]:
    """Return the calls of the example for Airflow, and the values that it computes without Airflow."""
    (example,) = blocks("python")
    tree = ast.parse(example)
    computed: list[ast.stmt] = [node for node in tree.body if isinstance(node, (ast.Assign, ast.FunctionDef))]
    namespace: dict[str, Any] = {"k8s": MagicMock()}
    exec(compile(ast.Module(computed, []), "docs/clusters.md", "exec"), namespace)
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)], namespace


def test_the_arguments_of_the_airflow_operators_are_documented_ones() -> None:
    calls, computed = of_airflow()
    given = [
        keyword.arg
        for call in calls
        if any(name in ast.unparse(call.func) for name in ("KubernetesPodOperator", "expand"))
        for keyword in call.keywords
        if keyword.arg is not None
    ]
    assert len(given) == 6
    assert {*given, *computed["POD"]} <= OF_POD | OF_TASK


def calls_of_nbrun() -> Iterator[Sequence[str]]:
    """Yield the words of each call of nbrun in the guides."""
    workflow, job, merge, argo = map(yaml.safe_load, blocks("yaml"))
    for steps in (workflow["jobs"][name]["steps"] for name in ("run", "merge")):
        yield from (shlex.split(step["run"]) for step in steps if step.get("run", "").startswith("nbrun"))
    script = job["spec"]["template"]["spec"]["containers"][0]["args"][0]
    yield shlex.split(script.replace("\\\n", "").partition("exec ")[2])
    yield merge["spec"]["template"]["spec"]["containers"][0]["command"]
    for container in (template["container"] for template in argo["spec"]["templates"] if "container" in template):
        words = [*container["command"], *container["args"]]
        yield [word.replace("{{inputs.parameters.shard}}", "3") for word in words]
    calls, computed = of_airflow()
    for shard in (1, computed["SHARDS"]):
        yield [*computed["POD"]["cmds"], *computed["arguments"](shard)]
    (last,) = (keyword.value for call in calls for keyword in call.keywords if isinstance(keyword.value, ast.List))
    yield [*computed["POD"]["cmds"], *eval(compile(ast.Expression(last), "", "eval"), {**computed})]


def test_the_calls_of_nbrun_have_existing_options() -> None:
    calls = [*calls_of_nbrun()]
    assert len(calls) == 9
    for program, name, *arguments in calls:
        assert program == "nbrun"
        context = {"run": run_command, "merge": merge_command}[name].make_context(name, arguments)
        given = context.params["notebooks" if name == "run" else "sources"]
        assert len(given) == 1, arguments
