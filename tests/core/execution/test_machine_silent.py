"""Silent code before a cell: it runs first and leaves no trace."""

from nbrun.core.results import CellOutcome
from tests.core.conversation import Conversation, cell, message


def test_what_prepares_a_cell_is_sent_in_silence_before_it_and_is_no_cell() -> None:
    talk = Conversation(cell("1", before=("x = 2",)), "2")
    silent, shown = talk.requests("execute_request")
    assert (silent.content["code"], silent.content["silent"], silent.content["store_history"]) == ("x = 2", True, False)
    assert silent.content["stop_on_error"] is False
    assert (shown.content["code"], shown.content["silent"]) == ("1", False)
    for state in ("busy", "idle"):
        talk.status(state, parent=silent.id)
    talk.reply(parent=silent.id)
    assert talk.run.results()[0].outcome is CellOutcome.INTERRUPTED  # it still runs
    talk.complete()
    assert talk.sources == ["x = 2", "1", "2"]


def test_an_error_of_what_prepares_a_cell_is_seen_in_its_outputs() -> None:
    talk = Conversation(cell("1", before=("x = ",)))
    silent = talk.requests("execute_request")[0]
    talk.hear(message("error", {"ename": "SyntaxError", "evalue": "", "traceback": []}, parent=silent.id))
    talk.complete()
    assert [output["ename"] for output in talk.outputs(0)] == ["SyntaxError"]
