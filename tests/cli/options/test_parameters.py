"""The options for parameters, secrets and environment variables."""

from dataclasses import fields
from typing import Any

import pytest

from nbrun.cli.options.parameters import ParameterTexts, read_env
from nbrun.errors import UsageError


def texts(*env: str) -> ParameterTexts:
    """Return the options of a call with these --env."""
    others: dict[str, Any] = dict.fromkeys((field.name for field in fields(ParameterTexts)), ())
    return ParameterTexts(**{**others, "env": env})


def test_environment_variables_have_a_value_or_that_of_nbrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBRUN_TOKEN", "5ecret")
    assert read_env(texts("A=1", "B=x=y", "C=", "NBRUN_TOKEN")) == {
        "A": "1", "B": "x=y", "C": "", "NBRUN_TOKEN": "5ecret",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"), [("NOT_SET_ANYWHERE", "variable NOT_SET_ANYWHERE is not set"), ("=1", "a name is wanted")]
)
def test_an_environment_variable_without_a_value_or_a_name_is_a_wrong_call(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_env(texts(text))
