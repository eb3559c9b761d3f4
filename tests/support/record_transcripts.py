"""Record the transcripts: run each scenario with real servers and kernels, and store the messages.

``python -m tests.support.record_transcripts [name ...]`` writes them into ``fixtures/transcripts``. What tells of the
machine, its paths and its user, is taken out; times, order, sessions and texts stay as they were.
"""

import asyncio
import contextlib
import json
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbrun.core.execution.effects import Effects, InterruptKernel, ProbeKernel, Send
from nbrun.core.execution.machine import Execution
from nbrun.core.execution.pipelining import Pipelining
from nbrun.core.planning.plan import Action, CellPlan, Plan
from nbrun.core.protocol.agent import Ability, AgentOptions
from nbrun.core.protocol.messages import Message
from nbrun.jupyter.client import Client, connect
from nbrun.jupyter.kernel.driver import Kernel
from tests.support.servers import jupyter_server
from tests.support.transcripts import TRANSCRIPTS, message_as_json

Interference = Callable[[Client, str, Kernel, "Recorder"], Awaitable[None]]

ONE_DEATH_IS_FINAL = ("--KernelRestarter.restart_limit=0",)
FEW_MESSAGES = ("--ZMQChannelsWebsocketConnection.iopub_msg_rate_limit=10",)


class Recorder(Execution):
    """A state machine that writes down its own life."""

    lines: list[dict[str, Any]]
    start_time: float
    running: asyncio.Event
    """Set once the kernel has said that it runs a cell."""

    def start(self, now: float) -> Effects:
        self.lines, self.start_time, self.running = [], now, asyncio.Event()
        return self._note(now, None, super().start(now))

    def receive(self, message: Message, now: float) -> Effects:
        if message.type == "execute_input":
            self.running.set()
        return self._note(now, {"received": message_as_json(message)}, super().receive(message, now))

    def tick(self, now: float) -> Effects:
        return self._note(now, None, super().tick(now))

    def interrupt(self, now: float, reason: str) -> Effects:
        return self._note(now, {"asked": {"interrupt": reason}}, super().interrupt(now, reason))

    def reconnected(self, now: float, *, nudged: bool = True) -> Effects:
        return self._note(now, {"asked": {"reconnected": True}}, super().reconnected(now, nudged=nudged))

    def probed(self, now: float, *, alive: bool) -> Effects:
        return self._note(now, {"asked": {"probed": alive}}, super().probed(now, alive=alive))

    def _note(self, now: float, event: dict[str, Any] | None, effects: Effects) -> Effects:
        at = round(now - self.start_time, 4)
        if event:
            self.lines.append({"at": at, **event})
        for effect in effects:
            match effect:
                case Send(message):
                    self.lines.append({"at": at, "sent": message_as_json(message)})
                case InterruptKernel() | ProbeKernel():
                    self.lines.append({"at": at, "effect": type(effect).__name__})
        return effects


@dataclass
class Scenario:
    """What is run, on what server, and what somebody else does meanwhile."""

    about: str
    cells: Sequence[str | dict[str, Any]]
    server: tuple[str, ...] = ()
    meanwhile: Interference | None = None
    run_timeout: float | None = None
    depth: int = 1
    """How many cells are on their way at a time."""
    beforehand: str = ""
    """Code that another client sends first, so that the run's own request waits behind it."""
    keep: Callable[[list[dict[str, Any]]], bool] = field(default=lambda _: True)
    """Whether a recording shows what it should; if not, it is made again."""


async def _restart(client: Client, kernel_id: str, _kernel: Kernel, recorder: Recorder) -> None:
    await recorder.running.wait()
    await client.kernels.restart(kernel_id)


async def _shut_down(client: Client, kernel_id: str, _kernel: Kernel, recorder: Recorder) -> None:
    await recorder.running.wait()
    await client.kernels.delete(kernel_id)


async def _interrupt(client: Client, kernel_id: str, _kernel: Kernel, recorder: Recorder) -> None:
    await recorder.running.wait()
    await client.kernels.interrupt(kernel_id)


async def _stop(_client: Client, _kernel_id: str, kernel: Kernel, recorder: Recorder) -> None:
    await recorder.running.wait()
    kernel.stop("interrupted by Ctrl-C")


async def _cut(_client: Client, _kernel_id: str, kernel: Kernel, recorder: Recorder) -> None:
    await recorder.running.wait()
    socket = kernel._channel._socket
    assert socket is not None
    socket.transport.abort()


