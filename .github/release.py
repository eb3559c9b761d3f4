"""Check that a tag may be released, and print the release notes: ``python .github/release.py v1.2.3``.

The tag must be ``v`` and the version of ``nbrun/version.py``, and ``CHANGELOG.md`` must have a section of that version.
"""

import re
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def notes(tag: str, version: str, changelog: str) -> str:
    """Return the changelog's section of `version`; raise ValueError where `tag` may not be released."""
    if tag != f"v{version}":
        raise ValueError(f"the tag {tag} is not v{version}, the version in nbrun/version.py")
    sections = re.split(r"^## (.+)\n", changelog, flags=re.MULTILINE)
    texts = {title.strip(): text.strip() for title, text in zip(sections[1::2], sections[2::2], strict=True)}
    titles = [title for title in texts if title.split()[0] == version]
    if not titles:
        raise ValueError(f"CHANGELOG.md has no section {version}")
    if "unreleased" in titles[0]:
        raise ValueError(f"CHANGELOG.md calls {version} unreleased: put the date there")
    if not texts[titles[0]]:
        raise ValueError(f"the section {version} of CHANGELOG.md is empty")
    return texts[titles[0]]


def main() -> int:
    """Print the notes of the tag that the command line names; return 1 where it may not be released."""
    [tag] = sys.argv[1:]
    version = runpy.run_path(str(ROOT / "nbrun" / "version.py"))["__version__"]
    try:
        text = notes(tag, version, (ROOT / "CHANGELOG.md").read_text("utf-8"))
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
