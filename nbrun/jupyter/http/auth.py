"""Authentication of HTTP requests: token header, password login with cookies, XSRF tokens.

A request with a token needs no cookies and no XSRF check. So a client with a token sends nothing else and keeps no
cookies. Without a token, every request that changes something must carry the value of its ``_xsrf`` cookie in a header
too. The server compares the two values and does not store them, so the client can choose the value (OWASP: double
submit cookie).
"""

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from nbrun.errors import AccessDenied, NotAJupyterServer
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.http.messages import Answer, Request

Send = Callable[[Request], Awaitable[Answer]]
"""Sends one request without following redirects, and returns the answer with any status."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_SET_COOKIE = re.compile(r"\s*([^\s=;,]+)=([^;]*)")


class Auth:
    """The credentials of one client for one server: token, or cookies. ``repr`` shows none of them."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._cookies: dict[str, str] = {}
        self._logged_in = False
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        way = "token" if self._endpoint.token else "password" if self._endpoint.password else "none"
        return f"<Auth by {way}>"

    @property
    def secrets(self) -> list[str]:
        """Return the values that must not be shown: those of the cookies."""
        return [*self._cookies.values()]

    def headers(self, method: str) -> dict[str, str]:
        """Return the authentication headers for a request with this method."""
        if self._endpoint.token:
            return {"Authorization": f"token {self._endpoint.token}"}
        headers = (
            {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())} if self._cookies else {}
        )
        if method not in _SAFE and "_xsrf" in self._cookies:
            headers["X-XSRFToken"] = self._cookies["_xsrf"]
        return headers

    def websocket_headers(self) -> dict[str, str]:
        """Return the headers for the handshake of a kernel's websocket: Authorization, Cookie or none."""
        return self.headers("GET")

    async def prepare(self, send: Send) -> None:
        """Log in if there is a password and no login yet; raise :class:`AccessDenied` if the password is refused."""
        if self._endpoint.token or not self._endpoint.password:
            return
        async with self._lock:
            if not self._logged_in:
                await self._log_in(send, self._endpoint.password)

    async def second_chance(self, method: str, refused: Answer, send: Send) -> bool:
        """Return whether a request refused with `refused` may be sent again, after changing its credentials.

        With a password, the login has expired, for instance because the server was restarted. It is renewed. Without
        token and password, a write was refused because ``_xsrf`` is missing. The pair for a double submit is created.
        """
        if self._endpoint.token:
            return False
        if self._endpoint.password:
            async with self._lock:
                await self._log_in(send, self._endpoint.password)
            return True
        if method in _SAFE or "_xsrf" in self._cookies or "_xsrf" not in refused.quotation:
            return False
        self._cookies["_xsrf"] = secrets.token_hex(16)
        return True

    async def _log_in(self, send: Send, password: str) -> None:
        """Log in like a browser: fetch the form for its ``_xsrf`` cookie, post it, keep the login cookie."""
        self._cookies.clear()
        self._logged_in = False
        form = await send(Request("GET", "login"))
        self._keep(form)
        if form.status == 404:
            raise NotAJupyterServer(
                f"{form.where}: there is no login form to give the password to",
                hint="Hubs and gateways take tokens only.",
            )
        body = urlencode({"password": password, "_xsrf": self._cookies.get("_xsrf", "")}).encode()
        answer = await send(
            Request("POST", "login", body=[body], headers={"Content-Type": "application/x-www-form-urlencoded"})
        )
        self._keep(answer)
        if answer.status != 302 or not set(self._cookies) - {"_xsrf"}:
            raise AccessDenied(
                f"{answer.where}: the server does not accept this password ({answer.status})",
                hint="`jupyter server password` sets a new one on the server.",
            )
        self._logged_in = True

    def _keep(self, answer: Answer) -> None:
        """Store the answer's cookies exactly as written, quotes included. A cookie with an empty value is deleted."""
        for line in answer.cookies:
            if cookie := _SET_COOKIE.match(line):
                name, value = cookie[1], cookie[2].strip()
                if value.strip('"'):
                    self._cookies[name] = value
                else:
                    self._cookies.pop(name, None)
