"""Parsing of addresses into a base URL, a notebook and a hidden token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbrun.errors import UsageError
from nbrun.jupyter.endpoint import Endpoint, api_path, check_headers, contents_path

SECRET = "5ecre7t0ken"


@pytest.mark.parametrize(
    ("pasted", "base_url", "notebook"),
    [
        ("http://h:8888/?token=5ecre7t0ken", "http://h:8888/", None),
        ("http://h:8888", "http://h:8888/", None),
        ("http://h:8888/lab?token=5ecre7t0ken", "http://h:8888/", None),
        ("http://h:8888/lab/tree/dir/nb.ipynb?token=5ecre7t0ken#cell", "http://h:8888/", "dir/nb.ipynb"),
        ("https://h/pre/fix/tree/my%20dir/100%25.ipynb", "https://h/pre/fix/", "my dir/100%.ipynb"),
        ("https://h/notebooks/nb.ipynb", "https://h/", "nb.ipynb"),
        ("https://h/edit/a.py", "https://h/", "a.py"),
        ("https://h/nbclassic/notebooks/nb.ipynb", "https://h/", "nb.ipynb"),
        ("https://h/voila/render/nb.ipynb", "https://h/", "nb.ipynb"),
        ("https://h/doc/tree/RTC:dir/nb.ipynb", "https://h/", "dir/nb.ipynb"),
        ("https://h/lab/tree/RTC%3Adir/nb.ipynb", "https://h/", "dir/nb.ipynb"),
        ("https://h/files/nb.ipynb", "https://h/", "nb.ipynb"),
        ("https://h/api/contents/nb.ipynb", "https://h/", "nb.ipynb"),
        ("https://h/lab/tree/hub/user/x/tree/nb.ipynb", "https://h/", "hub/user/x/tree/nb.ipynb"),
        ("https://hub/user/alice/", "https://hub/user/alice/", None),
        ("https://hub/user/lab/lab/tree/nb.ipynb", "https://hub/user/lab/", "nb.ipynb"),
        ("https://hub/user/alice/gpu/lab", "https://hub/user/alice/gpu/", None),
        ("https://hub/user/alice/lab/workspaces/auto-x/tree/nb.ipynb", "https://hub/user/alice/", "nb.ipynb"),
        ("https://hub/hub/user/alice/lab", "https://hub/user/alice/", None),
        ("http://[::1]:8888/lab", "http://[::1]:8888/", None),
        ("localhost:8888", "http://localhost:8888/", None),
        ("  127.0.0.1:8888/lab/tree/nb.ipynb\n", "http://127.0.0.1:8888/", "nb.ipynb"),
        ("http+unix://%2Ftmp%2Fs.sock/pre/?token=5ecre7t0ken", "http://localhost/pre/", None),
    ],
)
def test_a_pasted_address_gives_base_url_and_notebook(pasted: str, base_url: str, notebook: str | None) -> None:
    found = Endpoint.parse(pasted)
    assert (found.endpoint.base_url, found.notebook, found.via_hub) == (base_url, notebook, False)
    assert found.endpoint.token == (SECRET if SECRET in pasted else None)


@pytest.mark.parametrize(
    ("pasted", "hub", "notebook"),
    [
        ("https://hub/hub/user-redirect/lab/tree/nb.ipynb", "https://hub/", "nb.ipynb"),
        ("https://hub/pre/hub/home", "https://hub/pre/", None),
        ("https://hub/hub/", "https://hub/", None),
    ],
)
def test_the_address_of_a_hub_asks_for_the_user_first(pasted: str, hub: str, notebook: str | None) -> None:
    found = Endpoint.parse(pasted)
    assert (found.endpoint.base_url, found.notebook, found.via_hub) == (hub, notebook, True)


def test_a_prefix_that_reads_like_a_page_is_tried_too() -> None:
    assert Endpoint.parse("https://h/lab/tree/x.ipynb").elsewhere == ("https://h/lab/",)
    assert Endpoint.parse("https://h/lab").elsewhere == ("https://h/lab/",)
    assert Endpoint.parse("https://h/a/b/lab/tree/x.ipynb").elsewhere[-2:] == ("https://h/a/", "https://h/")


def test_the_address_of_a_unix_socket_names_its_path() -> None:
    assert Endpoint.parse("http+unix://%2Ftmp%2Fs.sock").endpoint.socket == "/tmp/s.sock"


def test_a_token_given_apart_wins_over_the_one_in_the_address() -> None:
    assert Endpoint.parse("http://h/?token=old", token=" new\n").endpoint.token == "new"


@pytest.mark.parametrize(
    "nonsense",
    ["", "   ", "ftp://h/", "http://", "http://h:99999/", "http://h:0/", "http://[::1", "two words", "http+unix:///tmp/s",
     "report.ipynb/", "jupyter.example.org", "http://h/a/../b", "http+unix://name/", "http://h/%2e%2e/lab"],
)  # fmt: skip
def test_nonsense_is_a_usage_error_with_a_hint(nonsense: str) -> None:
    with pytest.raises(UsageError) as caught:
        Endpoint.parse(nonsense)
    assert caught.value.hint


def test_a_password_in_the_address_is_refused_without_being_repeated() -> None:
    with pytest.raises(UsageError, match="user name or password") as caught:
        Endpoint.parse(f"https://alice:{SECRET}@h/")
    assert SECRET not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize("token", ["two words", "tök", "line\nbreak", "nul\0"])
def test_a_token_that_no_header_can_carry_is_refused_without_being_repeated(token: str) -> None:
    with pytest.raises(UsageError) as caught:
        Endpoint("http://h/", token=token)
    assert token not in str(caught.value)


def test_neither_str_nor_repr_shows_a_secret() -> None:
    endpoint = Endpoint("http://h", token=SECRET, password="pa55w0rd")
    shown = f"{endpoint} {endpoint!r} {Endpoint.parse('http://h/?token=' + SECRET)!r}"
    assert SECRET not in shown
    assert "pa55w0rd" not in shown


def test_foreign_text_is_quoted_without_the_secrets_in_it() -> None:
    endpoint = Endpoint("http://h/", token="a+b/c=123", password="pass word")
    foreign = "to /login?next=%2F&token=else&x=1 with a+b/c=123, a%2Bb%2Fc%3D123 and pass word"
    assert endpoint.redacted(foreign).count("[secret removed]") == 4
    assert "else" not in endpoint.redacted(foreign)
    assert "x=1" in endpoint.redacted(foreign)


@pytest.mark.parametrize(
    ("path", "quoted"),
    [
        ("", "api/contents"),
        ("/dir//nb.ipynb/", "api/contents/dir/nb.ipynb"),
        ("100%20 #1?.ipynb", "api/contents/100%2520%20%231%3F.ipynb"),
        ("é中/e\u0301", "api/contents/%C3%A9%E4%B8%AD/e%CC%81"),
        ("a:b\\c+;&=", "api/contents/a%3Ab%5Cc%2B%3B%26%3D"),
    ],
)
def test_a_contents_path_is_quoted_segment_by_segment(path: str, quoted: str) -> None:
    assert api_path("contents", path) == quoted


@pytest.mark.parametrize("path", ["..", "a/../b", "./a", "a/.", "nul\0", "\ud800"])
def test_a_path_that_would_be_resolved_on_the_way_is_refused(path: str) -> None:
    with pytest.raises(UsageError):
        contents_path(path)


def test_the_websocket_is_under_the_base_url_and_carries_no_token() -> None:
    endpoint = Endpoint("https://h/user/a", token=SECRET)
    assert endpoint.websocket_url("k1", "s 1") == "wss://h/user/a/api/kernels/k1/channels?session_id=s+1"
    assert Endpoint("http://h/").websocket_url("k", "s").startswith("ws://h/api/")


@pytest.mark.parametrize("local", ["http://localhost:1/", "http://127.0.0.9/", "http://[::1]/", "http://a.localhost/"])
def test_loopback_is_local_and_nothing_else_is(local: str) -> None:
    assert Endpoint(local).is_local
    assert not Endpoint("http://10.0.0.1/").is_local
    assert not Endpoint("http://localhost.example.org/").is_local


@given(st.one_of(st.text(), st.from_regex(r"https?://[\w.:\[\]@%-]*(/[\w%.:@-]*)*(\?token=\w*)?", fullmatch=True)))
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    try:
        found = Endpoint.parse(text, token=SECRET)
    except UsageError:
        return
    assert found.endpoint.base_url.endswith("/")
    assert "?" not in found.endpoint.base_url
    assert SECRET not in repr(found)


def test_additional_headers_are_checked_without_showing_their_values() -> None:
    headers = {"X-Team": "data", "Cookie": "a=b; c=d", "Authorization": "Bearer x"}
    assert check_headers(headers) == headers
    for name, value, said in [
        ("X Team", "5ecret", "'X Team' is no name of an HTTP header"),
        ("", "5ecret", "'' is no name"),
        ("Content-Length", "5ecret", "set by nbrun itself"),
        ("Sec-WebSocket-Key", "5ecret", "set by nbrun itself"),
        ("X-Team", "5ecret\r\nX-Other: y", "value of the header X-Team holds a character"),
        ("X-Team", "5ecrét", "value of the header X-Team holds a character"),
    ]:
        with pytest.raises(UsageError, match=said) as raised:
            check_headers({name: value})
        assert "5ecr" not in f"{raised.value} {raised.value.hint}"
