"""The harness's own virtual environment: pinned peers, and nbrun from this checkout.

Its one idea: whoever calls ``python -m benchmarks`` has a Python and nothing else, so this module and ``__main__``
import the standard library only, and everything else runs inside the environment that is made here.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CACHE = REPOSITORY / ".benchmarks"
"""Where everything lies that the harness makes; git ignores it."""

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_FOLDER = CACHE / f"venv-{sys.version_info.major}.{sys.version_info.minor}"
_BIN = _FOLDER / ("Scripts" if os.name == "nt" else "bin")
_MARK = _FOLDER / "made-from"


def python() -> Path:
    """Return the environment's interpreter, making or renewing the environment where it is not as it should be."""
    interpreter = _BIN / ("python.exe" if os.name == "nt" else "python")
    wanted = _fingerprint()
    if not interpreter.exists() or not _MARK.exists() or _MARK.read_text(encoding="utf-8") != wanted:
        _make(interpreter)
        _MARK.write_text(wanted, encoding="utf-8")
    return interpreter


def is_inside() -> bool:
    """Return whether this process runs in the environment."""
    return Path(sys.prefix).resolve() == _FOLDER.resolve()


def variables(home: Path) -> dict[str, str]:
    """Return the variables for a measured process: the user's Jupyter settings stay out, whatever they are."""
    own = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "NO_COLOR": "1",
    }
    dropped = ("JUPYTER_PATH", "PYTHONPATH", "JUPYTER_TOKEN", "NBRUN_TOKEN", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if name not in dropped} | own


def _fingerprint() -> str:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [project["dependencies"], project["optional-dependencies"]["local"], project["scripts"]]
    return hashlib.sha256(REQUIREMENTS.read_bytes() + repr(needed).encode()).hexdigest()


def _make(interpreter: Path) -> None:
    print(f"making {_FOLDER.relative_to(REPOSITORY)} …", file=sys.stderr)
    packages = ["-r", str(REQUIREMENTS), "-e", f"{REPOSITORY}[local]"]
    shutil.rmtree(_FOLDER, ignore_errors=True)
    if uv := shutil.which("uv"):
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(_FOLDER)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(interpreter), *packages], check=True)
    else:
        venv.create(_FOLDER, with_pip=True)
        subprocess.run([str(interpreter), "-m", "pip", "install", "-qq", *packages], check=True)
