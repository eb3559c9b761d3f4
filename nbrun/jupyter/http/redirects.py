"""Rules for HTTP redirects: which ones are followed, and how writes are repeated; pure.

A redirect may change the address of the *server*: scheme, port or prefix on the same host. It never moves a *token* to
another host, or from https to http. A redirected write is not followed but sent again to the new base URL. Clients that
follow it turn a PUT into a GET, whose status 200 looks like a successful save.
"""

from urllib.parse import unquote, urljoin, urlsplit

MOST_REDIRECTS = 5


def target_of(url: str, location: str) -> str | None:
    """Return the absolute URL of `location` relative to `url`, or None if it is missing or invalid."""
    try:
        target = urljoin(url, location)
        return target if location and urlsplit(target).hostname else None
    except ValueError:
        return None


def may_follow(url: str, target: str) -> bool:
    """Return whether a GET may follow a redirect to `target`: same scheme, host and port, or http to https."""
    here, there = urlsplit(url), urlsplit(target)
    try:
        if (here.scheme, there.scheme) == ("http", "https"):
            return here.hostname == there.hostname
        return (here.scheme, here.hostname, here.port) == (there.scheme, there.hostname, there.port)
    except ValueError:
        return False


def moved_base(base_url: str, path: str, target: str) -> str | None:
    """Return the new base URL if `target` is the same `path` on the same host, otherwise None."""
    here, there = urlsplit(base_url), urlsplit(target)
    prefix, found = unquote(there.path), "/" + unquote(path)
    if (
        here.hostname != there.hostname
        or (here.scheme, there.scheme) == ("https", "http")
        or not prefix.endswith(found)
    ):
        return None
    kept = there.path.rstrip("/").split("/")[: -len(path.split("/"))]
    moved = f"{there.scheme}://{there.netloc}{'/'.join(kept)}/"
    return moved if moved != base_url else None
