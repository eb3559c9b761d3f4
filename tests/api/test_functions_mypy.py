"""The types of the Python API: a program needs public names only, and mypy finds what is wrong in it."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import nbrun
from pathlib import Path


def observe(event: nbrun.Event) -> None:
    match event:
        case nbrun.CellFinished(_, cell):
            outcome: nbrun.CellOutcome = cell.outcome
            print(outcome)
        case nbrun.StageEntered(_, nbrun.Stage.RUNNING):
            print("running")


async def work(client: nbrun.Client) -> nbrun.KernelSpecs:
    for entry in await client.contents.directory("team"):
        model: nbrun.ContentsModel = entry
        print(model.path)
    return await client.kernelspecs()


class Writer(nbrun.LiteralWriter):
    pass


async def main(options: nbrun.RunOptions) -> None:
    result: nbrun.NotebookResult = nbrun.run(Path("a.ipynb"), observe=observe, idle_timeout="5m", **{})
    nbrun.run({"cells": []}, parameters={"x": 1})
    nbrun.run("a.ipynb", **options)
    try:
        result.check()
    except nbrun.CellFailed as error:
        cell: nbrun.CellResult = error.cell
        lines: tuple[str, ...] = error.traceback
        print(cell.index, error.ename, error.evalue, lines, error.result.notebook.cells)
    except (nbrun.RunFailed, nbrun.ServerUnreachable) as error:
        print(error.hint)
    preview: nbrun.Preview = nbrun.plan("a.ipynb", parameters={"x": 1})
    cells: list[nbrun.CellPlan] = list(preview.cells)
    async with nbrun.connect("http://localhost:8888", token="t") as server:
        await server.run("a.ipynb", upload=True)
        await work(server.client)
    with nbrun.private_server(Path("x")) as local:
        local.run("a.ipynb").check()
    nbrun.run_many(["a.ipynb"], jobs="auto", output="out/").check()
"""
MISTAKES = """

async def mistakes() -> None:
    nbrun.run("a.ipynb", ouput="b.ipynb")
    nbrun.run("a.ipynb", cell_timeout=[5])
    nbrun.run("a.ipynb", idle_timout=5)
    async with nbrun.private_server() as server:
        await server.run("a.ipynb", token="t")
        nbrun.run_many(["a.ipynb"], order=3)
"""


def test_mypy_accepts_a_program_with_public_names_only_and_finds_each_of_five_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text(PROGRAM + MISTAKES)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", str(file)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    lines = (PROGRAM + MISTAKES).splitlines()
    found = [line.split(":", 2)[1] for line in done.stdout.splitlines() if ": error: " in line]
    expected = ["ouput", "[5]", "idle_timout", 'token="t")', "order=3"]
    marked = [lines[int(number) - 1].strip() for number in found]
    assert len(marked) == len(expected), done.stdout
    assert all(mistake in line for mistake, line in zip(expected, marked, strict=True)), done.stdout
