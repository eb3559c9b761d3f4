"""Several reporters at once; a broken one does not affect the others."""

from nbrun.core.events import Event, Warned
from nbrun.reporters.composite import Composite, IncompleteReport
from tests.reporters.streams import batch


class Listening:
    def __init__(self, name: str, *, raises: type[Exception] | None = None, at_end: bool = False) -> None:
        self.name = name
        self.seen: list[Event] = []
        self.closed = 0
        self._raises = raises
        self._at_end = at_end

    def observe(self, event: Event) -> None:
        self.seen.append(event)
        if self._raises and not self._at_end and len(self.seen) == 3:
            raise self._raises(28, "No space left on device")

    def close(self) -> None:
        self.closed += 1
        if self._raises:
            raise self._raises("at the end")


def test_all_are_told_everything_in_order() -> None:
    listeners = [Listening("one"), Listening("two")]
    fanout = Composite(listeners)
    for event in batch():
        fanout.observe(event)
    fanout.close()
    assert [listener.seen for listener in listeners] == [batch(), batch()]
    assert [listener.closed for listener in listeners] == [1, 1]


def test_one_that_breaks_is_told_of_once_and_asked_nothing_more() -> None:
    good, full = Listening("the console"), Listening("the JUnit report out.xml", raises=OSError)
    fanout = Composite([good, full])
    for event in batch():
        fanout.observe(event)
    fanout.close()
    warnings = [event for event in good.seen if event not in batch()]
    assert warnings == [Warned("a/bad.ipynb", "the JUnit report out.xml could not be written: No space left on device")]
    assert len(full.seen) == 3
    assert full.closed == 0


def test_a_report_that_lacks_something_is_not_called_unwritten() -> None:
    first = Listening("one")
    fanout = Composite([first, Listening("the page", raises=IncompleteReport, at_end=True)])
    for event in batch():
        fanout.observe(event)
    fanout.close()
    assert first.seen[-1] == Warned("never.ipynb", "the page: incomplete: at the end")
    assert [listener.name for listener in fanout.dropped] == ["the page"]


def test_one_that_breaks_at_the_end_is_still_told_of_and_the_others_are_closed() -> None:
    first, broken, last = Listening("one"), Listening("two", raises=ValueError, at_end=True), Listening("three")
    fanout = Composite([first, broken, last])
    for event in batch():
        fanout.observe(event)
    fanout.close()
    assert first.seen[-1] == Warned("never.ipynb", "two could not be written: ValueError: at the end")
    assert (first.closed, last.closed) == (1, 1)
