"""The checkpoint of the original notebook on the server, which JupyterLab can restore.

A server keeps one checkpoint per file, and it belongs to the user. nbrun replaces it only on request (``--checkpoint``,
``--restore-on-failure``), once, before the first write of the run.
"""

import logging

from nbrun.core.planning.job import CheckpointUse
from nbrun.errors import NotFound, RequestRefused, ServerError, UsageError
from nbrun.jupyter.contents import Contents

_log = logging.getLogger(__name__)


class RunCheckpoint:
    """The checkpoint of one file, created at most once."""

    def __init__(self, contents: Contents, use: CheckpointUse) -> None:
        """Prepare for checkpoints on this server, according to `use`."""
        self.use = use
        self._contents = contents
        self._id = ""

    async def check(self, path: str) -> None:
        """Raise :class:`UsageError` if a checkpoint is requested and the server does not support checkpoints."""
        if self.use is CheckpointUse.NONE:
            return
        try:
            await self._contents.checkpoints(path)
        except (NotFound, RequestRefused) as error:
            hint = "Run without --checkpoint and --restore-on-failure."
            raise UsageError(f"{path}: this server keeps no checkpoint of it: {error.reason}", hint=hint) from None

    async def make(self, path: str) -> None:
        """Create the checkpoint if it is requested and does not exist yet."""
        if self.use is not CheckpointUse.NONE and not self._id:
            self._id = (await self._contents.create_checkpoint(path)).id
            _log.info("%s: checkpoint %s created", path, self._id)

    async def restore(self, path: str) -> str:
        """Restore the file from its checkpoint; return the server's error, or ""."""
        if not self._id:
            return ""  # nothing was written
        try:
            await self._contents.restore_checkpoint(path, self._id)
        except ServerError as error:
            return error.reason
        _log.info("%s: checkpoint %s restored", path, self._id)
        return ""
