"""Results that ipykernel numbered and then did not send: numbers that nobody bears, and nothing is lost.

ipykernel numbers the message of a result before it knows whether there is one to send. There is none for what displays
itself (``_ipython_display_``, as plotly's figures do), and for what cannot be represented at all. So it is asked, where
messages of a cell seem to be missing, how many such results the cell had. A kernel where :data:`REMEMBER` was run knows
it exactly; any other knows from IPython's history whether the cell has a result and no representation of one.
"""

from collections.abc import Iterable

REMEMBER = """
def remember_unsent(displayhook):
    finish = displayhook.finish_displayhook
    unsent = displayhook.nbrun_unsent = []
    def finish_displayhook():
        content = displayhook.msg["content"] if displayhook.msg else {"data": "none was numbered"}
        if not content["data"]:
            unsent.append(content["execution_count"])
        finish()
    displayhook.finish_displayhook = finish_displayhook
"""
"""Source of a function that lets an ipykernel's displayhook remember which cells had a result that it did not send."""

_QUESTION = """
(lambda shell, counts: " ".join(map(str, [count for count in shell.displayhook.nbrun_unsent if count in counts]
    if hasattr(shell.displayhook, "nbrun_unsent") else
    [count for count in counts if count in shell.user_ns.get("_oh", ())
        and count not in shell.history_manager.output_hist_reprs])))(__import__("IPython").get_ipython(), {counts})
"""


def question(counts: Iterable[int]) -> str:
    """Give the expression of Python to evaluate in the kernel, about the cells of these execution counts."""
    return _QUESTION.format(counts=[*counts]).strip()


def counts_in(answer: str) -> list[int]:
    """Read what Python shows of its value: the execution count of a cell once for each result that was not sent."""
    return [int(count) for count in answer.strip("'").split() if count.isdecimal()]
