"""Starts the ipykernel of a private server, as ``python -m MODULE`` does: ``python launch.py MODULE ARGUMENTS...``.

What a notebook can see is what it would see there: ``sys.argv``, the stack below a cell, the application's class. Only
the command line that ``ps`` shows is another. Nothing of this file is left in the kernel's namespace. It runs on the
oldest Python that a supported ipykernel runs on, 3.8, and nbrun need not be importable there.

- Any number of outputs may wait to be sent. Beyond 1000 ipykernel drops them, and it has no setting for that. The limit
  must be lifted before the socket is bound: libzmq gives each later connection what the listener was made with.
- ipykernel is made to believe that there is no debugger, whose import takes as long as all others together: nobody can
  attach one here, and the notebook can import debugpy all the same. ``breakpoint()`` does as with a debugger to which
  nobody is attached: nothing, where pdb would ask for input.
- It does not see that pytest runs it, if so: it would not collect what child processes write.
- At its end the control thread, which has just handled the request to shut down, flushes through the iopub thread.
  ipykernel stops that first, one time in four too early, and then waits for the other one until it is terminated, 2.5 s
  later. Here the control thread ends before.
- It has the agent (:mod:`nbrun.kernel_side.agent`) from the start.
"""

import sys

FOLDER = sys.argv[0].rpartition("/")[0] or sys.argv[0].rpartition("\\")[0]
if sys.path and sys.path[0] == FOLDER:
    del sys.path[0]

import os
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

if sys.path and Path(sys.path[0]) == Path.cwd():
    del sys.path[0]


def prepare(folder: str) -> None:
    """Change ipykernel before it starts."""
    sys.modules["debugpy"] = None  # type: ignore[assignment]

    del sys.modules["debugpy"]
    from importlib.util import find_spec, module_from_spec, spec_from_loader

    if find_spec("debugpy"):
        os.environ.setdefault("PYDEVD_USE_FRAME_EVAL", "NO")
        sys.breakpointhook = lambda *_, **__: None
    import zmq
    from ipykernel.kernelapp import IPKernelApp as App

    bind, init_io, init_kernel, start = App._bind_socket, App.init_io, App.init_kernel, App.start
    loader = SourceFileLoader("nbrun_agent", os.path.join(folder, "agent.py"))
    agent: Any = module_from_spec(spec_from_loader(loader.name, loader))  # type: ignore[arg-type]
    loader.exec_module(agent)

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
del prepare, FOLDER

import runpy

runpy._run_module_as_main(module)  # type: ignore[attr-defined]
