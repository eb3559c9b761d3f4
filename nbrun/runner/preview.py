"""Create a :class:`Preview` of a run: read the notebook and find its kernel.

Nothing is started or changed. The kernels of this machine come from ``jupyter_client`` if it is installed. Otherwise
the notebook's metadata decides.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nbrun.core.notebook.document import Document
from nbrun.core.notebook.file_reading import notebook_content
from nbrun.core.planning.job import Job
from nbrun.core.planning.preview import Preview, make_preview
from nbrun.errors import NoSuchNotebook, NotFound
from nbrun.jupyter.kernelspecs import KernelSpecs
from nbrun.jupyter.local_kernelspecs import installed_kernelspecs
from nbrun.runner.job import Access, path_on_server
from nbrun.runner.plugins import literal_writer
from nbrun.runner.prepare_only import kernel_of
from nbrun.runner.servers import connect_to
from nbrun.storage.on_disk import read_bytes
from nbrun.storage.paths import hint_for_missing_on_server, local_notebook, refuse_other_kinds


def read_local(job: Job) -> bytes:
    """Return the text of a local notebook; raise :class:`UsageError`."""
    path = Path(job.notebook)
    if path.is_file():
        refuse_other_kinds(job.notebook, path)
    elif not path.exists():
        local_notebook(job.notebook)
    return read_bytes(path)


def preview_local(job: Job, content: bytes | None = None) -> Preview:
    """Return the preview of a run on this machine, of a file or of `content`; raise :class:`UsageError`."""
    data = read_local(job) if content is None else content
    document = Document(notebook_content(data, job.notebook), name=job.notebook)
    return _preview(document, job, installed_kernelspecs())


async def preview_on_server(job: Job, access: Access, content: bytes | None = None) -> Preview:
    """Return the preview of a run on a server, of a file there or of `content`; raise :class:`NbrunError`."""
    path = path_on_server(job.notebook) if content is None else ""
    async with connect_to(access) as client:
        if content is not None:
            found: Mapping[str, Any] = notebook_content(content, job.notebook)
        else:
            try:
                found = (await client.contents.notebook(path)).content
            except NotFound:
                raise NoSuchNotebook(
                    f"{path}: there is no such notebook on the server", hint=hint_for_missing_on_server(job.notebook)
                ) from None
        return _preview(Document(found, name=job.notebook), job, await client.kernelspecs(), job.env)


def _preview(
    document: Document, job: Job, kernels: KernelSpecs, env: Mapping[str, str] = MappingProxyType({})
) -> Preview:
    name, language, warning = kernel_of(document, job, kernels)
    preview = make_preview(document, job, name or None, language, literal_writer, env=env)
    return replace(preview, warnings=[*preview.warnings, *([warning] if warning else [])])
