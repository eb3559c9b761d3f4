"""Find the notebooks that changed since a git commit, or whose declared dependencies changed.

Changed files are those that differ between the working tree and the merge base of the current branch and the commit:
committed, uncommitted and untracked files, but not ignored ones. A notebook declares dependencies in its metadata,
relative to its folder: ``{"nbrun": {"depends": ["../data/*.csv"]}}``.
"""

import contextlib
import os
import posixpath
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from nbrun.core.batch.cache_key import declared_inputs
from nbrun.core.formats.globs import Patterns
from nbrun.core.formats.json_text import loads
from nbrun.core.notebook.document import Document
from nbrun.errors import BadFrame, NbrunError, UsageError
from nbrun.storage.on_disk import read_text

GIT_LIMIT = 120.0
"""Time limit of one git command, in seconds."""


class Changes:
    """The changed files since a commit, for each repository."""

    def __init__(self, since: str) -> None:
        self._since = since
        self._tops: dict[Path, Path] = {}
        self._changed: dict[Path, frozenset[str]] = {}

    def concern(self, notebook: Path) -> bool:
        """Return whether the notebook at an absolute path, or one of its dependencies, has changed.

        Raises :class:`UsageError` outside of a repository, for an unknown commit, and without git.
        """
        folder = notebook.parent.resolve()
        top = self._tops.get(folder) or self._top(folder)
        self._tops[folder] = top
        if top not in self._changed:
            self._changed[top] = self._since_then(top)
        changed = self._changed[top]
        if not changed:
            return False
        where = folder.relative_to(top).as_posix()
        if posixpath.normpath(posixpath.join(where, notebook.name)) in changed:
            return True
        patterns = Patterns.anchored(
            posixpath.normpath(posixpath.join(where, pattern)) for pattern in _declared(notebook)
        )
        return any(patterns.name(path) for path in changed)

    def _top(self, folder: Path) -> Path:
        return Path(_git(folder, "rev-parse", "--show-toplevel").decode(errors="surrogateescape").strip()).resolve()

    def _since_then(self, top: Path) -> frozenset[str]:
        try:
            commit = _git(top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{self._since}^{{commit}}")
        except UsageError:
            hint = (
                "In CI, fetch it first: a shallow clone holds only the last commit (actions/checkout: fetch-depth: 0)."
            )
            raise UsageError(f"--changed-since {self._since}: {top} knows no such commit", hint=hint) from None
        base = commit.decode().strip()
        with contextlib.suppress(UsageError):  # without a common history, compare with the commit itself
            base = _git(top, "merge-base", base, "HEAD").decode().strip() or base
        tracked = _git(top, "diff", "--name-only", "--no-renames", "--no-ext-diff", "-z", base, "--")
        others = _git(top, "ls-files", "--others", "--exclude-standard", "-z")
        return frozenset(_names(tracked) | _names(others))


def changed_only(notebooks: Sequence[str], since: str) -> list[bool]:
    """Return for each notebook whether it or one of its dependencies has changed since the commit."""
    changes = Changes(since)
    return [changes.concern(Path(name).absolute()) for name in notebooks]


def _names(listed: bytes) -> set[str]:
    return {os.fsdecode(name) for name in listed.split(b"\0") if name}


def _declared(notebook: Path) -> Iterable[str]:
    """Return the patterns that a notebook declares, or none if it cannot be read; its run will report that."""
    try:
        return declared_inputs(Document(loads(read_text(notebook)), name=str(notebook)))
    except (NbrunError, BadFrame):
        return ()


def _git(folder: Path, *arguments: str) -> bytes:
    try:
        answer = subprocess.run(  # noqa: S603
            ["git", "-C", str(folder), *arguments],  # noqa: S607
            capture_output=True,
            timeout=GIT_LIMIT,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError:
        raise UsageError("--changed-since needs git, which is not installed") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"--changed-since: git did not answer within {GIT_LIMIT:g} s in {folder}") from None
    if answer.returncode:
        message = answer.stderr.decode(errors="replace").strip().removeprefix("fatal: ")
        raise UsageError(f"--changed-since: git says of {folder}: {message or 'no'}")
    return answer.stdout
