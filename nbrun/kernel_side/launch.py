"""Start the ipykernel of a private server: ``python launch.py MODULE ARGUMENTS...``.

A notebook sees the same as after ``python -m MODULE``: ``sys.argv``, the stack below a cell, the application's class.
Only the command line in ``ps`` differs. Nothing of this file stays in the kernel's namespace. It runs on Python 3.8,
the oldest Python that a supported ipykernel runs on, and nbrun need not be importable there. Differences from a stock
kernel:

- Any number of outputs may wait to be sent. ipykernel drops messages beyond 1000, and has no setting for this limit.
  The limit must be lifted before the socket is bound, because libzmq copies the listener's options to each later
  connection.
- ipykernel assumes that no debugger is available, because importing it takes as long as all other imports together.
  Nobody can attach a debugger here, and a notebook can still import debugpy. ``breakpoint()`` does nothing, as with a
  debugger that nobody is attached to; pdb would ask for input.
- ipykernel does not notice that pytest runs it. Otherwise it would not collect the output of child processes.
- When the kernel ends, the control thread flushes through the iopub thread. ipykernel stops the iopub thread first, and
  in one case of four too early. It then waits until it is terminated 2.5 s later. Here the control thread ends first.
- The agent (:mod:`nbrun.kernel_side.agent`) is installed from the start.
"""

import sys

FOLDER = sys.argv[0].rpartition("/")[0] or sys.argv[0].rpartition("\\")[0]
# Python inserts it, or the current folder after -m, unless -P is given.
HAS_FOLDER = bool(sys.path) and sys.path[0] == FOLDER
if HAS_FOLDER:
    del sys.path[0]

import os
from typing import Any


def prepare(folder: str) -> None:
    """Change ipykernel before it starts."""
    from importlib import import_module
    from importlib.util import find_spec
    from types import ModuleType

    sys.modules["debugpy"] = None  # type: ignore[assignment]
    import_module("ipykernel.debugger")
    del sys.modules["debugpy"]

    if find_spec("debugpy"):
        os.environ.setdefault("PYDEVD_USE_FRAME_EVAL", "NO")
        sys.breakpointhook = lambda *_, **__: None
    import zmq
    from ipykernel.kernelapp import IPKernelApp as App

    bind, init_io, init_kernel, start = App._bind_socket, App.init_io, App.init_kernel, App.start
    package = sys.modules["nbrun_agent"] = ModuleType("nbrun_agent")
    package.__path__ = [folder]
    agent: Any = import_module("nbrun_agent.agent")
    for name in [name for name in sys.modules if name.partition(".")[0] == "nbrun_agent"]:
        del sys.modules[name]

    def bind_without_limit(app: Any, s: Any, port: Any) -> Any:
        s.setsockopt(zmq.SNDHWM, 0)  # type: ignore[attr-defined]
        return bind(app, s, port)

    def init_io_under_pytest(app: Any) -> None:
        test = os.environ.pop("PYTEST_CURRENT_TEST", None)
        init_io(app)
        if test is not None:
            os.environ["PYTEST_CURRENT_TEST"] = test

    def init_kernel_with_agent(app: Any) -> None:
        init_kernel(app)
        try:
            agent.install(app.kernel, {})
        except Exception as error:
            app.log.warning("nbrun's agent could not be installed: %r", error)

    def start_and_end(app: Any) -> None:
        start(app)
        control = app.control_thread
        if control and control.is_alive():
            control.stop()
            control.join(1)

    App._bind_socket, App.init_io = bind_without_limit, init_io_under_pytest
    App.init_kernel, App.start = init_kernel_with_agent, start_and_end


prepare(FOLDER)
module = sys.argv.pop(1)
if hasattr(sys, "orig_argv"):
    sys.orig_argv[sys.orig_argv.index(sys.argv[0])] = "-m"

import runpy

if HAS_FOLDER:
    sys.path.insert(0, os.getcwd())  # ipykernel_launcher removes it
del prepare, FOLDER, HAS_FOLDER
runpy._run_module_as_main(module)  # type: ignore[attr-defined]