def _first_sign(lines: list[dict[str, Any]]) -> str:
    request = lines[1]["sent"]["header"]["msg_id"]
    for line in lines:
        message = line.get("received", {})
        if message.get("parent_header", {}).get("msg_id") != request:
            continue
        kind = message.get("header", {}).get("msg_type")
        if kind == "execute_reply" or message.get("content", {}).get("execution_state") == "idle":
            return str(kind)
    return ""


TALKATIVE = """\
import sys
print("one")
print("two", file=sys.stderr)
display({"text/plain": "three"}, raw=True)
4"""
LATER = """\
import asyncio
async def later():
    for moment in "ab":
        await asyncio.sleep(0.2)
        print(moment)
task = asyncio.create_task(later())"""
TICKS = "import time\nfor tick in range(6):\n    print(tick, flush=True)\n    time.sleep(0.2)"

SCENARIOS = {
    "normal": Scenario("a cell with outputs of each kind, and one that builds upon it", [TALKATIVE, "_ + 1"]),
    "reply_first": Scenario("the reply overtakes the idle", ["1"], keep=lambda seen: _first_sign(seen) != "status"),
    "idle_first": Scenario("the idle overtakes the reply", ["1"], keep=lambda seen: _first_sign(seen) == "status"),
    "error": Scenario("the first of two cells raises", ["1 / 0", "2"]),
    "usage_error": Scenario("a magic that nobody knows: no error message, only a reply", ["%no_such_magic", "2"]),
    "input": Scenario("a cell asks for input", ["input('Name? ')"]),
    "exit": Scenario("exit() in the first of two cells", ["exit()", "2"]),
    "system_exit": Scenario("sys.exit(0) in the first of two cells", ["import sys\nsys.exit(0)", "2"]),
    "os_exit": Scenario("os._exit, and the server puts a fresh kernel in place", ["import os\nos._exit(3)", "2"]),
    "os_exit_final": Scenario(
        "os._exit on a server that restarts nothing", ["import os\nos._exit(3)", "2"], ONE_DEATH_IS_FINAL
    ),
    "restarted": Scenario("somebody restarts the kernel while a cell runs", [TICKS, "2"], meanwhile=_restart),
    "shut_down": Scenario("somebody shuts the kernel down while a cell runs", [TICKS, "2"], meanwhile=_shut_down),
    "interrupted": Scenario("somebody interrupts the kernel while a cell runs", [TICKS, "2"], meanwhile=_interrupt),
    "ctrl_c": Scenario("the user presses Ctrl-C while a cell runs", [TICKS, "2"], meanwhile=_stop),
    "cell_timeout": Scenario(
        "a loop without end meets its limit", [{"source": "while True:\n    pass", "timeout": 0.5}, "2"]
    ),
    "await_timeout": Scenario(
        "a cell that awaits meets its limit",
        [{"source": "import asyncio\nawait asyncio.sleep(60)", "timeout": 0.5}, "2"],
    ),
    "deaf_timeout": Scenario(
        "a cell that ignores interrupts meets its limit",
        [
            {
                "source": "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(60)",
                "timeout": 0.5,
            },
            "2",
        ],
    ),
    "aborted": Scenario(
        "another client's error throws away the request that waits behind it",
        ["'mine'", "2"],
        beforehand="import time\ntime.sleep(1)\n1 / 0",
        keep=lambda seen: any("aborted" in str(line.get("received", {}).get("content")) for line in seen),
    ),
    "late_output": Scenario(
        "a task of the first cell prints while the second runs, and after it",
        [LATER, "await asyncio.sleep(0.3)"],
    ),
    "rate_limit": Scenario(
        "more messages than the server lets through",
        ["import time\nfor number in range(200):\n    display(number)\n    time.sleep(0.001)\n1 / 0"],
        FEW_MESSAGES,
    ),
    "cut": Scenario("the websocket is cut while a cell runs, and replayed", [TICKS, "2"], meanwhile=_cut),
    "display_update": Scenario(
        "a display is changed from the next cell",
        ["handle = display('before', display_id=True)", "handle.update('after')\nhandle.display('again')"],
    ),
    "ahead_error": Scenario("the second of four cells that are on their way raises", ["1", "1 / 0", "3", "4"], depth=4),
    "ahead_system_exit": Scenario(
        "sys.exit(0) with two cells on their way behind it", ["import sys", "sys.exit(0)", "3", "4"], depth=4
    ),
    "ahead_timeout": Scenario(
        "a cell catches the interrupt of its time-out, with two on their way behind it",
        [
            "import time",
            {"source": "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('caught')", "timeout": 0.5},
            "3",
            "4",
        ],
        depth=4,
    ),
    "ahead_death": Scenario(
        "the kernel dies with three cells on their way",
        ["1", "import os\nos._exit(3)", "3", "4"],
        ONE_DEATH_IS_FINAL,
        depth=4,
    ),
}


