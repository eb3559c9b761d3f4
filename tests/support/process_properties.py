# ruff: noqa: PTH109, PTH110, PTH115, PTH208
"""Properties of a kernel's process that a notebook can see, for the comparison with nbclient.

The text of this file is run as a cell, in kernels of three kinds; it imports nothing of nbrun's.
"""

import asyncio
import atexit
import builtins
import codecs
import ctypes
import faulthandler
import gc
import inspect
import json
import locale
import logging
import multiprocessing
import os
import platform
import re
import signal
import site
import stat
import sys
import tempfile
import threading
import time
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

STREAMS = ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")


def describe(shell: Any) -> dict[str, Any]:
    """Return the properties of this process by name; what differs from one start to the next is left out."""
    import resource  # on Unix only

    app = shell.kernel.parent
    main = sys.modules["__main__"]
    loop = asyncio.get_event_loop()
    stack = [frame.frame.f_code.co_filename.rpartition("/")[2] for frame in inspect.stack()]
    status = Path("/proc/self/status").read_text().splitlines()
    here = threading.current_thread()
    return {
        "argv[0]": sys.argv[0],
        "argv": [_fixed(word) for word in sys.argv[1:]],
        "orig_argv": [_fixed(word) for word in sys.orig_argv],
        "command line": [_fixed(word) for word in Path("/proc/self/cmdline").read_text().split("\0")],
        "process name": Path("/proc/self/comm").read_text(),
        "executable": [sys.executable, sys.prefix, sys.base_prefix, sys.exec_prefix],
        "environment": {name: value for name, value in os.environ.items() if name != "JPY_PARENT_PID"},
        "environment of the program": sorted(
            word.partition(b"=")[0].decode() for word in Path("/proc/self/environ").read_bytes().split(b"\0") if word
        ),
        "parent": [os.environ["JPY_PARENT_PID"] == str(os.getppid()), os.getppid() == 1],
        "standard input": [os.fstat(0).st_mode & 0o770000, os.read(0, 1).decode()],
        "standard streams": {name: _stream(getattr(sys, name)) for name in STREAMS},
        "terminals": [os.isatty(number) for number in range(3)],
        "inherited descriptors": sorted(
            {
                stat.filemode(os.fstat(int(name)).st_mode)[0]
                for name in os.listdir("/proc/self/fd")
                if int(name) > 2 and os.path.exists(f"/proc/self/fd/{name}") and os.get_inheritable(int(name))
            }
        ),
        "limits": {
            name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")
        },
        "signal handlers": {each.name: repr(signal.getsignal(each)).partition(" at ")[0] for each in signal.Signals},
        "signal sets": [line for line in status if line.startswith(("SigBlk", "SigIgn", "SigCgt", "ShdPnd"))],
        "seccomp and privileges": [line for line in status if line.startswith(("Seccomp", "NoNewPrivs", "Cap"))],
        "working folder": [os.getcwd(), os.readlink("/proc/self/cwd")],
        "__main__": [
            type(main).__qualname__,
            *(repr(getattr(main, name, None)) for name in ("__name__", "__file__", "__spec__", "__package__")),
        ],
        "names in __main__": sorted(name for name in vars(main) if not name.startswith(("_i", "STREAMS", "describe"))),
        "names in builtins": sorted(dir(builtins)),
        "hidden names": sorted(shell.user_ns_hidden),
        "sys.path": sys.path,
        "sys.flags": repr(sys.flags),
        "options of the interpreter": [sys._xoptions, sys.warnoptions, sys.dont_write_bytecode, sys.pycache_prefix],
        "modules": sorted(sys.modules),
        "import hooks": [
            [getattr(each, "__name__", type(each).__name__) for each in sys.meta_path],
            [getattr(each, "__qualname__", repr(each)).partition(" at ")[0] for each in sys.path_hooks],
        ],
        "hooks": [
            getattr(each, "__qualname__", type(each).__qualname__)
            for each in (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.displayhook)
        ],
        "breakpoint()": repr(sys.breakpointhook()),  # noqa: T100
        "tracing": [sys.gettrace(), sys.getprofile(), hasattr(sys, "ps1"), hasattr(sys, "last_value")],
        "warnings": [[repr(each) for each in warnings.filters], warnings.showwarning.__module__],
        "locale": [locale.setlocale(locale.LC_ALL), locale.getpreferredencoding(), time.tzname],
        "encodings": [sys.getfilesystemencoding(), sys.getfilesystemencodeerrors(), codecs.lookup("utf-8").name],
        "umask": oct(_umask()),
        "scheduling": [os.nice(0), os.sched_getscheduler(0), sorted(os.sched_getaffinity(0))],
        "process group and session": [os.getpgrp() == os.getpid(), os.getsid(0) == os.getpid()],
        "user": [os.getuid(), os.getgid(), os.getgroups(), platform.node()],
        "death signal": _prctl_value(2),
        "subreaper": _prctl_value(37),
        "memory score": Path("/proc/self/oom_score_adj").read_text(),
        "control group": Path("/proc/self/cgroup").read_text(),
        "children": Path(f"/proc/self/task/{os.getpid()}/children").read_text(),
        "threads": sorted((each.name, each.daemon, type(each).__qualname__) for each in threading.enumerate()),
        "native threads": len(os.listdir("/proc/self/task")),
        "main thread": [here is threading.main_thread(), here.name, here.native_id == os.getpid()],
        "garbage collection": [gc.isenabled(), gc.get_threshold(), gc.get_debug(), len(gc.callbacks)],
        "frozen objects": gc.get_freeze_count() > 0,
        "interpreter settings": [
            sys.getrecursionlimit(),
            threading.stack_size(),
            sys.getswitchinterval(),
            sys.get_int_max_str_digits(),
        ],
        "diagnosis": [faulthandler.is_enabled(), tracemalloc.is_tracing(), site.ENABLE_USER_SITE, site.USER_SITE],
        "multiprocessing": [
            multiprocessing.get_start_method(allow_none=True),
            multiprocessing.current_process().name,
            multiprocessing.current_process().daemon,
            multiprocessing.parent_process(),
            multiprocessing.active_children(),
            multiprocessing.process.ORIGINAL_DIR,  # type: ignore[attr-defined]
        ],
        "event loop": [
            type(asyncio.get_event_loop_policy()).__qualname__,
            type(loop).__qualname__,
            loop.get_debug(),
        ],
        "logging": [
            logging.root.level,
            [repr(each) for each in logging.root.handlers],
            sorted(
                name
                for name, each in logging.root.manager.loggerDict.items()
                if isinstance(each, logging.Logger) and (each.handlers or each.level)
            ),
        ],
        "functions at exit": atexit._ncallbacks(),
        "temporary folder": tempfile.gettempdir(),
        "stack below a cell": stack[stack.index("kernelapp.py") :],
        "session": [os.environ.get("JPY_SESSION_NAME"), globals().get("__session__")],
        "connection": [_fixed(app.connection_file), app.transport],
        "IPython's configuration": [_fixed(repr(shell.config)), _fixed(repr(app.config)), app.extra_args, app.name],
        "IPython's classes": [
            f"{type(each).__module__}.{type(each).__qualname__}" for each in (shell, app, app.kernel)
        ],
        "IPython's history": [shell.history_manager.hist_file, shell.history_manager.enabled, shell.execution_count],
        "IPython's magics": {kind: sorted(names) for kind, names in shell.magics_manager.magics.items()},
        "IPython's extensions": sorted(shell.extension_manager.loaded),
        "IPython's callbacks": {
            name: [getattr(each, "__qualname__", repr(each)) for each in functions]
            for name, functions in shell.events.callbacks.items()
        },
        "IPython's looks": [shell.colors, shell.InteractiveTB.mode, shell.profile, shell.ipython_dir],
    }


def _fixed(text: str) -> str:
    """Leave out what differs from one start to the next."""
    return re.sub(r"[^\s'\"]*/(kernel-[0-9a-f-]+|tmp\w+)\.json", "CONNECTION-FILE", text)


def _stream(stream: Any) -> list[Any]:
    return [type(stream).__qualname__, *(getattr(stream, name, None) for name in ("encoding", "errors", "name"))]


def _umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


def _prctl_value(option: int) -> int:
    value = ctypes.c_int()
    ctypes.CDLL(None).prctl(option, ctypes.byref(value), 0, 0, 0)
    return value.value


def report(shell: Any) -> str:
    """Return the properties as JSON."""
    return json.dumps(describe(shell), default=repr)
