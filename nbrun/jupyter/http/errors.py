"""The table that maps HTTP answers to errors: status, content type, body and URL.

Pure. The status alone is ambiguous. Jupyter Server returns 403 for a wrong token (with a message about a missing
``_xsrf``) and for a file without permission, and a hub returns it for a server that is not running. A login page has
status 200. So a rule checks status, content type, body and final URL together. The first matching rule applies.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from msgspec import Struct

from nbrun.errors import (
    AccessDenied,
    NotAJupyterServer,
    NotFound,
    RequestRefused,
    ServerError,
    ServerUnreachable,
    Throttled,
    TooLarge,
)
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.http.messages import Answer

_TOKEN_REFUSED = re.compile(r"_xsrf|^Forbidden$|XSRF", re.IGNORECASE)
_LONGEST_PLACE = 300
"""Maximum characters of an address in a message."""
_LOGIN = re.compile(r"/(?:login|oauth2?/authorize|oauth_login)$")

_HINT_ACCESS = (
    "Set NBRUN_TOKEN or NBRUN_PASSWORD, or name a file with --token-file; `jupyter server list` shows the token of a "
    "server on this machine."
)
HINT_HTTPS = "If the server uses TLS on this port, write https:// in --server."
_HINT_PAGE = "A login page, a proxy's error page, or not the base URL of the server: look at the address in a browser."
_HINT_STOPPED = "Start it in the hub's control panel, then run again."


class Rule(Struct, frozen=True):
    """A row of the table: a condition on the answer, and the error to raise.

    ``error`` receives the answer and the server's own message. Its text contains no address, because :func:`failure_of`
    adds the address to every error.
    """

    applies: Callable[[Answer], bool]
    error: Callable[[Answer, str], ServerError]


def access_refused(answer: Answer) -> bool:
    """Return whether the response means "not authenticated": 401, or one of Jupyter Server's two forms of 403."""
    if answer.status == 401:
        return True
    return answer.status == 403 and not answer.is_html and bool(_TOKEN_REFUSED.search(answer.quotation))


class _NotLetIn(AccessDenied):
    """The request is not authenticated. :func:`failure_of` distinguishes a missing token from a wrong one."""


def _hint_of_403(quoted: str) -> str:
    if re.search("permission denied", quoted, re.IGNORECASE):
        return (
            "The server's own user may not read or write there: name another path with -o, or change its permissions."
        )
    if re.search("resource limit|maximum|too many", quoted, re.IGNORECASE):
        return "The server starts no more kernels: try again when others have ended."
    return "The server, or a proxy in front of it, forbids this request to this user; it is not about the token alone."


def why_not_connected(reason: str, scheme: str) -> tuple[str, str]:
    """Return the cause of a failed connection and a hint; `reason` is the text of the operating system or of TLS."""
    lowered = reason.casefold()
    if "certificate" in lowered:
        if "mismatch" in lowered or "not valid for" in lowered:
            hint = "Write the host name of the certificate in --server; --insecure does not check certificates."
            return "its certificate is for another host name", hint
        detail = re.search(r"verify failed: ([^(]+)", reason)
        hint = "--ca-file FILE trusts the authority that signed it; --insecure does not check certificates."
        return f"its certificate is not trusted ({detail[1].strip() if detail else 'not verified'})", hint
    if scheme == "https" and ("ssl" in lowered or "tls" in lowered):
        return "it does not speak TLS on this port", "If it is a server without TLS, write http:// in --server."
    if "not known" in lowered or "nodename" in lowered or "getaddrinfo" in lowered or "name resolution" in lowered:
        return "its host name is not known", "Check the name in --server; some are known within a VPN only."
    if "refused" in lowered:
        hint = "Is the server running, and is this its port? `jupyter server list` shows the servers of this machine."
        return "connection refused", hint
    return reason or "no reason is known", "Is the server running, and is this its address?"


def _leads_to_login(answer: Answer) -> bool:
    """Return whether the answer is a login page or a redirect to one. A file can be named ``login`` too."""
    moved = 300 <= answer.status < 400
    place = answer.headers.get("location", "") if moved else answer.url
    return (moved or (answer.status < 300 and answer.is_html)) and bool(_LOGIN.search(place.partition("?")[0]))


