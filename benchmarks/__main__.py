"""``python -m benchmarks``: makes its environment, goes on inside it, and does what was asked for."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import environment


def main() -> int:
    """Read the command line and do it."""
    arguments = _parser().parse_args()
    if not environment.is_inside():
        interpreter = environment.python()
        away = {"PYTHONPATH": str(environment.REPOSITORY)}
        command = [str(interpreter), "-m", "benchmarks", *sys.argv[1:]]
        return subprocess.run(command, env=os.environ | away, check=False).returncode
    # Only here is there everything that the rest imports.
    from benchmarks import tasks

    return tasks.carry_out(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure nbrun beside its peers. Without a task: all workloads, about eight minutes on two cores.",
    )
    parser.add_argument(
        "task",
        nargs="?",
        default="run",
        choices=["run", "scale", "profile", "report"],
        help="run: the table; scale: how time and memory grow; profile: where the time goes; report: write the page",
    )
    parser.add_argument("runs", nargs="*", type=Path, help="for report: the run.json of one or more runs")
    parser.add_argument("--only", metavar="W1,W3", help="these workloads; help is the command line alone")
    parser.add_argument("--contenders", metavar="NAME,NAME", help="these contenders, by the beginnings of their names")
    parser.add_argument("--rounds", type=int, metavar="N", help="so many rounds of everything")
    parser.add_argument("--quick", action="store_true", help="one round of nbrun, papermill and the floor")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="keep the results there; goes on with what is there already"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
