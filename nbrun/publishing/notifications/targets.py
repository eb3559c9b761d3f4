"""Where notifications go: the values of ``--notify`` and ``--ping``, mostly secrets.

A target is shown by its ``name``, which contains nothing secret: the way in which it was given, or its scheme.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from nbrun.errors import UsageError

_MAIL, _WEB = ("mailto", "mailtos"), ("http", "https")
_SHORTEST_SECRET = 4
_HINT = "Write env:NAME for the variable, or file:PATH for the file, that contains the URL."


@dataclass(frozen=True, slots=True)
class MailServer:
    """A mail server and the message's sender and recipients.

    ``tls`` is ``always`` from the beginning, ``required`` by STARTTLS, or ``offered`` for STARTTLS where the server has
    it.
    """

    host: str
    port: int
    tls: str
    sender: str
    recipients: tuple[str, ...]
    user: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Target:
    """A place for notifications, which a value of `option` names."""

    option: str
    name: str
    url: str = field(repr=False)
    mail: MailServer | None = None

    @property
    def label(self) -> str:
        """Return the option and the name, for messages."""
        return f"{self.option} {self.name}"

    @property
    def secrets(self) -> list[str]:
        """Return the texts that must not be shown: the URL, and what it contains."""
        parts = urlsplit(self.url)
        found = [self.url, unquote(parts.password or ""), parts.password or ""]
        found += [] if self.mail is not None else [parts.path.strip("/"), parts.query]
        return [text for text in found if len(text) >= _SHORTEST_SECRET]

    @property
    def is_web(self) -> bool:
        """Return whether the target is an HTTP hook."""
        return urlsplit(self.url).scheme in _WEB


def read_target(option: str, given: str, environment: MutableMapping[str, str], *, typed: bool) -> Target:
    """Return the target that a value of `option` names; raise :class:`UsageError`.

    A variable that contains a URL is removed from the environment, so that no kernel inherits it. If `typed`, the value
    is on the command line, which other users of the machine can read.
    """
    kind, _, rest = given.partition(":")
    if kind == "env":
        url, name = environment.pop(rest, "").strip(), given
        if not url:
            raise UsageError(
                f"{option} {given}: the variable is not set", hint="Set it to the URL, such as mailtos://…"
            )
    elif kind == "file":
        url, name = _read(option, rest), given
    else:
        url, name = given, f"{kind[:30]}:…"
    label = f"{option} {name}"
    try:
        parts = urlsplit(url)
        has_password, host, port = parts.password is not None, parts.hostname or "", parts.port
    except ValueError:
        raise UsageError(f"{label}: no URL", hint=_HINT) from None
    if not parts.scheme or not url.isprintable() or " " in url:
        raise UsageError(f"{label}: no URL", hint="Write mailtos://…, https://… or a URL of apprise.")
    is_open = parts.scheme in (*_MAIL, *_WEB) and not has_password
    if typed and url is given and not is_open:
        raise UsageError(f"{label}: everybody can read a command line", hint=_HINT)
    if parts.scheme in (*_MAIL, *_WEB) and not host:
        raise UsageError(f"{label}: the URL names no server", hint="Write mailtos://USER:PASSWORD@HOST/?to=…")
    if parts.scheme not in _MAIL:
        return Target(option, name, url)
    query = parse_qs(parts.query)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    to = tuple(address for text in query.get("to", ()) for address in text.split(",") if address)
    if not to:
        raise UsageError(f"{label}: the URL has no recipient", hint="Add ?to=someone@example.org.")
    sender = query.get("from", [user if "@" in user else f"{user or 'nbrun'}@{host}"])[0]
    tls = "offered" if parts.scheme == "mailto" else "always" if port == 465 else "required"
    server = MailServer(host, port or (25 if tls == "offered" else 587), tls, sender, to, user, password)
    return Target(option, name, url, server)


def _read(option: str, path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UsageError(f"{option} file:{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{option} file:{path}: not UTF-8 text") from None
    if len(text.splitlines()) != 1:
        raise UsageError(f"{option} file:{path}: the file must contain one URL")
    return text


def environment_names(values: object) -> list[str]:
    """Return the variables that values of ``notify`` or ``ping`` name."""
    texts = values if isinstance(values, (list, tuple)) else [values]
    return [text.removeprefix("env:") for text in texts if isinstance(text, str) and text.startswith("env:")]
