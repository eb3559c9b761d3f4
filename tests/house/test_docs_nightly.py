"""The guide "A nightly report in ten minutes" of docs/reports.md works as written, on this machine."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.publishing.notifications.servers import MailBox, mail_server
from tests.support.notebooks import code, notebook, write_notebook

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "reports.md").read_text().partition("## A nightly report in ten minutes")[2]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
SETTINGS, TRY, SYSTEMD, CRON, BRANCH, WORKFLOW = (text for _, text in BLOCKS)
NOT_HERE = re.compile(r"^(pip install|export REPORT_MAIL=|systemctl ).*\n?", re.MULTILINE)
"""Commands that the tests replace: what they install and start is there already, or is not theirs."""


class Shell:
    """A user's shell in the folder of the notebook."""

    def __init__(self, folder: Path, home: Path, box: MailBox) -> None:
        self.folder = folder
        self.box = box
        programs = home / "bin"
        programs.mkdir(parents=True)
        (programs / "nbrun").symlink_to(Path(sys.executable).with_name("nbrun"))
        # A crontab that keeps its text in a file, as no test may change that of this machine.
        shown, kept = 'cat "$HOME/crontab"', 'cat >"$HOME/new" && mv "$HOME/new" "$HOME/crontab"'
        (programs / "crontab").write_text(f"#!/bin/sh\ncase $1 in -l) {shown};; -) {kept};; esac\n")
        (programs / "crontab").chmod(0o755)
        names = {
            "GIT_AUTHOR_NAME": "a",
            "GIT_AUTHOR_EMAIL": "a@b",
            "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@b",
        }
        self.environment = {**os.environ, **names, "HOME": str(home), "REPORT_MAIL": box.url, "TZ": "UTC"}
        self.environment["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
        for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "GITHUB_ACTIONS"):
            self.environment.pop(name, None)

    def __call__(self, script: str, folder: Path | None = None, *, strict: bool = True, **more: str) -> str:
        """Run a script, which must succeed, and return what it prints; if `strict`, each command must succeed."""
        done = subprocess.run(
            ["bash", *(["-e"] if strict else []), "-c", NOT_HERE.sub("", script)],
            cwd=folder or self.folder,
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, script + done.stdout + done.stderr
        return done.stdout

    def runs(self, site: Path) -> int:
        """Return the number of published runs."""
        return len([*site.glob("sales/2*/run.json")])


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "nbrun.toml").write_text(SETTINGS)
    write_notebook(folder / "sales.ipynb", notebook(code("print('secret source')")))
    with mail_server() as box:
        yield Shell(folder, tmp_path / "home", box)


def test_the_first_try_publishes_and_notifies_and_cron_does_the_same(shell: Shell) -> None:
    shell(TRY)
    assert [mail["Subject"] for mail in shell.box.mails] == ["nbrun: sales started", "nbrun: sales passed"]
    (page,) = (shell.folder / "site" / "sales").glob("2*/index.html")
    assert "secret source" in page.read_text()
    assert "print(" not in page.read_text()
    shell(CRON, strict=False)  # there is no crontab yet
    lines = (Path(shell.environment["HOME"]) / "crontab").read_text().splitlines()
    assert f"REPORT_MAIL={shell.box.url}" in lines
    entry = next(line for line in lines if re.match(r"\d+ ", line))
    command = re.sub(r" --if-due '[^']*'", "", entry.split(maxsplit=5)[5].replace("\\%", "%"))
    done = subprocess.run(  # as cron does: another folder, and hardly any environment
        ["/bin/sh", "-c", command],
        cwd="/",
        env={"HOME": shell.environment["HOME"], "PATH": "/usr/bin:/bin", "REPORT_MAIL": shell.box.url},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert shell.runs(shell.folder / "site") == 2


def test_the_units_for_systemd_run_the_batch_with_its_secret(shell: Shell) -> None:
    shell(SYSTEMD)
    home = Path(shell.environment["HOME"])
    secret = home / ".config" / "nbrun" / "nbrun-sales.env"
    assert (secret.read_text(), secret.stat().st_mode & 0o777) == (f"REPORT_MAIL={shell.box.url}\n", 0o600)
    service = (home / ".config" / "systemd" / "user" / "nbrun-sales.service").read_text()
    known = dict(line.split("=", 1) for line in service.splitlines() if "=" in line)
    assert known["EnvironmentFile"] == "%h/.config/nbrun/nbrun-sales.env"
    assert known["WorkingDirectory"] == str(shell.folder)
    assert shlex.split(known["ExecStart"])[-2:] == ["batch", "sales"]
    if shutil.which("systemd-analyze"):
        units = sorted(str(path) for path in (home / ".config" / "systemd" / "user").iterdir())
        said = subprocess.run(["systemd-analyze", "--user", "verify", *units], capture_output=True, text=True).stderr
        assert [line for line in said.splitlines() if "nbrun" in line] == []


def test_the_workflow_for_pages_keeps_the_runs_in_a_branch(shell: Shell, tmp_path: Path) -> None:
    workflow = tmp_path / "sales.yml"
    workflow.write_text(WORKFLOW)
    linter = Path(sys.executable).with_name("actionlint")
    found = subprocess.run([linter, "-shellcheck=", workflow], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")
    content = yaml.safe_load(WORKFLOW)
    exported = yaml.safe_load(shell("nbrun schedule export github sales"))
    # YAML reads the key "on" as true. The line of the current season is the first one.
    lines, others = (sorted(one[True]["schedule"], key=str) for one in (content, exported))
    assert lines == others
    origin, work = tmp_path / "origin.git", tmp_path / "work"
    shell(f"git init --quiet --bare --initial-branch main {origin} && git init --quiet --initial-branch main .")
    shell(
        f"git add . && git commit --quiet -m Report && git remote add origin {origin} && git push --quiet origin main"
    )
    shell(BRANCH)
    for count in (1, 2):
        shutil.rmtree(work, ignore_errors=True)
        for step in content["jobs"]["report"]["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                given = step.get("with", {})
                place = work / given.get("path", "")
                shell(f"git clone --quiet --branch {given.get('ref', 'main')} {origin} {place}")
            elif "run" in step:
                shell(step["run"], work / step.get("working-directory", ""), LINE="")
        shown = tmp_path / f"pages-{count}"
        shell(f"git clone --quiet --branch gh-pages {origin} {shown}")
        assert shell.runs(shown) == count
        assert (shown / "index.html").exists()
        assert (shown / ".nojekyll").exists()
