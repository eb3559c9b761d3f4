"""The program of the GitHub Action: create an environment for nbrun, and run nbrun in it with the inputs as options.

Inputs arrive as environment variables and are passed on as a list of arguments, so no shell reads them. The program
imports only the standard library. It runs with the Python whose packages the notebooks import. nbrun is installed into
a virtual environment of its own, in the runner's folder for temporary files. That Python is not changed.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

DISTRIBUTION = "jupyter-nbrun"
OLDEST = (3, 11)
INSTALL_LIMIT = 900.0
"""Seconds that the installation may take."""
USAGE = 2
_OPTIONS = {
    "IF_DUE": "--if-due",
    "JOBS": "--jobs",
    "SERVER": "--server",
    "ENGINE": "--engine",
    "KERNEL": "--kernel",
    "TIMEOUT": "--timeout",
    "CELL_TIMEOUT": "--cell-timeout",
    "IDLE_TIMEOUT": "--idle-timeout",
    "STARTUP_TIMEOUT": "--startup-timeout",
    "SHARD": "--shard",
    "HTML": "--html",
    "HTML_CODE": "--html-code",
    "PDF": "--pdf",
    "PUBLISH": "--publish",
    "KEEP": "--keep",
    "LOCK": "--lock",
    "NOTIFY_ON": "--notify-on",
    "JUNIT": "--junit",
    "CACHE": "--cache",
}
_EXTRAS = ("cloud", "dask", "html", "notify", "pdf")
"""The extras of nbrun that the input ``extras`` can name."""
_WITH_PAGES = ("BATCH", "HTML", "PDF", "PUBLISH")
"""Inputs that need the extra ``html``, or may need it because of the settings of a batch."""
_VERSION = re.compile(r"v?\d+(\.\d+)*((a|b|rc|\.dev|\.post)\d+)*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class WrongInput(Exception):
    """An invalid input of the action."""


def inputs_in(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the inputs that are not empty, by their names in capitals."""
    prefix = "NBRUN_INPUT_"
    given = {name[len(prefix) :]: value for name, value in environ.items() if name.startswith(prefix)}
    return {name: value for name, value in given.items() if value.strip()}


def extras_of(inputs: Mapping[str, str]) -> str:
    """Return the extras that the inputs name or need, separated by commas; raise :class:`WrongInput`."""
    named = _words(inputs, "EXTRAS")
    for name in named:
        if name not in _EXTRAS:
            raise WrongInput(f"extras: {name!r} is none of {', '.join(_EXTRAS)}")
    needed = ["html"] if any(name in inputs for name in _WITH_PAGES) else []
    return ",".join(sorted({"local", *needed, *named}))


def requirement(version: str, action: Path, extras: str) -> str:
    """Return the requirement that pip installs."""
    if not version:
        return f"{DISTRIBUTION}[{extras}] @ {action.resolve().as_uri()}"
    if Path(version).exists():
        return f"{DISTRIBUTION}[{extras}] @ {Path(version).resolve().as_uri()}"
    if not _VERSION.fullmatch(version):
        raise WrongInput(f"version: {version!r} is neither a version nor an existing path")
    return f"{DISTRIBUTION}[{extras}]=={version.removeprefix('v')}"


def arguments(inputs: Mapping[str, str], folder: Path) -> list[str]:
    """Return the arguments of nbrun; files that it needs are written into `folder`."""
    given = ["run"]
    if "BATCH" in inputs:
        given = ["batch", inputs["BATCH"].strip()]
        if given[1].startswith("-"):
            raise WrongInput(f"batch: {given[1]!r} is no name")
    for name, option in _OPTIONS.items():
        if name in inputs:
            given.append(f"{option}={inputs[name].strip()}")
    try:
        extra = shlex.split(inputs.get("EXTRA_ARGS", ""))
    except ValueError as error:
        raise WrongInput(f"extra-args: {error}") from None
    given += _choice(inputs, extra)
    if "PARAMETERS" in inputs:
        parameters = folder / "parameters.yaml"
        parameters.write_text(inputs["PARAMETERS"], encoding="utf-8")
        given.append(f"--parameters-file={parameters}")
    given += [f"--secret={name}" for name in _variables(inputs, "SECRETS")]
    given += [f"--notify=env:{name}" for name in _variables(inputs, "NOTIFY")]
    given += [f"--artefacts={pattern}" for pattern in _lines(inputs, "ARTEFACTS")]
    given += [f"--json={folder / 'results.json'}", "--github"]
    given += extra
    notebooks = _lines(inputs, "NOTEBOOKS")
    if notebooks:
        return [*given, "--", *notebooks]
    if "BATCH" not in inputs:
        raise WrongInput("notebooks: none were named, and no batch")
    return given


def _lines(inputs: Mapping[str, str], name: str) -> list[str]:
    return [line.strip() for line in inputs.get(name, "").splitlines() if line.strip()]


def _words(inputs: Mapping[str, str], name: str) -> list[str]:
    return [word for word in re.split(r"[\s,]+", inputs.get(name, "")) if word]


def _variables(inputs: Mapping[str, str], name: str) -> list[str]:
    """Return the names of environment variables in an input; raise :class:`WrongInput`."""
    names = _words(inputs, name)
    for one in names:
        if not _NAME.fullmatch(one):
            raise WrongInput(f"{name.lower()}: {one!r} is no name of an environment variable")
    return names


