"""Output templates: their values, and errors before the run."""

import os
from datetime import UTC, datetime
from typing import Any

import pytest

from nbrun.core.batch.output_paths import (
    Destination,
    Fields,
    Stamp,
    Template,
    free_stem,
    is_template,
    refuse_collisions,
    template_for,
    template_of_all,
)
from nbrun.errors import UsageError


def fields(path: str = "sub/dir/report.ipynb", **parameters: Any) -> Fields:
    return Fields(path, 7, datetime(2025, 3, 9, tzinfo=UTC), "ab12", parameters)


@pytest.mark.parametrize(
    ("template", "output"),
    [
        ("out/{folder}/{stem}-{params.region}-{date:%Y-%m}.ipynb", "out/sub/dir/report-EU-2025-03.ipynb"),
        ("{date}/{index:03}-{name}", "2025-03-09/007-report.ipynb"),
        ("{run-id}/{{x}}.ipynb", "ab12/{x}.ipynb"),
        ("{params.year:06}.ipynb", "002025.ipynb"),
    ],
)
def test_fields_are_filled_in(template: str, output: str) -> None:
    assert Template(template).fill(fields(region="EU", year=2025)) == output


def test_a_notebook_without_folder_or_suffix_has_an_output_too() -> None:
    assert Template("out/{folder}/{stem}").fill(fields("report")) == "out/report"


@pytest.mark.parametrize(
    ("value", "segment"), [("a/b", "a_b"), ("..", "__"), ("x:y?", "x_y_"), ("a\nb", "a_b"), ("v1.2", "v1.2")]
)
def test_a_value_stays_one_segment_of_the_path(value: str, segment: str) -> None:
    assert Template("out/{params.v}/x").fill(fields(v=value)) == f"out/{segment}/x"


def test_a_parameter_keeps_what_a_path_cannot_have() -> None:
    template = Template("{date:%d/%m/%Y} {folder} {params.v}.", where="day")
    assert template.fill_text(fields(v="a/b")) == "09/03/2025 sub/dir a/b."
    assert Template("plain {{x}}").fill_text(fields("x")) == "plain {x}"
    with pytest.raises(UsageError, match=r"^day: .* is given no parameter 'v'"):
        template.fill_text(fields())
    with pytest.raises(UsageError, match=r"^day: {folder} differs between notebooks, and why"):
        template.refuse_differing("why", "")
    with pytest.raises(UsageError, match=r"^day: there is no field {dat}"):
        Template("{dat}", where="day")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{sten}.ipynb", "did you mean {stem}"),
        ("{region}.ipynb", "did you mean {params.region}"),
        ("{params.}.ipynb", "no field"),
        ("{}.ipynb", "no field"),
        ("{stem.ipynb", "no template"),
        ("{stem!r}.ipynb", "means nothing"),
    ],
)
def test_what_is_no_field_is_told_at_once(template: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Template(template)


def test_a_parameter_that_is_not_given_and_a_format_that_does_not_fit_are_told() -> None:
    with pytest.raises(UsageError, match="no parameter 'year'") as caught:
        Template("{params.year}").fill(fields(region="EU"))
    assert "region" in caught.value.hint
    with pytest.raises(UsageError, match="given no parameter") as caught:
        Template("{params.year}").fill(fields())
    assert "none" in caught.value.hint
    with pytest.raises(UsageError, match="stem:03d"):
        Template("{stem:03d}").fill(fields())


@pytest.mark.parametrize(
    ("output", "path"),
    [
        ("out", "out/sub/dir/report.ipynb"),
        ("out/", "out/sub/dir/report.ipynb"),
        ("/", "/sub/dir/report.ipynb"),
        ("one.ipynb", "one.ipynb"),
        ("{stem}", "report"),
    ],
)
def test_a_folder_mirrors_the_tree(output: str, path: str) -> None:
    assert template_for(output).fill(fields()) == path


@pytest.mark.parametrize(
    ("template", "top"), [("out/{folder}/{stem}", "out"), ("a/b-{stem}", "a"), ("{stem}", ""), ("", "")]
)
def test_the_folder_that_holds_all_outputs_is_known(template: str, top: str) -> None:
    assert Template(template).top == top


def test_two_runs_that_would_write_the_same_file_are_told() -> None:
    with pytest.raises(UsageError, match=r"a and b would both write /o\.ipynb"):
        refuse_collisions([Destination("a", "/a.ipynb", "/o.ipynb"), Destination("b", "/b.ipynb", "/o.ipynb")])


def test_a_run_may_write_over_its_own_notebook_and_no_other() -> None:
    refuse_collisions([Destination("a", "/a.ipynb", "/a.ipynb"), Destination("b", "/b.ipynb", "/c.ipynb")])
    with pytest.raises(UsageError, match="b would write over the notebook of a"):
        refuse_collisions([Destination("a", "/a.ipynb", "/x.ipynb"), Destination("b", "/b.ipynb", "/a.ipynb")])


def test_a_template_is_known_by_its_braces() -> None:
    assert [is_template(text) for text in ("{stem}", "a}", "a")] == [True, True, False]


def test_a_template_tells_its_fields_and_stands_for_its_text() -> None:
    template = Template("a/{stem}-{params.x}-{params.y:03}.ipynb")
    assert template.names == ("stem", "params.x", "params.y")
    assert template.parameters == ("x", "y")
    assert os.fspath(template) == template.text
    assert not template.is_folder
    assert template_for("out/").is_folder
    assert template_for("/").fill(fields("a/b.ipynb")) == "/a/b.ipynb"


def test_one_report_of_all_knows_only_what_is_the_same_for_all() -> None:
    stamp = Stamp(datetime(2025, 3, 9, tzinfo=UTC), "ab12")
    assert Template("{date}", stamp).stamp is stamp
    assert template_of_all("--json", "r-{date:%Y}-{run-id}.json", stamp) == "r-2025-ab12.json"
    for name in ("stem", "folder", "index", "params.x"):
        with pytest.raises(UsageError, match="differs between notebooks"):
            template_of_all("--json", f"{{{name}}}.json", stamp)


def test_the_slashes_of_a_url_stay() -> None:
    fields = Fields("a.ipynb", 1, datetime(2025, 3, 9, tzinfo=UTC), "id")
    assert Template("s3://bucket/{folder}/{stem}//x.ipynb").fill(fields) == "s3://bucket/a/x.ipynb"


@pytest.mark.parametrize(
    ("parts", "taken", "stem"),
    [
        (["reports", "sales.ipynb"], [], "reports/sales"),
        (["..", ".", "a b?.ipynb"], [], "a-b-"),
        (["r.ipynb [region=EU/x]"], [], "r.ipynb-region-EU-x"),
        (["..", "."], [], "notebook"),
        (["A.ipynb"], ["a"], "A-2"),
        (["a.ipynb"], ["a", "A-2"], "a-3"),
    ],
)
def test_what_is_made_of_a_run_has_a_path_of_its_own_in_its_folder(
    parts: list[str], taken: list[str], stem: str
) -> None:
    assert free_stem(parts, taken) == stem
