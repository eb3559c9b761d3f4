"""S3, Google Cloud Storage and Azure Blob Storage; the only module that imports obstore.

Credentials come from the standard sources that obstore reads: environment variables, files of workload identities and
the metadata service of the machine. Profiles of ``~/.aws`` need boto3. The texts of obstore's errors are never shown,
because they contain addresses with signatures: each error becomes a sentence about the status and the store's code.
"""

import asyncio
import contextlib
import importlib.util
import os
import re
import secrets
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PreconditionError
from obstore.store import AzureStore, GCSStore, S3Store, from_url

from nbrun.core.planning.destinations import without_credentials
from nbrun.errors import UsageError
from nbrun.storage.object_stores.base import (
    LIMIT,
    ConditionsIgnored,
    ObjectExists,
    ObjectState,
    StoredObject,
    StoreError,
    Unanswered,
    VersionChanged,
    check_answers,
    content_type_of,
    in_thread,
)

_NO_SUCH_OBJECT = (FileNotFoundError, NotFoundError)
_ERRORS = (BaseError, FileNotFoundError, ValueError)
_ATTEMPTS = 3
_SECOND_LOOK = 5.0
"""Seconds to find out whether a put without an answer arrived."""
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted")
_BUCKET_HINT = "nbrun creates no buckets. Is the name right, and the endpoint?"
_SOURCES = {
    "s3": "They come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE (with boto3) or the machine's role.",
    "gs": "They come from GOOGLE_APPLICATION_CREDENTIALS, gcloud's default login, or the machine's service account.",
    "az": "They come from AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or a SAS token, "
    "AZURE_STORAGE_CONNECTION_STRING, or the machine's identity.",
}
_NO_CREDENTIALS = re.compile(r"//169\.254\.|//metadata\.google|oken request|No credentials", re.IGNORECASE)
"""Signs of a request to a service that hands out credentials, which is tried if there are none."""
_KINDS = {"s3a": "s3", "gcs": "gs", "azure": "az", "abfs": "az", "abfss": "az"}


