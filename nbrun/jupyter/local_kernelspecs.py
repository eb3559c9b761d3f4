"""Read the kernelspecs of this machine from the folders that a private server would use."""

import contextlib
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from jupyter_core.paths import jupyter_path

from nbrun.core.formats.json_text import loads
from nbrun.errors import BadFrame
from nbrun.jupyter.http.messages import Fields
from nbrun.jupyter.kernelspecs import NATIVE, KernelSpec, KernelSpecs


def installed_kernelspecs() -> KernelSpecs:
    """Return the kernels that a private server on this machine can start; for each name, the first folder wins."""
    found: dict[str, KernelSpec] = {}
    for file in _files():
        with contextlib.suppress(OSError, BadFrame):
            content = loads(file.read_bytes())
            name = file.parent.name.lower()
            if isinstance(content, dict) and name not in found:
                found[name] = KernelSpec.read(name, Fields(content, str(file)))
    native = KernelSpec(NATIVE, "Python 3 (ipykernel)", "python", (sys.executable, "-m", "ipykernel_launcher"))
    return KernelSpecs(NATIVE, {NATIVE: native, **found}, "this machine")


def defects() -> list[str]:
    """Return the problems of this machine's kernelspecs: unreadable files and missing programs."""
    found = []
    for file in _files():
        try:
            content = loads(file.read_bytes())
        except OSError as error:
            found.append(f"{file} cannot be read: {error.strerror}")
            continue
        except BadFrame as error:
            found.append(f"{file} is {error}")
            continue
        argv = content.get("argv") if isinstance(content, dict) else None
        if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
            found.append(f"{file} names no program: argv is not a list of strings")
        elif shutil.which(argv[0]) is None:
            found.append(f"{file} starts {argv[0]}, which is not there")
    return found


def _files() -> list[Path]:
    """Return the files of all kernelspecs, in the order in which a server searches them."""
    ipython = os.environ.get("IPYTHONDIR") or str(PurePath("~", ".ipython"))
    folders = [*map(Path, jupyter_path("kernels")), Path(ipython, "kernels").expanduser()]
    return [file for folder in folders for file in sorted(folder.glob("*/kernel.json"))]


def kernel_identity(spec: KernelSpec) -> Mapping[str, Any]:
    """Return what identifies a kernel without starting it: its spec, and the version of the program that it starts."""
    program = spec.argv[0] if spec.argv else ""
    path = shutil.which(program)
    if PurePath(program).name in ("python", "python3") and program in ("python", "python3", sys.executable):
        version = sys.version
    elif path:
        status = Path(path).resolve().stat()
        version = f"{status.st_size}-{status.st_mtime_ns}"
    else:
        version = ""
    return {
        "name": spec.name,
        "language": spec.language,
        "argv": list(spec.argv),
        "env": dict(spec.env),
        "version": version,
    }


def other_python(kernel: str) -> str:
    """Return the program of a Python kernel that is in another environment than nbrun, otherwise an empty text."""
    spec = installed_kernelspecs().specs.get(kernel)
    program = spec.argv[0] if spec is not None and spec.argv else ""
    is_other = os.path.isabs(program) and program != sys.executable  # noqa: PTH117
    return program if is_other and PurePath(program).name.startswith("python") else ""
