"""Match paths with ``.gitignore`` patterns; the only module that imports pathspec.

``draft-*.ipynb`` matches files in any folder, ``slow/*.ipynb`` only in the top one, ``archive/`` everything in folders
of that name, and ``**`` any number of folders. ``!`` before a pattern excludes what an earlier pattern matched.
"""

from collections.abc import Callable, Iterable

from nbrun.errors import UsageError


class Patterns:
    """Compiled patterns."""

    def __init__(self, lines: Iterable[str]) -> None:
        """Compile the patterns; raise :class:`UsageError` for an invalid one."""
        self.lines = tuple(lines)
        self._matches: Callable[[str], bool] = lambda _: False
        if not self.lines:
            return
        from pathspec import GitIgnoreSpec  # most runs have no patterns

        try:
            self._matches = GitIgnoreSpec.from_lines(self.lines).match_file
        except ValueError as error:
            hint = "Patterns are those of a .gitignore file: *.ipynb, drafts/, reports/**/old-*.ipynb"
            raise UsageError(f"no pattern: {error}", hint=hint) from None

    @classmethod
    def anchored(cls, lines: Iterable[str]) -> "Patterns":
        """Return patterns relative to the top folder, as in a shell: ``*.ipynb`` matches no file in a subfolder."""
        return cls(f"/{line.removeprefix('./').lstrip('/')}" for line in lines)

    def name(self, path: str) -> bool:
        """Return whether `path`, with ``/`` between segments, matches."""
        return self._matches(path)


def is_glob(text: str) -> bool:
    """Return whether a text is a pattern and not a plain path."""
    return any(character in text for character in "*?[")