class CloudStore:
    """The objects below a URL such as ``s3://bucket/reports``."""

    def __init__(self, url: str) -> None:
        """Use this bucket and prefix; raise :class:`UsageError` if the URL or the configuration is not valid."""
        self.url = without_credentials(url)
        scheme = urlsplit(url).scheme.lower()
        self._kind = _KINDS.get(scheme, scheme)
        if not urlsplit(url).netloc:
            raise UsageError(f"{self.url}: the URL names no bucket", hint=f"Write {scheme}://BUCKET/NAME.")
        try:
            self._store = _open(url, self._kind, retries=_ATTEMPTS - 1)
            # A conditional put is not repeated by obstore: the answer to its repetition would say that it exists.
            self._once = _open(url, self._kind, retries=0)
        except _ERRORS as error:
            raise UsageError(f"{self.url}: {_configuration_problem(error)}", hint=_SOURCES[self._kind]) from None

    async def get(self, key: str) -> StoredObject | None:
        """Return an object, or None if there is none."""
        try:
            found = await self._do(lambda: obstore.get(self._store, key))
        except _Missing:
            return None
        data = bytes(await self._do(found.bytes, found.meta["size"]))
        return StoredObject(key, data, self._version(found.meta), found.meta["last_modified"])

    async def stat(self, key: str) -> ObjectState | None:
        """Return the version of an object, or None if there is none."""
        try:
            found = await self._do(lambda: obstore.head(self._store, key))
        except _Missing:
            # The answer to HEAD has no body that could say that the bucket is missing.
            return None
        return ObjectState(self._version(found), found["size"], found["last_modified"])

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str | None = None,
        only_new: bool = False,
        if_version: str | None = None,
    ) -> str:
        """Write an object in one request and return its version.

        If the answer is lost, the object is read to find out whether it arrived.
        """
        mode: Any = "create" if only_new else self._update(if_version) if if_version is not None else "overwrite"
        store = self._store if mode == "overwrite" else self._once
        await check_answers(self, key, len(data))
        attributes: Any = {"Content-Type": content_type or content_type_of(key)}

        def send() -> Any:
            return obstore.put(store, key, data, mode=mode, attributes=attributes, use_multipart=False)

        try:
            return self._version(await self._do(send, len(data)))
        except _Missing:
            if self._kind == "gs":
                raise self._no_bucket() from None
            raise VersionChanged(f"{self.url}: {key} is not there any more") from None
        except Unanswered as error:
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(_SECOND_LOOK):
                    found = await self.get(key)
                    if found is not None and found.data == data:
                        return found.version
            raise error from None

    async def keys(self, prefix: str = "") -> list[str]:
        """Return the sorted keys that begin with `prefix`."""
        folder = prefix.rpartition("/")[0]  # a store lists by whole segments
        try:
            found = await self._do(lambda: obstore.list(self._store, prefix=folder or None).collect())
        except _Missing:
            raise self._no_bucket() from None
        return sorted(each["path"] for each in found if each["path"].startswith(prefix))

    async def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""
        try:
            await self._do(lambda: obstore.delete(self._store, key))
        except _Missing:
            return

    async def check(self, key: str = "") -> None:  # noqa: ARG002
        """Raise :class:`StoreError` if the store is not reachable and writable, or ignores conditions.

        The check is a put of a new name under a condition that no object meets. A store first checks the credentials
        and the bucket, and then refuses the put, so that nothing is written and no right to delete is needed.
        """
        probe = f".nbrun-check-{secrets.token_hex(8)}"
        # On Google's store, generation 0 would stand for a new object.
        mode: Any = self._update("1" if self._kind == "gs" else f'"{"0" * 32}"')
        try:
            await self._do(lambda: obstore.put(self._store, probe, b"", mode=mode, use_multipart=False))
        except VersionChanged:
            return
        except _Missing:
            # Google answers 412 if there is no object, so 404 is about the bucket. S3 and Azure answer 404 and a code.
            if self._kind == "gs":
                raise self._no_bucket() from None
            return
        with contextlib.suppress(StoreError):
            await self.delete(probe)
        raise ConditionsIgnored(
            f"{self.url}: the store ignores conditions (If-Match, If-None-Match) of a put",
            hint="Two writers would overwrite each other's objects. Use a store with conditional writes.",
        )

    def _version(self, found: Any) -> str:
        """Return what identifies a version: the generation on Google's store, the ETag elsewhere."""
        return str((found["version"] if self._kind == "gs" else found["e_tag"]) or "")

    def _update(self, version: str) -> dict[str, str]:
        return {"version": version} if self._kind == "gs" else {"e_tag": version}

    async def _do(self, work: Callable[[], Any], size: int = 0) -> Any:
        """Return the result of one request, in time, or raise the error that its exception stands for.

        obstore's functions for asyncio are not used. They give results back from threads of their own, which makes
        Python abort with SIGABRT if the process ends shortly afterwards.
        """
        try:
            return await in_thread(self.url, work, size)
        except _ERRORS as error:
            raise self._problem(error) from None

    def _no_bucket(self) -> StoreError:
        what = "container" if self._kind == "az" else "bucket"
        return StoreError(f"{self.url}: there is no such {what}", hint=_BUCKET_HINT)

    def _problem(self, error: Exception) -> StoreError:
        text = str(error)
        status = _first(r"status code: (\d{3})", text)
        code = _first(r"<Code>\s*(\w+)\s*</Code>", text) or _first(r'"reason": ?"(\w+)"', text)
        shown = " ".join(filter(None, (f"HTTP {status}" if status else "", code if code != status else "")))
        if code in _NO_BUCKET or "bucket does not exist" in text:
            return self._no_bucket()
        if isinstance(error, AlreadyExistsError):
            return ObjectExists(f"{self.url}: the object exists")
        if isinstance(error, PreconditionError):
            return VersionChanged(f"{self.url}: the object has another version")
        if isinstance(error, _NO_SUCH_OBJECT):
            return _Missing(f"{self.url}: there is no such object")
        if _NO_CREDENTIALS.search(text):
            return StoreError(f"{self.url}: no credentials found", hint=_SOURCES[self._kind])
        if status in ("401", "403"):
            return StoreError(f"{self.url}: the store refuses the credentials ({shown})", hint=_SOURCES[self._kind])
        if status:
            return StoreError(f"{self.url}: the store answered {shown}")
        return Unanswered(f"{self.url}: the store cannot be reached ({_transport(text)})", hint=_REACH_HINT)


