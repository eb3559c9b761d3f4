"""The examples of docs/python.md run, one after the other in one namespace, as in a notebook."""

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

from tests.support.notebooks import code, notebook, write_notebook
from tests.support.servers import RunningServer

ROOT = Path(__file__).parents[2]
REPORT = notebook(code('region = "EU"', tags=["parameters"]), "print(region)")


async def test_the_examples_of_the_python_page_run(server: RunningServer, here: Path, capsys: Any) -> None:
    for path in ("report.ipynb", "local.ipynb", "notebooks/report.ipynb"):
        write_notebook(here / path, REPORT)
    write_notebook(here / "failing.ipynb", notebook("1 / 0"))
    write_notebook(server.root / "team" / "report.ipynb", REPORT)
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "python.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 15
    known: dict[str, Any] = {"asyncio": asyncio, "url": server.url, "token": server.token, "key": "5ecret5"}
    for block in blocks:
        source = compile(block, "docs/python.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        ended = eval(source, known)
        if inspect.iscoroutine(ended):
            await ended
    printed = capsys.readouterr().out
    assert "did you mean cell_timeout?" in printed
    assert "0 ZeroDivisionError division by zero" in printed
    assert (server.sessions(), server.get("api/kernels")) == ([], [])
