"""Development tasks for nox: ``nox -s lint``, ``nox -s unit``, ``nox -s tests``, ``nox -s docs``."""

import nox

nox.options.sessions = ["lint", "unit"]
nox.options.reuse_existing_virtualenvs = True


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types and import contracts of the tracked files."""
    session.install("-e", ".[dev]")
    session.run("bash", ".ci/lint", external=True)


@nox.session
def unit(session: nox.Session) -> None:
    """Run the tests that need no server, kernel or browser."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "pytest", "-m", "unit", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "pytest", "-n", "3", "--dist", "worksteal", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Generate the parts of the documentation that follow from the code."""
    session.install("-e", ".[dev]")
    session.run("python", "docs/reference.py")
