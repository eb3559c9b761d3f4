"""Create a :class:`Preview` of a run: read the notebook and find its kernel.

Nothing is started or changed. The kernels of this machine come from ``jupyter_client`` if it is installed. Otherwise
the notebook's metadata decides.
"""

from dataclasses import replace
from pathlib import Path

from nbrun.core.notebook.document import Document
from nbrun.core.notebook.file_format import notebook_content
from nbrun.core.planning.job import Job
from nbrun.core.planning.preview import Preview, make_preview
from nbrun.errors import NoSuchNotebook, NotFound
from nbrun.jupyter.http.messages import Fields
from nbrun.jupyter.kernelspecs import KernelSpecs
from nbrun.runner.job import Access, path_on_server
from nbrun.runner.plugins import literal_writer
from nbrun.runner.prepare_only import kernel_of
from nbrun.runner.servers import connect_to
from nbrun.storage.on_disk import read_bytes
from nbrun.storage.paths import hint_for_missing_on_server, local_notebook, refuse_other_kinds

try:
    from jupyter_client.kernelspec import KernelSpecManager
except ImportError:
    KernelSpecManager = None


def preview_local(job: Job) -> Preview:
    """Return what a run of a notebook on this machine would do; raise :class:`UsageError`."""
    path = Path(job.notebook)
    if path.is_file():
        refuse_other_kinds(job.notebook, path)
    elif not path.exists():
        local_notebook(job.notebook)
    document = Document(notebook_content(read_bytes(path), str(path)), name=job.notebook)
    return _preview(document, job, _local_kernels())


async def preview_on_server(job: Job, access: Access) -> Preview:
    """Return what a run of a notebook on a server would do; raise :class:`NbrunError`."""
    path = path_on_server(job.notebook)
    async with connect_to(access) as client:
        try:
            content = (await client.contents.notebook(path)).content
        except NotFound:
            raise NoSuchNotebook(
                f"{path}: there is no such notebook on the server", hint=hint_for_missing_on_server(job.notebook)
            ) from None
        return _preview(Document(content, name=job.notebook), job, await client.kernelspecs())


def _preview(document: Document, job: Job, kernels: KernelSpecs | None) -> Preview:
    name, language, warning = kernel_of(document, job, kernels)
    preview = make_preview(document, job, name or None, language, literal_writer)
    return replace(preview, warnings=[*preview.warnings, *([warning] if warning else [])])


def _local_kernels() -> KernelSpecs | None:
    if KernelSpecManager is None:
        return None
    found = KernelSpecManager().get_all_specs()
    default = "python3" if "python3" in found else ""
    return KernelSpecs.read(Fields({"default": default, "kernelspecs": found}, "this machine"), "this machine")
