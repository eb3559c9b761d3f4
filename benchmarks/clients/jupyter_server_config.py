"""Settings of the server that jupyter-kernel-client starts: it drops no output.

By default the server drops what exceeds 1000 messages a second, and ZeroMQ drops what exceeds 1000 waiting messages.
"""

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from traitlets.config import get_config
from zmq.asyncio import Context
from zmq.constants import SocketOption


class Kernels(AsyncMappingKernelManager):
    """Kernels whose waiting messages are not limited."""

    def _context_default(self) -> Context:
        self._created_context = True
        context = Context()
        context.setsockopt(SocketOption.RCVHWM, 0)
        return context


settings = get_config()
settings.ServerApp.kernel_manager_class = Kernels
settings.ZMQChannelsWebsocketConnection.limit_rate = False
