"""Recorded runs: what real kernels and servers sent, and when, kept as text and played to the state machine again.

A transcript is a file of JSON lines. The first says how the run was made: its cells, limits and sessions. Each of the
others says what happened ``at`` which second of the run: a message was ``received``, a message was ``sent``, somebody
outside ``asked`` for something, the machine wanted an ``effect``. What the machine does today is compared with the
recording only where a test says so: request ids are translated by their kind and their order, so a machine that sends
another barrier in between still understands the old kernel.

``python -m tests.support.record_transcripts`` records them anew.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbrun.core.execution.effects import Effect, Effects, InterruptKernel, ProbeKernel, Send
from nbrun.core.execution.machine import Execution
from nbrun.core.planning.plan import Action, CellPlan, Plan
from nbrun.core.protocol.messages import Message, Requests

TRANSCRIPTS = Path(__file__).parents[2] / "fixtures" / "transcripts"
NEVER = 1000.0
"""Seconds after which a played run that still goes on is taken to hang."""

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
    """Return the message that stands in a transcript."""
    return Message(line["channel"], line["header"], line["parent_header"], line["content"], line["metadata"])


@dataclass
class Played:
    """What came of a transcript that was played: the machine, and what it wanted at which second."""

    execution: Execution
    wanted: list[tuple[float, Effect]] = field(default_factory=list)

    def requests(self, kind: str) -> list[Message]:
        """Return the messages of a type that were sent, in order."""
        return [e.message for _, e in self.wanted if isinstance(e, Send) and e.message.type == kind]

    def sent(self) -> list[str]:
        """Return the types of the messages that were sent, in order."""
        return [effect.message.type for _, effect in self.wanted if isinstance(effect, Send)]

    def interrupts(self) -> list[float]:
        """Return the seconds at which the kernel was to be interrupted."""
        return [at for at, effect in self.wanted if isinstance(effect, InterruptKernel)]

    def probes(self) -> list[float]:
        """Return the seconds at which the server was to be asked for the kernel."""
        return [at for at, effect in self.wanted if isinstance(effect, ProbeKernel)]

    def outputs(self, index: int) -> list[dict[str, Any]]:
        """Return the outputs of a cell."""
        return self.execution.cells[index].area.render()


@dataclass
class Transcript:
    """One recorded run."""

    setting: Line
    lines: Sequence[Line]

    @classmethod
    def load(cls, name: str) -> "Transcript":
        """Read one of the fixtures."""
        setting, *lines = map(json.loads, (TRANSCRIPTS / f"{name}.jsonl").read_text("utf-8").splitlines())
        return cls(setting, lines)

    def plan(self) -> Plan:
        """Return the plan that was run."""
        cells = [
            CellPlan(index, f"cell-{index}", action=Action.RUN, **cell)
            for index, cell in enumerate(self.setting["cells"])
        ]
        return Plan(cells, self.setting["run_timeout"])

    def received(self) -> list[Message]:
        """Return what the kernel and the server sent."""
        return [message_from_json(line["received"]) for line in self.lines if "received" in line]

    def play(self, **options: Any) -> Played:
        """Play the recording to a new machine, and let its clocks run on until it has ended."""
        requests = Requests(self.setting["session"], _made=self.setting["requests_made"])
        options.setdefault("kernel_session", self.setting["kernel_session"])
        options.setdefault("depth", self.setting.get("depth", 1))
        player = _Player(Execution(self.plan(), requests, **options))
        player.want(player.machine.start(0.0), 0.0)
        for line in self.lines:
            player.play(line)
        player.tick_until(NEVER)
        assert player.machine.ending is not None, "the run hangs"
        return player.played


class _Player:
    def __init__(self, machine: Execution) -> None:
        self.machine = machine
        self.played = Played(machine)
        self._recorded: dict[str, int] = {}
        self._ids: dict[str, tuple[str, int]] = {}
        self._late = 0.0
        """Seconds by which this run is behind the recorded one, because it asked later."""

    def play(self, line: Line) -> None:
        at = line["at"] + self._late
        match line:
            case {"sent": sent}:
                kind = sent["header"]["msg_type"]
                self._recorded[kind] = self._recorded.get(kind, -1) + 1
                self._ids[sent["header"]["msg_id"]] = (kind, self._recorded[kind])
            case {"received": received}:
                answer, at = self._translated(message_from_json(received), at)
                self.tick_until(at)
                self.want(self.machine.receive(answer, at), at)
            case {"asked": asked}:
                self.tick_until(at)
                self.want(self._ask(asked, at), at)
            case _:
                pass  # an effect that the machine wanted then; the tests say what it has to want

    def tick_until(self, at: float) -> None:
        while (deadline := self.machine.deadline) is not None and deadline < at:
            self.want(self.machine.tick(deadline), deadline)

    def want(self, effects: Effects, at: float) -> None:
        self.played.wanted += [(at, effect) for effect in effects]

    def _ask(self, asked: Line, at: float) -> Effects:
        if "interrupt" in asked:
            return self.machine.interrupt(at, asked["interrupt"])
        if "probed" in asked:
            return self.machine.probed(at, alive=asked["probed"])
        assert "reconnected" in asked
        return self.machine.reconnected(at)

    def _translated(self, message: Message, at: float) -> tuple[Message, float]:
        """Return an answer under today's id of its request, and when: a kernel answers nothing before it was asked."""
        kind, number = self._ids.get(message.parent_id, ("", 0))
        if not kind:
            return message, at
        while number >= len(same := self.played.requests(kind)):
            deadline = self.machine.deadline
            if deadline is None or deadline > NEVER:
                return message, at
            self.want(self.machine.tick(deadline), deadline)
            if deadline > at:
                self._late += deadline - at
                at = deadline
        parent = {**message.parent, "msg_id": same[number].id}
        return Message(message.channel, message.header, parent, message.content, message.metadata), at