def _choice(inputs: Mapping[str, str], extra: Sequence[str]) -> list[str]:
    """Return the option for the destination of executed notebooks.

    It is --no-save if neither the inputs nor `extra` name one. The settings of a batch may name one.
    """
    chosen = {"output-dir": "OUTPUT_DIR" in inputs} | {name: _flag(inputs, name) for name in ("in-place", "no-save")}
    made = [name for name, is_chosen in chosen.items() if is_chosen]
    if len(made) > 1:
        raise WrongInput(f"{' and '.join(made)} contradict each other")
    if chosen["output-dir"]:
        folder = inputs["OUTPUT_DIR"].strip().replace("{", "{{").replace("}", "}}")
        return [f"--output={folder.rstrip('/')}/{{folder}}/{{stem}}.ipynb"]
    if chosen["in-place"]:
        return ["--in-place"]
    said = any(re.match(r"-o|--output(=|$)|--in-place$|--no-save$", word) for word in extra)
    return [] if (said or "BATCH" in inputs) and not chosen["no-save"] else ["--no-save"]


def _flag(inputs: Mapping[str, str], name: str) -> bool:
    value = inputs.get(name.upper().replace("-", "_"), "false").strip().lower()
    if value not in ("true", "false"):
        raise WrongInput(f"{name}: {value!r} is neither true nor false")
    return value == "true"


def environment(wanted: str, temporary: Path) -> Path:
    """Return the Python of a virtual environment with nbrun, created now unless an earlier step created it."""
    # Whether kernels can be started in this Python, or have to be nbrun's own with a view of its packages.
    own_kernel = subprocess.run([sys.executable, "-c", "import ipykernel"], capture_output=True).returncode == 0
    key = json.dumps([wanted, sys.executable, sys.version, own_kernel, _state(wanted)])
    folder = temporary / f"nbrun-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    ready = folder / "ready"
    if not ready.exists():
        shutil.rmtree(folder, ignore_errors=True)
        options = [] if own_kernel else ["--system-site-packages"]
        if shutil.which("uv"):
            options.append("--without-pip")  # to install pip takes longer than uv needs for nbrun
        _step([sys.executable, "-m", "venv", *options, str(folder)])
        _install(python, wanted)
        if own_kernel:
            _register_kernel(folder)
        ready.touch()
    return python


def _state(wanted: str) -> float:
    """Return when a checkout last changed, so that a changed one is installed again."""
    if " @ file://" not in wanted:
        return 0.0
    path = Path(re.sub(r"^/(?=[A-Za-z]:)", "", wanted.partition(" @ file://")[2]))
    files = path.glob("nbrun/**/*.py") if path.is_dir() else [path]
    return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)


def _install(python: Path, wanted: str) -> None:
    """Install with uv where there is one, and with pip where there is none or it reaches no index."""
    if shutil.which("uv"):
        try:
            _step(["uv", "pip", "install", "--quiet", "--python", str(python), wanted])
            return
        except subprocess.CalledProcessError:
            print("uv could not install nbrun; pip is tried next", flush=True)
            _step([str(python), "-m", "ensurepip", "--default-pip"])
    _step([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wanted])


def _register_kernel(folder: Path) -> None:
    """Make the job's own Python the kernel ``python3``, as it is for a Jupyter that is installed there."""
    spec = folder / "share" / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {
        "argv": argv,
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "metadata": {"debugger": True},
    }
    file = spec / "kernel.json"
    # A file of its own: uv installs hard links, so writing into this one would change uv's cache, and with it every
    # other environment of the runner.
    file.unlink(missing_ok=True)
    file.write_text(json.dumps(kernel), encoding="utf-8")


def _step(command: list[str]) -> None:
    subprocess.run(command, check=True, timeout=INSTALL_LIMIT)


def _data(text: str) -> str:
    """Return text as the data of a workflow command: one line, without control characters or another command."""
    text = "".join(mark if mark.isprintable() or mark == "\n" else " " for mark in text)
    return text.replace("##", "#\u200b#").replace("%", "%25").replace("\n", "%0A")


def _report(values: Mapping[str, str]) -> None:
    """Set the step's outputs if nbrun did not; the values contain no text of a notebook."""
    target = os.environ.get("GITHUB_OUTPUT")
    if target and "exit-code" not in (Path(target).read_text(encoding="utf-8") if Path(target).exists() else ""):
        with Path(target).open("a", encoding="utf-8") as out:
            out.write("".join(f"{name}={value}\n" for name, value in values.items()))


def main() -> int:
    """Install and run nbrun; return its exit code."""
    if sys.version_info < OLDEST:
        older = f"nbrun needs Python 3.11 or newer, and {sys.executable} is older; use actions/setup-python"
        print(f"::error::{_data(older)}")
        return USAGE
    inputs = inputs_in(os.environ)
    temporary = Path(os.environ.get("RUNNER_TEMP") or tempfile.gettempdir())
    try:
        folder = Path(tempfile.mkdtemp(prefix="nbrun-run-", dir=temporary))
        given = arguments(inputs, folder)
        action = Path(os.environ["NBRUN_ACTION"])
        wanted = requirement(inputs.get("VERSION", "").strip(), action, extras_of(inputs))
        print("::group::Install nbrun", flush=True)
        try:
            python = environment(wanted, temporary)
        finally:
            print("::endgroup::", flush=True)
    except WrongInput as error:
        print(f"::error title=nbrun action::{_data(str(error))}")
        _report({"outcome": "not-run", "exit-code": str(USAGE), "passed": "0", "failed": "0"})
        return USAGE
    except (OSError, subprocess.SubprocessError) as error:
        print(f"::error title=nbrun could not be installed::{_data(str(error))}")
        return 1
    code = subprocess.run([str(python), "-m", "nbrun", *given]).returncode
    _report({"outcome": "skipped" if code == 0 else "not-run", "exit-code": str(code), "passed": "0", "failed": "0"})
    return code


if __name__ == "__main__":
    sys.exit(main())
