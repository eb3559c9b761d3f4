"""Open an object store by its URL: a folder, S3, Google, Azure, a web server, fsspec.

::

    open_store("reports/")            FolderStore   folder.py, no extra
    open_store("s3://bucket/reports") CloudStore    s3_gcs_azure.py, extra ``cloud``
    open_store("https://host/dav")    HttpStore     web_server.py, no extra
    open_store("sftp://host/dir")     FsspecStore   with_fsspec.py, needs fsspec and a package for the scheme

The modules of the stores are imported only when a URL names them. The protocol is in ``base.py``.
"""

from pathlib import Path
from urllib.parse import unquote

from nbrun.core.planning.destinations import CLOUD_SCHEMES, WEB_SCHEMES, is_url, split_url, without_credentials
from nbrun.errors import UsageError
from nbrun.storage.object_stores.base import (
    ObjectStore,
)
from nbrun.storage.object_stores.folder import FolderStore

INSTALL = "Install the extra: pip install 'jupyter-nbrun[cloud]'"


def open_store(url: str) -> ObjectStore:
    """Return the store at a URL or folder path. Nothing is requested yet.

    Raises :class:`UsageError` for a URL that is not valid, an unknown scheme, or a missing extra.
    """
    if not is_url(url):
        return FolderStore(Path(url))
    parts = split_url(url)
    scheme = parts.scheme.lower()
    if scheme == "file":
        return FolderStore(Path(unquote(parts.path)))
    if scheme in WEB_SCHEMES:
        from nbrun.storage.object_stores.web_server import HttpStore

        return HttpStore(url)
    if scheme not in CLOUD_SCHEMES:
        return _by_fsspec(url, scheme)
    try:
        from nbrun.storage.object_stores.s3_gcs_azure import CloudStore
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        raise UsageError(f"{without_credentials(url)}: {scheme}:// needs obstore", hint=INSTALL) from None
    return CloudStore(url)


def _by_fsspec(url: str, scheme: str) -> ObjectStore:
    try:
        from nbrun.storage.object_stores.with_fsspec import FsspecStore
    except ModuleNotFoundError as error:
        if error.name != "fsspec":
            raise
        where = f"{without_credentials(url)}: {scheme}:// needs fsspec"
        raise UsageError(where, hint="Install it: pip install fsspec. s3://, gs:// and az:// need obstore.") from None
    return FsspecStore(url)


def open_parent(url: str) -> tuple[ObjectStore, str]:
    """Return the store of one object's parent, and the object's key in it; raise :class:`UsageError`."""
    parts = split_url(url)
    if parts.scheme.lower() in WEB_SCHEMES:
        parent, _, name = parts.path.rpartition("/")
        parent += "/"
        name = unquote(name)
        rest = parts._replace(path=parent).geturl()
    else:  # the other stores have no queries and no escapes: # and ? are part of the key
        rest, _, name = url.rpartition("/")
        if rest.endswith((":/", ":")) or rest.count("/") < 2:
            rest, name = "", ""
    if not name:
        raise UsageError(f"{without_credentials(url)}: the URL names no object", hint="Add a name after the last /.")
    return open_store(rest), name
