"""Kernels that are started by the launcher, on this Python and on the oldest one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from jupyter_client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

from nbrun import kernel_side
from nbrun.core.protocol.agent import HELLO, HELLO_REPLY, REPLAY_BUFFER, Ability, AgentOptions
from nbrun.runner.pipelining import SharedProgress
from tests.support.environments import environment

LAUNCHER = Path(kernel_side.__path__[0]) / "launch.py"
LAUNCHED = (str(LAUNCHER), "ipykernel_launcher")
LIMIT = 60.0
"""Seconds for each answer of a kernel on a busy machine."""
PROPERTIES = """
import json, os, sys
breakpoint()
kernel = get_ipython().kernel
print(json.dumps({
    "argv": sys.argv,
    "original": getattr(sys, "orig_argv", ["", "-m", "ipykernel_launcher"])[1:3],
    "of the launcher": sorted({"prepare", "FOLDER", "module", "runpy"} & {*vars(sys.modules["__main__"])}),
    "debugpy": "debugpy" in sys.modules,
    "folder": any(path.endswith("kernel_side") for path in sys.path),
    "here": os.getcwd() in sys.path,
    "limit": kernel.iopub_thread.socket.getsockopt(__import__("zmq").SNDHWM),
    "reads the descriptors": hasattr(sys.stdout, "watch_fd_thread"),
    "under pytest": "PYTEST_CURRENT_TEST" in os.environ,
}))
import debugpy
"""


@dataclass
class Launched:
    """A kernel and a client of it."""

    client: BlockingKernelClient
    process: "subprocess.Popen[str]"
    texts: list[str] = field(default_factory=list)

    def run(self, code: str) -> Mapping[str, Any]:
        """Execute `code`, and return the content of its reply; what it prints is collected."""
        reply: Mapping[str, Any] = self.client.execute_interactive(code, timeout=LIMIT, output_hook=self._collect)
        return reply["content"]  # type: ignore[no-any-return]

    def _collect(self, message: Mapping[str, Any]) -> None:
        self.texts.append(message["content"].get("text", ""))

    def hello(self) -> Mapping[str, Any]:
        """Return the reply of the agent."""
        progress = SharedProgress()
        options = AgentOptions(REPLAY_BUFFER, lift_limits=True, quiet=True, freeze=True, progress=progress.address)
        request = self.client.session.msg(HELLO, options.as_dict())
        self.client.shell_channel.send(request)
        while True:
            reply: Mapping[str, Any] = self.client.get_shell_msg(timeout=LIMIT)
            if reply["parent_header"]["msg_id"] == request["header"]["msg_id"]:
                assert reply["msg_type"] == HELLO_REPLY
                progress.close_address()
                return reply["content"]  # type: ignore[no-any-return]

    def shut_down(self) -> tuple[int, str]:
        """Shut the kernel down; return its exit code and what it wrote to stderr."""
        self.client.shutdown()
        _, stderr = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, stderr


@contextmanager
def launched(
    folder: Path, *words: str, python: Path = Path(sys.executable), env: Mapping[str, str] = os.environ
) -> Iterator[Launched]:
    """Start a kernel in `folder`; `words` are the arguments of Python before the connection file."""
    file, _ = write_connection_file(str(folder / "kernel.json"), ip=str(folder / "kernel"), transport="ipc")
    process = subprocess.Popen(
        [str(python), *(words or LAUNCHED), "-f", file], cwd=folder, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**env, "IPYTHONDIR": str(folder / "ipython")},
    )  # fmt: skip
    client = BlockingKernelClient(connection_file=file)
    client.load_connection_file()
    client.start_channels(hb=False)  # a busy machine misses heartbeats
    try:
        wait_for(client)
        yield Launched(client, process)
    finally:
        client.stop_channels()
        process.kill()
        print(*process.communicate())  # shown where the test fails


def wait_for(client: BlockingKernelClient) -> None:
    """Wait until the kernel replies and its outputs arrive."""
    while True:
        client.kernel_info()
        client.get_shell_msg(timeout=LIMIT)
        with suppress(Empty):  # without a subscription yet
            client.get_iopub_msg(timeout=1)
            return


@pytest.mark.parametrize("python", ["this", "ipykernel-6.29"])
def test_a_kernel_has_the_agent_and_a_notebook_sees_no_launcher(python: str, tmp_path: Path) -> None:
    program = Path(sys.executable) if python == "this" else environment(python).python
    with launched(tmp_path, python=program) as kernel:
        assert {*kernel.hello()["abilities"]} == {*map(str, Ability)}
        assert kernel.run(PROPERTIES)["status"] == "ok"
        seen = "".join(kernel.texts)
        assert '"original": ["-m", "ipykernel_launcher"]' in seen
        assert 'ipykernel_launcher.py", "-f"' in seen
        assert '"of the launcher": [], "debugpy": false, "folder": false, "here": false, "limit": 0' in seen
        assert '"reads the descriptors": true, "under pytest": true' in seen
        assert kernel.shut_down()[0] == 0


@pytest.mark.parametrize("options", [(), ("-P",)], ids=["", "safe path"])
def test_modules_are_found_in_the_same_folders_as_in_a_stock_kernel(options: tuple[str, ...], tmp_path: Path) -> None:
    found = []
    for words in (LAUNCHED, ("-m", "ipykernel_launcher")):
        env = {**os.environ, "PYTHONPATH": str(tmp_path)}
        with launched(tmp_path, *options, *words, env=env) as kernel:
            kernel.run("import sys; print([*sys.path])")
            found.append("".join(kernel.texts))
    assert found[0] == found[1]
    assert (repr(str(tmp_path)) in found[0]) == (not options), "after -P, ipykernel_launcher removes it"


def test_a_kernel_in_which_the_agent_cannot_be_installed_runs_without_it(tmp_path: Path) -> None:
    side = Path(shutil.copytree(LAUNCHER.parent, tmp_path / "side"))
    (side / "agent.py").write_text("def install(kernel, options):\n    raise LookupError('no iopub')\n")
    with launched(tmp_path, str(side / "launch.py"), "ipykernel_launcher") as kernel:
        assert kernel.run("print('runs')")["status"] == "ok"
        assert "runs\n" in "".join(kernel.texts)
        code, stderr = kernel.shut_down()
    assert code == 0
    assert "nbrun's agent could not be installed: LookupError('no iopub')" in stderr
