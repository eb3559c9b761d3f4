"""The private server's contents manager: fast saves, signatures, checkpoints on request only.

It writes the same bytes as the stock server, but faster. It refuses to overwrite a notebook that another program has
changed since it was last read.
"""

import contextlib
import hashlib
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO

import nbformat
from anyio.to_thread import run_sync
from jupyter_server.services.contents.filecheckpoints import AsyncFileCheckpoints
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from nbformat.sign import NotebookNotary
from tornado.web import HTTPError

from nbrun.core.notebook.images import Images
from nbrun.private_server.process.files import copy_whole, original_of, rewriting
from nbrun.storage.writable import mode_of

_SAVING: ContextVar[bool] = ContextVar("saving", default=False)
"""Whether a notebook is being saved by whoever calls."""


class PrivateNotary(NotebookNotary):
    """Signs notebooks; a locked or broken signature database costs the trust, never the notebook."""

    def check_signature(self, nb: Any) -> bool:
        """Return whether the notebook was signed; False when the database cannot say."""
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
        """Return none, which makes no folder: each save, rename and deletion asks for them."""
        return []

    async def kept(self, path: str) -> list[dict[str, Any]]:
        """Return those that there are."""
        kept: list[dict[str, Any]] = await super().list_checkpoints(path)
        return kept

    async def _copy(self, src: str, dest: str) -> None:
        """Copy a notebook to its checkpoint, or back; a full disk costs neither, and the notebook keeps its mode."""
        with self.perm_to_403(dest):
            await run_sync(copy_whole, src, dest)


State = tuple[int, int, int]
"""What tells one state of a file from another without reading it."""


def state_of(os_path: str | int) -> State | None:
    """Return the state of a file, or of an open one, now; None where there is none."""
    try:
        found = os.stat(os_path)  # noqa: PTH116 - open files have no path
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


class PrivateContents(AsyncLargeFileManager):
    """The stock files, written to the end even when nbrun ends meanwhile, and notebooks with large outputs fast.

    A notebook that is another one than when it was last asked for is not saved over: 412.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._looked: dict[str, State | None] = {}
        """The state in which each file was when it was last asked for."""
        self._modes: dict[str, int] = {}
        """The permissions that each file had then: it may be deleted, and saved again."""
        self._written: dict[str, tuple[State | None, str]] = {}
        """The state in which each notebook was left by its last save, and the hash of what was written."""

    def _checkpoints_class_default(self) -> type[AskedForCheckpoints]:
        return AskedForCheckpoints

    def _notary_default(self) -> PrivateNotary:
        return PrivateNotary(parent=self)

    async def get(self, path: str, *args: Any, **options: Any) -> Any:
        """Return what the stock file manager gives, and remember when that was."""
        os_path = self._get_os_path(path.strip("/"))
        self._looked[os_path] = state_of(os_path)  # before it is read: what comes later is no part of the answer
        if (mode := mode_of(Path(os_path))) is not None:
            self._modes[os_path] = mode
        return await super().get(path, *args, **options)

    async def save(self, model: dict[str, Any], path: str = "") -> Any:
        """Save as the stock file manager does, and tell the hash of what was written."""
        saving = _SAVING.set(True)
        try:
            with self.parent.lifeline.saving():
                saved = await super().save(model, path)
        finally:
            _SAVING.reset(saving)
        if model["type"] == "notebook":  # not what is saved as a plain file under a notebook's name
            saved |= self._hash(self._written[self._get_os_path(path.strip("/"))][1])
        return saved

    async def _notebook_model(self, path: str, content: bool = True, require_hash: bool = False) -> Any:
        """Return what the stock manager gives; what was written here and not touched since need not be read again."""
        os_path = self._get_os_path(path)
        state, found = self._written.get(os_path, (None, ""))
        if content or not require_hash or state is None or state != state_of(os_path):
            return await super()._notebook_model(path, content=content, require_hash=require_hash)
        return await super()._notebook_model(path, content=False) | self._hash(found)

    def _hash(self, found: str) -> dict[str, str]:
        return {"hash": found, "hash_algorithm": self.hash_algorithm}

    async def list_checkpoints(self, path: str) -> list[dict[str, Any]]:
        """Return the checkpoints of a file."""
        kept: list[dict[str, Any]] = await self.checkpoints.kept(path)
        return kept

    async def create_checkpoint(self, path: str) -> Any:
        """Make the checkpoint that is asked for, and not the one that a first save would make."""
        return None if _SAVING.get() else await super().create_checkpoint(path)

    @contextlib.contextmanager
    def atomic_writing(self, os_path: str, *args: Any, **options: Any) -> Iterator[Any]:
        """Open a file to write it; a new one beside a notebook gets the notebook's permissions."""
        writable = os.access(Path(os.path.realpath(os_path)).parent, os.W_OK)
        if args or options != {"text": False} or not writable or not self.use_atomic_writing:
            with super().atomic_writing(os_path, *args, **options) as file:
                yield file
            return
        original = original_of(os_path) or os_path
        mode = self._modes.get(os_path, mode_of(Path(original)) or self._modes.get(original))
        with self.perm_to_403(os_path), rewriting(os_path, mode) as file:
            yield file

    async def _save_notebook(self, os_path: str, nb: Any, capture_validation_error: Any = None) -> None:
        """Write to the byte what the stock manager writes, and validate it as that does."""
        if self._looked.get(os_path, now := state_of(os_path)) != now:
            raise HTTPError(412, "somebody else wrote to it since it was last looked at")
        written = hashlib.new(self.hash_algorithm)
        with self.atomic_writing(os_path, text=False) as file:
            await run_sync(write_notebook, nb, Hashed(file, written), capture_validation_error)
            file.flush()
            state = state_of(file.fileno())  # before it takes its time to get to the disk: what comes then is not ours
        self._written[os_path] = state, written.hexdigest()


class Hashed:
    """A file whose bytes are hashed while they are written."""

    def __init__(self, file: BinaryIO, found: "hashlib._Hash") -> None:
        self._file = file
        self._found = found

    def write(self, data: bytes) -> int:
        """Write and hash."""
        self._found.update(data)
        return self._file.write(data)


def write_notebook(nb: Any, file: BinaryIO | Hashed, capture_validation_error: Any = None) -> None:
    """Write `nb` as :func:`nbformat.write` would."""
    images = Images(secrets.token_hex(16))
    errors: dict[str, Any] = {}
    text = _text_of(nbformat.from_dict({**nb, "cells": [images.taken_from(cell) for cell in nb["cells"]]}), errors)
    if errors and images:  # what is wrong is to be told in the notebook's own words
        images, errors = Images(secrets.token_hex(16)), {}
        text = _text_of(nb, errors)
    if errors and capture_validation_error is not None:
        capture_validation_error.update(errors)
    for piece in images.put_into(text):
        file.write(piece)
    if not text.endswith("\n"):
        file.write(b"\n")


def _text_of(nb: Any, errors: dict[str, Any]) -> str:
    text: str = nbformat.writes(nb, version=nbformat.NO_CONVERT, capture_validation_error=errors)
    return text
