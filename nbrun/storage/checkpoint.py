"""The checkpoint of the original notebook on the server, which JupyterLab can restore.

A server keeps one checkpoint per file, and it belongs to the user. nbrun replaces it only on request (``--checkpoint``,
``--restore-on-failure``), once, before the first write of the run.
"""

import logging
from enum import Enum

from nbrun.errors import NotFound, RequestRefused, ServerError, UsageError
from nbrun.jupyter.contents import Contents

_log = logging.getLogger(__name__)


class CheckpointUse(Enum):
    """Whether a checkpoint is made, and what it is for."""

    NONE = "none"
    KEEP = "keep"
    """The notebook as it was is kept as its checkpoint."""
    RESTORE = "restore"
    """It is kept, and restored where the run does not pass."""


class RunCheckpoint:
    """The checkpoint of one file, made once at most."""

    def __init__(self, contents: Contents, use: CheckpointUse) -> None:
        """Make a checkpoint on this server, as `use` says."""
        self.use = use
        self._contents = contents
        self._id = ""

    async def check(self, path: str) -> None:
        """Raise :class:`UsageError` where a checkpoint is wanted and the server keeps none."""
        if self.use is CheckpointUse.NONE:
            return
        try:
            await self._contents.checkpoints(path)
        except (NotFound, RequestRefused) as error:
            hint = "Run without --checkpoint and --restore-on-failure."
            raise UsageError(f"{path}: this server keeps no checkpoint of it: {error.reason}", hint=hint) from None

    async def make(self, path: str) -> None:
        """Make the checkpoint, unless none is wanted or it is there already."""
        if self.use is not CheckpointUse.NONE and not self._id:
            self._id = (await self._contents.create_checkpoint(path)).id
            _log.info("%s: checkpoint %s created", path, self._id)

    async def restore(self, path: str) -> str:
        """Restore the file from its checkpoint; return what went wrong, "" if nothing."""
        if not self._id:
            return ""  # nothing was written
        try:
            await self._contents.restore_checkpoint(path, self._id)
        except ServerError as error:
            return error.reason
        _log.info("%s: checkpoint %s restored", path, self._id)
        return ""
