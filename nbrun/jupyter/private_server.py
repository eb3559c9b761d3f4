"""The private Jupyter server's own process: ``python -m nbrun.jupyter.private_server``, started by `EmbeddedServer`.

Its one idea: it is the stock server, configured in code and from nowhere else. It reads none of the user's Jupyter
configuration and leaves nothing in the user's folders, but finds the user's kernels, gives them the environment that
nbrun was called with, and signs notebooks with the user's own key, so that they open trusted in the user's JupyterLab.
What a shared server must be careful about, and a private one need not, is off: rate limits, size limits, culling,
restarts, trash, unasked checkpoints, pings.

How it ends, and how its kernels do, is told in :mod:`nbrun.jupyter.lifeline`.
"""

import ctypes
import gc
import os
import secrets
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path, PurePath
from typing import Any

import nbrun.lean_imports  # noqa: F401 - must come before the imports below

if __name__ == "__main__":
    gc.disable()  # until it is up: a tenth of the start would go into looking for garbage where there is none

import zmq
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.provisioning import LocalProvisioner
from jupyter_core.paths import jupyter_data_dir, jupyter_path
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.contents.filecheckpoints import AsyncFileCheckpoints
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager, ServerKernelManager
from nbformat.sign import NotebookNotary
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from traitlets.config import Config
from zmq.asyncio import Context
from zmq.constants import SocketOption

from nbrun.jupyter.lifeline import Lifeline, Ready, ServerSettings

DEATH_POLL = 0.5
"""Seconds between two looks whether a kernel's process still lives."""

BODY_LIMIT = 4 << 30
"""Bytes of a notebook that can be saved."""

FRAME_LIMIT = 2 << 30
"""Bytes of a message to a kernel."""

LAUNCH_IPYKERNEL = """\
import sys
from pathlib import Path
if sys.path[0] == "" or Path(sys.path[0]) == Path.cwd():
    del sys.path[0]
import zmq
from ipykernel.kernelapp import IPKernelApp
class UnlimitedIPKernelApp(IPKernelApp):
    def _bind_socket(self, s, port):
        s.setsockopt(zmq.SNDHWM, 0)
        return super()._bind_socket(s, port)
UnlimitedIPKernelApp.launch_instance()
"""
"""Starts ipykernel as its own launcher does, but lets any number of its outputs wait to be sent.

Beyond 1000 it drops them, and it has no setting for that. The limit must be lifted before the socket is bound: libzmq
gives each later connection what the listener was made with. Nothing of this is left in the kernel's namespace.
"""

IPYKERNEL_OPTIONS = ("--HistoryManager.hist_file=:memory:",)
"""Keep what the run executes out of the user's interactive history, and off its lock."""

_SAVING: ContextVar[bool] = ContextVar("saving", default=False)
"""Whether a notebook is being saved by whoever calls."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class PrivateNotary(NotebookNotary):
    """Signs notebooks; a locked or broken signature database costs the trust, never the notebook."""

    def check_signature(self, nb: Any) -> bool:
        """Tell whether the notebook was signed; False when the database cannot say."""
        try:
            return bool(super().check_signature(nb))
        except sqlite3.Error as error:
            self.log.warning("The signature of a notebook could not be looked up: %s", error)
            return False

    def sign(self, nb: Any) -> None:
        """Remember the notebook as trusted."""
        try:
            super().sign(nb)
        except sqlite3.Error as error:
            self.log.warning("A notebook was saved, but could not be signed: %s", error)


class AskedForCheckpoints(AsyncFileCheckpoints):
    """Copies beside the user's notebooks, in the usual place, where they are asked for and never by the way."""

    async def list_checkpoints(self, path: str) -> list[dict[str, Any]]:  # noqa: ARG002
        """Give none, which makes no folder: each save, rename and deletion asks for them."""
        return []

    async def kept(self, path: str) -> list[dict[str, Any]]:
        """Give those that there are."""
        kept: list[dict[str, Any]] = await super().list_checkpoints(path)
        return kept


