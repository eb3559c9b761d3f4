"""The contents API: read, save and delete notebooks, files and folders on the server.

Paths are the server's: relative to its root, with ``/`` between segments, not percent-encoded. The answer to a save has
no hash. A status of 200 does not prove that the file contains what was sent, because a concurrent read can revert a
save. :meth:`Contents.stat` shows what the file contains.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, Self

from msgspec import Struct

from nbrun.core.notebook.request_body import NotebookBody
from nbrun.errors import NotAJupyterServer, NotANotebook, NotFound, RequestRefused, ServerUnreachable, UsageError
from nbrun.jupyter.endpoint import api_path, contents_path
from nbrun.jupyter.http.client import Http, json_bytes
from nbrun.jupyter.http.messages import LONG, Body, Fields, rows_of
from nbrun.jupyter.http.retry import ONCE, PATIENT_GET, SAVE, RetryPolicy

NO_FILES_HINT = (
    "It serves kernels only, as a gateway does. Write --engine gateway+URL instead of --server URL, or pipe the "
    "notebook through: nbrun run - --server URL < in.ipynb > out.ipynb"
)


@dataclass(frozen=True, slots=True)
class ContentsModel:
    """A file, notebook or folder as the server describes it. Fields that the server left out are None.

    ``type`` is ``notebook``, ``file`` or ``directory``. ``path`` is the server's canonical path. ``size`` is in bytes.
    ``content`` is None if it was not requested. Otherwise it is a notebook's JSON, a file's text (base64 if ``format``
    is ``base64``), or a tuple of models. ``hash`` is hexadecimal, of the bytes on disk, and None on servers before
    2.11. ``message`` is set if a notebook is invalid but was read or saved all the same.
    """

    name: str
    path: str
    type: str
    format: str | None = None
    content: Any = field(default=None, repr=False)
    last_modified: datetime | None = None
    created: datetime | None = None
    size: int | None = None
    writable: bool | None = None
    hash: str | None = None
    hash_algorithm: str | None = None
    mimetype: str | None = None
    message: str | None = None

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the server's JSON; raise :class:`NotAJupyterServer` if name, path or type is missing."""
        kind, content, writable = fields.text("type"), fields.raw("content"), fields.raw("writable")
        if kind == "directory" and content is not None:
            content = tuple(cls.read(row) for row in rows_of(content, f"{fields.where}, 'content'"))
        return cls(
            name=fields.text("name"),
            path=fields.text("path").strip("/"),
            type=kind,
            format=fields.maybe_text("format"),
            content=content,
            last_modified=fields.maybe_time("last_modified"),
            created=fields.maybe_time("created"),
            size=fields.maybe_integer("size"),
            writable=writable if isinstance(writable, bool) else None,
            hash=fields.maybe_text("hash"),
            hash_algorithm=fields.maybe_text("hash_algorithm"),
            mimetype=fields.maybe_text("mimetype"),
            message=fields.maybe_text("message"),
        )


class Saved(Struct, frozen=True):
    """The answer to a save; ``created`` is true if the file did not exist before."""

    model: ContentsModel
    created: bool


class Checkpoint(Struct, frozen=True):
    """A copy of a file on the server that can be restored. The stock server keeps one per file."""

    id: str
    last_modified: datetime | None

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Read the server's JSON; raise :class:`NotAJupyterServer` if the id is missing."""
        return cls(fields.identifier("id"), fields.maybe_time("last_modified"))


def kernel_path(notebook: str, cwd: str | None) -> str:
    """Return the path at which a notebook's kernel is started. It works in `cwd`, or in the notebook's folder."""
    return notebook if cwd is None else str(PurePosixPath(cwd, PurePosixPath(notebook).name))


