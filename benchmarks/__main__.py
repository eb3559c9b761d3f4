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
        interpreter = environment.ready(environment.ENVIRONMENTS["harness"])
        away = {"PYTHONPATH": str(environment.REPOSITORY)}
        command = [str(interpreter), "-m", "benchmarks", *sys.argv[1:]]
        return subprocess.run(command, env=os.environ | away, check=False).returncode
    # Only here is there everything that the rest imports.
    from benchmarks import tasks

    return tasks.carry_out(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure nbrun beside its peers. Without a task: all workloads, about ten minutes on two cores.",
    )
    parser.add_argument(
        "task",
        nargs="?",
        default="run",
        choices=["run", "compare", "scale", "profile", "report"],
        help="run: all tools; compare REV: this checkout and another git revision of nbrun, exit code 1 if a workload"
        " has become slower; scale: how time, memory and open files grow; profile: where the time goes; report: write"
        " the page",
    )
    parser.add_argument("names", nargs="*", metavar="REV|FILE", help="compare: the revision; report: run.json files")
    parser.add_argument("--shared", action="store_true", help="run: all tools in one environment with JupyterLab")
    parser.add_argument(
        "--only",
        metavar="W1,W3",
        help="these workloads; help is the command line alone; scale: these series, by the beginnings of their names",
    )
    parser.add_argument("--contenders", metavar="NAME,NAME", help="these contenders, by the beginnings of their names")
    parser.add_argument("--rounds", type=int, metavar="N", help="run: N rounds of everything")
    parser.add_argument("--pairs", type=int, metavar="N", help="compare: N pairs of runs of each workload, at least 4")
    parser.add_argument("--quick", action="store_true", help="one round of nbrun, papermill and the floor")
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep the results there; run goes on there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
