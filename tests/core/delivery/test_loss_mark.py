"""The mark of a cell that lost output."""

import pytest

from nbrun.core.delivery.loss_mark import Cause, Incomplete


@pytest.mark.parametrize(
    ("incomplete", "said"),
    [
        (Incomplete((Cause.MISSING_MESSAGES,), 1, exact=True), "1 output message is missing: messages of the kernel"),
        (Incomplete((Cause.MISSING_MESSAGES,), 5), "about 5 output messages are missing: messages of the kernel"),
        (Incomplete((Cause.RATE_LIMIT, Cause.MISSING_MESSAGES), 5, exact=True), "5 output messages are missing: the"),
        (Incomplete((Cause.RATE_LIMIT, Cause.ERROR_LOST)), "outputs may be missing: the server's rate limit dropped"),
        (Incomplete((Cause.RATE_LIMIT,), 0, exact=True), "outputs may be missing: the server's rate limit dropped"),
        (Incomplete((Cause.IDLE_LOST,)), "outputs may be missing: the message that ends"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(incomplete: Incomplete, said: str) -> None:
    assert str(incomplete).startswith(said)
    assert incomplete.as_output() == {"output_type": "stream", "name": "stderr", "text": f"nbrun: {incomplete}\n"}


def test_the_metadata_holds_causes_and_number() -> None:
    told = Incomplete((Cause.RATE_LIMIT,), 3, exact=True).as_dict()
    assert told == {"causes": ["rate-limit"], "lost": 3, "exact": True}
