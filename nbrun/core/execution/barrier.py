"""A question that shows what was lost on the way.

A kernel answers the requests of a channel in their order, and what it says on iopub arrives in the order in which it
was said. So a ``kernel_info`` that is asked behind a cell tells of the cell: its *reply* can only come after the
cell's reply, its *busy* only after the cell's idle. What has not come by then will not come.

A fence belongs to the cell it was sent for: the answer to one that is no longer needed says nothing about the next.
"""

from nbrun.core.protocol.messages import Message, Requests


class Fence:
    """Not asked, asked, or answered; asked again, any answer counts."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self.answered = False
        """Whether the kernel has reached it."""

    @property
    def is_asked(self) -> bool:
        """Return whether the question is on its way."""
        return bool(self._ids)

    def ask(self, requests: Requests) -> Message:
        """Return the question to send."""
        question = requests.kernel_info()
        self._ids.add(question.id)
        return question

    def is_answered_by(self, message: Message) -> bool:
        """Return whether a message, a reply or a status, is about this question."""
        return message.parent_id in self._ids
