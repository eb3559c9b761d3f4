"""The signatures of the Python API agree with the declarations of the options."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

import nbrun
from nbrun.api import functions, servers
from nbrun.core.planning.option_types import options_in
from nbrun.errors import UsageError
from nbrun.runner.job import BatchOptions, RunOptions
from nbrun.runner.options import CommonServerOptions, MoreServerOptions

OF_RUN = {*RunOptions.__annotations__}
OF_BATCH = {*BatchOptions.__annotations__}
ABOUT_SERVERS = {*CommonServerOptions.__annotations__, *MoreServerOptions.__annotations__}
EMPTY = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
RUNS: list[tuple[Callable[..., Any], Any, set[str]]] = [
    (nbrun.run, functions.OptionsOfRun, OF_RUN),
    (nbrun.run_async, functions.OptionsOfRun, OF_RUN),
    (nbrun.run_many, functions.OptionsOfMany, OF_BATCH - {"content", "deliver"}),
    (nbrun.run_many_async, functions.OptionsOfMany, OF_BATCH - {"content", "deliver"}),
    (nbrun.Server.run, servers.OptionsOnServer, OF_RUN - ABOUT_SERVERS),
    (nbrun.SyncServer.run, servers.OptionsOnServer, OF_RUN - ABOUT_SERVERS),
]


@pytest.mark.parametrize(("call", "others", "all_options"), RUNS, ids=lambda value: getattr(value, "__qualname__", ""))
def test_a_signature_and_its_typed_dict_have_every_option_once(
    call: Callable[..., Any], others: Any, all_options: set[str]
) -> None:
    named = {name for name, one in inspect.signature(call).parameters.items() if one.kind is one.KEYWORD_ONLY}
    unpacked = {*others.__annotations__}
    assert named & unpacked == set()
    assert named | unpacked == all_options


@pytest.mark.parametrize("call", [one for one, _, _ in RUNS], ids=lambda value: value.__qualname__)
def test_the_defaults_of_a_signature_are_those_of_the_declarations(call: Callable[..., Any]) -> None:
    declared = options_in(BatchOptions)
    for name, parameter in inspect.signature(call).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            option = declared[name]
            assert option.read(parameter.default) == option.default, name


def test_the_help_describes_every_argument_that_is_written_out() -> None:
    for call in (nbrun.run, nbrun.run_many, nbrun.private_server, nbrun.connect):
        described = inspect.getdoc(call) or ""
        assert [name for name in inspect.signature(call).parameters if f"    {name}: " not in described] == [
            "options"
        ] * ("options" in inspect.signature(call).parameters)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: nbrun.run("nb.ipynb", cell_timout=5), r"cell_timout \(did you mean cell_timeout\?\)"),  # type: ignore[call-arg]
        (lambda: nbrun.run("nb.ipynb", ouput="x"), r"ouput \(did you mean output\?\)"),  # type: ignore[call-arg]
        (lambda: nbrun.run(3), "takes a path or a notebook, not 3"),  # type: ignore[arg-type]
        (lambda: nbrun.run({"cells": [object()]}), "a value that JSON does not know"),
        (lambda: nbrun.run({"cells": []}), "no notebook"),
        (lambda: nbrun.run(EMPTY, in_place=True), "in_place"),
        (lambda: nbrun.run("nb.ipynb", upload=True), "upload needs a server"),
        (lambda: nbrun.run_many("nb.ipynb"), "takes a list of paths, not 'nb.ipynb'"),
        (lambda: nbrun.run_many(None), "takes a list of paths, not None"),  # type: ignore[arg-type]
        (lambda: nbrun.run_many([{"cells": []}]), "takes a list of paths, not "),  # type: ignore[list-item]
        (lambda: nbrun.run_many(["nb.ipynb"], retrys=5), r"retrys \(did you mean retries\?\)"),  # type: ignore[call-arg]
        (lambda: nbrun.prepare("nb.ipynb", paramters={}), r"paramters \(did you mean parameters\?\)"),  # type: ignore[call-arg]
        (lambda: nbrun.plan("nb.ipynb", timeout="soon"), "'soon' is no duration"),
        (lambda: nbrun.run("nb.ipynb", token="5ecret"), "^token: needs server="),
        (lambda: nbrun.run("nb.ipynb", headers={"X-Key": "5ecret"}, verify=False), "^headers, verify: needs server="),
        (lambda: nbrun.run_many(["nb.ipynb"], save=False, password="5ecret"), "^password: needs server="),
        (lambda: nbrun.plan("nb.ipynb", max_frame="1MB"), "^max_frame: needs server="),
        (lambda: nbrun.run("nb.ipynb", server="http://localhost/", zygote=False), "^zygote: for a private server"),
        (lambda: nbrun.private_server("no/such/folder"), "no such folder"),
        (lambda: nbrun.private_server(None), "root: takes a path, not None"),  # type: ignore[arg-type]
        (lambda: nbrun.connect(None), "url: takes text, not None"),  # type: ignore[arg-type]
        (lambda: nbrun.connect("ftp://localhost/"), "no address of a Jupyter server"),
        (lambda: nbrun.connect("http://localhost/", max_frame="much"), "max_frame: 'much' is no size"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_a_usage_error_before_anything_runs(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call()
