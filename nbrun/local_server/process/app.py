"""The private server's application: a stock Jupyter Server with its configuration.

It is configured in code only. It reads none of the user's Jupyter configuration and writes nothing into the user's
folders. It finds the user's kernels and starts them with nbrun's environment, without tokens and passwords
(:mod:`nbrun.local_server.process.kernel_environment`). It signs notebooks with the user's key, so they open trusted
in the user's JupyterLab. What only a shared server needs is off: rate limits, size limits, culling, restarts, trash,
automatic checkpoints and pings.

:class:`~nbrun.local_server.launcher.EmbeddedServer` starts it in a process of its own, see
:mod:`nbrun.local_server.process.boot`. :mod:`nbrun.local_server.control_pipe` describes how it ends.
"""

import ctypes
import gc
import os
import secrets
import signal
import socket
import sys
import uuid
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

import zmq
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.provisioning import LocalProvisioner
from jupyter_core.paths import jupyter_data_dir, jupyter_path
from jupyter_events import EventLogger
from jupyter_server._tz import utcnow
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.contents.handlers import ContentsHandler, default_handlers
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager, ServerKernelManager
from jupyter_server.services.sessions.handlers import SessionRootHandler
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from traitlets.config import Config
from zmq.asyncio import Context
from zmq.constants import SocketOption

from nbrun.local_server.control_pipe import ControlPipe, Ready, ServerSettings
from nbrun.local_server.process import validation
from nbrun.local_server.process.contents import PrivateContents, PrivateContentsHandler
from nbrun.local_server.process.provisioner import ForkingProvisioner, Zygote, may_be_forked
from nbrun.local_server.process.websocket import PrivateConnection

DEATH_POLL = 0.5
"""Seconds between two checks whether a kernel's process is alive."""

SHUTDOWN_POLL = 0.01
"""Seconds between two checks whether a kernel has ended after a request to shut down."""

RECONNECT_EVERY = 5
"""Milliseconds between two attempts to connect to a kernel, which takes about 60 to start when it is forked."""

BODY_LIMIT = 4 << 30
"""Maximum bytes of a notebook that can be saved."""

FRAME_LIMIT = 2 << 30
"""Maximum bytes of a message to a kernel."""

SEND_BUFFER = 1 << 20
"""Bytes of a Unix socket's buffer for sent data. Linux's default is 208 KiB, less than many images have."""

LAUNCH_IPYKERNEL = str(Path(__file__).parents[2] / "kernel_side" / "launch.py")
"""The program that starts ipykernel. It is a file, because nbrun need not be installed in a kernel's environment."""

IPYKERNEL_OPTIONS = ("--HistoryManager.hist_file=:memory:",)
"""Keeps executed code out of the user's interactive history, and avoids its lock."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


_requested: ContextVar[Mapping[str, str]] = ContextVar("environment", default=MappingProxyType({}))
"""The environment variables that the current request wants for its kernel.

A kernel with variables of its own is not forked: many are read only when a process starts.
"""


class PrivateSessions(SessionRootHandler):
    """Sessions whose request may have ``kernel.env``, the environment variables of the new kernel."""

    async def post(self) -> None:
        """Start a kernel as the stock handler does, which also checks the authentication."""
        model = self.get_json_body() or {}
        _requested.set({**model.get("kernel", {}).get("env", {})})
        await super().post()


class PrivateKernelSpecs(KernelSpecManager):
    """The user's kernelspecs from the usual folders, without importing IPython to find its folder."""

    def _kernel_dirs_default(self) -> list[str]:
        ipython = os.environ.get("IPYTHONDIR") or str(PurePath("~", ".ipython"))
        return [*jupyter_path("kernels"), str(PurePath(os.path.expanduser(ipython), "kernels"))]  # noqa: PTH111


