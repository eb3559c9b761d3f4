"""The choice of a notebook's kernel by name, then by language."""

from typing import Any

import pytest
from msgspec.structs import replace

from nbrun.errors import NoSuchKernel
from nbrun.jupyter.kernelspecs import KernelSpec, KernelSpecs


def specs(*names_and_languages: str, default: str = "python3") -> KernelSpecs:
    pairs = [pair.split(":") for pair in names_and_languages]
    return KernelSpecs(default, {name: KernelSpec(name, name.title(), language) for name, language in pairs})


MANY = specs("python3:python", "conda-py:python", "ir:R", "deno:typescript", "tslab:typescript")


@pytest.mark.parametrize(
    ("wanted", "metadata", "chosen"),
    [
        ("ir", {"kernelspec": {"name": "python3"}}, "ir"),
        (None, {"kernelspec": {"name": "conda-py"}}, "conda-py"),
        ("IR", {}, "ir"),
        (None, {"kernelspec": {"name": "Conda-Py"}}, "conda-py"),
        (None, {"language_info": {"name": "r"}}, "ir"),
        (None, {"kernelspec": {"language": "R"}}, "ir"),
        (None, {"language_info": {"name": "python"}}, "python3"),
        (None, {}, "python3"),
        (None, {"kernelspec": None, "language_info": [1]}, "python3"),
        (None, {"kernelspec": {"name": 7}}, "python3"),
    ],
)
def test_the_kernel_is_chosen_by_name_then_language_then_default(
    wanted: str | None, metadata: dict[str, Any], chosen: str
) -> None:
    assert MANY.choose(wanted, metadata).name == chosen


@pytest.mark.parametrize(
    ("wanted", "metadata", "words"),
    [
        ("julia", {}, "'julia'"),
        (None, {"kernelspec": {"name": "julia-1.9"}}, "which the notebook names"),
        (None, {"kernelspec": {"name": "gone", "language": "python"}}, "'gone'"),
        (None, {"language_info": {"name": "cobol"}}, "no kernel"),
        (None, {"language_info": {"name": "typescript"}}, "several kernels"),
    ],
)
def test_a_kernel_that_is_missing_is_an_error_that_lists_the_others(
    wanted: str | None, metadata: dict[str, Any], words: str
) -> None:
    with pytest.raises(NoSuchKernel, match=words) as caught:
        MANY.choose(wanted, metadata)
    assert "ir (R)" in caught.value.hint


def test_names_that_differ_only_in_case_are_told_apart() -> None:
    both = specs("Py:python", "py:python")
    assert both.choose("py", {}).name == "py"
    with pytest.raises(NoSuchKernel):
        both.choose("PY", {})


@pytest.mark.parametrize(
    ("wanted", "metadata"),
    [
        ("python", {}),
        ("Python", {"kernelspec": {"name": "ir"}}),
        (None, {"kernelspec": {"name": "python"}}),
        (None, {"kernelspec": {"name": "python", "language": "R"}}),
    ],
)
def test_the_name_python_means_python3_as_in_jupyter_client(wanted: str | None, metadata: dict[str, Any]) -> None:
    assert MANY.choose(wanted, metadata).name == "python3"
    assert specs("python:python", "python3:python").choose(wanted, metadata).name == "python3"
    assert specs("python:python", "ir:R").choose(wanted, metadata).name == "python"


def test_the_name_python_means_nothing_else() -> None:
    with pytest.raises(NoSuchKernel, match="no kernel 'python'"):
        specs("conda-py:python", "ir:R").choose("python", {})


def test_the_only_kernel_is_the_default_of_a_server_without_one() -> None:
    assert specs("ir:R", default="").choose(None, {}).name == "ir"
    with pytest.raises(NoSuchKernel, match="no default"):
        specs("ir:R", "py:python", default="").choose(None, {})


def test_a_server_without_kernels_says_so() -> None:
    with pytest.raises(NoSuchKernel) as caught:
        specs().choose(None, {})
    assert "no kernels at all" in caught.value.hint


@pytest.mark.parametrize(
    ("wanted", "metadata", "hints"),
    [
        (
            None,
            {"kernelspec": {"name": "sales-env", "language": "python"}},
            ["-k python3", "python -m ipykernel install --user --name sales-env"],
        ),
        (None, {"kernelspec": {"name": "gone"}}, ["-k python3", "ipykernel install --user --name gone"]),
        (None, {"kernelspec": {"name": "ir44", "language": "R"}}, ["-k ir runs it"]),
        (None, {"kernelspec": {"name": "julia-1.9", "language": "julia"}}, ["-k NAME"]),
        ("conda-pi", {}, ["-k conda-py"]),
        (None, {"language_info": {"name": "typescript"}}, ["-k NAME"]),
    ],
)
def test_a_kernel_of_another_environment_is_told_with_one_to_take_and_how_to_register_it(
    wanted: str | None, metadata: dict[str, Any], hints: list[str]
) -> None:
    with pytest.raises(NoSuchKernel) as caught:
        MANY.choose(wanted, metadata)
    assert all(hint in caught.value.hint for hint in hints), caught.value.hint
    assert ("ipykernel" in caught.value.hint) == any("ipykernel" in hint for hint in hints)


def test_the_kernels_of_this_machine_are_not_said_to_be_a_servers() -> None:
    here = replace(MANY, where="this machine")
    for metadata in ({"kernelspec": {"name": "x"}}, {"language_info": {"name": "cobol"}}):
        with pytest.raises(NoSuchKernel, match="this machine has no kernel") as caught:
            here.choose(None, metadata)
        assert "server" not in str(caught.value) + caught.value.hint
