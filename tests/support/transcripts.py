"""Recorded runs: the messages of real kernels and servers with their times, replayed to the state machine.

A transcript is a file of JSON lines. The first says how the run was made: its cells, limits and sessions. Each of the
others says what happened ``at`` which second of the run: a message was ``received``, a message was ``sent``, somebody
outside ``asked`` for something, the machine wanted an ``effect``. What the machine does today is compared with the
recording only where a test says so: request ids are translated by their kind and their order, so a machine that sends
another barrier in between still understands the old kernel.

``python -m tests.support.record_transcripts`` records them anew. A trace (``nbrun run --trace FILE``) holds the runs of
users in the same lines, below their kernels' ids and among HTTP exchanges; ``python -m tests.support.replay`` plays it.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from nbrun import errors
from nbrun.core.delivery.retransmission import ResentMessages
from nbrun.core.execution.effects import Effect, Effects, InterruptKernel, ProbeKernel, Send
from nbrun.core.execution.machine import Execution
from nbrun.core.execution.pipelining import Pipelining
from nbrun.core.planning.plan import Action, CellPlan, Plan
from nbrun.core.protocol.messages import Message, Requests
from nbrun.jupyter.kernel.inbound import ExecutionFeed, Intake, Probed, StopAsked
from nbrun.jupyter.kernel.websocket import Cut, Lost, Restored, Unreadable

TRANSCRIPTS = Path(__file__).parents[2] / "fixtures" / "transcripts"
NEVER = 1000.0
"""Seconds after which a replayed run counts as hanging."""

Line = dict[str, Any]


def message_as_json(message: Message) -> Line:
    """Return a message as it stands in a transcript; comm buffers are left out."""
    return {
        "channel": message.channel,
        "header": dict(message.header),
        "parent_header": dict(message.parent),
        "metadata": dict(message.metadata),
        "content": dict(message.content),
    }


def message_from_json(line: Mapping[str, Any]) -> Message:
    """Return the message that stands in a transcript; of a buffer that was cut, zeros of its length."""
    buffers = [
        base64.b64decode(one["base64"]) if "base64" in one else bytes(one["size"]) for one in line.get("buffers", ())
    ]
    return Message(
        line["channel"], line["header"], line["parent_header"], line["content"], line["metadata"], tuple(buffers)
    )


@dataclass
class Played:
    """The result of a replayed transcript: the state machine, and its effects with their times."""

    execution: Execution
    wanted: list[tuple[float, Effect]] = field(default_factory=list)

    def requests(self, kind: str) -> list[Message]:
        """Return the messages of a type that were sent, in order."""
        return [e.message for _, e in self.wanted if isinstance(e, Send) and e.message.type == kind]

    def sent(self) -> list[str]:
        """Return the types of the messages that were sent, in order."""
        return [effect.message.type for _, effect in self.wanted if isinstance(effect, Send)]

    def interrupts(self) -> list[float]:
        """Return the times of the interrupts, in seconds."""
        return [at for at, effect in self.wanted if isinstance(effect, InterruptKernel)]

    def probes(self) -> list[float]:
        """Return the times at which the server was asked for the kernel, in seconds."""
        return [at for at, effect in self.wanted if isinstance(effect, ProbeKernel)]

    def outputs(self, index: int) -> list[dict[str, Any]]:
        """Return the outputs of a cell."""
        return self.execution.cells[index].area.render()


@dataclass
class Transcript:
    """One recorded run."""

    setting: Line
    lines: Sequence[Line]
    result: Line | None = None
    """The JSON result of the run, if the lines come from a trace of a run that ended."""

    @classmethod
    def load(cls, name: str) -> "Transcript":
        """Read one of the fixtures."""
        return cls.read(TRANSCRIPTS / f"{name}.jsonl")

    @classmethod
    def read(cls, path: Path) -> "Transcript":
        """Read a transcript."""
        setting, *lines = map(json.loads, path.read_text("utf-8").splitlines())
        return cls(setting, lines)

    @classmethod
    def of_trace(cls, path: Path) -> "list[Transcript]":
        """Return the runs in a trace, in the order in which they began; the last line may be cut off."""
        found: dict[str, Transcript] = {}
        lines: dict[str, list[Line]] = {}
        for line in _whole_lines(path):
            kernel = line.pop("kernel", None)
            match line:
                case {"run": setting, "at": at}:
                    lines[kernel] = []
                    found[kernel] = cls({**setting, "began": at}, lines[kernel])
                case {"result": result} if kernel in found:
                    found[kernel].result = result
                case _ if kernel in found:
                    line["at"] = round(line["at"] - found[kernel].setting["began"], 4)
                    lines[kernel].append(line)
                case _:
                    pass
        for transcript in found.values():
            transcript.lines = [*_joined(transcript.lines)]
        return [*found.values()]

    def write(self, path: Path) -> None:
        """Write a transcript as one of the fixtures."""
        lines = [self.setting, *self.lines]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")

    def plan(self) -> Plan:
        """Return the plan that was run."""
        cells = []
        for index, cell in enumerate(self.setting["cells"]):
            whole = {"index": index, "id": f"cell-{index}", "action": Action.RUN, **cell}
            cells.append(CellPlan(**{**whole, "action": Action(whole["action"])}))
        return Plan(cells, self.setting["run_timeout"])

    def received(self) -> list[Message]:
        """Return what the kernel and the server sent."""
        return [message_from_json(line["received"]) for line in self.lines if "received" in line]

    def play(self, **options: Any) -> Played:
        """Replay the recording to a new state machine, and advance its clock until it has ended."""
        requests = Requests(
            self.setting["session"],
            id_prefix=self.setting.get("id_prefix", ""),
            _made=self.setting["requests_made"],
        )
        options.setdefault("kernel_session", self.setting["kernel_session"])
        for name, default in _OPTIONS.items():
            options.setdefault(name, self.setting.get(name, default))
        sending = {name: self.setting[name] for name in ("depth", "in_lists", "list_limit") if name in self.setting}
        options.setdefault("pipelining", Pipelining(**sending))
        started = [line["asked"]["started"] for line in self.lines if "started" in line.get("asked", ())]
        options.setdefault("last_started", lambda: started[0] if started else None)
        intake = Intake()
        if self.setting.get("replay"):
            last = self.setting["last"]
            resent = ResentMessages(requests, self.setting["kernel_session"], last and message_from_json(last))
            intake = Intake(resent=resent)
        player = _Player(Execution(self.plan(), requests, **options), intake)
        player.start()
        for line in self.lines:
            player.play(line)
        player.wait_until(player.now + NEVER)
        assert player.machine.ending is not None, "the run hangs"
        return player.played


_OPTIONS = {"raw_streams": False, "max_output": None, "ask_for_writers": False, "can_recall": False}


def _whole_lines(path: Path) -> Iterator[Line]:
    for text in path.read_text("utf-8").splitlines(keepends=True):
        if text.endswith("\n"):
            yield json.loads(text)


def _joined(lines: Sequence[Line]) -> Iterator[Line]:
    """Put the ends of streams that were held back to the messages that they belong to."""
    texts: dict[str, str] = {}
    for line in lines:
        if rest_of := line.get("rest_of"):
            texts[rest_of] = texts.get(rest_of, "") + line["received"]["content"]["text"]
    for line in lines:
        if not line.get("rest_of"):
            received = line.get("received", {"header": {}})
            if rest := texts.get(received["header"].get("msg_id", "")):
                received["content"]["text"] += rest
            yield line


class _Player:
    """Drives the state machine by a recording, like :meth:`nbrun.jupyter.kernel.driver.Kernel.run` by a kernel."""

    def __init__(self, machine: Execution, intake: Intake) -> None:
        self.machine = machine
        self.played = Played(machine)
        self.now = 0.0
        self._feed = ExecutionFeed(machine, intake)
        self._recorded: dict[str, int] = {}
        self._ids: dict[str, tuple[str, int]] = {}
        self._late = 0.0
        """Seconds by which this run is behind the recorded one, because its requests were later."""

    def start(self) -> None:
        for effects in self._feed.start(0.0):
            self._want(effects)

    def play(self, line: Line) -> None:
        at = line["at"] + self._late
        match line:
            case {"sent": sent}:
                kind = sent["header"]["msg_type"]
                self._recorded[kind] = self._recorded.get(kind, -1) + 1
                self._ids[sent["header"]["msg_id"]] = (kind, self._recorded[kind])
            case {"received": received}:
                answer, at = self._translated(message_from_json(received), at)
                self.wait_until(at)
                self._take(answer, at)
            case {"asked": {"started": _}}:
                pass  # what the machine asked for, see Transcript.play
            case {"asked": asked}:
                self.wait_until(at)
                self._take(_arrival(asked), at)
            case _:
                pass  # an effect that the machine wanted then; the tests say what it has to want

    def wait_until(self, at: float) -> None:
        while (deadline := self._deadline()) is not None and deadline < at:
            self._take(None, max(deadline, self.now))

    def _deadline(self) -> float | None:
        return None if self.machine.ending else self._feed.deadline(self.now)

    def _take(self, arrival: Any, at: float) -> None:
        self.now = max(at, self.now)
        if not self.machine.ending:
            for effects in self._feed.receive(arrival, self.now):
                self._want(effects)

    def _want(self, effects: Effects) -> None:
        self.played.wanted += [(self.now, effect) for effect in effects]

    def _translated(self, message: Message, at: float) -> tuple[Message, float]:
        """Return an answer under today's id of its request, and when: a kernel answers nothing before it was asked."""
        kind, number = self._ids.get(message.parent_id, ("", 0))
        if not kind:
            return message, at
        never = at + NEVER
        while number >= len(same := self.played.requests(kind)):
            deadline = self._deadline()
            if deadline is None or deadline > never:
                return message, at
            self._take(None, deadline)
            if deadline > at:
                self._late += deadline - at
                at = deadline
        parent = {**message.parent, "msg_id": same[number].id}
        return replace(message, parent=parent), at


def _arrival(asked: Line) -> Any:
    match asked:
        case {"interrupt": reason}:
            return StopAsked(reason)
        case {"probed": alive}:
            return Probed(alive)
        case {"reconnected": nudged}:
            return Restored(nudged)
        case {"cut": _}:
            return Cut()
        case {"lost": lost}:
            return Lost(getattr(errors, lost["kind"])(lost["message"], hint=lost["hint"]))
        case {"unreadable": text}:
            return Unreadable(errors.BadFrame(text))
        case _:
            raise AssertionError(asked)
