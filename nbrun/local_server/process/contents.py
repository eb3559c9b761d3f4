"""The private server's contents manager: fast saves, signatures, checkpoints on request only.

It writes the same bytes as the stock server, but faster. A large notebook is read, sent, received and written in parts,
so that little more than the notebook itself is in memory. It refuses to overwrite a notebook that another program has
changed since it was last read.
"""

import contextlib
import functools
import hashlib
import hmac
import json
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import nbformat
from anyio.to_thread import run_sync
from jupyter_client.jsonutil import json_default
from jupyter_server.services.contents.filecheckpoints import AsyncFileCheckpoints
from jupyter_server.services.contents.handlers import ContentsHandler
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from nbformat.sign import NotebookNotary, yield_everything
from tornado.web import HTTPError, stream_request_body

from nbrun.core.formats.json_pieces import JsonPieces
from nbrun.core.notebook.file_writing import Piece, notebook_pieces
from nbrun.local_server.process.files import copy_whole, original_of, rewriting
from nbrun.storage.writable import mode_of

LARGE_FILE = 1 << 20
"""Bytes of a notebook that is read in pieces of this size."""

LARGE_PIECE = 1 << 16
"""Bytes of a piece that is hashed in another thread. It takes as long as the change of threads."""


class PrivateNotary(NotebookNotary):
    """Signs notebooks. If the signature database is locked or broken, the notebook is saved without a signature."""

    def new_signature(self) -> hmac.HMAC:
        """Return a signature to be updated with the bytes of a notebook."""
        return hmac.new(self.secret, digestmod=self.digestmod)

    def check_signature(self, nb: Any) -> bool:
        """Return whether the notebook was signed; False if the database cannot be read."""
        try:
            return bool(super().check_signature(nb))
        except sqlite3.Error as error:
            self.log.warning("The signature of a notebook could not be looked up: %s", error)
            return False

    def store_signature(self, signature: str) -> None:
        """Store the signature of a notebook."""
        try:
            self.store.store_signature(signature, self.algorithm)
        except sqlite3.Error as error:
            self.log.warning("A notebook was saved, but could not be signed: %s", error)


class AskedForCheckpoints(AsyncFileCheckpoints):
    """Checkpoints in the usual folder beside the notebooks, created only on request."""

    async def list_checkpoints(self, path: str) -> list[dict[str, Any]]:  # noqa: ARG002
        """Return an empty list without creating a folder. Each rename and deletion calls this."""
        return []

    async def kept(self, path: str) -> list[dict[str, Any]]:
        """Return the existing checkpoints."""
        kept: list[dict[str, Any]] = await super().list_checkpoints(path)
        return kept

    async def _copy(self, src: str, dest: str) -> None:
        """Copy a notebook to its checkpoint, or back. Both survive a full disk, and the notebook keeps its mode."""
        with self.perm_to_403(dest):
            await run_sync(copy_whole, src, dest)


State = tuple[int, int, int]
"""Inode, size and modification time: they show a change of a file without reading it."""


def state_of(os_path: str | int) -> State | None:
    """Return the current state of a file or an open descriptor, or None if it does not exist."""
    try:
        found = os.stat(os_path)  # noqa: PTH116 - open files have no path
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


