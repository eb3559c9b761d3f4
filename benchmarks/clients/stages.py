"""nbrun through its Python API, with a clock at each of its events. ``stages.py IN OUT RECORD``; start in ``STARTED``.

Writes a JSON list of ``[seconds since the process was started, what]``. The save is timed by itself, because it runs
beside the kernel's end; after the run, the same notebook is written with the json module for comparison.
"""

import time

now = time.time
marks: list[tuple[float, str]] = [(now(), "interpreter up")]

import json
import os
import sys
from pathlib import Path
from typing import Any

import click  # noqa: F401

marks.append((now(), "click imported"))

import nbrun.api.functions
import nbrun.reporters.console.reporter
from nbrun.core.events import CellFinished, CellStarted, RunFinished, StageEntered
from nbrun.storage.on_server import ServerNotebook

marks.append((now(), "nbrun imported"))
_save = ServerNotebook.save


async def timed_save(self: ServerNotebook, *given: Any, **options: Any) -> str:
    """Save, and note when that was done."""
    began = now()
    try:
        return await _save(self, *given, **options)
    finally:
        marks.append((now(), f"saved ({now() - began:.3f} s)"))


def observe(event: object) -> None:
    """Note the time of whatever happens once or a few times."""
    match event:
        case StageEntered(stage=stage):
            marks.append((now(), str(stage)))
        case CellStarted(number=1):
            marks.append((now(), "first cell sent"))
        case CellFinished() if len(marks) < 50:
            marks.append((now(), "cell finished"))
        case RunFinished():
            marks.append((now(), "run finished"))
        case _:
            pass


def main() -> None:
    """Run, then write the record."""
    source, target, record = sys.argv[1:4]
    setattr(ServerNotebook, "save", timed_save)  # noqa: B010
    nbrun.run(source, output=target, observe=observe)
    notebook = json.loads(Path(target).read_bytes())
    began = now()
    with Path(f"{target}.json").open("w", encoding="utf-8") as file:
        json.dump(notebook, file, indent=1, ensure_ascii=False)
    plain = now() - began
    Path(f"{target}.json").unlink()
    started = float(os.environ["STARTED"])
    told = {"marks": [(at - started, what) for at, what in marks], "json_module": plain}
    Path(record).write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
