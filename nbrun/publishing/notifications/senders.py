"""Send messages by SMTP, HTTP or apprise, and ping healthchecks.io.

Each function blocks for a bounded time and raises :class:`NotSent` with a reason that contains no part of the URL.
"""

import logging
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from urllib.parse import urlsplit, urlunsplit

from nbrun.errors import UsageError
from nbrun.publishing.notifications.message import Message, within_limit
from nbrun.publishing.notifications.targets import MailServer, Target

_WAIT = 10.0
"""Seconds to wait for a server, for each of its answers."""
_LONGEST_LOG = 10_000
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class NotSent(Exception):
    """A notification was not delivered."""


def send(target: Target, message: Message) -> None:
    """Send a message to a target; raise :class:`NotSent`."""
    if target.mail is not None:
        send_mail(target.mail, message)
    elif target.is_web:
        _request(target.url, json=dict(message.payload) or {"subject": message.subject})
    else:
        _send_by_apprise(target.url, message)


def mail_of(server: MailServer, message: Message) -> EmailMessage:
    """Return the mail: text, HTML with inline pictures, and attachments."""
    files, pictures, notes = within_limit(message.files, message.pictures)
    shown = Message(message.subject, message.facts, [*message.details, *notes])
    mail = EmailMessage()
    mail["Subject"] = " ".join(message.subject.split())
    mail["From"] = server.sender
    mail["To"] = ", ".join(server.recipients)
    mail["Date"] = formatdate(localtime=False)
    mail["Message-ID"] = make_msgid(domain="nbrun.invalid")
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(shown.text)
    cids = [make_msgid(domain="nbrun.invalid") for _ in pictures]
    mail.add_alternative(shown.html([cid.strip("<>") for cid in cids]), subtype="html")
    page = mail.get_payload()[1]  # type: ignore[index]
    assert isinstance(page, EmailMessage)
    for picture, cid in zip(pictures, cids, strict=True):
        page.add_related(picture, "image", "png", cid=cid, disposition="inline")
    for name, file in files.items():
        kind = ("application", "pdf") if file.suffix == ".pdf" else ("text", "html")
        mail.add_attachment(file.read_bytes(), maintype=kind[0], subtype=kind[1], filename=name)
    return mail


def send_mail(server: MailServer, message: Message) -> None:
    """Send a message by SMTP; raise :class:`NotSent`."""
    try:
        mail = mail_of(server, message)
        context = ssl.create_default_context()
        if server.tls == "always":
            connection: smtplib.SMTP = smtplib.SMTP_SSL(server.host, server.port, timeout=_WAIT, context=context)
        else:
            connection = smtplib.SMTP(server.host, server.port, timeout=_WAIT)
        with connection:
            connection.ehlo()
            is_encrypted = server.tls == "always"
            if server.tls == "required" or (server.tls == "offered" and connection.has_extn("starttls")):
                connection.starttls(context=context)
                connection.ehlo()
                is_encrypted = True
            if server.password:
                if not is_encrypted and server.host not in _LOOPBACK:
                    raise NotSent("the mail server offers no encryption, and a password is not sent without it")
                connection.login(server.user, server.password)
            connection.send_message(mail, server.sender, list(server.recipients))
    except smtplib.SMTPAuthenticationError as error:
        raise NotSent(f"the mail server refused the login with {error.smtp_code}") from None
    except smtplib.SMTPRecipientsRefused:
        raise NotSent("the mail server refused the recipients") from None
    except smtplib.SMTPResponseException as error:
        raise NotSent(f"the mail server answered with {error.smtp_code}") from None
    except smtplib.SMTPException as error:
        raise NotSent(f"the mail server failed: {type(error).__name__}") from None
    except ValueError as error:  # an address with a new line, for example
        raise NotSent(f"the mail cannot be written: {type(error).__name__}") from None
    except OSError as error:
        raise NotSent(_reason(error)) from None


def _reason(error: OSError) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else error.strerror or type(error).__name__


def _request(url: str, *, json: object = None, text: str | None = None) -> None:
    import httpx

    try:
        content = None if text is None else text.encode()
        response = httpx.post(url, json=json, content=content, timeout=_WAIT)
    except httpx.TimeoutException:
        raise NotSent("no answer in time") from None
    except httpx.ConnectError:
        raise NotSent("the server cannot be reached") from None
    except httpx.HTTPError as error:
        raise NotSent(f"the request failed: {type(error).__name__}") from None
    except (httpx.InvalidURL, ValueError):
        raise NotSent("the URL is invalid") from None
    if response.status_code >= 300:
        raise NotSent(f"the server answered with {response.status_code}")


def _send_by_apprise(url: str, message: Message) -> None:
    import apprise

    service = apprise.Apprise()
    if not service.add(url) or not service.notify(title=message.subject, body=message.text):
        raise NotSent("the service did not accept the message")


def check_service(target: Target) -> None:
    """Raise :class:`UsageError` for a target that only apprise can reach and cannot."""
    if target.mail is not None or target.is_web:
        return
    try:
        import apprise
    except ImportError:
        hint = "pip install 'jupyter-nbrun[notify]'"
        raise UsageError(f"{target.label} needs apprise, which is not installed", hint=hint) from None
    logging.getLogger("apprise").addHandler(logging.NullHandler())  # its messages contain URLs
    logging.getLogger("apprise").propagate = False
    if not apprise.Apprise().add(target.url):
        raise UsageError(f"{target.label}: no URL that apprise knows", hint="Its page lists all services.")


def ping(target: Target, what: str, run: str, log: str = "") -> None:
    """Send one signal of healthchecks.io's protocol; raise :class:`NotSent`.

    `what` is ``start``, an exit code, or "" for success; `run` is an id that connects the start with the end.
    """
    parts = urlsplit(target.url)
    path = parts.path.rstrip("/") + (f"/{what}" if what else "")
    query = f"{parts.query}&rid={run}" if parts.query else f"rid={run}"
    _request(urlunsplit((parts.scheme, parts.netloc, path, query, "")), text=log[-_LONGEST_LOG:])
