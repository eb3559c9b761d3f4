"""The kernels of other languages in the tests, and how servers find them.

A kernelspec that ships in a wheel says ``python``, and a Jupyter server reads that as *its own* Python, where the
kernel is not installed. So the specs are installed as their packages give them, and then only the program that
starts the kernel is made absolute: all else, the interrupt mode above all, stays the kernel's own.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from tests.support.environments import STEP_LIMIT, Environment, environment, missing

SYSTEM_KERNELS = (Path("/usr/share/jupyter/kernels"), Path("/usr/local/share/jupyter/kernels"))
_PYTHON = re.compile(r"python(3(\.\d+)?)?")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel: its environment and its requirements."""

    name: str
    language: str
    environment: str | None = None
    """The environment with the kernel; None if packages of the system install it."""
    program: str = ""
    """The program that must be on PATH."""
    install: str = "nothing"
    """How to install that program."""


KERNELS: Mapping[str, Kernel] = {
    kernel.name: kernel
    for kernel in (
        Kernel("ir", "R", None, "R", "apt-get install r-base-core r-cran-irkernel"),
        Kernel("bash", "bash", "kernels", "bash", "apt-get install bash"),
        Kernel("deno", "typescript", "kernels"),
        Kernel("xpython", "python", "kernels"),
        Kernel("calysto_scheme", "scheme", "kernels"),
        Kernel("java", "java", "kernels", "java", "apt-get install default-jdk-headless"),
        Kernel("lua", "lua", "kernels", "lua", "apt-get install lua5.3"),
        Kernel("octave", "octave", "octave-kernel", "octave", "apt-get install octave"),
        Kernel("tslab", "typescript", "node-kernels", "node", "apt-get install nodejs npm"),
    )
}


def jupyter_path(name: str) -> str:
    """Return the JUPYTER_PATH with which a server finds the kernel of that name, or "" if it needs none.

    Skips or fails the test if the kernel or its program is missing.
    """
    kernel = KERNELS[name]
    if kernel.program and shutil.which(kernel.program) is None:
        missing(f"the program {kernel.program!r} of the kernel {name!r}", install=kernel.install)
    if kernel.environment is None:
        if not any((folder / name / "kernel.json").exists() for folder in SYSTEM_KERNELS):
            missing(f"the kernelspec {name!r}", install=kernel.install)
        return ""
    made = environment(kernel.environment)
    offer_kernels(made)
    return str(made.jupyter_path)


def offer_kernels(made: Environment) -> None:
    """Change an environment's kernelspecs so that any server can start them; done once."""
    mark = made.folder / "kernels-offered"
    with FileLock(made.folder / "kernels.lock", timeout=STEP_LIMIT):
        if mark.exists():
            return
        _INSTALL[made.name](made)
        kernels = made.jupyter_path / "kernels"
        # Under JUPYTER_PATH it would go before the server's own Python kernel.
        shutil.rmtree(kernels / "python3", ignore_errors=True)
        for path in sorted(kernels.glob("*/kernel.json")):
            spec = json.loads(path.read_text())
            spec["argv"][0] = absolute_program(made, spec["argv"][0])
            # A file of its own: uv installs hard links, so writing into this one would change uv's cache as well.
            path.unlink()
            path.write_text(json.dumps(spec, indent=1))
        mark.touch()


def absolute_program(made: Environment, program: str) -> str:
    """Return the path of a kernel's program inside its environment, or the program unchanged if it is not there."""
    name = Path(program).name  # an absolute path may be that of a folder from which the environment was moved
    if _PYTHON.fullmatch(name):
        return str(made.python)
    inside = [folder / name for folder in (made.python.parent, made.node_programs)]
    return next((str(path) for path in inside if path.exists()), program)


def _install_python_packaged(made: Environment) -> None:
    """Add the two specs that no wheel brings: Bash's has an installer, Deno's installs into the home folder only."""
    _run(str(made.python), "-m", "bash_kernel.install", "--prefix", str(made.folder))
    deno: dict[str, Any] = {
        "argv": ["deno", "jupyter", "--kernel", "--conn", "{connection_file}"],
        "display_name": "Deno",
        "language": "typescript",
        "env": {"DENO_NO_UPDATE_CHECK": "1", "DENO_DIR": str(made.folder / "deno-cache")},
    }
    folder = made.jupyter_path / "kernels" / "deno"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kernel.json").write_text(json.dumps(deno))


def _install_node_packaged(made: Environment) -> None:
    """Install tslab's two specs; its installer is a Python script that wants jupyter_client, so they are written here.

    They are the ones of ``tslab install``: the TypeScript kernel, and the same with ``--js``.
    """
    for name, display_name, language, options in (
        ("tslab", "TypeScript", "typescript", []),
        ("jslab", "JavaScript", "javascript", ["--js"]),
    ):
        spec = {
            "argv": ["tslab", "kernel", "--config-path", "{connection_file}", *options],
            "display_name": display_name,
            "language": language,
        }
        folder = made.jupyter_path / "kernels" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "kernel.json").write_text(json.dumps(spec))


def _install_nothing(made: Environment) -> None:
    """Octave's spec comes with its wheel."""


_INSTALL: Mapping[str, Callable[[Environment], None]] = {
    "kernels": _install_python_packaged,
    "octave-kernel": _install_nothing,
    "node-kernels": _install_node_packaged,
}


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=STEP_LIMIT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
