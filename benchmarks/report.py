"""Writes docs/benchmarks.md: the method, the machine, the tables, where the time goes, and what did not pay."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import OWN, SHARED
from benchmarks.growth import GROWTH, SERIES, exponent
from benchmarks.measuring import CLIENT, ROLES, SERVER
from benchmarks.plots import ORDER
from benchmarks.results import Results, Summary, summaries
from benchmarks.samples import ROLES as PROFILED
from benchmarks.stages import SERVERS
from benchmarks.targets import Verdict, ratio, verdicts
from benchmarks.workloads import WORKLOADS

_TEXT = Path(__file__).with_name("page.md")
_PAID = Path(__file__).with_name("what_did_not_pay.md")
_QUANTITIES = {
    "wall": "time",
    "cpu": "CPU of all processes",
    "peak": "peak memory of all processes",
    "runner_peak": "peak memory of the runner",
    "saving": "time of the save",
}
_COMMANDS = {OWN: "python -m benchmarks", SHARED: "python -m benchmarks --shared"}
_HEADLINE = ("papermill", "jupyter execute", "nbmake -n2", "bare ZeroMQ loop")


def page(runs: Sequence[Results]) -> str:
    """Return the whole page, made out of one run or several of either kind of environments."""
    parts = {
        **{environment: _environment(environment, runs) for environment in (OWN, SHARED)},
        "growth": _growth(runs),
        "profile": _profiles(runs),
        "batch": _batch(_extra(runs, "W6")),
        "servers": _on_servers(_extra(runs, SERVERS)),
        "not_paid": _PAID.read_text(encoding="utf-8").strip(),
    }
    text = _TEXT.read_text(encoding="utf-8")
    for name, part in parts.items():
        text = text.replace(f"<!-- {name} -->", part)
    return text


def _environment(environment: str, runs: Sequence[Results]) -> str:
    """Return the tables of one kind of environments, the ratios first."""
    mine = [run for run in runs if run.environment == environment and run.measurements]
    if not mine:
        return f"Not measured yet: `{_COMMANDS[environment]}`."
    table = summaries(mine)
    names = [name for name in WORKLOADS if any(name == workload for workload, _ in table)]
    return "\n\n".join(
        [
            _headline(names, table),
            f"![seconds of nbrun and its peers](benchmarks/peers-{environment}.svg)",
            "### Machine and versions",
            _machine(mine),
            "### Targets",
            _targets(verdicts(mine)),
            *(_workload(name, table) for name in names),
        ]
    )


def _headline(names: Sequence[str], table: dict[tuple[str, str], Summary]) -> str:
    """Return nbrun's seconds and its ratios to the most important peers; a ratio with a failed one is marked."""
    rows = []
    for name in names:
        ours = table.get((name, "nbrun"))
        peers = [table.get((name, who)) for who in _HEADLINE]
        if ours is None or not any(peers):
            continue
        told = [
            f"{ratio(ours, peer, 'wall'):.2f}{' (incomplete)' if ours.failure or peer.failure else ''}" if peer else ""
            for peer in peers
        ]
        rows.append((f"{name}, {WORKLOADS[name].title}", f"{ours.wall:.2f} s", *told))
    return _table(("work", "nbrun", *(f"nbrun / {who}" for who in _HEADLINE)), rows)


