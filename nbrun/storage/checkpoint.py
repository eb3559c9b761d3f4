"""The way back to the notebook as it was before a run: the server's own checkpoint, which JupyterLab reverts to.

A server keeps one checkpoint of a file, and that is the user's undo point: it is moved only when that is asked for, and
then before the first write of the run and never again during it.
"""

from enum import Enum

from nbrun.errors import NotFound, RequestRefused, ServerError, UsageError
from nbrun.jupyter.contents import Contents


class Undo(Enum):
    """What is done about the notebook's earlier state."""

    NONE = "none"
    CHECKPOINT = "checkpoint"
    """It is kept as the file's checkpoint."""
    RESTORE = "restore"
    """It is kept, and brought back when the run does not pass."""


class UndoPoint:
    """The checkpoint of one file, made at most once."""

    def __init__(self, contents: Contents, wanted: Undo) -> None:
        self.wanted = wanted
        self._contents = contents
        self._checkpoint = ""

    async def check(self, path: str) -> None:
        """Find out before the run whether the server keeps checkpoints at all; raises :class:`UsageError`."""
        if self.wanted is Undo.NONE:
            return
        try:
            await self._contents.checkpoints(path)
        except (NotFound, RequestRefused) as error:
            hint = "Run without --checkpoint and --restore-on-failure."
            raise UsageError(f"{path}: this server keeps no checkpoint of it: {error.reason}", hint=hint) from None

    async def set(self, path: str) -> None:
        """Make the checkpoint, unless it was made before."""
        if self.wanted is not Undo.NONE and not self._checkpoint:
            self._checkpoint = (await self._contents.create_checkpoint(path)).id

    async def restore(self, path: str) -> str:
        """Bring the file back to what it was before the first write; returns what went wrong, if something did."""
        if not self._checkpoint:
            return ""  # nothing was written
        try:
            await self._contents.restore_checkpoint(path, self._checkpoint)
        except ServerError as error:
            return error.reason
        return ""
