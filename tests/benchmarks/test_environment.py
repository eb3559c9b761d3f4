"""What an environment is made from, and what a measured process finds in it."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.environment import ENVIRONMENTS, REQUIREMENTS, SHARED, Environment, at_revision, fingerprint, variables


def test_every_package_has_a_pinned_version() -> None:
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    assert {package for environment in ENVIRONMENTS.values() for package in environment.packages} <= pinned


def test_only_nbruns_own_and_the_shared_environment_contain_jupyter_server_for_a_peer() -> None:
    with_server = {name for name, one in ENVIRONMENTS.items() if "jupyter-server" in one.packages}
    assert with_server == {"jupyter-kernel-client", SHARED}
    assert {name for name, one in ENVIRONMENTS.items() if one.nbrun} == {"nbrun", SHARED}


def test_an_environment_is_made_again_when_its_packages_or_versions_change() -> None:
    one = ENVIRONMENTS["nbrun"]
    others = [replace(one, packages=("click",)), replace(one, constraints="click==8.5.1"), Environment(one.name)]
    assert len({fingerprint(one), *map(fingerprint, others)}) == 4
    assert fingerprint(one) == fingerprint(replace(one))


def test_a_measured_process_may_write_bytecode_and_has_no_settings_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "VIRTUAL_ENV", "JUPYTER_TOKEN"):
        monkeypatch.setenv(name, "1")
    given = variables(tmp_path, tmp_path / "bin" / "python")
    assert not {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "VIRTUAL_ENV", "JUPYTER_TOKEN"} & given.keys()
    assert given["PATH"].startswith(str(tmp_path / "bin"))
    assert given["JUPYTER_CONFIG_DIR"].startswith(str(tmp_path))


def test_a_revision_that_git_does_not_know_is_an_error() -> None:
    with pytest.raises(ValueError, match="no-such-revision"):
        at_revision("no-such-revision")
