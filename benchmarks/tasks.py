"""The tasks of the command line: measure, compare revisions, see how it grows, profile, write the page."""

import json
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks import compare, growth, plots, samples
from benchmarks.contenders import CLIENTS, CONTENDERS
from benchmarks.environment import CACHE, ENVIRONMENTS, OWN, REPOSITORY, SHARED, at_revision, ready, variables
from benchmarks.measuring import Taken, measure
from benchmarks.report import page
from benchmarks.results import Results, describe_machine
from benchmarks.rounds import Plan, run, running_server
from benchmarks.stages import SERVERS, by_stage
from benchmarks.targets import verdicts
from benchmarks.workloads import WORKLOADS

DOCS = REPOSITORY / "docs"
_TURNS = 6
_PROFILED = ("W1", "W2", "W4")
_QUICK = ("nbrun", "papermill", "bare ZeroMQ loop", "python -c")


def carry_out(arguments: Namespace) -> int:
    """Do the task and return the exit code; 2 for a call that makes no sense."""
    if arguments.task == "report":
        return _report([Path(name) for name in arguments.names])
    if len(arguments.names) != (1 if arguments.task == "compare" else 0):
        return _wrong("compare takes one revision, report takes files, and the other tasks take neither")
    began = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = (arguments.output or CACHE / "runs" / began).resolve()
    if arguments.task == "compare":
        return _compare(arguments, folder)
    if arguments.task == "run":
        return _run(arguments, folder)
    folder.mkdir(parents=True, exist_ok=True)
    interpreter = ready(ENVIRONMENTS["nbrun"])
    if arguments.task == "scale":
        for name in _chosen(arguments.only, list(growth.SERIES)):
            points = growth.series(name, folder, interpreter, quick=arguments.quick)
            _keep(folder, f"{growth.GROWTH}{name}", points, interpreter)
    else:
        for name in _PROFILED:
            _keep(folder, f"profile of {name}", _profile(name, folder / name, interpreter), interpreter)
        _keep(folder, "W6", _batch(folder / "batch", interpreter), interpreter)
        _keep(folder, SERVERS, _on_servers(folder / "servers", interpreter), interpreter)
    print(folder / "run.json")
    return 0