class PrivateContents(AsyncLargeFileManager):
    """The stock files manager with faster saves of large outputs. A save completes even if nbrun ends meanwhile.

    A notebook that has changed since it was last read is not overwritten; the answer is 412.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._looked: dict[str, State | None] = {}
        """The state of each file when it was last read."""
        self._modes: dict[str, int] = {}
        """The permissions of each file at that time, for a file that is deleted and saved again."""
        self._written: dict[str, tuple[State | None, str]] = {}
        """The state of each notebook after its last save, and the hash of the written bytes."""

    def _checkpoints_class_default(self) -> type[AskedForCheckpoints]:
        return AskedForCheckpoints

    def _notary_default(self) -> PrivateNotary:
        return PrivateNotary(parent=self)

    async def get(self, path: str, *args: Any, **options: Any) -> Any:
        """Return the stock manager's model, and record the file's state."""
        os_path = self._get_os_path(path.strip("/"))
        self._looked[os_path] = state_of(os_path)  # before the read, so that a later change is detected
        if (mode := mode_of(Path(os_path))) is not None:
            self._modes[os_path] = mode
        return await super().get(path, *args, **options)

    async def save(self, model: dict[str, Any], path: str = "") -> Any:
        """Save like the stock manager."""
        with self.parent.control_pipe.saving():
            is_notebook = model.get("type") == "notebook" and "content" in model and "chunk" not in model
            return await (self._saved(model, path.strip("/")) if is_notebook else super().save(model, path))

    async def _saved(self, model: dict[str, Any], path: str) -> Any:
        """Save a notebook without a checkpoint; return its model with the hash of the written bytes.

        The stock manager copies all parts of the notebook as ``NotebookNode``, which takes longer than writing it.
        """
        os_path = self._get_os_path(path)
        errors: dict[str, Any] = {}
        try:
            await self._save_notebook(os_path, nbformat.NotebookNode(model["content"]), errors)
        except HTTPError:
            raise
        except Exception as error:
            self.log.exception("Error while saving file: %s", path)
            raise HTTPError(500, f"Unexpected error while saving file: {path} {error}") from error
        self.validate_notebook_model(model, validation_error=errors)
        message = {"message": model["message"]} if "message" in model else {}
        return await self.get(path, content=False) | message | self._hash(self._written[os_path][1])

    async def _notebook_model(self, path: str, content: bool = True, require_hash: bool = False) -> Any:
        """Return the stock manager's model, without reading a file that was written here and not changed since."""
        os_path = self._get_os_path(path)
        state, found = self._written.get(os_path, (None, ""))
        if content or not require_hash or state is None or state != state_of(os_path):
            return await super()._notebook_model(path, content=content, require_hash=require_hash)
        return await super()._notebook_model(path, content=False) | self._hash(found)

    async def _read_notebook(
        self, os_path: str, as_version: int = 4, capture_validation_error: Any = None, raw: bool = False
    ) -> Any:
        """Return the notebook like the stock manager, but a large one without its whole text in memory.

        With `raw`, the hash of a large one takes the place of its bytes, of which the stock manager needs nothing else.
        """
        state = state_of(os_path)
        if state is not None and state[1] > LARGE_FILE:
            found = hashlib.new(self.hash_algorithm)
            # The stock manager explains any error, and restores a file that is not whole.
            with contextlib.suppress(Exception):
                read = await run_sync(read_large_notebook, os_path, as_version, capture_validation_error, found)
                return (read, found) if raw else read
        return await super()._read_notebook(os_path, as_version, capture_validation_error, raw)

    def _get_hash(self, byte_content: Any) -> dict[str, str]:
        """Return the hash of bytes, or of a large notebook that has been read."""
        if not isinstance(byte_content, bytes):
            return self._hash(byte_content.hexdigest())
        hashed: dict[str, str] = super()._get_hash(byte_content)
        return hashed

    def _hash(self, found: str) -> dict[str, str]:
        return {"hash": found, "hash_algorithm": self.hash_algorithm}

    async def list_checkpoints(self, path: str) -> list[dict[str, Any]]:
        """Return the checkpoints of a file."""
        kept: list[dict[str, Any]] = await self.checkpoints.kept(path)
        return kept

    @contextlib.contextmanager
    def atomic_writing(self, os_path: str, *args: Any, **options: Any) -> Iterator[Any]:
        """Open a file for writing. A new file beside a notebook gets the notebook's permissions."""
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
        """Write and sign the same bytes as the stock manager, with the same validation."""
        if self._looked.get(os_path, now := state_of(os_path)) != now:
            raise HTTPError(412, "somebody else wrote to it since it was last looked at")
        is_trusted = self.notary.check_cells(nb)
        written, signature = hashlib.new(self.hash_algorithm), self.notary.new_signature()
        with self.atomic_writing(os_path, text=False) as file:
            await run_sync(write_notebook, nb, file, written, signature, capture_validation_error)
            file.flush()
            state = state_of(file.fileno())  # before the slow fsync, so that a change meanwhile is detected
            if is_trusted:
                self.notary.store_signature(signature.hexdigest())
            else:
                self.log.warning("Notebook %s is not trusted", os_path)
        self._written[os_path] = state, written.hexdigest()


