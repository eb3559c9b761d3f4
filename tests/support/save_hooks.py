"""Save hooks of a real server that change notebooks after a save.

A server imports this module: ``--FileContentsManager.post_save_hook=tests.support.save_hooks.after_save``.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
"""What a server has to have on its ``PYTHONPATH``."""


def after_save(model: dict[str, Any], os_path: str, **_: Any) -> None:
    """Do to a saved notebook what the file of the same name with another ending asks for.

    ``.theirs`` is moved to its place, once, as by somebody whose save falls between the server's writing and its look
    at what it has written. With ``.strip`` beside it, a notebook is written once more without its outputs, with
    ``.compact`` in one line.
    """
    file = Path(os_path)
    theirs = file.with_suffix(".theirs")
    if theirs.exists():
        theirs.rename(file)
        model["last_modified"] = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    strip = file.with_suffix(".strip").exists()
    if strip or file.with_suffix(".compact").exists():
        content = json.loads(file.read_text(encoding="utf-8"))
        for cell in content["cells"] if strip else ():
            cell["outputs"] = []
        file.write_text(json.dumps(content), encoding="utf-8")
