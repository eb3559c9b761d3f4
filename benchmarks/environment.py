"""The virtual environments: one for the harness, and those in which the contenders are measured.

Its one idea: whoever calls ``python -m benchmarks`` has a Python and nothing else, so this module and ``__main__``
import the standard library only, and everything else runs inside the environment that is made here. The versions of
all environments come from requirements.txt. What is measured is compiled before.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CACHE = REPOSITORY / ".benchmarks"
"""Where everything lies that the harness makes; git ignores it."""

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
OWN, SHARED = "own", "shared"
"""Each contender in an environment of its own, or all of them in one."""

_DROPPED = (
    "JUPYTER_PATH",
    "JUPYTER_TOKEN",
    "NBRUN_TOKEN",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONPATH",
    "VIRTUAL_ENV",  # IPython would add its packages to those of the kernel
)


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment: packages, and nbrun with its extra ``local`` from the folder `nbrun`."""

    name: str
    packages: tuple[str, ...] = ()
    nbrun: Path | None = None
    constraints: str = ""
    """More versions than those of requirements.txt, in the same format."""

    @property
    def folder(self) -> Path:
        """Return where it lies."""
        return CACHE / "environments" / f"{self.name}-{sys.version_info.major}.{sys.version_info.minor}"

    @property
    def interpreter(self) -> Path:
        """Return its Python."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


_PEERS = (
    Environment("papermill", ("papermill", "ipykernel")),
    Environment("nbclient", ("nbclient", "ipykernel")),
    Environment("nbconvert", ("nbconvert", "ipykernel")),
    Environment("nbmake", ("nbmake", "pytest-xdist", "ipykernel")),
    Environment("jupyter-kernel-client", ("jupyter-kernel-client", "jupyter-server", "ipykernel")),
    Environment("jupyter-client", ("jupyter-client", "ipykernel")),
)
_ALL = tuple(dict.fromkeys(package for peer in _PEERS for package in peer.packages))
ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        Environment("harness", ("matplotlib", "psutil")),
        Environment("nbrun", nbrun=REPOSITORY),
        *_PEERS,
        Environment(SHARED, (*_ALL, "jupyterlab"), REPOSITORY),
    )
}


def ready(environment: Environment) -> Path:
    """Return the environment's interpreter; make the environment where it is missing or outdated, and compile it."""
    mark = environment.folder / "made-from"
    wanted = fingerprint(environment)
    if not environment.interpreter.exists() or not mark.exists() or mark.read_text(encoding="utf-8") != wanted:
        _make(environment)
        mark.write_text(wanted, encoding="utf-8")
    if environment.nbrun is not None:
        _compile(environment.interpreter, environment.nbrun / "nbrun")
    return environment.interpreter


def is_inside() -> bool:
    """Return whether this process runs in the harness's own environment."""
    return Path(sys.prefix).resolve() == ENVIRONMENTS["harness"].folder.resolve()


def variables(home: Path, interpreter: Path) -> dict[str, str]:
    """Return the variables for a process that is measured in the environment of `interpreter`, without the user's own.

    `home` takes the place of the user's folders for Jupyter and IPython.
    """
    own = {
        "PATH": os.pathsep.join([str(interpreter.parent), os.environ.get("PATH", "")]),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "NO_COLOR": "1",
    }
    return {name: value for name, value in os.environ.items() if name not in _DROPPED} | own


def versions(interpreter: Path) -> dict[str, str]:
    """Return the versions of all packages of an environment, by their names in lower case with hyphens."""
    script = (
        "import importlib.metadata as m, json\n"
        "print(json.dumps({d.name.lower().replace('_', '-'): d.version for d in m.distributions()}))"
    )
    told = subprocess.run([str(interpreter), "-P", "-c", script], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(told.stdout)
    return found


def at_revision(revision: str) -> Environment:
    """Return the environment of nbrun at another git revision, with the versions that the checkout's own one has.

    Raise ValueError for a revision that git does not know.
    """
    asked = ["git", "-C", str(REPOSITORY), "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    if not commit:
        raise ValueError(f"git knows no revision {revision!r} in {REPOSITORY}")
    source = CACHE / "revisions" / commit
    if not source.exists():
        shutil.rmtree(source.parent, ignore_errors=True)  # one revision is kept, as is one environment
        part = source.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        archive = part / "archive.tar"
        subprocess.run(["git", "-C", str(REPOSITORY), "archive", "-o", str(archive), commit], check=True)
        shutil.unpack_archive(archive, part, filter="data")
        archive.unlink()
        part.rename(source)
    same = versions(ready(ENVIRONMENTS["nbrun"]))
    pins = [f"{name}=={version}" for name, version in sorted(same.items()) if name not in ("jupyter-nbrun", "pip")]
    return Environment("nbrun-revision", nbrun=source, constraints="\n".join(pins))


def fingerprint(environment: Environment) -> str:
    """Return a digest of everything that the environment is made from, except nbrun's modules."""
    needed: list[object] = [environment.packages, environment.constraints]
    if environment.nbrun is not None:
        project = tomllib.loads((environment.nbrun / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        kept = ("dependencies", "optional-dependencies", "scripts", "entry-points")
        needed += [str(environment.nbrun), *(project.get(key) for key in kept)]
    return hashlib.sha256(REQUIREMENTS.read_bytes() + repr(needed).encode()).hexdigest()


def _make(environment: Environment) -> None:
    print(f"making {environment.folder.relative_to(REPOSITORY)} …", file=sys.stderr)
    shutil.rmtree(environment.folder, ignore_errors=True)
    environment.folder.parent.mkdir(parents=True, exist_ok=True)
    constraints = environment.folder.with_name(f"{environment.folder.name}.constraints.txt")
    pinned = REQUIREMENTS.read_text(encoding="utf-8") if not environment.constraints else environment.constraints
    constraints.write_text(f"{pinned}\n", encoding="utf-8")
    packages = [*environment.packages, "-c", str(constraints)]
    if environment.nbrun is not None:
        packages += ["-e", f"{environment.nbrun}[local]"]
    interpreter = str(environment.interpreter)
    variables = _without_bytecode_setting()
    if uv := shutil.which("uv"):
        subprocess.run(
            [uv, "venv", "--quiet", "--python", sys.executable, str(environment.folder)], check=True, env=variables
        )
        subprocess.run([uv, "pip", "install", "--quiet", "--python", interpreter, *packages], check=True, env=variables)
    else:
        venv.create(environment.folder, with_pip=True)
        subprocess.run([interpreter, "-m", "pip", "install", "-qq", *packages], check=True, env=variables)
    _compile(environment.interpreter, environment.folder)


def _compile(interpreter: Path, folder: Path) -> None:
    """Compile all modules below `folder`; the few that are no valid Python (templates) stay as they are."""
    command = [str(interpreter), "-m", "compileall", "-qq", "-j", "0", str(folder)]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, env=_without_bytecode_setting())


def _without_bytecode_setting() -> Mapping[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _DROPPED}