class Contents:
    """The files of one server.

    Every method may raise the errors of :meth:`Http.request`, and :class:`UsageError` for a path with ``.``, ``..`` or
    NUL. Reads, saves and deletions are repeated while the server is unreachable. Other requests are sent once.
    """

    def __init__(self, http: Http) -> None:
        self._http = http

    async def get(
        self,
        path: str,
        *,
        content: bool = True,
        kind: str | None = None,
        form: str | None = None,
        with_hash: bool = False,
        retry: RetryPolicy = PATIENT_GET,
    ) -> ContentsModel:
        """Return a file, notebook or folder. Without `kind` (the API's ``type``) the server guesses it from the name.

        `form` is the API's ``format``, ``text`` or ``base64``, for files only. Raises :class:`NotFound`, also for
        hidden files, and :class:`RequestRefused` (400) for a file of another kind or an unreadable one.

        Do not read a notebook's content while another request may save it: the server then restores its previous
        version.
        """
        params = _params(content=content, kind=kind, form=form, with_hash=with_hash)
        answer = await self._http.request("GET", api_path("contents", path), params=params, patience=LONG, retry=retry)
        return ContentsModel.read(answer.fields())

    def read_ahead(self, path: str, *, content: bool = True, kind: str | None = None, with_hash: bool = False) -> None:
        """Send the request of a :meth:`get` that follows soon, see :meth:`Http.read_ahead`."""
        params = _params(content=content, kind=kind, with_hash=with_hash)
        self._http.read_ahead(api_path("contents", path), params=params, patience=LONG)

    async def directory(self, path: str = "") -> tuple[ContentsModel, ...]:
        """Return a folder's entries without content, in the server's order; raise :class:`RequestRefused` (400) for a
        file.
        """
        model = await self.get(path, kind="directory")
        return model.content if isinstance(model.content, tuple) else ()

    async def notebook(self, path: str) -> ContentsModel:
        """Return a notebook with content and hash.

        The server joins multi-line strings and converts nbformat 3 to 4.5. Raises :class:`NotANotebook` for a folder
        and for a file that is not a readable notebook.
        """
        try:
            model = await self.get(path, kind="notebook", with_hash=True)
        except RequestRefused as error:
            if error.status == 400:
                raise NotANotebook(str(error), hint="Open it in a text editor: it should be one JSON object.") from None
            raise
        if model.type != "notebook" or not isinstance(model.content, dict):
            raise NotANotebook(f"{path}: the server gives a {model.type} without a notebook in it")
        return model

    async def text(self, path: str) -> str:
        """Return a file's text as it is on disk. This also works for a notebook, and is safe during a save."""
        model = await self.get(path, kind="file", form="text")
        return model.content if isinstance(model.content, str) else ""

    async def data(self, path: str) -> bytes:
        """Return a file's bytes."""
        model = await self.get(path, kind="file", form="base64")
        try:
            return base64.b64decode(model.content if isinstance(model.content, str) else "")
        except ValueError:
            raise NotAJupyterServer(f"{path}: the server's base64 cannot be read") from None

    async def stat(self, path: str, *, retry: RetryPolicy = PATIENT_GET) -> ContentsModel:
        """Return everything except the content, with the hash if the server supports hashes. Safe during a save."""
        return await self.get(path, content=False, with_hash=True, retry=retry)

    async def exists(self, path: str) -> bool:
        """Return whether there is a file or folder at `path` that is not hidden."""
        try:
            await self.get(path, content=False)
        except NotFound:
            return False
        return True

    async def require_folder(self, path: str) -> None:
        """Raise :class:`UsageError` if the folder does not exist; a server silently starts a kernel in another one."""
        try:
            found = (await self.get(path, content=False)).type
        except NotFound:
            found = ""
        if found != "directory":
            hint = "Paths on a server are relative to its root folder; hidden ones do not exist for it."
            raise UsageError(f"{path}: there is no such folder on the server to work in", hint=hint)

    async def save(self, path: str, body: Body, *, retry: RetryPolicy = SAVE) -> Saved:
        """Save an encoded contents model: ``{"type": "notebook", "format": "json", "content": …}``.

        The PUT is repeated while the server is unreachable. A repetition may report ``created=False`` although this
        call created the file. Raises :class:`TooLarge`, or :class:`RequestRefused`: 500 for a missing parent folder or
        a full disk, 403 without permission, 400 for a hidden path.
        """
        answer = await self._http.request("PUT", api_path("contents", path), content=body, patience=LONG, retry=retry)
        return Saved(ContentsModel.read(answer.fields()), answer.status == 201)

    async def save_notebook(self, path: str, content: Mapping[str, Any], *, retry: RetryPolicy = SAVE) -> Saved:
        """Save the JSON of a notebook, and create or overwrite the file; errors as in :meth:`save`.

        `content` must not change until the call returns.
        """
        return await self.save(path, NotebookBody(content), retry=retry)

    async def save_file(self, path: str, content: str | bytes) -> Saved:
        """Save text or bytes unchanged, and create or overwrite the file; errors as in :meth:`save`."""
        if isinstance(content, str):
            return await self.save(path, [json_bytes({"type": "file", "format": "text", "content": content})])
        text = base64.b64encode(content).decode()
        return await self.save(path, [json_bytes({"type": "file", "format": "base64", "content": text})])

    async def make_directory(self, path: str) -> Saved:
        """Create one folder in an existing one. An existing folder stays unchanged but is reported as ``created``."""
        return await self.save(path, [json_bytes({"type": "directory"})])

    async def make_parents(self, path: str) -> None:
        """Create the parent folders of `path`, from the top, because the API creates one level at a time."""
        parents = PurePosixPath(contents_path(path)).parents
        for parent in reversed(list(parents)[:-1]):
            if not await self.exists(str(parent)):
                try:
                    await self.make_directory(str(parent))
                except RequestRefused:  # 500 if another client creates it at the same moment
                    if not await self.exists(str(parent)):
                        raise

    async def create_untitled(
        self, directory: str = "", *, kind: str = "notebook", extension: str = ""
    ) -> ContentsModel:
        """Create a notebook, file or folder with a free name. `extension`, with its dot, is for files."""
        body = {"type": kind} | ({"ext": extension} if extension else {})
        return await self._changed("POST", directory, body)

    async def copy(self, path: str, directory: str) -> ContentsModel:
        """Copy a file into a folder, with a free name that the server chooses."""
        return await self._changed("POST", directory, {"copy_from": contents_path(path)})

    async def rename(self, path: str, new_path: str) -> ContentsModel:
        """Rename a file or folder; raise :class:`RequestRefused` (409) if the new path exists."""
        return await self._changed("PATCH", path, {"path": contents_path(new_path)})

    async def delete(self, path: str) -> None:
        """Delete a file or folder. The stock server moves it to the trash of its machine if there is one.

        Raises :class:`NotFound` if it did not exist, unless an earlier attempt of this call may have deleted it, and
        :class:`UsageError` for the root.
        """
        if not contents_path(path):
            raise UsageError("the server's root folder cannot be deleted")
        await self._delete(api_path("contents", path))

    async def checkpoints(self, path: str) -> tuple[Checkpoint, ...]:
        """Return a file's checkpoints."""
        answer = await self._http.request("GET", api_path("contents", path, "checkpoints"))
        return tuple(Checkpoint.read(row) for row in answer.rows())

    async def create_checkpoint(self, path: str) -> Checkpoint:
        """Create a checkpoint. On the stock server it replaces the existing one, which the user may need."""
        answer = await self._http.request("POST", api_path("contents", path, "checkpoints"), patience=LONG)
        return Checkpoint.read(answer.fields())

    async def restore_checkpoint(self, path: str, checkpoint_id: str) -> None:
        """Restore a file from a checkpoint; raise :class:`RequestRefused` (500) if the checkpoint does not exist."""
        await self._http.request("POST", api_path("contents", path, "checkpoints", checkpoint_id), patience=LONG)

    async def delete_checkpoint(self, path: str, checkpoint_id: str) -> None:
        """Delete a checkpoint; raise :class:`NotFound` if it does not exist."""
        await self._delete(api_path("contents", path, "checkpoints", checkpoint_id))

    async def _changed(self, method: str, path: str, body: Mapping[str, str]) -> ContentsModel:
        answer = await self._http.request(method, api_path("contents", path), json=body, patience=LONG)
        return ContentsModel.read(answer.fields())

    async def _delete(self, path: str) -> None:
        repeated = False
        async for attempt in PATIENT_GET.attempts():
            with attempt:
                try:
                    await self._http.request("DELETE", path, retry=ONCE)
                except NotFound:
                    if not repeated:
                        raise
                except ServerUnreachable:
                    repeated = True
                    raise


def _params(
    *, content: bool, kind: str | None = None, form: str | None = None, with_hash: bool = False
) -> dict[str, str]:
    """Return the query of a GET."""
    params = {"content": str(int(content))} | ({"hash": "1"} if with_hash else {})
    return params | {name: value for name, value in (("type", kind), ("format", form)) if value is not None}
