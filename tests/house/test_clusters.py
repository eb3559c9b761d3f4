"""The files of docs/clusters.md: their scripts run, as their schedulers would start them."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

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
    for number in ("1", "2"):
        bash(tmp_path, array, NBRUN, SLURM_ARRAY_TASK_ID=number, SLURM_ARRAY_TASK_COUNT="2")
    submitted = (tmp_path / "submitted").read_text().splitlines()
    assert submitted[:4] == ["--parsable", "nightly.sbatch", "--dependency=afterany:17", "--wrap"]
    bash(tmp_path, submitted[4], NBRUN)
    assert sorted(path.name for path in (tmp_path / "site").rglob("[abc].html")) == ["a.html", "b.html", "c.html"]


@pytest.mark.parametrize(
    ("environment", "where"),
    [({"SHARD": "3"}, "github"), ({"JOB_COMPLETION_INDEX": "2"}, "kubernetes")],
)
def test_each_job_of_a_matrix_runs_its_own_shard(environment: Mapping[str, str], where: str, tmp_path: Path) -> None:
    workflow, job, merge = map(yaml.safe_load, blocks("yaml"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    steps = workflow["jobs"]["run"]["steps"]
    script = steps[3]["run"] if where == "github" else container["args"][0]
    stub(tmp_path / "bin", "nbrun", 'printf "%s\\n" "$@"')
    words = bash(tmp_path, script, tmp_path / "bin", **environment).splitlines()
    assert words[words.index("--shard") + 1] == {"github": "3/4", "kubernetes": "3/8"}[where]
    assert len(workflow["jobs"]["run"]["strategy"]["matrix"]["shard"]) == 4
    assert job["spec"]["completions"] == 8
    assert merge["spec"]["template"]["spec"]["containers"][0]["command"][:2] == ["nbrun", "merge"]


def test_the_airflow_example_is_python() -> None:
    (example,) = blocks("python")
    compile(example, "docs/clusters.md", "exec")
