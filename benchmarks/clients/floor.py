"""The floor: the least that running a notebook can be. ``floor.py IN OUT``.

A loop over jupyter_client's ZeroMQ sockets, without a server, limits, recovery, checks or timing; outputs are appended
as they come and the notebook is written with the json module.
"""

import json
import sys
from pathlib import Path
from typing import Any

from jupyter_client.manager import start_new_kernel

KEPT = {
    "stream": ("name", "text"),
    "display_data": ("data", "metadata"),
    "execute_result": ("data", "metadata", "execution_count"),
    "error": ("ename", "evalue", "traceback"),
}


def run(client: Any, cell: dict[str, Any]) -> None:
    """Execute one cell and put its outputs into it."""
    request = client.execute(cell["source"])
    outputs: list[dict[str, Any]] = []
    texts: dict[int, list[str]] = {}
    while True:
        message = client.get_iopub_msg(timeout=None)
        if message["parent_header"].get("msg_id") != request:
            continue
        kind, content = message["msg_type"], message["content"]
        if kind == "status" and content["execution_state"] == "idle":
            break
        if kind == "stream" and outputs and outputs[-1].get("name") == content["name"]:
            texts.setdefault(len(outputs) - 1, [outputs[-1]["text"]]).append(content["text"])
        elif kind in KEPT:
            outputs.append({"output_type": kind, **{key: content[key] for key in KEPT[kind]}})
    for place, parts in texts.items():
        outputs[place]["text"] = "".join(parts)
    reply = client.get_shell_msg(timeout=None)
    while reply["parent_header"].get("msg_id") != request:  # an answer from before the kernel was ready
        reply = client.get_shell_msg(timeout=None)
    cell["execution_count"] = reply["content"]["execution_count"]
    cell["outputs"] = outputs


def main() -> None:
    """Run the notebook named first and write it to the place named second."""
    source, target = map(Path, sys.argv[1:3])
    notebook = json.loads(source.read_bytes())
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        for cell in notebook["cells"]:
            run(client, cell)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    with target.open("w", encoding="utf-8") as file:
        json.dump(notebook, file, indent=1, ensure_ascii=False)


if __name__ == "__main__":
    main()
