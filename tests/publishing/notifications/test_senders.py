"""Messages reach local mail servers and hooks, and failures name no part of the URL."""

import base64
import json
import socket
import threading
from pathlib import Path

import pytest

from nbrun.errors import UsageError
from nbrun.publishing.notifications import message as messages
from nbrun.publishing.notifications.delivery import Delivery
from nbrun.publishing.notifications.message import Message, pictures_in, written_since
from nbrun.publishing.notifications.senders import NotSent, check_service, ping, send
from nbrun.publishing.notifications.targets import Target, read_target
from tests.publishing.notifications.servers import hook_server, mail_server
from tests.support.servers import free_port

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
MESSAGE = Message("nbrun: sälés failed", {"outcome": "failed", "took": "3 s"}, ["ValueError: <b>"], [PNG])


def target(url: str) -> Target:
    return read_target("--notify", url, {}, typed=False)


def test_a_mail_has_text_html_inline_pictures_and_attachments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, pdf, large = tmp_path / "a.html", tmp_path / "a.pdf", tmp_path / "b.pdf"
    page.write_text("<p>page")
    pdf.write_bytes(b"%PDF")
    large.write_bytes(bytes(2000))
    files = {path.name: path for path in (page, large, pdf)}
    monkeypatch.setattr(messages, "MAIL_LIMIT", 1000)
    with mail_server() as box:
        send(target(box.url), Message(MESSAGE.subject, MESSAGE.facts, MESSAGE.details, [PNG], files))
    (mail,) = box.mails
    assert (mail["Subject"], mail["To"]) == ("nbrun: sälés failed", "ann@example.org, bob@example.org")
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None
    assert html is not None
    assert "outcome  failed" in text.get_content()
    assert "b.pdf (2 kB) is too large for a mail." in text.get_content()
    assert "ValueError: &lt;b&gt;" in html.get_content()
    (picture,) = [part for part in mail.walk() if part.get_content_type() == "image/png"]
    assert f'src="cid:{picture["Content-ID"].strip("<>")}"' in html.get_content()
    assert picture.get_content() == PNG
    assert picture.get_content_disposition() == "inline"
    attached = {part.get_filename(): part.get_content() for part in mail.iter_attachments()}
    assert {name: bytes(data, "utf-8") if isinstance(data, str) else data for name, data in attached.items()} == {
        "a.html": b"<p>page\n" if str(attached["a.html"]).endswith("\n") else b"<p>page",
        "a.pdf": b"%PDF",
    }


def test_a_hook_gets_json_and_its_refusal_is_reported() -> None:
    with hook_server() as hook:
        send(target(hook.url), Message("x", payload={"outcome": "failed"}))
        assert hook.requests == [("/hook-planted-word", b'{"outcome":"failed"}')]
        hook.status = 500
        with pytest.raises(NotSent, match=r"^the server answered with 500$"):
            send(target(hook.url), MESSAGE)


def test_a_ping_follows_the_protocol_of_healthchecks() -> None:
    with hook_server() as hook:
        one = target(hook.url + "?create=1")
        ping(one, "start", "id")
        ping(one, "", "id", "x" * 20_000)
        ping(one, "143", "id")
    assert [path for path, _ in hook.requests] == [
        "/hook-planted-word/start?create=1&rid=id", "/hook-planted-word?create=1&rid=id",
        "/hook-planted-word/143?create=1&rid=id",
    ]  # fmt: skip
    assert [len(body) for _, body in hook.requests] == [0, 10_000, 0]


@pytest.mark.parametrize(
    "url",
    [
        "mailto://127.0.0.1:{port}/?to=planted@example.org",
        "mailtos://planted:planted@127.0.0.1:{port}/?to=planted@example.org",
        "http://127.0.0.1:{port}/planted",
    ],
)
def test_a_dead_server_is_reported_without_the_url(url: str) -> None:
    with pytest.raises(NotSent) as failed:
        send(target(url.format(port=free_port())), MESSAGE)
    assert "planted" not in str(failed.value)
    assert "refused" in str(failed.value) or "cannot be reached" in str(failed.value)


def test_encryption_that_is_required_is_not_left_out() -> None:
    with mail_server() as box, pytest.raises(NotSent, match="SMTPNotSupportedError"):
        send(target(box.url.replace("mailto:", "mailtos:")), MESSAGE)
    assert box.mails == []


def test_a_server_that_hangs_costs_no_more_than_the_limit() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        one = target(f"mailto://127.0.0.1:{silent.getsockname()[1]}/?to=a@x")
        delivery = Delivery()
        delivery.post(one, lambda: send(one, MESSAGE))
        assert delivery.finish(0.1) == ["--notify mailto:…: not delivered in time"]


def test_a_target_that_hangs_does_not_delay_another_one_of_its_kind() -> None:
    delivery, sent = Delivery(), threading.Event()
    delivery.post(target("http://a/first"), lambda: None if sent.wait(30) else pytest.fail("it waits for the other"))
    delivery.post(target("http://a/second"), sent.set)
    assert delivery.finish(60) == []


def test_messages_to_one_target_keep_their_order_and_failures_become_warnings() -> None:
    order, delivery = [], Delivery()
    for number in range(5):
        delivery.post(target("http://a"), lambda number=number: order.append(number))  # type: ignore[misc]

    def fail() -> None:
        raise NotSent("the server answered with 500")

    delivery.post(target("http://b"), fail)

    def crash() -> None:
        raise KeyError("planted")

    delivery.post(target("http://c"), crash)
    assert sorted(delivery.finish(10)) == ["--notify http:…: KeyError", "--notify http:…: the server answered with 500"]
    assert order == [0, 1, 2, 3, 4]


def test_apprise_reaches_other_services(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("apprise")
    with hook_server() as hook:
        one = target(hook.url.replace("http:", "json:"))
        check_service(one)
        send(one, MESSAGE)
        (_, body) = hook.requests[0]
        assert json.loads(body)["title"] == MESSAGE.subject
        hook.status = 500
        with pytest.raises(NotSent, match="did not accept"):
            send(one, MESSAGE)
    with pytest.raises(UsageError, match="no URL that apprise knows"):
        check_service(target("nothing://planted"))
    assert "planted" not in "".join(capfd.readouterr())


def test_files_of_the_run_are_found(tmp_path: Path) -> None:
    for name in ("a.html", "index.html", "a.pdf", "style.css"):
        (tmp_path / name).touch()
    now = (tmp_path / "a.pdf").stat().st_mtime
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.pdf").touch()
    found = written_since([tmp_path, tmp_path / "a.pdf", None, "s3://bucket/x"], now)
    paths = {name: path.relative_to(tmp_path).as_posix() for name, path in found.items()}
    assert paths == {"a.html": "a.html", "a.pdf": "a.pdf", "a-2.pdf": "b/a.pdf"}
    assert written_since([tmp_path], now + 10) == {}


def test_pictures_that_a_page_hides_are_not_in_the_message() -> None:
    outputs = [{"data": {"image/png": base64.b64encode(PNG).decode()}}]
    hidden = [{"tags": ["hide-output"]}, {"tags": ["x", "remove-cell"]}, {"jupyter": {"outputs_hidden": True}}]
    shown = [{"tags": None, "jupyter": "odd"}, {"tags": [["odd"]]}, {}]
    cells = [{"metadata": metadata, "outputs": outputs} for metadata in (*hidden, *shown)]
    assert pictures_in({"cells": [*cells, {"metadata": None}]}) == [PNG] * len(shown)
