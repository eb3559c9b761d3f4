"""Foreign text in what the command line says: whatever it comes from, it is text to a CI runner and to a terminal."""

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nbrun.cli.app import _exit_code
from nbrun.reporters.safe_stream import SafeStream
from tests.support.ci_runners import foreign_commands_in, other_commands_in
from tests.support.notebooks import code, markdown, notebook, write_notebook

HOSTILE = (
    "x\r::error::a\n::error::b\x1b]0;t\x07\x1b[0m::error::c\n##[error]d\u2028::error::e\x85f\x9b2J\v::error::g\n"
    "##vso[task.complete]h\nsection_start:0:i\n\t\u3000::set-output name=o::j"
)
"""What each runner would take a command from, in lines of its own."""
NAME = HOSTILE.replace("/", "") + ".ipynb"
ACTS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def assert_is_text(text: str) -> None:
    assert ACTS.search(text) is None, repr(text)
    assert foreign_commands_in(text) == []
    assert list(other_commands_in(text)) == []


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Call the command line in a folder with a notebook, on GitHub; return its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    write_notebook(tmp_path / "nb.ipynb", notebook(code("x = 1", tags=["parameters"]), "print(x)"))

    def call(*arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "argv", ["nbrun", *arguments])
        monkeypatch.setattr(sys, "stdout", SafeStream(out))
        monkeypatch.setattr(sys, "stderr", SafeStream(err))
        code = _exit_code()
        sys.stdout.close()
        sys.stderr.close()
        return code, out.getvalue(), err.getvalue()

    return call


CALLS = [
    [HOSTILE],
    ["run", HOSTILE],
    ["run", NAME],
    ["run", f"{HOSTILE}://x.ipynb"],
    ["run", f"--{HOSTILE}", "nb.ipynb"],
    ["run", "nb.ipynb", "--timeout", HOSTILE],
    ["run", "nb.ipynb", "--jobs", HOSTILE],
    ["run", "nb.ipynb", "--order", HOSTILE],
    ["run", "nb.ipynb", "--retry-on", HOSTILE],
    ["run", "nb.ipynb", "--shard", HOSTILE],
    ["run", "nb.ipynb", "--matrix", HOSTILE],
    ["run", "nb.ipynb", "--durations", HOSTILE],
    ["run", "nb.ipynb", "--config", HOSTILE],
    ["run", "nb.ipynb", "--server", HOSTILE],
    ["run", "nb.ipynb", "--max-output", HOSTILE],
    ["run", "nb.ipynb", "--secret", HOSTILE],
    ["run", "nb.ipynb", "--secret-file", f"A={HOSTILE}"],
    ["run", "nb.ipynb", "-f", HOSTILE],
    ["run", "nb.ipynb", "-y", f"- {HOSTILE}"],
    ["run", "nb.ipynb", "-b", HOSTILE],
    ["run", "nb.ipynb", "-o", f"s3://{HOSTILE}/x.ipynb"],
    ["run", "nb.ipynb", "--json", f"nb.ipynb/{HOSTILE}"],
    ["run", "nb.ipynb", "--prepare-only", "-o", "out.ipynb", "-p", HOSTILE, "1"],
    ["batch", HOSTILE],
    ["plan", NAME],
    ["plan", "nb.ipynb", "-p", HOSTILE, "1"],
    ["plan", "nb.ipynb", "-k", HOSTILE],
    ["plan", "hostile.ipynb", "--allow-new", "-p", "y", HOSTILE],
    ["doctor", HOSTILE],
]


@pytest.mark.parametrize("arguments", CALLS, ids=[f"{number}-{call[0][:6]}" for number, call in enumerate(CALLS)])
def test_what_is_said_of_a_call_is_text(
    arguments: list[str], said: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    hostile = code(f"x = {HOSTILE!r}  # {HOSTILE}", tags=["parameters"])
    hostile["id"] = "hostile"
    document = notebook(hostile, code(HOSTILE, tags=[HOSTILE]), markdown(HOSTILE), kernel=HOSTILE)
    write_notebook(tmp_path / "hostile.ipynb", document)
    exit_code, out, err = said(*arguments)
    assert_is_text(out + err)
    is_plan = arguments in (CALLS[-2], CALLS[-3])
    assert exit_code == (0 if is_plan else 2), err
    assert out + err


@pytest.mark.parametrize(
    "settings",
    [
        {"x::": HOSTILE},
        {"kernel": HOSTILE, "timeout": HOSTILE},
        {"notebooks": [HOSTILE], "batch": {HOSTILE: {"unknown": 1}}},
        {"overrides": [{"match": HOSTILE, HOSTILE: 1}]},
    ],
)
def test_what_is_said_of_settings_is_text(
    settings: dict[str, object], said: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "nbrun.toml").write_text(_toml(settings))
    exit_code, out, err = said("run", "nb.ipynb")
    assert exit_code == 2
    assert_is_text(out + err)


def _toml(settings: dict[str, object]) -> str:
    # JSON's strings, arrays and, inline, tables are TOML's but for the sign between key and value.
    def value(it: object) -> str:
        if isinstance(it, dict):
            return "{" + ", ".join(f"{json.dumps(key)} = {value(inner)}" for key, inner in it.items()) + "}"
        return "[" + ", ".join(map(value, it)) + "]" if isinstance(it, list) else json.dumps(it)

    return "".join(f"{json.dumps(key)} = {value(it)}\n" for key, it in settings.items())


@pytest.mark.parametrize(
    "content", ["{", '{"nbformat": "::error::x\\n::error::y"}', f'["{HOSTILE}', "<<<<<<< ::error::\n"]
)
def test_what_is_said_of_an_unreadable_file_is_text(
    content: str, said: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / NAME).write_text(content)
    exit_code, out, err = said("plan", NAME)
    assert exit_code == 2
    assert_is_text(out + err)


def test_a_plan_as_json_keeps_its_values(said: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    write_notebook(tmp_path / "hostile.ipynb", notebook(code(HOSTILE, tags=["parameters"]), kernel=HOSTILE))
    exit_code, out, _ = said("plan", "hostile.ipynb", "--json")
    assert exit_code == 0
    assert_is_text(out)
    plan = json.loads(out)
    assert (plan["kernel"], plan["cells"][0]["source"]) == (HOSTILE, HOSTILE)


def test_a_bug_is_told_in_text(said: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(HOSTILE)

    monkeypatch.setattr("nbrun.cli.app.cli.main", fail)
    exit_code, _, err = said("run", "nb.ipynb")
    assert exit_code == 70
    assert_is_text(err)
    assert "this is a bug in nbrun" in err