class _Missing(StoreError):
    """The object does not exist."""


_REACH_HINT = "Is the network there, and the endpoint right (AWS_ENDPOINT_URL, AZURE_STORAGE_ENDPOINT)?"


def _transport(text: str) -> str:
    """Return what happened to a connection, from an obstore error."""
    for sign, what in (
        ("ConnectionRefused", "connection refused"),
        ("dns error", "the host name is not known"),
        ("Connect", "no connection"),
        ("Timeout", "no answer in time"),
    ):
        if sign in text:
            return what
    return "the connection broke"


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else ""


def _configuration_problem(error: Exception) -> str:
    """Return a sentence for an error in the URL or the configuration, without any value of it."""
    if isinstance(error, ValueError):
        return "the URL or the configuration of the store is not valid"
    text = str(error).partition("\n")[0]
    missing = _first(r"[Mm]issing (\w+)|(\w+) must be specified", text)
    return f"the configuration of the store lacks {missing}" if missing else "the store's configuration is not valid"


def _open(url: str, kind: str, *, retries: int) -> Any:
    common: dict[str, Any] = {
        # Test servers and stores in a private network are reached by http://; the default endpoints are https://.
        "client_options": {"allow_http": True, "connect_timeout": "5s", "timeout": "600s", "user_agent": "nbrun"},
        "retry_config": {
            "max_retries": retries,
            "retry_timeout": timedelta(seconds=LIMIT),
            "backoff": {
                "init_backoff": timedelta(milliseconds=200),
                "max_backoff": timedelta(seconds=3),
                "base": 2,
            },
        },
    }
    parts = urlsplit(url)
    # Not the path of urlsplit: # and ? are part of a key.
    prefix = url.split("/", 3)[3].strip("/") if url.count("/") > 2 else ""
    common["prefix"] = prefix or None
    if kind == "s3":
        return S3Store(parts.netloc, **common, **_aws_profile(url))
    if kind == "gs":
        emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")
        if emulator:  # what Google's own clients read
            address = emulator if "://" in emulator else f"http://{emulator}"
            token: Any = {"token": "none", "expires_at": None}  # skip_signature has no effect on a put
            return GCSStore(parts.netloc, **common, config={"base_url": address}, credential_provider=lambda: token)
        return GCSStore(parts.netloc, **common)
    if parts.scheme.lower() in ("abfs", "abfss") and "@" in parts.netloc:  # container@account.dfs.core.windows.net
        del common["prefix"]
        return from_url(url, **common)
    return AzureStore(parts.netloc, **common, config=_azure_connection())


def _aws_profile(url: str) -> dict[str, Any]:
    """Return the provider of credentials from the user's files of AWS, if the environment contains none.

    Raises :class:`UsageError` if AWS_PROFILE is set and boto3, which reads these files, is not installed.
    """
    if os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_SKIP_SIGNATURE"):
        return {}
    named = os.environ.get("AWS_PROFILE")
    files = (os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), "~/.aws/config")
    if not named and not any(Path(each).expanduser().exists() for each in files):
        return {}
    if importlib.util.find_spec("boto3") is None:
        if named:
            where = f"{without_credentials(url)}: AWS_PROFILE needs boto3"
            raise UsageError(where, hint="Install it: pip install boto3. Or set AWS_ACCESS_KEY_ID and its secret.")
        return {}
    import boto3
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        session = boto3.Session()
        provider = {"credential_provider": Boto3CredentialProvider(session)}
    except (BotoCoreError, ValueError):
        if named:
            where = f"{without_credentials(url)}: AWS_PROFILE={named}: no credentials found"
            raise UsageError(where, hint=_SOURCES["s3"]) from None
        return {}
    return provider


def _azure_connection() -> dict[str, Any] | None:
    """Return the settings in AZURE_STORAGE_CONNECTION_STRING, which obstore does not read, or None."""
    text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
    if not text:
        return None
    pairs = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    names = {
        "AccountName": "account_name",
        "AccountKey": "account_key",
        "SharedAccessSignature": "sas_key",
        "BlobEndpoint": "endpoint",
    }
    return {ours: pairs[theirs] for theirs, ours in names.items() if theirs in pairs}