async def record(scenario: Scenario, client: Client) -> list[dict[str, Any]]:
    """Run a scenario once; returns the transcript's lines."""
    cells = [{"source": cell} if isinstance(cell, str) else dict(cell) for cell in scenario.cells]
    plan = Plan(
        [CellPlan(index, f"cell-{index}", action=Action.RUN, **cell) for index, cell in enumerate(cells)],
        scenario.run_timeout,
    )
    async with _kernel(client, "scenario.ipynb") as (kernel_id, kernel):
        info = await kernel.handshake()
        made = kernel.requests._made
        if scenario.depth > 1:
            assert Ability.CONDITIONAL in (await kernel.meet_agent(AgentOptions())).abilities
            made = kernel.requests._made
        recorder = Recorder(plan, kernel.requests, kernel_session=info.session, pipelining=Pipelining(scenario.depth))
        async with contextlib.AsyncExitStack() as stack:
            if scenario.beforehand:
                other = await stack.enter_async_context(client.kernel(kernel_id))
                await other.handshake()
                await other._channel.send(other.requests.execute(scenario.beforehand))
                await _until_busy(other)
            work = scenario.meanwhile and asyncio.create_task(
                _when_started(recorder, scenario.meanwhile, client, kernel_id, kernel)
            )
            await kernel.run(recorder)
            if work:
                await work
    first = {
        "about": scenario.about,
        "kernel": info.banner.splitlines()[0],
        "session": kernel.requests.session,
        "kernel_session": info.session,
        "requests_made": made,
        "cells": cells,
        "run_timeout": scenario.run_timeout,
        "depth": scenario.depth,
    }
    return [first, *recorder.lines]


async def _when_started(
    recorder: Recorder, meanwhile: Interference, client: Client, kernel_id: str, kernel: Kernel
) -> None:
    while not hasattr(recorder, "running"):
        await asyncio.sleep(0)
    await meanwhile(client, kernel_id, kernel, recorder)


async def _until_busy(kernel: Kernel) -> None:
    while True:
        match await kernel._channel.arrivals.get():
            case Message() as message if message.type == "execute_input":
                return


@contextlib.asynccontextmanager
async def _kernel(client: Client, path: str) -> AsyncIterator[tuple[str, Kernel]]:
    session = await client.sessions.start(path, "python3")
    assert session.kernel is not None
    try:
        async with client.kernel(session.kernel.id) as kernel:
            yield session.kernel.id, kernel
    finally:
        await client.sessions.delete(session.id)


_SCRUBS = (
    (re.compile(r"/[^\s'\"\\]*/(?=(?:lib/python3|site-packages|asyncio/))"), "/python/"),
    (re.compile(r"/tmp/ipykernel_\d+/"), "/tmp/ipykernel_1/"),
    (re.compile(r'("username": )"[^"]*"'), r'\1"user"'),
)


def scrubbed(line: dict[str, Any]) -> str:
    """Return a line of a transcript without what it tells of the machine."""
    text = json.dumps(line, ensure_ascii=False)
    for pattern, better in _SCRUBS:
        text = pattern.sub(better, text)
    return text


def by_server(names: Sequence[str]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Return the scenarios that share a server."""
    for args in dict.fromkeys(SCENARIOS[name].server for name in names):
        yield args, [name for name in names if SCENARIOS[name].server == args]


async def main(names: Sequence[str]) -> None:
    """Record the scenarios of these names, or all."""
    for args, group in by_server(names or list(SCENARIOS)):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder, "files")
            root.mkdir()
            with jupyter_server(root, args=args) as server:
                async with connect(server.url, token=server.token) as client:
                    for name in group:
                        await write(name, client)


async def write(name: str, client: Client) -> None:
    """Record one scenario until the recording shows what it should."""
    scenario = SCENARIOS[name]
    for _ in range(50):
        lines = await record(scenario, client)
        if scenario.keep(lines):
            text = "".join(f"{scrubbed(line)}\n" for line in lines)
            (TRANSCRIPTS / f"{name}.jsonl").write_text(text, "utf-8")
            print(f"{name}: {len(lines)} lines")
            return
    raise AssertionError(f"{name}: not once in 50 runs did the kernel do it")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
