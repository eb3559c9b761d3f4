"""The options for parameters, secrets and environment variables."""

from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import pytest

from nbrun.cli.options.parameters import ParameterTexts, fill_templates, read_env, read_templates
from nbrun.core.batch.output_paths import Stamp
from nbrun.errors import UsageError

STAMP = Stamp(datetime(2026, 11, 30, tzinfo=UTC), "ab12")


def texts(*env: str, templates: tuple[str, ...] = ()) -> ParameterTexts:
    """Return the options of a call with these --env and --parameter-template."""
    others: dict[str, Any] = dict.fromkeys((field.name for field in fields(ParameterTexts)), ())
    return ParameterTexts(**{**others, "env": env, "parameter_template": templates})


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


def test_templates_of_parameters_are_filled_in() -> None:
    templates = read_templates(texts(templates=("day={date:%d/%m/%Y}", "file={stem}-{params.region}=")), ["region"])
    filled = fill_templates(templates, "reports/sales.ipynb", STAMP, {"region": "a/b"})
    assert filled == {"day": "30/11/2026", "file": "sales-a/b="}
    with pytest.raises(UsageError, match=r"{stem} differs between notebooks"):
        fill_templates(templates, None, STAMP, {})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("day",), "NAME=TEMPLATE is wanted"),
        (("={date}",), "NAME=TEMPLATE is wanted"),
        (("region={date}",), "region is set twice"),
        (("day={date}", "day={date}"), "day is set twice"),
        (("day={dat}",), "--parameter-template day={dat}: there is no field {dat}"),
    ],
)
def test_a_wrong_template_of_a_parameter_is_refused(given: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_templates(texts(templates=given), ["region"])
