"""jupyter-kernel-client as a notebook runner. ``kernel_client.py IN OUT [SERVER_URL]``, token in ``JUPYTER_TOKEN``.

It sends a cell, waits for its reply, sends the next: what a plain client of a Jupyter server does. Without an address
it starts a server on loopback first and stops it at the end, as a runner that needs a server would have to. The server
has no limits on output (jupyter_server_config.py), because the client does not notice what a server drops.
"""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

UP_WITHIN = 60.0
NEVER = 86_400.0
SETTINGS = Path(__file__).with_name("jupyter_server_config.py")


@contextlib.contextmanager
def server_without_limits(root: Path) -> Iterator[tuple[str, str]]:
    """Start a server on a free port and yield its address and token."""
    token, runtime = secrets.token_hex(16), root / "runtime"
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
    process = subprocess.Popen(
        [*command, f"--config={SETTINGS}", f"--ServerApp.root_dir={root}"],
        env={**os.environ, "JUPYTER_TOKEN": token, "JUPYTER_RUNTIME_DIR": str(runtime)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield address(runtime / f"jpserver-{process.pid}.json"), token
    finally:
        process.terminate()
        process.wait()


def address(record: Path) -> str:
    """Wait until the server has said where it is, and answers."""
    give_up_at = time.monotonic() + UP_WITHIN
    while time.monotonic() < give_up_at:
        with contextlib.suppress(OSError, ValueError):
            url: str = json.loads(record.read_bytes())["url"]
            with urllib.request.urlopen(f"{url}api", timeout=5):
                return url
        time.sleep(0.02)
    raise SystemExit("the server did not come up")


def run(source: Path, target: Path, url: str, token: str) -> None:
    """Run the notebook at `source` and write it to `target`."""
    from jupyter_kernel_client import JupyterKernelClient  # here, so that the server boots before it

    notebook = json.loads(source.read_bytes())
    with JupyterKernelClient(server_url=url.rstrip("/"), token=token) as client:
        for cell in notebook["cells"]:
            answer = client.execute(cell["source"], timeout=NEVER)
            cell["execution_count"], cell["outputs"] = answer["execution_count"], answer["outputs"]
    with target.open("w", encoding="utf-8") as file:
        json.dump(notebook, file, indent=1, ensure_ascii=False)


def main() -> None:
    """Run the notebook named first and write it to the place named second."""
    source, target = map(Path, sys.argv[1:3])
    if len(sys.argv) > 3:
        run(source, target, sys.argv[3], os.environ["JUPYTER_TOKEN"])
        return
    with server_without_limits(source.parent) as (url, token):
        run(source, target, url, token)


if __name__ == "__main__":
    main()