def _not_followed(answer: Answer, quoted: str) -> RequestRefused:
    place = answer.headers.get("location", "nowhere")[:_LONGEST_PLACE]
    return RequestRefused(
        f"the server redirected to {place} ({answer.status}{quoted}), which was not followed",
        status=answer.status,
        hint="If that is the server's address, give it instead; a token is not carried to another host unasked.",
    )


def _unavailable(answer: Answer, quoted: str) -> ServerUnreachable:
    message = f"the server answered {answer.status}{quoted}"
    wait = retry_after(answer.headers.get("retry-after", ""), datetime.now(UTC))
    if wait is not None:
        return Throttled(message, retry_after=wait, hint="The server asks to come back later.")
    return ServerUnreachable(message, hint="A proxy answered for the server: it is down, starting or overloaded.")


RULES: tuple[Rule, ...] = (
    Rule(lambda a: a.status in {429, 502, 503, 504}, _unavailable),
    Rule(
        lambda a: a.status == 424,
        lambda _, quoted: RequestRefused(
            f"the hub says that this server is not running{quoted}", status=424, hint=_HINT_STOPPED
        ),
    ),
    Rule(
        lambda a: access_refused(a) or _leads_to_login(a),
        lambda a, quoted: _NotLetIn(f"the server does not accept the token or password ({a.status}{quoted})"),
    ),
    Rule(
        lambda a: a.status == 403 and a.is_html,
        lambda _, quoted: AccessDenied(
            f"refused with a web page (403{quoted})",
            hint="A proxy or a hub refuses the token, or the server behind it is not running.",
        ),
    ),
    Rule(
        lambda a: a.status == 413,
        lambda _, quoted: TooLarge(
            f"the body is too large for the server or a proxy before it (413{quoted})", status=413
        ),
    ),
    Rule(
        lambda a: a.status == 403,
        lambda _, quoted: RequestRefused(f"the server refused with 403{quoted}", status=403, hint=_hint_of_403(quoted)),
    ),
    Rule(
        lambda a: a.status == 400 and "HTTPS port" in a.quotation,
        lambda _, quoted: NotAJupyterServer(f"the server answered 400{quoted}", hint=HINT_HTTPS),
    ),
    Rule(lambda a: 300 <= a.status < 400, _not_followed),
    Rule(
        lambda a: a.is_html and bool(a.body.strip()) and (a.status < 400 or a.status in {404, 405}),
        lambda a, quoted: NotAJupyterServer(
            f"a web page was the answer ({a.status}{quoted}), not the API's JSON", hint=_HINT_PAGE
        ),
    ),
    Rule(lambda a: a.status == 404, lambda _, quoted: NotFound(f"not found{quoted}")),
    Rule(
        lambda a: a.status >= 400 or a.status < 200,
        lambda a, quoted: RequestRefused(f"the server refused with {a.status}{quoted}", status=a.status),
    ),
)


def failure_of(answer: Answer, endpoint: Endpoint) -> ServerError | None:
    """Return the error for `answer` without the endpoint's secrets, or None for a success."""
    for rule in RULES:
        if rule.applies(answer):
            quoted = f": {answer.quotation}" if answer.quotation else ""
            error = rule.error(answer, quoted)
            if isinstance(error, _NotLetIn):
                given = "the server wants a token or password, and none was given"
                message = str(error) if endpoint.token or endpoint.password else given
                error = AccessDenied(message, hint=_HINT_ACCESS)
                error.request = str(endpoint)
            else:
                error.request = endpoint.named(answer.method, answer.url)
            error.args = (endpoint.redacted(f"{error.request}: {error}"),)
            return error
    return None


def retry_after(value: str, now: datetime) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, 10.2.3), or None for an invalid one.

    The header contains seconds or a date, which is compared with `now`.
    """
    if value.strip().isdigit():
        return float(value) if len(value) < 10 else None
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now.timestamp())