def _run(arguments: Namespace, folder: Path) -> int:
    workloads = _chosen(arguments.only, list(WORKLOADS))
    contenders = _chosen(arguments.contenders, list(CONTENDERS))
    if arguments.quick and not arguments.contenders:
        contenders = [name for name in CONTENDERS if name.startswith(_QUICK)]
    if not workloads or not contenders:
        return _wrong(f"there are {', '.join(WORKLOADS)} and {', '.join(CONTENDERS)}")
    environment = SHARED if arguments.shared else OWN
    record = folder / "run.json"
    if record.exists() and (found := Results.load(record).environment) != environment:
        return _wrong(f"{record} was measured with {found} environments, not {environment} ones; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    names = {who: SHARED if arguments.shared else CONTENDERS[who].environment for who in contenders}
    made = {name: ready(ENVIRONMENTS[name]) for name in dict.fromkeys(names.values())}
    interpreters = {who: made[name] for who, name in names.items()}
    rounds = arguments.rounds or (1 if arguments.quick else None)
    results = run(Plan(workloads, contenders, interpreters, rounds, environment), folder)
    if "W5" in workloads and "nbrun" in contenders and "W5" not in results.extras:
        results.extras["W5"] = _stages("W5", folder, interpreters["nbrun"])
        results.save(record)
    for verdict in verdicts([results]):
        sign = "met   " if verdict.is_met else "MISSED"
        target, ratio = verdict.target, verdict.ratios[0]
        print(
            f"{sign} {target.workload:5} {target.ours} / {target.peer}, {target.quantity}: {ratio:.2f}"
            f" (at most {target.limit:g}) {verdict.failure}"
        )
    print(record)
    return 0


def _compare(arguments: Namespace, folder: Path) -> int:
    workloads = _chosen(arguments.only, list(compare.PAIRS)) if arguments.only else list(compare.USUAL)
    if not workloads:
        return _wrong(f"there are {', '.join(compare.PAIRS)}")
    if arguments.pairs is not None and arguments.pairs < compare.LEAST:
        return _wrong(f"--pairs: the noise is estimated from the pairs, so there must be at least {compare.LEAST}")
    revision = arguments.names[0]
    try:
        other = at_revision(revision)
    except ValueError as error:
        return _wrong(str(error))
    sides = (ready(other), ready(ENVIRONMENTS["nbrun"]))
    folder.mkdir(parents=True, exist_ok=True)
    rows = compare.compare(workloads, arguments.pairs, sides, f"{revision} ({other.nbrun})", folder)
    print(f"{revision} → checkout; slower or faster: beyond {compare.TOLERANCE:.0%} and the noise of the pairs")
    for row in rows:
        print(compare.line(row))
    print(folder / "compare.json")
    return 1 if any(row.verdict in (compare.SLOWER, compare.FAILED) for row in rows) else 0


def _wrong(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


def _stages(name: str, folder: Path, interpreter: Path) -> dict[str, object]:
    """Run a workload through clients/stages.py and return its record."""
    folder = folder / "stages"
    (folder / "in").mkdir(parents=True, exist_ok=True)
    source, target, record = folder / "in" / "0.ipynb", folder / "out.ipynb", folder / "record.json"
    source.write_text(json.dumps(WORKLOADS[name].notebook()), encoding="utf-8")
    command = [str(interpreter), "-P", str(CLIENTS / "stages.py"), str(source), str(target), str(record)]
    for _ in range(2):  # the first one warms up
        environment = variables(folder / "home", interpreter) | {"STARTED": str(time.time())}
        taken = _measured(command, folder, environment)
    told: dict[str, object] = json.loads(record.read_bytes())
    return {**told, "wall": taken.wall}


def _profile(name: str, folder: Path, interpreter: Path) -> dict[str, object]:
    """Run a workload with the sampling profiler in all of its processes, and return where the time went."""
    (folder / "in").mkdir(parents=True, exist_ok=True)
    (folder / "in" / "0.ipynb").write_text(json.dumps(WORKLOADS[name].notebook()), encoding="utf-8")
    record = folder / "samples.tsv"
    command = [str(interpreter.parent / "nbrun"), "run", "-q", "in/0.ipynb", "-o", "out/0.ipynb"]
    sampled = {"PYTHONPATH": str(CLIENTS / "sampler"), "BENCHMARK_SAMPLES": str(record)}
    for _ in range(2):  # the first one warms up
        record.unlink(missing_ok=True)
        began = time.time()
        taken = _measured(command, folder, variables(folder / "home", interpreter) | sampled)
    found = samples.read(record.read_text(encoding="utf-8").splitlines())
    return {
        "wall": taken.wall,
        "cpu": taken.cpu,
        "items": samples.items(found, taken.cpu),
        "timeline": samples.timeline(found, began, taken.wall) if name == "W1" else [],
    }


def _batch(folder: Path, interpreter: Path) -> dict[str, object]:
    """Run W6 with a log of its events, and return how long its runs were in which stage."""
    workload = WORKLOADS["W6"]
    (folder / "in").mkdir(parents=True, exist_ok=True)
    names = [f"in/{number}.ipynb" for number in range(workload.copies)]
    for name in names:
        (folder / name).write_text(json.dumps(workload.notebook()), encoding="utf-8")
    command = [
        str(interpreter.parent / "nbrun"),
        "run",
        "-q",
        *names,
        "-j",
        "2",
        "-o",
        "out/{stem}.ipynb",
        "--events",
        "events.jsonl",
    ]
    began = time.time()
    taken = _measured(command, folder, variables(folder / "home", interpreter))
    told = by_stage((folder / "events.jsonl").read_text(encoding="utf-8").splitlines(), began)
    return {**told, "wall": taken.wall, "cpu": taken.cpu}


def _on_servers(folder: Path, interpreter: Path) -> dict[str, object]:
    """Run W2 in turns on a private server and on a stock server, and return the median run on each by its stages."""
    (folder / "in").mkdir(parents=True, exist_ok=True)
    (folder / "in" / "0.ipynb").write_text(json.dumps(WORKLOADS["W2"].notebook()), encoding="utf-8")
    command = [
        str(interpreter.parent / "nbrun"),
        "run",
        "-q",
        "in/0.ipynb",
        "-o",
        "out/0.ipynb",
        "--events",
        "events.jsonl",
    ]
    environment = variables(folder / "home", interpreter)
    found: dict[str, list[dict[str, Any]]] = {"private": [], "stock": []}
    with running_server(folder, interpreter, environment, None) as (server, beside):
        for _ in range(_TURNS):
            for name, runs in found.items():
                where, served = (["--server", server.url], beside) if name == "stock" else ([], [])
                began = time.time()
                own = environment | {"JUPYTER_TOKEN": server.token}
                taken = _measured([*command, *where], folder, own, served)
                told = by_stage((folder / "events.jsonl").read_text(encoding="utf-8").splitlines(), began)
                runs.append({**told, "wall": taken.wall, "cpu": taken.cpu, "parts": taken.parts})
    # The first turn warms up.
    return {name: sorted(runs[1:], key=lambda run: run["wall"])[(_TURNS - 1) // 2] for name, runs in found.items()}


def _measured(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], beside: Sequence[psutil.Process] = ()
) -> Taken:
    """Run a command as :func:`measure` does; raise :class:`subprocess.CalledProcessError` if it fails."""
    taken = measure(command, folder=folder, variables=environment, beside=beside)
    if taken.exit_code != 0:
        raise subprocess.CalledProcessError(taken.exit_code, command, taken.said)
    return taken


def _keep(folder: Path, name: str, value: object, interpreter: Path) -> None:
    record = folder / "run.json"
    results = Results.load(record) if record.exists() else Results(describe_machine([interpreter]))
    results.extras[name] = value
    results.save(record)


def _report(paths: list[Path]) -> int:
    if not paths:
        return _wrong("name the run.json of one run or more")
    if missing := [str(path) for path in paths if not path.is_file()]:
        return _wrong(f"there is no {', '.join(missing)}")
    runs = [Results.load(path) for path in paths]
    folder = DOCS / "benchmarks"
    folder.mkdir(exist_ok=True)
    plots.draw(runs, folder)
    (DOCS / "benchmarks.md").write_text(page(runs), encoding="utf-8")
    print(DOCS / "benchmarks.md")
    return 0


def _chosen(given: str | None, known: list[str]) -> list[str]:
    """Return the names that begin with one of those given; all where none is."""
    if given is None:
        return known
    beginnings = tuple(name.strip() for name in given.split(",") if name.strip())
    exact = [name for name in known if name in beginnings]
    others = tuple(name for name in beginnings if name not in known)
    return [name for name in known if name in exact or (others and name.startswith(others))]