class PrivateKernel(ServerKernelManager):
    """A kernel that ends with the server, and uses Unix sockets if possible."""

    provisioner: Any

    @property
    def _is_ipykernel(self) -> bool:
        """Return whether the kernelspec starts ipykernel directly, not through a wrapper."""
        argv = self.kernel_spec.argv
        is_python = bool(argv) and PurePath(argv[0]).name.lower().startswith(("python", "pypy"))
        module = argv[argv.index("-m") + 1 :][:1] if "-m" in argv else []
        return is_python and module in (["ipykernel_launcher"], ["ipykernel"])

    def _transport_default(self) -> str:
        """Prefer Unix sockets, which cannot collide with a port in use. Only ipykernel is known to support them."""
        return "ipc" if self.parent.parent.kernels_may_use_ipc and self._is_ipykernel else "tcp"

    def _ip_default(self) -> str:
        if self.transport != "ipc":
            return "127.0.0.1"
        return str(PurePath(self.parent.connection_dir, secrets.token_hex(4)))

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        """Return the command, which for ipykernel runs the launcher that drops no output."""
        command: list[str] = super().format_kernel_cmd(extra_arguments)
        if not self._is_ipykernel:
            return command
        place = command.index("-m")
        return [*command[:place], LAUNCH_IPYKERNEL, *command[place + 1 :], *IPYKERNEL_OPTIONS]

    async def _async_pre_start_kernel(self, **kw: Any) -> Any:
        """Choose how the kernel is launched: forked from the zygote if the kernelspec allows it, or as usual."""
        kw["env"] = {**(kw.get("env") or os.environ), **self.parent.parent.kernel_environment, **_requested.get()}
        zygote = self.parent.parent.zygote
        can_fork = zygote is not None and not _requested.get() and may_be_forked(self.kernel_spec)
        if self.provisioner is None and can_fork:
            kernel_id = kw.setdefault("kernel_id", str(uuid.uuid4()))
            self.provisioner = ForkingProvisioner(kernel_id=kernel_id, kernel_spec=self.kernel_spec, parent=self)
            self.provisioner.zygote = zygote
        return await super()._async_pre_start_kernel(**kw)

    async def _async_finish_shutdown(
        self, waittime: float | None = None, pollinterval: float = SHUTDOWN_POLL, restart: bool = False
    ) -> None:
        """Wait for the kernel to end by itself, with a short poll interval, so that its atexit functions run."""
        await super()._async_finish_shutdown(waittime, min(pollinterval, SHUTDOWN_POLL), restart)

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        control_pipe = self.parent.parent.control_pipe
        if control_pipe.ending:
            raise RuntimeError("the server is ending")
        is_local = isinstance(self.provisioner, LocalProvisioner)
        if is_local and sys.platform == "linux":
            kw["preexec_fn"] = dying_with(os.getpid())
        await super()._async_launch_kernel(kernel_cmd, **kw)
        if is_local and self.provisioner.pid:
            control_pipe.kernel_started(self.kernel_id, self.provisioner.pid)


class PrivateKernels(AsyncMappingKernelManager):
    """All kernels of the server."""

    def _kernel_manager_class_default(self) -> str:
        return f"{__name__}.{PrivateKernel.__name__}"

    def _context_default(self) -> Context:
        """Remove the limit on waiting messages, and connect to new kernels early.

        By default ZeroMQ drops more than 1000 messages without an error. The server connects before a new kernel
        listens, and by default ZeroMQ tries again after 0.1 s.
        """
        self._created_context = True
        context = Context()
        context.setsockopt(SocketOption.RCVHWM, 0)
        context.setsockopt(SocketOption.RECONNECT_IVL, RECONNECT_EVERY)
        return context

    def start_watching_activity(self, kernel_id: str) -> None:
        """Do not watch activity: the stock manager receives every message a second time to record its time."""
        kernel = self._kernels[kernel_id]
        kernel.reason, kernel.execution_state, kernel.last_activity = "", "idle", utcnow()

    def remove_kernel(self, kernel_id: str) -> Any:
        """Remove a kernel that was shut down or died."""
        self.parent.control_pipe.kernel_gone(kernel_id)
        return super().remove_kernel(kernel_id)


class PrivateHttpServer(HTTPServer):
    """The HTTP server, with a larger buffer for the data that it sends through a Unix socket."""

    def handle_stream(self, stream: Any, address: Any) -> None:
        """Handle a new connection."""
        if stream.socket.family not in (socket.AF_INET, socket.AF_INET6):
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        super().handle_stream(stream, address)


