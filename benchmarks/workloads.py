"""What is run: the notebooks, and what must be in them afterwards.

A workload's check gives what is missing in one line, and an empty string when nothing is. A contender that is fast
because it loses output has not done the work.
"""

import base64
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

IMAGES, IMAGE_BYTES = 60, 1_500_000
"""W5: so many images of so many random bytes, which are 2 MB each in a notebook."""

BATCH = 40
"""W6: so many notebooks."""

_CELLS = 200
_PRINT = "for i in range({count}): print(i, flush={flush})"
_DISPLAY = "for i in range({count}): display(i)"
_IMAGES = f"""\
import base64, os
for _ in range({{count}}):
    display({{{{"image/png": base64.b64encode(os.urandom({IMAGE_BYTES})).decode()}}}}, raw=True)
"""

Check = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True, slots=True)
class Workload:
    """Something to run: one notebook, or `copies` of it in a folder."""

    name: str
    title: str
    sources: Sequence[str]
    check: Check
    copies: int = 1
    rounds: int = 5
    slow_rounds: int = 3
    """Rounds for contenders that take many seconds at it."""
    stored: int = 0
    """Images that each cell has as outputs of an earlier run."""

    def notebook(self) -> dict[str, Any]:
        """Return the notebook, unexecuted, in nbformat 4.5."""
        kernelspec = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
        return {
            "cells": [
                {
                    "cell_type": "code",
                    "execution_count": None,
                    "id": f"cell-{number}",
                    "metadata": {},
                    "outputs": [_stored_image() for _ in range(self.stored)],
                    "source": source,
                }
                for number, source in enumerate(self.sources)
            ],
            "metadata": {"kernelspec": kernelspec, "language_info": {"name": "python"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        }

    def missing(self, path: Path) -> str:
        """Return what is missing in the executed notebook at `path`."""
        if not path.exists():
            return f"no {path.name}"
        try:
            return self.check(json.loads(path.read_bytes()))
        except ValueError as error:
            return f"{path.name} is no JSON: {error}"


def outputs(notebook: Mapping[str, Any], kind: str = "") -> list[Mapping[str, Any]]:
    """Return the outputs of all cells, of one ``output_type`` if wanted."""
    every = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return [output for output in every if kind in ("", output["output_type"])]


def joined(text: str | Sequence[str]) -> str:
    """Return a multi-line string as one, which a notebook may keep as a list of lines."""
    return text if isinstance(text, str) else "".join(text)


def _results(wanted: Sequence[str], kind: str = "execute_result") -> Check:
    def check(notebook: Mapping[str, Any]) -> str:
        seen = [joined(output["data"]["text/plain"]) for output in outputs(notebook, kind)]
        right = sum(ours == theirs for ours, theirs in zip(wanted, seen, strict=False))
        return "" if seen == list(wanted) else f"{right:,} of {len(wanted):,} outputs right"

    return check


def _lines(count: int) -> Check:
    def check(notebook: Mapping[str, Any]) -> str:
        streams = [output for output in outputs(notebook, "stream") if output["name"] == "stdout"]
        text = "".join(joined(output["text"]) for output in streams)
        if text == "".join(f"{number}\n" for number in range(count)):
            return ""
        arrived = len(set(text.splitlines()))
        return f"{arrived:,} of {count:,} lines" if arrived < count else "lines out of order"

    return check


def _images(count: int) -> Check:
    def check(notebook: Mapping[str, Any]) -> str:
        shown = [joined(output["data"]["image/png"]).strip() for output in outputs(notebook, "display_data")]
        whole = {hash(image) for image in shown if len(image) == IMAGE_BYTES * 4 // 3}
        return "" if len(whole) == count else f"{len(whole)} of {count} images"

    return check


def _stored_image() -> dict[str, Any]:
    image = base64.b64encode(os.urandom(IMAGE_BYTES)).decode()
    return {"output_type": "display_data", "metadata": {}, "data": {"image/png": image}}


def printing(count: int, *, flush: bool) -> Workload:
    """Print so many lines in one cell; flushed, each is a message."""
    source = _PRINT.format(count=count, flush=flush)
    return Workload(f"{count} lines", f"{count:,} lines", [source], _lines(count))


def cells(count: int) -> Workload:
    """Run so many trivial cells."""
    sources = [f"{number} + 1" for number in range(count)]
    wanted = [str(number + 1) for number in range(count)]
    return Workload(f"{count} cells", f"{count:,} trivial cells", sources, _results(wanted))


def producing(megabytes: int) -> Workload:
    """Display so many megabytes of images, one of 2 MB in each cell."""
    count = megabytes // 2
    return Workload(f"{megabytes} MB", "images", [_IMAGES.format(count=1)] * count, _images(count))


def storing(megabytes: int) -> Workload:
    """Run trivial cells that have so many megabytes of images as outputs of an earlier run, 2 MB in each cell."""
    trivial = cells(megabytes // 2)
    return replace(trivial, stored=1)


def batch(count: int) -> Workload:
    """Run so many small notebooks, two at a time."""
    return replace(WORKLOADS["W6"], copies=count)


def _table() -> dict[str, Workload]:
    flushed, plain, many = printing(20_000, flush=True), printing(100_000, flush=False), cells(_CELLS)
    displays = _results([str(number) for number in range(5_000)], "display_data")
    small = ["import math", "values = [math.sqrt(n) for n in range(100)]", "print(round(sum(values)))", "1 + 1"]
    rows = [
        Workload("W1", "one trivial cell, cold", ["1 + 1"], _results(["2"])),
        Workload("W2", f"{_CELLS} trivial cells", many.sources, many.check, rounds=3, slow_rounds=2),
        Workload("W3", "20 000 flushed prints", flushed.sources, flushed.check, rounds=3, slow_rounds=2),
        Workload("W4", "5 000 displays", [_DISPLAY.format(count=5_000)], displays, rounds=3, slow_rounds=2),
        Workload("W5", "60 images of 2 MB", [_IMAGES.format(count=IMAGES)], _images(IMAGES), rounds=3, slow_rounds=2),
        Workload("W6", f"batch of {BATCH} small notebooks, 2 at a time", small, _results(["2"]), BATCH, 2, 1),
        Workload("W7", f"{_CELLS} cells on a server 100 ms away", many.sources, many.check, rounds=3, slow_rounds=1),
        Workload("W8", "100 000 lines without flush", plain.sources, plain.check, rounds=3, slow_rounds=2),
        Workload("help", "the command line alone", [], lambda _: "", 0, 10, 10),
    ]
    return {workload.name: workload for workload in rows}


WORKLOADS = _table()
