"""Patterns of artefacts, and the files that count as artefacts of a run."""

import pytest

from nbrun.core.execution.outcomes import Ending, ending_without_artefacts
from nbrun.core.notebook.document import Document
from nbrun.core.planning.artefacts import Seen, changed, check_pattern, part_matches, parts_of, within
from nbrun.core.planning.job import Job
from nbrun.core.planning.plan import make_plan
from nbrun.core.results import Outcome, Problem
from nbrun.errors import NotANotebook
from tests.core.notebook.test_document import content


@pytest.mark.parametrize("pattern", ["out/*.csv", "./a.csv", "out/", "**/*.png", ".hidden", "a..b", "out//x"])
def test_a_pattern_is_relative_to_the_working_directory(pattern: str) -> None:
    check_pattern(pattern)


@pytest.mark.parametrize("pattern", ["/etc/passwd", "../x", "out/../../x", "~/x", "C:/x", "\\\\host\\x", "..", "a/.."])
def test_a_pattern_that_leads_out_of_it_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="leads out of the working directory"):
        check_pattern(pattern)


@pytest.mark.parametrize("pattern", ["", ".", "./", "a\0b"])
def test_a_pattern_without_a_name_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="names no file"):
        check_pattern(pattern)


@pytest.mark.parametrize(
    ("part", "name", "matches"),
    [("*.csv", "a.csv", True), ("*.csv", "A.CSV", False), ("*", ".a", False), (".*", ".a", True), ("[ab]", "b", True)],
)
def test_a_part_matches_names_as_in_a_shell(part: str, name: str, matches: bool) -> None:
    assert part_matches(part, name) is matches


def test_only_new_and_changed_files_are_artefacts_and_each_pattern_must_have_one() -> None:
    old, new = Seen(1, 5), Seen(2, 5)
    before = {"*": {"same": old, "grown": old, "nb.ipynb": old}, "a": {}, "b": {"b": old}, "c*": {"c1": old, "c2": old}}
    after = {
        "*": {"same": old, "grown": Seen(1, 6), "new": new, "nb.ipynb": new, "omitted": new},
        "a": {},
        "b": {"b": old},
        "c*": {"c1": old, "c2": old},
        "d": {"d": new},
        "*.ipynb": {"made.ipynb": new},
    }
    files, missing = changed(before, after, ["omitted"])
    assert files == {"d": new, "grown": Seen(1, 6), "made.ipynb": new, "new": new}
    assert missing == [
        "a: no file matches",
        "b: the file is unchanged",
        "c*: the run changed none of the 2 files that match",
    ]


@pytest.mark.parametrize(
    ("most", "fitting"), [(None, ["a", "b", "c"]), (6, ["a", "b", "c"]), (5, ["a", "c"]), (1, ["a"])]
)
def test_small_files_come_first_where_not_all_fit(most: int | None, fitting: list[str]) -> None:
    files = {"a": Seen(1, None), "b": Seen(1, 4), "c": Seen(1, 2)}
    found, others = within(files, most)
    assert found == fitting
    assert others == [name for name in files if name not in fitting]


def test_the_metadata_of_a_notebook_adds_patterns() -> None:
    def patterns(value: object) -> list[str]:
        document = Document(content(nbrun={"artefacts": value}))
        return [*make_plan(document, Job("a.ipynb", artefacts=["*.csv"])).artefacts]

    assert patterns(None) == ["*.csv"]
    assert patterns("x/") == ["*.csv", "x/"]
    assert patterns(["*.csv", "y"]) == ["*.csv", "y"]
    wrong: object
    for wrong in (5, ["/x"], [1], {}):
        with pytest.raises(NotANotebook, match=r"^a\.ipynb: metadata nbrun\.artefacts: "):
            patterns(wrong)


def test_a_passed_run_without_an_artefact_is_incomplete() -> None:
    passed, failed = Ending(Outcome.PASSED, None), Ending(Outcome.FAILED, Problem("no"))
    assert ending_without_artefacts(passed, []) is passed
    assert ending_without_artefacts(failed, ["x: no file matches"]) is failed
    ending = ending_without_artefacts(passed, ["x: no file matches", "y: no file matches"])
    assert ending.outcome is Outcome.INCOMPLETE
    assert ending.problem is not None
    assert ending.problem.message == "an artefact is missing: x: no file matches (and 1 more)"


def test_the_parts_of_a_pattern_are_its_folders_and_the_name() -> None:
    assert parts_of("./out//**/a.csv") == ["out", "**", "a.csv"]
