"""What a server says of a notebook that is not valid, in one line.

Jupyter Server validates what it reads and saves, and puts the result into the model's ``message``: nbformat's error of
several lines, and behind it all of the part that is wrong, which may be the whole notebook. The first line says what is
wrong. A line ``On instance['cells'][3]['outputs'][0]:`` says where.
"""

import re

LONGEST = 300
"""Characters of what is said to be wrong; an error may quote the value that is."""
_PREFIX = "Notebook validation failed: "
_PLACE = re.compile(r"^On instance((?:\[[^\n]*\])?):$", re.MULTILINE)
_STEP = re.compile(r"\['([^']*)'\]|\[(\d+)\]")


def complaint_of(message: str) -> str:
    """Return what a contents model's ``message`` says, as one line: what is wrong, and where in the notebook."""
    what = next((line for line in message.removeprefix(_PREFIX).splitlines() if line.strip()), "")
    what = " ".join(what.split()).removesuffix(":")
    if len(what) > LONGEST:
        what = f"{what[: LONGEST // 2]} … {what[-LONGEST // 2 :]}"
    if not message.startswith(_PREFIX):
        return what
    found = _PLACE.search(message)
    place = "".join(f".{name}" if name else f"[{index}]" for name, index in _STEP.findall(found[1] if found else ""))
    return f"it is not valid{f' at {place[1:]}' if place else ''}: {what}"
