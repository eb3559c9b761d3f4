"""Read one file of a git repository: ``git+https://host/repo@REF#path``, as in pip.

A shallow fetch without a work tree reads the commit, and ``git show`` the file. Git asks nothing, runs no hook, and
uses no other transport than the one of the URL. A password of the URL is passed in the environment, because other
users can read the arguments of a process.
"""

import asyncio
import base64
import os
import re
import shutil
import tempfile
from pathlib import Path
from urllib.parse import unquote

from nbrun.core.planning.destinations import split_url, without_credentials
from nbrun.errors import NoSuchNotebook, UsageError

LIMIT = 120.0
"""Seconds for the fetch."""
_FORM = "Write git+https://HOST/REPOSITORY@REF#PATH/NOTEBOOK.ipynb; without @REF it is the default branch."


async def read_from_git(url: str) -> bytes:
    """Return the content of a file; raise :class:`UsageError`."""
    shown = without_credentials(url)
    address, _, path = url.partition("#")
    parts = split_url(address)
    place, at, reference = parts.path.rpartition("@")
    place, reference = (place, reference) if at else (parts.path, "HEAD")
    path = path.strip("/")
    if not path or not place.strip("/") or reference.startswith("-") or not reference:
        raise UsageError(f"{shown}: this names no file in a git repository", hint=_FORM)
    git = shutil.which("git")
    if git is None:
        raise UsageError(f"{shown}: the command git is not installed")
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2] if parts.scheme != "ssh" else parts.netloc, path=place)
    env = _environment(parts.scheme, parts.username, parts.password)
    with tempfile.TemporaryDirectory(prefix="nbrun-git-", ignore_cleanup_errors=True) as folder:
        await _git(shown, [git, "init", "--quiet", "--bare", "--template=", folder], env)
        fetch = [git, "-C", folder, "fetch", "--quiet", "--depth=1", "--no-tags", bare.geturl(), reference]
        await _git(shown, fetch, env)
        try:
            return await _git(shown, [git, "-C", folder, "show", f"FETCH_HEAD:{path}"], env)
        except UsageError:
            hint = f"nbrun looked in {reference} of {without_credentials(bare.geturl())}."
            raise NoSuchNotebook(f"{shown}: there is no file {path} in that commit", hint=hint) from None


def _environment(scheme: str, user: str | None, password: str | None) -> dict[str, str]:
    """Return an environment in which git asks nothing and runs nothing, with the password of the URL."""
    settings = {"core.hooksPath": os.devnull, "http.lowSpeedLimit": "1000", "http.lowSpeedTime": "30"}
    settings |= {"protocol.allow": "never", f"protocol.{scheme}.allow": "always", "core.fsmonitor": "false"}
    if user and scheme in ("http", "https"):
        pair = f"{unquote(user)}:{unquote(password or '')}"
        settings["http.extraHeader"] = f"Authorization: Basic {base64.b64encode(pair.encode()).decode()}"
    numbered = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (name, value) in enumerate(settings.items()):
        numbered |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    asks_nothing = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "SSH_ASKPASS": "true"}
    return {**kept, **asks_nothing, "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=10", **numbered}


async def _git(shown: str, command: list[str], env: dict[str, str]) -> bytes:
    """Return what git prints; raise :class:`UsageError` with its last line."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=env,
        cwd=Path.home() if Path.home().is_dir() else "/",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(LIMIT):
            output, errors = await process.communicate()
    except TimeoutError:
        raise UsageError(f"{shown}: git did not finish within {LIMIT:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        lines = [line for line in errors.decode(errors="replace").splitlines() if line.strip()]
        said = re.sub(r"//[^/@\s]+@", "//", lines[-1]) if lines else f"exit code {process.returncode}"
        raise UsageError(f"{shown}: git could not read it: {said[:300]}")
    return output
