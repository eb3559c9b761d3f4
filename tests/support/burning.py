"""Keeps the machine busy, for tests of what must hold on a busy one."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def both_cores_busy() -> Iterator[None]:
    """Let one process a core do nothing as fast as it can, for as long as the block lasts and five minutes at most."""
    program = "import time\nend = time.monotonic() + 300\nwhile time.monotonic() < end: pass"
    burners = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(os.cpu_count() or 2)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
