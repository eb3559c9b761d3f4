"""Folders that a test can neither write nor read, even if the tests run as root."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.environments import missing

_CAPABILITIES = "-dac_override,-dac_read_search"


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Make a file read-only for everybody, also for root, by its immutable flag."""
    if os.geteuid() != 0:
        mode = path.stat().st_mode
        path.chmod(mode & 0o555)
        try:
            yield
        finally:
            path.chmod(mode)
        return
    if subprocess.run(["chattr", "+i", path], capture_output=True).returncode != 0:
        missing("a file system with immutable files", install="run it as another user than root")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


def obedient() -> list[str]:
    """Return the prefix of a command that makes it respect file permissions, which root ignores otherwise."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        missing("setpriv", install="install util-linux, or run it as another user than root")
    return ["setpriv", f"--bounding-set={_CAPABILITIES}", f"--inh-caps={_CAPABILITIES}"]
