"""An option of the suite: run all of it with cells sent ahead, so that pipelined running is held to the same tests."""

import os
from collections.abc import Callable

import pytest

import nbrun.pipeline
from nbrun.core.plan import Plan
from nbrun.jupyter.ahead import find_depth
from nbrun.jupyter.server import RunningKernel
from tests.support.processes import FORCED_DEPTH


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--nbrun-pipeline", type=int, metavar="N", help="run every notebook with --pipeline N")


def pytest_configure(config: pytest.Config) -> None:
    depth = config.getoption("--nbrun-pipeline")
    if depth is None:
        return
    os.environ[FORCED_DEPTH] = str(depth)

    async def forced(
        running: RunningKernel, plan: Plan, wanted: int | None, warn: Callable[[str], None], *, near: bool
    ) -> int:
        return await find_depth(running, plan, wanted or depth, (lambda _: None) if wanted is None else warn, near=near)

    setattr(nbrun.pipeline, "find_depth", forced)  # noqa: B010  (it is no name that the module gives away)
