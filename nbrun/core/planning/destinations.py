"""Rules for where executed notebooks go: ``-o``, ``--no-save`` or ``--in-place``; pure.

One notebook that is named by itself is executed in place. If a call names several notebooks (two paths, a folder, a
pattern, a matrix, notebooks of the settings), it must choose an output, no save, or in place.
"""

import re
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from nbrun.errors import UsageError

CHOICES = (
    "Choose one: -o DIR writes the executed notebooks there, --no-save writes none, "
    "--in-place overwrites each notebook.\n"
    "  In Python: output=, save=False, in_place=True."
)
MATRIX = "the runs of a matrix do not overwrite their notebook unless the call says so"
SETTINGS = "the notebooks of the settings are not overwritten unless the call or the settings say so"
CHOICE_OPTIONS = {"output": "--output", "no_save": "--no-save", "in_place": "--in-place"}
"""The options that choose the destination of executed notebooks. Only one of them may be given."""
_URL = re.compile(
    r"(?:[A-Za-z][A-Za-z0-9+.-]+://|(?:s3a?|gs|gcs|az|abfss?|adl|dbfs|hdfs|https?|ftp|sftp|file):/)", re.IGNORECASE
)
CLOUD_SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "azure", "abfs", "abfss")
WEB_SCHEMES = ("http", "https")
GIT_SCHEMES = ("git+https", "git+http", "git+ssh", "git+file")
_SHOWN = 3
_COPY = {"s3": "aws s3 cp", "s3a": "aws s3 cp", "gs": "gcloud storage cp", "gcs": "gcloud storage cp"}


def require_choice(named: Sequence[str], *, message: str = "") -> None:
    """Raise :class:`UsageError`, because a call would overwrite several notebooks without an explicit choice.

    `named` are the paths of the call; `message` replaces the default message.
    """
    shown = ", ".join(named[:_SHOWN]) + (f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else "")
    what = f"{len(named)} paths" if len(named) > 1 else "a folder or a pattern"
    message = message or f"{shown}: the notebooks of {what} are not overwritten unless the call says so"
    hint = CHOICES
    if len(named) == 2 and named[0].lower().endswith(".ipynb"):
        hint = f"For one notebook and its output: nbrun run {_word(named[0])} -o {_word(named[1])}\n  {hint}"
    raise UsageError(message, hint=hint)


def refuse_contradiction(chosen: Sequence[str]) -> None:
    """Raise :class:`UsageError` if more than one of the three choices was made."""
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} contradict each other", hint="Leave all of them out but one.")


def _word(name: str) -> str:
    """Return a name quoted for a shell."""
    return name if re.fullmatch(r"[\w@%+=:,./-]+", name) else "'" + name.replace("'", "'\"'\"'") + "'"


def is_url(path: str) -> bool:
    """Return whether a path is a URL: a scheme with ``://``, or with ``:/``, which :class:`pathlib.Path` makes of it.

    A scheme has at least two letters, because one letter is a drive on Windows.
    """
    return _URL.match(path) is not None


def scheme_of(url: str) -> str:
    """Return the scheme of a URL in lower case, or "" for a path."""
    return url.partition(":")[0].lower() if is_url(url) else ""


def is_store_url(path: str) -> bool:
    """Return whether a path is a URL that may be of an object store or of a web server: not a file or git repository.

    The storage knows whether there is such a store.
    """
    return scheme_of(path) not in ("", "file", *GIT_SCHEMES)


def is_source_url(path: str) -> bool:
    """Return whether a path is a URL that a notebook can be read from: of a store, or of a git repository."""
    return is_store_url(path) or scheme_of(path) in GIT_SCHEMES


def without_credentials(url: str) -> str:
    """Return a URL for messages: a user name, a password, and the query of a web address are left out.

    A query can be a signature. ``#`` and ``?`` are part of the name in URLs of object stores, and stay. The fragment of
    a git URL is a path.
    """
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    if "@" in authority and not scheme.lower().startswith("abfs"):  # there, it separates container and account
        authority = authority.rpartition("@")[2]
    if scheme.lower() in WEB_SCHEMES:
        path = re.sub(r"[?#].*", "", path, flags=re.DOTALL)
    return f"{scheme}{separator}{authority}{slash}{path}"


def split_url(url: str, option: str = "") -> SplitResult:
    """Return the parts of a URL; raise :class:`UsageError` if its host or its port is malformed."""
    try:
        parts = urlsplit(url.removeprefix("git+"))
        parts.port  # noqa: B018 - parsed only now
    except ValueError:
        where = f"{option} {without_credentials(url)}".strip()
        hint = "Is it a URL? Its host or its port is malformed."
        raise UsageError(f"{where}: not a valid URL", hint=hint) from None
    return parts


def refuse_unreachable(option: str, path: str, *, reads: bool = False, stores: bool = False) -> None:
    """Raise :class:`UsageError` for a path of `option` that nbrun can neither read nor write.

    These are an empty path, a URL, an unexpanded home folder, and a name with a NUL. `reads` means that nbrun would
    read the path. With `stores`, the option takes URLs of stores too.
    """
    if stores and (is_source_url(path) if reads else is_store_url(path)) and "://" in path and "\0" not in path:
        split_url(path, option)
        return
    if is_url(path):
        path = without_credentials(re.sub(r":/+", "://", path, count=1))
    where = f"{option} {path}".strip()
    if not path:
        raise UsageError(f"{option}: the path is empty", hint="Is the variable set that it comes from?")
    if "\0" in path:
        raise UsageError(f"{option} {path!r}: a path cannot contain a NUL character")
    if is_url(path):
        scheme = path.partition(":")[0].lower()
        if scheme == "file":
            raise UsageError(f"{where}: nbrun takes paths, not URLs", hint="Leave out file://.")
        if reads:
            hint = "Download it first, and name the file."
            if scheme.startswith("http") and not option:
                hint += " A notebook on a Jupyter server is named by its path there: nbrun run PATH --server URL."
            raise UsageError(f"{where}: nbrun cannot read from {scheme}://", hint=hint)
        how = f" ({_COPY[scheme]} FILE {_word(path)})" if scheme in _COPY else ""
        hint = f"Write to a path of this machine, and copy it afterwards{how}."
        raise UsageError(f"{where}: nbrun cannot write to {scheme}://", hint=hint)
    if path == "~" or re.match(r"~[^/\\]*[/\\]", path):
        raise UsageError(
            f"{where}: the shell did not replace ~ here",
            hint="Write $HOME or the whole path, or ./~ for a folder of that name.",
        )