@stream_request_body
class PrivateContentsHandler(ContentsHandler):
    """The stock handler, but without the texts of large requests and answers in memory."""

    def initialize(self) -> None:
        """Prepare to receive a body."""
        self._body = JsonPieces()
        self._answer: dict[str, Any] | None = None

    def data_received(self, chunk: bytes) -> None:
        """Receive a piece of the body, after the request is authenticated."""
        self._body.feed(chunk)

    def get_json_body(self) -> dict[str, Any] | None:
        """Return the value of the body."""
        try:
            value: dict[str, Any] | None = self._body.value()
        except (ValueError, RecursionError) as error:
            raise HTTPError(400, "Invalid JSON in body of request") from error
        return value

    async def get(self, path: str = "") -> None:
        """Return a model, and send a large notebook in pieces."""
        await super().get(path)
        if self._answer is not None:
            for piece in model_pieces(self._answer):
                self.write(piece)
                await self.flush()
            await self.finish()

    def _finish_model(self, model: dict[str, Any], location: bool = True) -> None:
        """Send the model; that of a large notebook is sent by :meth:`get`."""
        if model["type"] != "notebook" or not model["content"] or (model["size"] or 0) <= LARGE_FILE:
            super()._finish_model(model, location)
            return
        self.set_header("Last-Modified", model["last_modified"])
        self.set_header("Content-Type", "application/json")
        self._answer = model


def model_pieces(model: dict[str, Any]) -> Iterator[str]:
    """Yield the JSON of a notebook's model, one output at a time."""
    dumps = functools.partial(json.dumps, default=json_default)
    content = model["content"]
    others = {key: value for key, value in content.items() if key != "cells"}
    yield dumps({**{key: value for key, value in model.items() if key != "content"}, "content": others})[:-2]
    yield f'{", " * bool(others)}"cells": ['
    for number, cell in enumerate(content["cells"]):
        others = {key: value for key, value in cell.items() if key != "outputs"}
        yield ", " * bool(number) + dumps(others)[:-1]
        yield f'{", " * bool(others)}"outputs": [' if "outputs" in cell else ""
        for place, output in enumerate(cell.get("outputs", ())):
            yield ", " * bool(place) + dumps(output)
        yield "]}" if "outputs" in cell else "}"
    yield "]}}"


def read_large_notebook(os_path: str, as_version: int, capture_validation_error: Any, found: "hashlib._Hash") -> Any:
    """Return the same notebook as :func:`nbformat.read`, and hash its bytes; raise the errors of nbformat."""
    text = JsonPieces()
    with open(os_path, "rb") as file:  # noqa: PTH123
        while piece := file.read(LARGE_FILE):
            found.update(piece)
            text.feed(piece)
    value = text.value()
    del text
    major, minor = nbformat.reader.get_version(value)
    notebook = nbformat.versions[major].to_notebook_json(value, minor=minor)
    del value
    notebook = nbformat.convert(notebook, as_version)
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        if capture_validation_error is not None:
            capture_validation_error["ValidationError"] = error
    return notebook


class Beside:
    """A function that is called with pieces in order: with large ones in another thread, beside the caller.

    This pays for hash functions, which let other threads run meanwhile.
    """

    def __init__(self, function: Callable[[Piece], object], threads: ThreadPoolExecutor) -> None:
        self._function = function
        self._threads = threads
        self._last: Future[object] | None = None

    def __call__(self, piece: Piece) -> None:
        """Call the function, after its last call has returned."""
        self.wait()
        if len(piece) < LARGE_PIECE:
            self._function(piece)
        else:
            self._last = self._threads.submit(self._function, piece)

    def wait(self) -> None:
        """Wait until the last call has returned; raise its error."""
        last, self._last = self._last, None
        if last is not None:
            last.result()


def write_notebook(
    nb: Any,
    file: BinaryIO,
    written: "hashlib._Hash",
    signature: hmac.HMAC,
    capture_validation_error: Any = None,
) -> None:
    """Write the same bytes as :func:`nbformat.write`, without the text of all cells in memory; hash and sign them."""
    try:
        nbformat.validate(nb)
    except nbformat.ValidationError as error:
        if capture_validation_error is not None:
            capture_validation_error["ValidationError"] = error
    with ThreadPoolExecutor(2) as threads:
        hashing, signing = Beside(written.update, threads), Beside(signature.update, threads)
        for piece in pieces_of(nb, signing):
            hashing(piece)
            file.write(piece)
        hashing.wait()
        signing.wait()


def pieces_of(nb: Any, sign: Callable[[Piece], object]) -> Iterator[Piece]:
    """Yield the bytes of a notebook's file, and call `sign` with those that are signed."""
    if nb["nbformat"] == 4:
        yield from notebook_pieces(nb, secrets.token_hex(16), sign)
        return
    for data in yield_everything(nb):
        sign(data)
    text = nbformat.versions[nb["nbformat"]].writes_json(nbformat.from_dict(nb))
    yield text.encode("utf-8", "replace") + b"\n"