class PrivateServer(ServerApp):
    """The stock server without configuration files, extensions, pages and files in the user's folders."""

    name = "nbrun-private-server"
    default_services = ("api", "contents", "kernels", "kernelspecs", "sessions")
    control_pipe: ControlPipe
    zygote: Zygote | None = None
    kernels_may_use_ipc = False
    kernel_environment: Mapping[str, str] = MappingProxyType({})
    """Variables that kernels get in addition to this process's environment."""

    def load_config_file(self, suppress_errors: bool = True) -> None:
        """Load no configuration file."""

    def parse_command_line(self, argv: list[str] | None = None) -> None:
        """Read no command line, and so create no parser for all options."""

    def migrate_config(self) -> None:
        """Migrate no configuration."""

    def init_event_logger(self) -> None:
        """Discard events, because nothing listens and validating their schemas is slow."""
        self.event_logger = EventLogger(parent=self)

    def init_signal(self) -> None:
        """Ignore signals, because nbrun ends the server after it has saved. A signal may be sent to all processes.

        The handlers do nothing. Unlike `SIG_IGN`, kernels do not inherit them. Under ``nohup`` kernels ignore SIGHUP,
        as other programs do.
        """
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and not (name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN):
                signal.signal(number, lambda *_: None)

    def listen(self, path: str) -> int:
        """Listen on the Unix socket, or on a free loopback port if `path` is empty; return the port or 0."""
        server = PrivateHttpServer(self.web_app, max_body_size=self.max_body_size, max_buffer_size=self.max_buffer_size)
        self._http_server = server
        if path and sys.platform != "win32":
            from_path = bind_unix_socket(path, mode=0o600)
            server.add_socket(from_path)
            return 0
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        port: int = sockets[0].getsockname()[1]
        return port


if sys.platform != "win32":
    from tornado.netutil import bind_unix_socket


def dying_with(server: int) -> Callable[[], None]:
    """Return the first action of a new kernel's process: Linux must kill it when the server's process ends.

    The signal is tied to the *thread* that forked (prctl(2)). Kernels are started by the event loop in the main thread,
    which lives as long as the process. The action runs between fork and exec, where imports and locks are not safe.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != server:  # the server ended before prctl took effect
            os._exit(1)

    return ask


def signing_folder(private: Path) -> Path:
    """Return the folder of the key and the signatures that make notebooks trusted: the user's if it is writable.

    Otherwise (no home, a read-only home, files of another user in it) it is `private`, and trust ends with the server.
    """
    try:
        users = Path(jupyter_data_dir())
        users.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = [path for path in (users / "nbsignatures.db", users / "notebook_secret") if path.exists()]
        if all(os.access(path, os.R_OK | os.W_OK) for path in (users, *files)):
            return users
    except (OSError, RuntimeError, KeyError):  # no folder can be created, or the user has no home
        pass
    return private


def configuration(settings: ServerSettings, token: str, data: Path) -> Config:
    """Return the complete configuration of the server. Files and environment add nothing."""
    return Config(
        ServerApp={
            "root_dir": settings.root,
            "ip": "127.0.0.1",
            "cookie_secret": secrets.token_bytes(32),
            "kernel_manager_class": PrivateKernels,
            "kernel_spec_manager_class": PrivateKernelSpecs,
            "contents_manager_class": PrivateContents,
            "kernel_websocket_connection_class": PrivateConnection,
            "jpserver_extensions": {},
            "terminals_enabled": False,
            "max_body_size": BODY_LIMIT,
            "max_buffer_size": BODY_LIMIT,
            "tornado_settings": {"websocket_max_message_size": FRAME_LIMIT, "ws_ping_interval": 0},
        },
        IdentityProvider={"token": token},
        PasswordIdentityProvider={"hashed_password": "", "password_required": False},
        GatewayClient={"url": None},
        ContentsManager={"allow_hidden": True},
        FileContentsManager={"delete_to_trash": False},
        NotebookNotary={"data_dir": str(data)},
        ZMQChannelsWebsocketConnection={"limit_rate": False},
        MappingKernelManager={"cull_idle_timeout": 0},
        KernelRestarter={"restart_limit": 0, "time_to_dead": DEATH_POLL},
    )


def serve(settings: ServerSettings, token: str, control_pipe: ControlPipe, zygote: socket.socket | None) -> None:
    """Serve until the control pipe ends the process; `zygote` is the socket to the zygote, if there is one."""
    validation.install()
    private = Path(settings.folder)
    data = signing_folder(private)
    server = PrivateServer.instance(
        config=configuration(settings, token, data),
        config_dir=str(private / "config"),
        data_dir=str(data),
        runtime_dir=str(private),
    )
    server.control_pipe = control_pipe
    server.zygote = Zygote(zygote) if zygote is not None else None
    server.kernel_environment = settings.environment
    server.kernels_may_use_ipc = settings.ipc and zmq.has("ipc")
    server.initialize(argv=[], find_extensions=False, new_httpserver=False)
    contents = [(path, PrivateContentsHandler if each is ContentsHandler else each) for path, each in default_handlers]
    server.web_app.add_handlers(".*", [("/api/sessions", PrivateSessions), *contents])
    port = server.listen(settings.socket)
    gc.enable()
    gc.freeze()
    control_pipe.tell(Ready(port))
    try:
        server.io_loop.start()
    finally:
        control_pipe.kill_kernels()
