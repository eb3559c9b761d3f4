"""The table of a batch on a terminal, after its last run: notebook, outcome, cells, time."""

from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from nbrun.core.formats.units import spell_duration
from nbrun.core.results import NotebookResult, Outcome
from nbrun.reporters import phrases
from nbrun.reporters.console.live_display import NARROWEST_NAME, shortened_name
from nbrun.reporters.console.log_console import LogConsole
from nbrun.reporters.console.safe_console import SafeConsole


def print_table(runs: Sequence[NotebookResult], console: LogConsole, styles: Mapping[Outcome, str]) -> bool:
    """Print the final table without broken words; return False if the terminal is too narrow for it."""
    assert isinstance(console, SafeConsole)
    outcomes = [phrases.outcome(run) + (" (cached)" if run.cached else "") for run in runs]
    tallies = [phrases.tally(run) for run in runs]
    times = [spell_duration(run.seconds) for run in runs]
    fixed = max(map(len, ["outcome", *outcomes])) + max(map(len, ["time", *times])) + 6  # blanks between columns
    names = [console.clean(run.path) for run in runs]
    longest_name = max(map(cell_len, names))
    longest_word = max(len(word) for tally in ["cells", *tallies] for word in tally.split())
    room = console.width - fixed
    if room - longest_word < NARROWEST_NAME:
        return False
    for_cells = min(max(room - longest_name, room // 3, longest_word), max(map(len, tallies)))
    for_names = min(longest_name, room - for_cells)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("notebook", no_wrap=True, overflow="ellipsis", width=max(for_names, len("notebook")))
    table.add_column("outcome", no_wrap=True)
    table.add_column("cells", width=max(for_cells, len("cells")))
    table.add_column("time", justify="right", no_wrap=True)
    for run, name, outcome, tally, took in zip(runs, names, outcomes, tallies, times, strict=True):
        style = styles.get(run.outcome, "bold red")
        table.add_row(Text(shortened_name(name, for_names)), Text(outcome, style), tally, took)
    console.print(table, soft_wrap=False)
    return True