class PrivateContents(AsyncLargeFileManager):
    """The stock files, written to the end even when nbrun ends meanwhile."""

    def _checkpoints_class_default(self) -> type[AskedForCheckpoints]:
        return AskedForCheckpoints

    def _notary_default(self) -> PrivateNotary:
        return PrivateNotary(parent=self)

    async def save(self, model: dict[str, Any], path: str = "") -> Any:
        """Save as the stock file manager does."""
        saving = _SAVING.set(True)
        try:
            with self.parent.lifeline.saving():
                return await super().save(model, path)
        finally:
            _SAVING.reset(saving)

    async def list_checkpoints(self, path: str) -> list[dict[str, Any]]:
        """Give the checkpoints to whoever asks for them."""
        kept: list[dict[str, Any]] = await self.checkpoints.kept(path)
        return kept

    async def create_checkpoint(self, path: str) -> Any:
        """Make the checkpoint that is asked for, and not the one that a first save would make."""
        return None if _SAVING.get() else await super().create_checkpoint(path)


class PrivateKernelSpecs(KernelSpecManager):
    """The user's kernelspecs from the usual places, without importing IPython only to learn where its folder is."""

    def _kernel_dirs_default(self) -> list[str]:
        ipython = os.environ.get("IPYTHONDIR") or str(PurePath("~", ".ipython"))
        return [*jupyter_path("kernels"), str(PurePath(os.path.expanduser(ipython), "kernels"))]  # noqa: PTH111


class PrivateKernel(ServerKernelManager):
    """One kernel: tied to the server's life, and to the folder's sockets where it can use them."""

    @property
    def _is_ipykernel(self) -> bool:
        """Tell whether the kernelspec starts ipykernel itself on this machine, and not through a wrapper."""
        argv = self.kernel_spec.argv
        is_python = bool(argv) and PurePath(argv[0]).name.lower().startswith(("python", "pypy"))
        module = argv[argv.index("-m") + 1 :][:1] if "-m" in argv else []
        return is_python and module in (["ipykernel_launcher"], ["ipykernel"])

    def _transport_default(self) -> str:
        """Prefer Unix sockets, which cannot collide with anybody's port; only ipykernel is known to speak them."""
        return "ipc" if self.parent.parent.kernels_may_use_ipc and self._is_ipykernel else "tcp"

    def _ip_default(self) -> str:
        if self.transport != "ipc":
            return "127.0.0.1"
        return str(PurePath(self.parent.connection_dir, secrets.token_hex(4)))

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        """Start ipykernel so that it drops no output, any other kernel as it is."""
        command: list[str] = super().format_kernel_cmd(extra_arguments)
        if not self._is_ipykernel:
            return command
        place = command.index("-m")
        return [*command[:place], "-c", LAUNCH_IPYKERNEL, *command[place + 2 :], *IPYKERNEL_OPTIONS]

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        lifeline = self.parent.parent.lifeline
        if lifeline.ending:
            raise RuntimeError("the server is ending")
        is_local = isinstance(self.provisioner, LocalProvisioner)
        if is_local and sys.platform == "linux":
            kw["preexec_fn"] = dying_with(os.getpid())
        await super()._async_launch_kernel(kernel_cmd, **kw)
        if is_local and self.provisioner.pid:
            lifeline.kernel_started(self.kernel_id, self.provisioner.pid)


class PrivateKernels(AsyncMappingKernelManager):
    """All kernels of the server."""

    def _kernel_manager_class_default(self) -> str:
        return f"{__name__}.{PrivateKernel.__name__}"

    def _context_default(self) -> Context:
        """Let messages wait without limit: by ZeroMQ's default 1000 may, and the rest is dropped without a word."""
        self._created_context = True
        context = Context()
        context.setsockopt(SocketOption.RCVHWM, 0)
        return context

    def remove_kernel(self, kernel_id: str) -> Any:
        """Forget a kernel that was shut down or died."""
        self.parent.lifeline.kernel_gone(kernel_id)
        return super().remove_kernel(kernel_id)


