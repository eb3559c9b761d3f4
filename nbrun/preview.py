"""The way to :class:`Preview`: reads the notebook, looks for its kernel, starts and changes nothing.

Which kernels this machine has is asked of ``jupyter_client``, where it is installed; else the notebook is taken at its
word.
"""

from dataclasses import replace
from pathlib import Path

from nbrun.core.document import Document
from nbrun.core.job import Job
from nbrun.core.jsontext import as_object
from nbrun.core.notebook_text import notebook_content
from nbrun.core.preview import Preview, make_preview
from nbrun.errors import NoSuchKernel, NoSuchNotebook, NotANotebook, NotFound, UsageError
from nbrun.jupyter.client import connect
from nbrun.jupyter.endpoint import Destination, contents_path
from nbrun.jupyter.exchange import Fields
from nbrun.jupyter.http import HttpOptions
from nbrun.jupyter.kernelspecs import KernelSpecs
from nbrun.plugins import literal_writer

try:
    from jupyter_client.kernelspec import KernelSpecManager
except ImportError:
    KernelSpecManager = None


def preview_local(job: Job) -> Preview:
    """Tell what a run of a notebook on this machine would do; raises :class:`UsageError`."""
    path = Path(job.notebook)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        hint = f"nbrun looked in {path.absolute().parent}. For a notebook on a server, say --server URL."
        raise NoSuchNotebook(f"{path}: there is no such file", hint=hint) from None
    except IsADirectoryError:
        raise NotANotebook(f"{path}: this is a folder", hint="Name the notebook in it.") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    document = Document(notebook_content(data, str(path)), name=job.notebook)
    return _preview(document, job, _local_kernels(), "this machine")


async def preview_on_server(job: Job, endpoint: Destination, options: HttpOptions) -> Preview:
    """Tell what a run of a notebook on a server would do; raises :class:`NbrunError`."""
    async with connect(endpoint, options=options) as client:
        path = contents_path(job.notebook)
        try:
            content = (await client.contents.notebook(path)).content
        except NotFound:
            raise NoSuchNotebook(f"{path}: there is no such notebook on the server") from None
        return _preview(Document(content, name=job.notebook), job, await client.kernelspecs(), "the server")


def _preview(document: Document, job: Job, kernels: KernelSpecs | None, where: str) -> Preview:
    named = as_object(document.metadata.get("kernelspec"))
    language = str(as_object(document.metadata.get("language_info")).get("name") or named.get("language") or "")
    name, warning = job.kernel or str(named.get("name") or ""), ""
    if kernels is None:
        warning = "which kernels there are is not known here: jupyter_client is not installed"
    else:
        try:
            spec = kernels.choose(job.kernel, document.metadata)
            name, language = spec.name, spec.language
        except NoSuchKernel as error:
            warning = f"{str(error).replace('the server', where)}. {error.hint}"
    preview = make_preview(document, job, name or None, language, literal_writer)
    return replace(preview, warnings=[*preview.warnings, *([warning] if warning else [])])


def _local_kernels() -> KernelSpecs | None:
    if KernelSpecManager is None:
        return None
    found = KernelSpecManager().get_all_specs()
    default = "python3" if "python3" in found else ""
    return KernelSpecs.read(Fields({"default": default, "kernelspecs": found}, "this machine"))
