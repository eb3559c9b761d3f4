"""Keep the machine busy, for tests of behaviour on a busy machine."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def both_cores_busy() -> Iterator[None]:
    """Keep all cores busy with one process each, for the length of the block and five minutes at most."""
    program = "import time\nend = time.monotonic() + 300\nwhile time.monotonic() < end: pass"
    burners = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(os.cpu_count() or 2)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
