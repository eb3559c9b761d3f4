"""The page's pictures: nbrun beside its peers, for each kind of environments, and how it grows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import OWN, SHARED
from benchmarks.growth import GROWTH, SERIES
from benchmarks.measuring import CLIENT
from benchmarks.results import Results, Summary, summaries

ORDER = (
    "nbrun",
    "bare ZeroMQ loop",
    "jupyter execute",
    "nbconvert --execute",
    "papermill",
    "nbmake -n2",
    "jupyter-kernel-client",
)
_OURS, _THEIRS, _INCOMPLETE = "#1f6f8b", "#b8c4cc", "#d98880"


def draw(runs: Sequence[Results], folder: Path) -> None:
    """Write ``peers-own.svg``, ``peers-shared.svg`` and ``growth.svg``, each where it was measured."""
    for environment in (OWN, SHARED):
        table = summaries(run for run in runs if run.environment == environment)
        _peers(table, folder / f"peers-{environment}.svg")
    _growth(runs, folder / "growth.svg")


def _pyplot() -> Any:
    """Import and set up matplotlib, which nobody needs who imports this module for :data:`ORDER`."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "nbrun"  # the same numbers give the same file
    mpl.rcParams["font.size"] = 8
    from matplotlib import pyplot as plt

    return plt


def _peers(table: dict[tuple[str, str], Summary], path: Path) -> None:
    workloads = sorted({workload for workload, _ in table if workload != "help"})
    if not workloads:
        return
    plt = _pyplot()
    figure, grid = plt.subplots(2, (len(workloads) + 1) // 2, figsize=(11, 5), squeeze=False)
    for axes in grid.flat[len(workloads) :]:
        axes.set_axis_off()
    for workload, axes in zip(workloads, grid.flat, strict=False):
        rows = [(name, table[workload, name]) for name in reversed(ORDER) if (workload, name) in table]
        colours = [_OURS if name == "nbrun" else _INCOMPLETE if row.failure else _THEIRS for name, row in rows]
        bars = axes.barh([name for name, _ in rows], [row.wall for _, row in rows], color=colours)
        axes.bar_label(bars, [f"{row.wall:.1f}{' ✗' if row.failure else ''}" for _, row in rows], padding=2)
        axes.set_title(workload, loc="left")
        axes.set_xlim(0, max(row.wall for _, row in rows) * 1.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("Seconds (median). ✗: outputs were missing", x=0.01, ha="left")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _growth(runs: Sequence[Results], path: Path) -> None:
    series = {
        name: run.extras[GROWTH + name] for name in SERIES for run in reversed(runs) if GROWTH + name in run.extras
    }
    if not series:
        return
    plt = _pyplot()
    figure, grid = plt.subplots(1, len(series), figsize=(3 * len(series), 3), squeeze=False)
    for (name, points), axes in zip(series.items(), grid.flat, strict=True):
        sizes = [point["size"] for point in points]
        memory = [point["peaks"][CLIENT] / 1e6 for point in points]
        axes.loglog(sizes, [point["wall"] for point in points], "o-", color=_OURS, label="seconds")
        axes.loglog(sizes, memory, "s--", color=_INCOMPLETE, label="MB, client")
        axes.set_xlabel(name)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