class PrivateServer(ServerApp):
    """The stock server without configuration files, extensions, pages and traces."""

    name = "nbrun-private-server"
    default_services = ("api", "contents", "kernels", "kernelspecs", "sessions")
    lifeline: Lifeline
    kernels_may_use_ipc = False

    def load_config_file(self, suppress_errors: bool = True) -> None:
        """Read none."""

    def migrate_config(self) -> None:
        """Touch nothing."""

    def init_signal(self) -> None:
        """Leave it to nbrun to end the server: a signal for everybody must not keep nbrun from saving what it has.

        The handlers do nothing but, unlike `SIG_IGN`, are not inherited by kernels.
        """
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), lambda *_: None)

    def listen(self, socket: str) -> int:
        """Answer on the Unix socket, or on a free loopback port when it is empty; give the port or 0."""
        server = HTTPServer(self.web_app, max_body_size=self.max_body_size, max_buffer_size=self.max_buffer_size)
        self._http_server = server
        if socket and sys.platform != "win32":
            from_path = bind_unix_socket(socket, mode=0o600)
            server.add_socket(from_path)
            return 0
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        port: int = sockets[0].getsockname()[1]
        return port


if sys.platform != "win32":
    from tornado.netutil import bind_unix_socket


def dying_with(server: int) -> Callable[[], None]:
    """Give what a new kernel's process does first: ask the kernel of Linux to kill it when the server's process ends.

    The signal follows the *thread* that forked (prctl(2)). Kernels are started by the event loop, in the main thread,
    which lives as long as the process. It runs between fork and exec, where only little is safe: no imports, no locks.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != server:  # it ended before it could be asked for
            os._exit(1)

    return ask


def signing_folder(private: Path) -> Path:
    """Give the folder with the key and the signatures that notebooks are trusted by: the user's if it can be written.

    Otherwise (no home, a read-only one, somebody else's files in it) `private`, and trust lasts as long as the server.
    """
    try:
        users = Path(jupyter_data_dir())
        users.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = [path for path in (users / "nbsignatures.db", users / "notebook_secret") if path.exists()]
        if all(os.access(path, os.R_OK | os.W_OK) for path in (users, *files)):
            return users
    except (OSError, RuntimeError, KeyError):  # no folder can be made, or the user has no home at all
        pass
    return private


def configuration(settings: ServerSettings, data: Path) -> Config:
    """Give all of the server's configuration; nothing is added to it from files or from the environment."""
    return Config(
        ServerApp={
            "root_dir": settings.root,
            "ip": "127.0.0.1",
            "cookie_secret": secrets.token_bytes(32),
            "kernel_manager_class": PrivateKernels,
            "kernel_spec_manager_class": PrivateKernelSpecs,
            "contents_manager_class": PrivateContents,
            "jpserver_extensions": {},
            "terminals_enabled": False,
            "max_body_size": BODY_LIMIT,
            "max_buffer_size": BODY_LIMIT,
            "tornado_settings": {"websocket_max_message_size": FRAME_LIMIT, "ws_ping_interval": 0},
        },
        IdentityProvider={"token": settings.token},
        PasswordIdentityProvider={"hashed_password": "", "password_required": False},
        GatewayClient={"url": None},
        ContentsManager={"allow_hidden": True},
        FileContentsManager={"delete_to_trash": False},
        NotebookNotary={"data_dir": str(data)},
        ZMQChannelsWebsocketConnection={"limit_rate": False},
        MappingKernelManager={"cull_idle_timeout": 0},
        KernelRestarter={"restart_limit": 0, "time_to_dead": DEATH_POLL},
    )


def serve(settings: ServerSettings, lifeline: Lifeline) -> None:
    """Serve until the lifeline ends the process."""
    private = Path(settings.folder)
    data = signing_folder(private)
    server = PrivateServer.instance(
        config=configuration(settings, data),
        config_dir=str(private / "config"),
        data_dir=str(data),
        runtime_dir=str(private),
    )
    server.lifeline = lifeline
    server.kernels_may_use_ipc = settings.ipc and zmq.has("ipc")
    server.initialize(argv=[], find_extensions=False, new_httpserver=False)
    port = server.listen(settings.socket)
    gc.enable()
    gc.freeze()
    lifeline.tell(Ready(port))
    try:
        server.io_loop.start()
    finally:
        lifeline.kill_kernels()


def main() -> None:
    """Take the settings from standard input, move both pipes out of everybody's reach, and serve."""
    line = sys.stdin.buffer.readline()
    if not line:
        return
    settings = ServerSettings.from_line(line)
    source, sink = os.dup(0), os.dup(1)  # not inheritable, unlike 0 and 1
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    serve(settings, Lifeline(settings, source, sink))


if __name__ == "__main__":
    main()