def _extra(runs: Sequence[Results], name: str) -> Any:
    return next((run.extras[name] for run in runs if name in run.extras), {})


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    rule = ["---" if place < left else "--:" for place in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _machine(runs: Sequence[Results]) -> str:
    one = runs[0].machine
    dates = sorted({run.machine["date"] for run in runs})
    rows = [("runs", f"{len(runs)}: {', '.join(dates)}")] + [(key, one[key]) for key in one if key != "date"]
    return _table(("", ""), rows, left=2)


def _targets(found: Sequence[Verdict]) -> str:
    rows = [
        (
            verdict.target.workload,
            f"{verdict.target.ours} / {verdict.target.peer}, {_QUANTITIES[verdict.target.quantity]}",
            f"≤ {verdict.target.limit:g}",
            " · ".join(f"{one:.2f}" for one in verdict.ratios),
            f"incomplete: {verdict.failure}" if verdict.failure else "met" if verdict.is_met else "**missed**",
        )
        for verdict in found
    ]
    return _table(("work", "ratio", "target", "measured, run by run", ""), rows, left=2)


def _workload(name: str, table: dict[tuple[str, str], Summary]) -> str:
    mine = {who: row for (workload, who), row in table.items() if workload == name}
    order = [*(who for who in ORDER if who in mine), *(who for who in mine if who not in ORDER)]
    ours = mine.get("nbrun")
    rows = [
        (
            f"**{who}**" if who.startswith("nbrun") else who,
            f"{mine[who].wall:.2f}",
            f"{ratio(ours, mine[who], 'wall'):.2f}" if ours and who != "nbrun" else "",
            f"{mine[who].cpu:.2f}",
            " · ".join(f"{seconds:.2f}" for seconds in mine[who].parts.values()),
            f"{mine[who].peak / 1e6:.0f}",
            f"{mine[who].runner_peak / 1e6:.0f}",
            str(mine[who].rounds),
            f"**failed**: {mine[who].failure}" if mine[who].failure else "all",
        )
        for who in order
    ]
    head = (
        "",
        "s",
        "nbrun / this",
        "CPU s",
        "client · server · kernel",
        "MB, all processes",
        "MB, runner",
        "rounds",
        "outputs",
    )
    return f"### {name}: {WORKLOADS[name].title}\n\n{_table(head, rows)}"


def _growth(runs: Sequence[Results]) -> str:
    rows = []
    for name in SERIES:
        points = _extra(runs, GROWTH + name)
        if not points:
            continue
        sizes = [point["size"] for point in points]
        grown = (
            [point["wall"] for point in points],
            [point["cpu"] for point in points],
            *([point["peaks"][role] for point in points] for role in ROLES),
        )
        rows += [
            (
                f"{point['size']:,} {name}",
                f"{point['wall']:.2f}",
                f"{point['cpu']:.2f}",
                *(f"{point['peaks'][role] / 1e6:.0f}" for role in ROLES),
                " · ".join(str(point["files"][role]) for role in (CLIENT, SERVER)),
                point["failure"] or "all",
            )
            for point in points
        ]
        exponents = (f"**{exponent(sizes, values):.2f}**" for values in grown)
        rows.append((f"**exponent, {name}**", *exponents, "", ""))
    if not rows:
        return "Not measured yet: `python -m benchmarks scale`."
    head = ("", "s", "CPU s", "MB, client", "MB, server", "MB, kernel", "open files, client · server", "outputs")
    drawn = "![time and memory of nbrun over what grows](benchmarks/growth.svg)"
    return _table(head, rows) + f"\n\n{drawn}"


def _batch(told: dict[str, Any]) -> str:
    if not told:
        return "Not measured yet: `python -m benchmarks profile`."
    lanes = 2
    rows = [("before the first run began", told["first"], told["first"])]
    rows += [(stage.replace("_", " "), took / lanes, took / told["runs"]) for stage, took in told["stages"].items()]
    rows.append(("after the last run ended", told["wall"] - told["last"], told["wall"] - told["last"]))
    cells = [(what, f"{took:.2f}", f"{each:.3f}", "█" * round(took / 0.1)) for what, took, each in rows]
    cells.append(("**all of it**", f"**{told['wall']:.2f}**", "", f"{told['cpu']:.2f} s of CPU, all processes"))
    return _table(("stage", "of the batch, s", "of each run, s", "a block is 0.1 s"), cells)


def _on_servers(told: dict[str, Any]) -> str:
    if not told:
        return "Not measured yet: `python -m benchmarks profile`."
    sides = told["private"], told["stock"]
    stages = dict.fromkeys(stage for side in sides for stage in side["stages"])
    rows = [("before the run began", *(f"{side['first']:.2f}" for side in sides))]
    rows += [(stage.replace("_", " "), *(f"{side['stages'].get(stage, 0):.2f}" for side in sides)) for stage in stages]
    rows += [
        ("after the run ended", *(f"{side['wall'] - side['last']:.2f}" for side in sides)),
        ("**all of it**", *(f"**{side['wall']:.2f}**" for side in sides)),
        ("CPU s", *(f"{side['cpu']:.2f}" for side in sides)),
        *((f"CPU s, {role}", *(f"{side['parts'][role]:.2f}" for side in sides)) for role in ROLES),
    ]
    return _table(("stage", "private server, s", "stock server, s"), rows)


def _profiles(runs: Sequence[Results]) -> str:
    parts = []
    for name in WORKLOADS:
        if told := _extra(runs, f"profile of {name}"):
            rows = [
                (role, item, f"{took * 1000:.0f}", f"{took / told['cpu']:.1%}") for role, item, took in told["items"]
            ]
            rows.append(("**all**", "", f"**{told['cpu'] * 1000:.0f}**", f"{told['wall']:.2f} s of wall time"))
            parts += [
                f"### Profile of {name}: {WORKLOADS[name].title}",
                _table(("process", "", "CPU, ms", "share"), rows),
            ]
            parts += [_timeline(told["timeline"])] if told["timeline"] else []
    return "\n\n".join(parts) or "Not measured yet: `python -m benchmarks profile`."


def _timeline(slots: Sequence[dict[str, Any]]) -> str:
    """Return the table of a run's slots; each cell has the largest item and the milliseconds of CPU."""
    rows = [
        (
            f"{slot['at'] * 1000:.0f}",
            *(f"{slot[role][0]} {slot[role][1] * 1000:.0f}" if role in slot else "" for role in PROFILED),
        )
        for slot in slots
    ]
    head = "Every 10 ms of W1: what each process spent most of its CPU time with, and how many ms it used"
    return f"<details><summary>{head}</summary>\n\n{_table(('ms', *PROFILED), rows)}\n\n</details>"
