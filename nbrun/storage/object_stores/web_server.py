"""A web server that takes PUT, such as WebDAV, or the signed URL of an object.

A query of the URL is sent with each request, because it can be a signature. User and password of the URL are sent as
basic authentication. A PUT is never redirected: the body would go to a server that the user has not named.
"""

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import httpx

from nbrun.core.planning.destinations import without_credentials
from nbrun.errors import UsageError
from nbrun.storage.object_stores.base import (
    LIMIT,
    ObjectExists,
    ObjectState,
    StoredObject,
    StoreError,
    Unanswered,
    VersionChanged,
    check_answers,
    content_type_of,
    in_time,
)

_MISSING = (404, 410)
_NO_READING = (405, 501)
_NO_FOLDER, _FOLDER_IS_THERE = 409, (201, 405)
_CONFLICT = (409, 412)
_LARGEST = 500 << 20


class HttpStore:
    """The objects below a URL. It can neither list nor be trusted to honour conditions."""

    def __init__(self, url: str) -> None:
        """Use this URL as the folder of all objects; raise :class:`UsageError` if it is not valid."""
        self.url = without_credentials(url)
        self._own: dict[str, ObjectState] = {}
        """What was put. A server may take objects without showing them."""
        try:
            self._base = httpx.URL(url)
            self._base.raw_path.decode("ascii")
        except (httpx.InvalidURL, ValueError):
            raise UsageError(f"{self.url}: this is not a valid URL", hint="Write https://HOST/NAME.") from None
        if not self._base.host:
            raise UsageError(f"{self.url}: the URL names no host", hint="Write https://HOST/NAME.")

    async def get(self, key: str) -> StoredObject | None:
        """Return an object, or None if there is none. Redirects are followed; the password stays with its host."""
        async with (
            self._requests(key) as client,
            in_time(self.url, _LARGEST),  # a server that sends nothing for some time ends the request earlier
            client.stream("GET", self._at(key), follow_redirects=True) as answer,
        ):
            if answer.status_code in _MISSING:
                return None
            self._raise_for(answer)
            pieces, size = [], 0
            async for piece in answer.aiter_bytes():
                size += len(piece)
                if size > _LARGEST:
                    raise StoreError(f"{self._shown(key)}: larger than {_LARGEST >> 20} MiB")
                pieces.append(piece)
        state = _state(answer)
        return StoredObject(key, b"".join(pieces), state.version, state.modified)

    async def stat(self, key: str) -> ObjectState | None:
        """Return the version of an object, or None if there is none or the server does not say."""
        async with self._requests(key) as client, in_time(self.url):
            answer = await client.head(self._at(key), follow_redirects=True)
        if answer.status_code in (*_MISSING, *_NO_READING) or self._may_only_put(answer):
            return self._own.get(key)
        self._raise_for(answer)
        return _state(answer)

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str | None = None,
        only_new: bool = False,
        if_version: str | None = None,
    ) -> str:
        """Write an object in one PUT and return its ETag, or "" if the server sends none."""
        headers = {"Content-Type": content_type or content_type_of(key)}
        if only_new:
            headers["If-None-Match"] = "*"
        elif if_version:
            headers["If-Match"] = if_version
        await check_answers(self, key, len(data))
        async with self._requests(key) as client, in_time(self.url, len(data)):
            answer = await client.put(self._at(key), content=data, headers=headers)
            if answer.status_code == _NO_FOLDER and not self._base.query and await self._make_folders(client, key):
                answer = await client.put(self._at(key), content=data, headers=headers)
        if answer.status_code in _CONFLICT and (only_new or if_version):
            raise (ObjectExists if only_new else VersionChanged)(f"{self._shown(key)}: somebody else wrote it")
        self._raise_for(answer)
        self._own[key] = ObjectState(str(answer.headers.get("etag", "")), len(data))
        return self._own[key].version

    async def _make_folders(self, client: httpx.AsyncClient, key: str) -> bool:
        """Create the folders above an object, which WebDAV requires; return whether a PUT can be tried again."""
        *parts, _ = self._at(key).raw_path.decode("ascii").split("/")[1:]
        status = 0
        for end in range(len(parts)):
            folder = self._base.copy_with(raw_path=f"/{'/'.join(parts[: end + 1])}/".encode())
            status = (await client.request("MKCOL", folder)).status_code
        return status in _FOLDER_IS_THERE

    async def keys(self, prefix: str = "") -> list[str]:  # noqa: ARG002
        """Raise :class:`StoreError`, because web servers have no common way to list."""
        raise StoreError(f"{self.url}: a web server cannot list what it stores", hint="Use a folder or s3://.")

    async def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""
        async with self._requests(key) as client, in_time(self.url):
            answer = await client.delete(self._at(key))
        self._own.pop(key, None)
        if answer.status_code not in _MISSING:
            self._raise_for(answer)

    async def check(self, key: str = "") -> None:
        """Raise :class:`StoreError` if the server is not reachable, fails, or refuses the credentials."""
        async with self._requests(key) as client, in_time(self.url):
            answer = await client.head(self._at(key), follow_redirects=False)
        if answer.status_code in (401, 407) or (answer.status_code == 403 and not self._may_only_put(answer)):
            self._raise_for(answer)
        if answer.is_server_error and answer.status_code not in _NO_READING:
            self._raise_for(answer)

    def _may_only_put(self, answer: httpx.Response) -> bool:
        """Return whether a refused request says nothing about a PUT: a signature is valid for one method only."""
        return answer.status_code in (400, 403) and bool(self._base.query)

    def _at(self, key: str) -> httpx.URL:
        folder = self._base.raw_path.partition(b"?")[0].decode("ascii").rstrip("/")
        path = f"{folder}/{quote(key)}"
        query = self._base.query
        return self._base.copy_with(raw_path=path.encode() + (b"?" + query if query else b""))

    def _shown(self, key: str) -> str:
        return f"{self.url.rstrip('/')}/{key}"

    @contextlib.asynccontextmanager
    async def _requests(self, key: str) -> AsyncIterator[httpx.AsyncClient]:
        # identity: the stored bytes are wanted, and their ETag.
        headers = {"User-Agent": "nbrun", "Accept-Encoding": "identity"}
        timeout = httpx.Timeout(LIMIT, connect=5.0)
        try:
            async with httpx.AsyncClient(headers=headers, timeout=timeout, max_redirects=5) as client:
                yield client
        except httpx.TooManyRedirects:
            raise StoreError(f"{self._shown(key)}: too many redirects") from None
        except httpx.TransportError as error:
            what = str(error).partition("\n")[0] or type(error).__name__
            where, hint = self._shown(key), "Is the address right, and is a proxy needed (HTTPS_PROXY)?"
            raise Unanswered(f"{where}: the server cannot be reached ({what})", hint=hint) from None

    def _raise_for(self, answer: httpx.Response) -> None:
        if answer.is_success:
            return
        where = without_credentials(str(answer.url))
        status = f"HTTP {answer.status_code} {answer.reason_phrase}".strip()
        if answer.is_redirect:
            hint = "A PUT is never redirected. Write the final address."
            raise StoreError(f"{where}: the server redirects to another address ({status})", hint=hint)
        if answer.status_code in (401, 403, 407):
            hint = "They are part of the URL: https://USER:PASSWORD@HOST/PATH. A signed URL may have expired."
            raise StoreError(f"{where}: the server refuses the credentials ({status})", hint=hint)
        raise StoreError(f"{where}: the server answered {status}")


def _state(answer: httpx.Response) -> ObjectState:
    size = answer.headers.get("content-length", "")
    return ObjectState(
        str(answer.headers.get("etag", "")), int(size) if size.isdigit() else None, _date(answer.headers)
    )


def _date(headers: httpx.Headers) -> datetime | None:
    try:
        return parsedate_to_datetime(headers.get("last-modified", ""))
    except (ValueError, TypeError):
        return None
