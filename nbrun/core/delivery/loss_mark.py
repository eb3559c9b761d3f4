"""The mark of a cell that lost output: its metadata, and a sentence for outputs and reports."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct

from nbrun.core.outputs.mimebundle import Output, stream_output


class Cause(StrEnum):
    """Why outputs of a cell are, or may be, missing."""

    RATE_LIMIT = "rate-limit"
    """The server reported that it dropped output that arrived too fast."""
    MISSING_MESSAGES = "missing-messages"
    """The kernel sent messages that did not arrive."""
    IDLE_LOST = "idle-lost"
    """The message that ends a cell's outputs did not arrive, so earlier messages may be missing too."""
    ERROR_LOST = "error-lost"
    """The cell's error did not arrive as an output; it was reconstructed from the reply."""


_SPELT = {
    Cause.RATE_LIMIT: "the server's rate limit dropped what came too fast",
    Cause.MISSING_MESSAGES: "messages of the kernel did not arrive",
    Cause.IDLE_LOST: "the message that ends the outputs did not arrive",
    Cause.ERROR_LOST: "the error did not arrive as an output",
}


class Incomplete(Struct, frozen=True):
    """What is missing of a cell: the causes, and the number of outputs, or None if it is unknown.

    ``exact`` means that the number is the kernel's own count, without messages of other clients.
    """

    causes: Sequence[Cause]
    lost: int | None = None
    exact: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the object for the JSON result and the cell's metadata."""
        return {"causes": [cause.value for cause in self.causes], "lost": self.lost, "exact": self.exact}

    def as_output(self) -> Output:
        """Return the note that a cell gets as its last output."""
        return stream_output("stderr", f"nbrun: {self}\n")

    def __str__(self) -> str:
        """Return a sentence for the user."""
        about = "" if self.exact else "about "
        if not self.lost:
            what = "outputs may be missing"
        else:
            what = f"{about}{self.lost} {'output message is' if self.lost == 1 else 'output messages are'} missing"
        told = [cause for cause in self.causes if cause is not Cause.MISSING_MESSAGES] or self.causes
        return f"{what}: {'; '.join(_SPELT[cause] for cause in told)}"
