"""Kernels with the agent, and the thread that sends an ipykernel's output."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from ipykernel.iostream import IOPubThread
from jupyter_client.session import Session
from zmq.constants import SocketType
from zmq.sugar.context import Context

from nbrun.kernel_side.backlog import Backlog
from nbrun.kernel_side.output import QuickOutput
from tests.kernel_side.small_kernel import SmallKernel


@pytest.fixture
def session() -> Session:
    """A session that has sent three messages before the agent was installed."""
    session = Session()
    for _ in range(3):
        session.send(None, "stream")
    return session


@pytest.fixture
def kernel(session: Session) -> SmallKernel:
    """A kernel with the agent, and that session."""
    return SmallKernel(session)


@pytest.fixture
def iopub() -> Iterator[Any]:
    """The thread that sends an ipykernel's output, with events handed over quickly."""
    context: Any = Context()
    thread = IOPubThread(context.socket(SocketType.PUB), session=Session())
    # A task would be left pending when the thread stops.
    vars(thread)["_run_event_pipe_gc"] = lambda: asyncio.get_running_loop().create_future()
    thread.start()
    QuickOutput(thread, Backlog(SimpleNamespace(iopub_thread=thread, session=thread.session)))
    yield thread
    thread.stop()
    thread.close()
    context.term()
