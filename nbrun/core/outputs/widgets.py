"""Track the state of widgets from comm messages, and store it in the notebook's metadata.

A widget is a *model* whose state is synchronised between kernel and frontend over a comm. nbrun is the frontend. It
tracks the state and stores it as ``metadata.widgets`` (ipywidgets' ``widget-state+json``, version 2), so that widgets
are displayed without a kernel. It also implements the *Output* widget: while its ``msg_id`` is set, the outputs of that
request go to the widget instead of the cell, and the widget's new state is sent to the kernel.

Binary values are sent as buffers next to the state, each with its path. A new value at a path replaces the old one.
"""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from nbrun.core.formats.json_text import as_object
from nbrun.core.outputs.area import OutputArea
from nbrun.core.outputs.mimebundle import Output
from nbrun.core.protocol.messages import Message

STATE_MIME = "application/vnd.jupyter.widget-state+json"
VIEW_MIME = "application/vnd.jupyter.widget-view+json"
_TARGET = "jupyter.widget"
_REFERENCE = "IPY_MODEL_"

Path = tuple[str | int, ...]


class Model(Struct):
    """One widget's model."""

    state: dict[str, Any]
    buffers: dict[Path, bytes] = field(default_factory=dict)
    closed: bool = False
    area: OutputArea | None = None
    """The captured outputs of an Output widget, or None for other widgets."""
    dirty: bool = False
    """Whether some captured outputs were not sent to the kernel yet."""

    def update(self, state: Mapping[str, Any], paths: object, buffers: Sequence[bytes]) -> None:
        """Update the state: replace top-level keys and the buffers below them."""
        placed = {path: buffer for path, buffer in zip(_paths(paths), buffers, strict=False) if path}
        changed = {*state, *(path[0] for path in placed)}
        self.buffers = {path: buffer for path, buffer in self.buffers.items() if path[0] not in changed} | placed
        self.state.update(state)
        for path in placed:
            if len(path) == 1:
                self.state.pop(str(path[0]), None)

    def saved(self) -> dict[str, Any]:
        """Return the model in the notebook's format."""
        state = dict(self.state)
        if self.area is not None:
            state |= {"outputs": self.area.render(), "msg_id": ""}
        record: dict[str, Any] = {
            "model_name": state.get("_model_name", ""),
            "model_module": state.get("_model_module", ""),
            "model_module_version": state.get("_model_module_version", ""),
            "state": state,
        }
        if self.buffers:
            record["buffers"] = [
                {"path": list(path), "encoding": "base64", "data": base64.b64encode(buffer).decode()}
                for path, buffer in self.buffers.items()
            ]
        return record


class Widgets:
    """All widgets of one kernel."""

    def __init__(self, new_area: Callable[[], OutputArea]) -> None:
        """Start without widgets; `new_area` creates the area for captured outputs of an Output widget."""
        self._new_area = new_area
        self._models: dict[str, Model] = {}
        self._capturing: dict[str, list[str]] = {}
        self.has_comms = False
        """Whether any comm has been opened, by a widget or by other code."""

    def apply(self, message: Message) -> bool:
        """Apply a comm message; return False for another message."""
        content, comm_id = message.content, str(message.content.get("comm_id"))
        match message.type:
            case "comm_open":
                self.has_comms = True
                if content.get("target_name") == _TARGET:
                    self._models[comm_id] = Model({})
                    self._update(comm_id, as_object(content.get("data")), message.buffers)
            case "comm_msg":
                data = as_object(content.get("data"))
                if comm_id in self._models and data.get("method") in ("update", "echo_update"):
                    self._update(comm_id, data, message.buffers)
            case "comm_close":
                if comm_id in self._models:
                    self._models[comm_id].closed = True
                    self._release(comm_id)
            case _:
                return False
        return True

    def captures(self, message: Message) -> bool:
        """Add an output to the widget that captures it; return False if no widget does."""
        holders = self._capturing.get(message.parent_id)
        if not holders:
            return False
        model = self._models[holders[-1]]
        if model.area is None or not model.area.apply(message):
            return False
        model.dirty = True
        return True

    def unsent(self) -> list[tuple[str, list[Output]]]:
        """Return the outputs captured since the last call, by comm id, for sending them to the kernel."""
        captured = []
        for comm_id, model in self._models.items():
            if model.dirty and model.area is not None and not model.closed:
                captured.append((comm_id, model.area.render()))
                model.dirty = False
        return captured

    def saved(self, shown: Iterable[Output]) -> dict[str, Any] | None:
        """Return the value for ``metadata.widgets``, or None if there are no widgets.

        A closed widget is omitted, unless one of the outputs `shown` or a widget in them refers to it.
        """
        records = {comm_id: model.saved() for comm_id, model in self._models.items()}
        open_ones = [comm_id for comm_id, model in self._models.items() if not model.closed]
        return _state_of(_reached(records, [*open_ones, *map(_model_shown, shown)]))

    def _update(self, comm_id: str, data: Mapping[str, Any], buffers: Sequence[bytes]) -> None:
        model, state = self._models[comm_id], as_object(data.get("state"))
        model.update(state, data.get("buffer_paths"), buffers)
        if model.state.get("_model_name") != "OutputModel":
            return
        if model.area is None or "outputs" in state:
            model.area = self._new_area()
            for output in model.state.get("outputs") or ():
                model.area.append(as_object(output))
        if "msg_id" in state:
            self._release(comm_id)
            if state["msg_id"]:
                self._capturing.setdefault(str(state["msg_id"]), []).append(comm_id)

    def _release(self, comm_id: str) -> None:
        for msg_id, holders in list(self._capturing.items()):
            if comm_id in holders:
                holders.remove(comm_id)
            if not holders:
                del self._capturing[msg_id]


def merged_state(
    old: Mapping[str, Any], new: Mapping[str, Any] | None, shown: Iterable[Output]
) -> dict[str, Any] | None:
    """Return a new ``metadata.widgets`` that also contains the old models that the outputs `shown` need."""
    before, now = (as_object(as_object(as_object(state).get(STATE_MIME)).get("state")) for state in (old, new))
    needed = _reached(before, [model_id for model_id in map(_model_shown, shown) if model_id not in now])
    return _state_of({**needed, **now})


def _state_of(records: Mapping[str, Any]) -> dict[str, Any] | None:
    return {STATE_MIME: {"version_major": 2, "version_minor": 0, "state": dict(records)}} if records else None


def _reached(records: Mapping[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
    """Return the wanted models and all models that they refer to, in the order of `records`."""
    found: set[str] = set()
    left = [model_id for model_id in wanted if model_id in records]
    while left:
        model_id = left.pop()
        if model_id not in found:
            found.add(model_id)
            left += [each for each in _references(as_object(records[model_id]).get("state")) if each in records]
    return {model_id: record for model_id, record in records.items() if model_id in found}


def _paths(value: object) -> list[Path]:
    rows = value if isinstance(value, list) else []
    return [tuple(row) if isinstance(row, list) else () for row in rows]


def _model_shown(output: Output) -> str:
    return str(as_object(as_object(output.get("data")).get(VIEW_MIME)).get("model_id"))


def _references(value: Any) -> list[str]:
    """Return the ids of all models that a state refers to, at any depth."""
    if isinstance(value, str):
        return [value.removeprefix(_REFERENCE)] if value.startswith(_REFERENCE) else []
    if isinstance(value, dict):
        return [found for item in value.values() for found in _references(item)]
    if isinstance(value, list):
        return [found for item in value for found in _references(item)]
    return []
