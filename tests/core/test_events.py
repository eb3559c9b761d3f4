"""Events for observers, and collected warnings."""

from nbrun.core.events import (
    BatchFinished,
    BatchStarted,
    CellStarted,
    Event,
    Journal,
    RunFinished,
    Stage,
    StageEntered,
    Warned,
    as_dict,
)
from nbrun.core.results import BatchResult, NotebookResult, Outcome
from nbrun.version import __version__


def test_a_journal_tells_under_the_name_of_its_notebook() -> None:
    seen: list[Event] = []
    journal = Journal("a.ipynb", seen.append)
    journal.enter(Stage.LOADING)
    journal.warn("the file is old")
    assert seen == [StageEntered("a.ipynb", Stage.LOADING), Warned("a.ipynb", "the file is old")]


def test_a_journal_keeps_every_warning_and_nothing_else() -> None:
    journal = Journal("a.ipynb", lambda _: None)
    journal.warn("one")
    journal.enter(Stage.RUNNING)
    journal.tell(Warned("a.ipynb", "two"))
    assert journal.warnings == ["one", "two"]


def test_stages_are_words_for_a_person() -> None:
    assert f"{Stage.STARTING_KERNEL}" == "starting the kernel"


def test_an_observer_that_raises_ends_nothing_is_warned_of_once_and_told_the_rest() -> None:
    seen: list[Event] = []

    def observe(event: Event) -> None:
        seen.append(event)
        raise ValueError("no room")

    journal = Journal("a.ipynb", observe)
    journal.enter(Stage.LOADING)
    journal.enter(Stage.RUNNING)
    assert len(seen) == 2
    assert journal.warnings == ["an observer of the run raised ValueError: no room"]


def test_a_journal_masks_what_is_text_of_its_own() -> None:
    told: list[Event] = []
    journal = Journal("nb.ipynb", told.append)
    journal.mask = lambda text: text.replace("hunter2222", "***")
    journal.warn("it is hunter2222")
    journal.tell(CellStarted("nb.ipynb", 0, 1, 1, "print('hunter2222')"))
    assert told == [Warned("nb.ipynb", "it is ***"), CellStarted("nb.ipynb", 0, 1, 1, "print('***')")]
    assert journal.warnings == ["it is ***"]


def test_the_events_of_a_batch_are_json() -> None:
    result = NotebookResult("1", "a.ipynb", None, None, Outcome.PASSED, "", 0.0)
    batch = BatchResult("1", "", 0.0, [result])
    assert [
        as_dict(event) for event in (BatchStarted(["a.ipynb"]), RunFinished("a", result), BatchFinished(batch))
    ] == [
        {"event": "batch-started", "version": __version__, "notebooks": ["a.ipynb"]},
        {"event": "run-finished", "notebook": "a", "result": result.as_dict()},
        {"event": "batch-finished", "result": batch.as_dict()},
    ]
