"""A redirect may change the server's address but never receives a secret."""

import pytest

from nbrun.jupyter.http.redirects import may_follow, moved_base, target_of


@pytest.mark.parametrize(
    ("url", "target", "followed"),
    [
        ("http://h/a", "http://h/b?x=1", True),
        ("http://h/a", "https://h/a", True),
        ("http://h:80/a", "https://h:8443/a", True),
        ("https://h/a", "http://h/a", False),
        ("http://h/a", "http://h:8080/a", False),
        ("http://h/a", "http://other/a", False),
        ("http://h/a", "https://other/a", False),
        ("http://h/a", "http://h.other/a", False),
        ("http://h/a", "http://h:bad/a", False),
        ("http://h/a", "ftp://h/a", False),
    ],
)
def test_a_get_goes_on_only_where_the_token_may_go(url: str, target: str, followed: bool) -> None:
    assert may_follow(url, target) is followed


@pytest.mark.parametrize(
    ("base", "path", "target", "moved"),
    [
        ("http://h/", "api/contents/x", "https://h/api/contents/x", "https://h/"),
        ("http://h/", "api/contents/x", "https://h:8443/pre/api/contents/x?y=1", "https://h:8443/pre/"),
        ("http://h/old/", "api/contents/a%20b", "http://h/new/api/contents/a%20b", "http://h/new/"),
        ("http://h/", "api/contents/x", "http://h/login", None),
        ("http://h/", "api/contents/x", "http://h/xapi/contents/x", None),
        ("http://h/", "api/contents/x", "http://h/api/contents/x", None),
        ("https://h/", "api/contents/x", "http://h/api/contents/x", None),
        ("http://h/", "api/contents/x", "http://other/api/contents/x", None),
    ],
)
def test_a_server_has_moved_where_the_same_path_is_under_another_prefix(
    base: str, path: str, target: str, moved: str | None
) -> None:
    assert moved_base(base, path, target) == moved


@pytest.mark.parametrize(
    ("location", "target"),
    [("/b", "http://h/b"), ("c?d", "http://h/c?d"), ("", None), ("http://[", None), ("https://", None)],
)
def test_a_location_may_be_relative_or_missing(location: str, target: str | None) -> None:
    assert target_of("http://h/a", location) == target
