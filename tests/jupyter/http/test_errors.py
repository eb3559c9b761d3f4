"""Rules that check more than the status. The table of all answers is tested over HTTP."""

from datetime import UTC, datetime

import pytest

from nbrun.errors import AccessDenied, Throttled
from nbrun.jupyter.endpoint import Endpoint
from nbrun.jupyter.http.errors import failure_of, retry_after, why_not_connected
from nbrun.jupyter.http.messages import Answer

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HERE = Endpoint("http://h/", token="5ecre7t0ken")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Fri, 02 Jan 2026 03:04:35 GMT", 30.0),
        ("Fri, 02 Jan 2026 03:04:35 -0000", 30.0),
        ("Fri, 02 Jan 2020 00:00:00 GMT", 0.0),
        ("", None),
        ("-1", None),
        ("soon", None),
        ("9" * 400, None),
        ("Fri, 99 Jan 2026 03:04:35 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value: str, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_says_when_is_throttling(status: int) -> None:
    error = failure_of(Answer("GET", "http://h/api", status, {"retry-after": "7"}), HERE)
    assert isinstance(error, Throttled)
    assert error.retry_after == 7


@pytest.mark.parametrize("status", [200, 201, 204, 206])
def test_a_success_is_no_failure(status: int) -> None:
    assert failure_of(Answer("GET", "http://h/api", status, {"content-type": "application/json"}, b"{}"), HERE) is None


def test_an_empty_answer_is_no_web_page_whatever_its_type() -> None:
    """Jupyter Server answers so to a shutdown."""
    assert failure_of(Answer("POST", "http://h/api/shutdown", 200, {"content-type": "text/html"}), HERE) is None


def test_a_file_called_login_is_not_a_login_page() -> None:
    assert (
        failure_of(Answer("GET", "http://h/api/contents/login", 200, {"content-type": "application/json"}, b"{}"), HERE)
        is None
    )
    page = Answer("GET", "http://h/hub/login?next=x", 200, {"content-type": "text/html"}, b"<html>")
    assert isinstance(failure_of(page, HERE), AccessDenied)


def test_an_error_is_free_of_the_token_wherever_it_stood() -> None:
    answers = (
        Answer("GET", "http://h/5ecre7t0ken", 404, {}, b"5ecre7t0ken"),
        Answer("PUT", "http://h/api", 302, {"location": "http://x/?token=5ecre7t0ken&y"}),
        Answer("GET", "http://h/api", 200, {"content-type": "text/html"}, b"<html><title>5ecre7t0ken"),
    )
    for answer in answers:
        assert "5ecre7t0ken" not in str(failure_of(answer, HERE))


@pytest.mark.parametrize(
    ("answer", "endpoint", "said", "hint"),
    [
        ((403, b'{"message": "Forbidden"}'), HERE, "does not accept the token", "--token-file"),
        ((403, b'{"message": "\'_xsrf\' argument missing from POST"}'), HERE, "does not accept", "NBRUN_TOKEN"),
        ((403, b'{"message": "Forbidden"}'), Endpoint("http://h/"), "none was given", "NBRUN_TOKEN"),
        ((401, b""), HERE, "does not accept the token", "NBRUN_TOKEN"),
        ((403, b'{"message": "Permission denied: a.ipynb"}'), HERE, "Permission denied: a.ipynb", "-o"),
        ((403, b'{"message": "Resource Limit"}'), HERE, "Resource Limit", "no more kernels"),
        ((403, b'{"message": "nope"}'), HERE, "nope", "forbids"),
        ((403, b"<html><title>JupyterHub</title>"), HERE, "JupyterHub", "not running"),
        (
            (400, b"<html><title>400 The plain HTTP request was sent to HTTPS port</title>"),
            HERE,
            "HTTPS port",
            "https://",
        ),
    ],
)
def test_a_403_is_explained_by_its_body(answer: tuple[int, bytes], endpoint: Endpoint, said: str, hint: str) -> None:
    status, body = answer
    error = failure_of(Answer("GET", "http://h/api/contents/a.ipynb", status, {}, body), endpoint)
    assert error is not None
    assert said in str(error)
    assert hint in error.hint
    assert ("token" in error.hint.casefold()) == (b"Permission" not in body and b"Limit" not in body and status != 400)


@pytest.mark.parametrize(
    ("reason", "scheme", "why", "hint"),
    [
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate (_ssl.c:1)", "https",
         "not trusted (self-signed certificate)", "--ca-file"),
        ("certificate verify failed: IP address mismatch, certificate is not valid for '::1'.", "https",
         "another host name", "--insecure"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "https", "does not speak TLS", "http://"),
        ("[Errno -2] Name or service not known", "http", "host name is not known", "VPN"),
        ("Connection refused", "http", "connection refused", "jupyter server list"),
        ("No route to host", "http", "No route to host", "address"),
        ("", "http", "no reason", "address"),
    ],
)  # fmt: skip
def test_a_failed_connection_is_explained_with_what_to_do(reason: str, scheme: str, why: str, hint: str) -> None:
    found = why_not_connected(reason, scheme)
    assert why in found[0]
    assert hint in found[1]
