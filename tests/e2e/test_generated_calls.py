"""A thousand generated parameter files and command lines: exit code 0 or 2, within 5 seconds and 500 MB each.

They run through ``plan`` and ``run --prepare-only``, many in each child process, so that a run of them takes a minute
or two. The generator is seeded: a failure names its number and can be repeated.
"""

import base64
import json
import random
import string
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.notebooks import code, notebook, write_notebook

CALLS = 1000
PER_CHILD = 250
SECONDS = 5.0
MEGABYTES = 500

CHILD = """
import contextlib, io, json, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from nbrun.cli import main
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM"))
for line in sys.stdin:
    number, arguments = json.loads(line)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak begins anew
    sys.argv = ["nbrun", *arguments]
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    errors = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    began = time.monotonic()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
        try:
            code = int(main._exit_code())
        except BaseException as error:
            code = f"{type(error).__name__}: {error}"
        said.flush(); errors.flush()
    text = errors.buffer.getvalue().decode("utf-8", "replace")[-1500:]
    print(json.dumps([number, code, time.monotonic() - began, peak(), text]), flush=True)
"""

SCALARS = (
    "1", "-0", "007", "0x1F", "0o17", "0b11", "1_000", "1e3", "1e400", "-1e999", ".5", "1:30", "nan", ".nan", ".inf",
    "inf", "true", "yes", "Null", "~", "None", "2026-01-02", "2026-99-99", "12:30:00", "!!int x", "!!float ''",
    "!!bool 3", "!!binary aGk=", "!!timestamp x", "!!python/name:os.system", "!Ref y", "!!set {a}", "*a", "&a 1", "=",
    "'", '"', "'it''s'", '"\\u0041"', '"\\ud800"', "|", ">", "-", "?", ":", "#", "%", "@", "`", "[1, 2]", "{a: 1}", "[",
    "{", "]", "<<: 1", "é", "\U0001f600", "\x00", "\x85", "\u2028", "\x1b[31m", "::error::x", "##[error]x", "",
)  # fmt: skip
NAMES = (
    "region", "limit", "names", "x", "class", "None", "if", "function", "lambda", "__debug__", "π", "ﬁ", "²", "a b",
    "a-b", "1a", "", "a\nb", "a\x00", "\u2028", "_", "__import__", "print", "x" * 300, "..", "*", "$(id)", "--x", "=",
    "region=US", "\ud800", "end", "let", "TRUE", "null", "val", "func", "UID",
)  # fmt: skip
SETTINGS = (
    "jobs = 1",
    "jobs = 'auto'", "jobs = -1", "timeout = '5m'", "timeout = nan", "timeout = 1e400", "retries = 0xFFFFFFFFFF",
    "kernel = 5", "kernel = ''", "parameters = 1", "parameters.x = 1", "parameters.'' = 1", "parameters.class = 2",
    "overrides = 1", "[[overrides]]\nmatch = 1", "[[overrides]]\nmatch = '*'\nparameters.a.b = [1, {c = 2}]",
    "batch = []", "[batch.a]", "[batch.a]\nnotebooks = ['*.ipynb']\nmatrix.x = []", "[tool.nbrun]\njobs = 1", "[nbrun]",
    "exclude = ['[']",
    "exclude = ['a']", "max-output = '9'", "save-every = 0", "cell-timout = 1", "a" + ".a" * 300 + " = 1",
    "x = " + "[" * 300, "language = 'cobol'", "secret = ['A=']",
    "pipeline = 0", "html = ''", "shard = '1/0'", "= 1", "\xff",
)  # fmt: skip
KERNELS = (
    "python3",
    "ir",
    "bash",
    "julia-1.9",
    "deno",
    "scala",
    "octave",
    "rust",
    "gophernotes",
    ".net-csharp",
    "x",
    "",
)
LANGUAGES = (
    "python", "r", "julia", "scala", "bash", "javascript", "c#", "f#", "powershell", "matlab", "octave", "rust", "go",
    "cobol",
)  # fmt: skip


class Calls:
    """Makes calls, and the files that they name in a folder."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.files = 0

    def call(self) -> list[str]:
        choose = self.random
        words = ["plan"] if choose.random() < 0.6 else ["run", "--prepare-only", "-o", f"out{self.files}.ipynb"]
        words += [
            choose.choice(("report.ipynb",) * 8 + ("bash.ipynb", "none.ipynb", ".", "values.yaml", "", "\x1b]0;x\x07"))
        ]
        for _ in range(choose.randint(0, 4)):
            words += self.option()
        if choose.random() < 0.7:
            words += ["--allow-new"]
        return [word.replace("\0", "") for word in words]  # no process can be given a NUL

    def option(self) -> list[str]:
        choose = self.random
        name, value = choose.choice(NAMES), choose.choice((*SCALARS, "9" * choose.choice((10, 400, 5000, 20_000))))
        match choose.randrange(14):
            case 0 | 1:
                return ["-p", name, value]
            case 2:
                return ["-r", name, value]
            case 3 | 4 | 5:
                return ["-f", self.file()]
            case 6:
                return ["-y", self.text()]
            case 7:
                return [
                    "-b",
                    base64.b64encode(self.text().encode("utf-8", "surrogatepass")).decode()[choose.choice((0, 0, 1)) :],
                ]
            case 8:
                return ["--config", self.settings()]
            case 9:
                return ["-l", choose.choice(LANGUAGES)]
            case 10:
                return ["-k", choose.choice(KERNELS)]
            case 11:
                return [choose.choice(("--timeout", "--cell-timeout", "--idle-timeout")), value]
            case 12:
                return [
                    choose.choice(("--secret", "--secret-file")),
                    choose.choice((name, f"{name}=HOME", "A=/dev/zero", value)),
                ]
            case _:
                return [choose.choice(("--no-such", "-z", "--log-level", "--engine", "--ServerApp.x=1", name, value))]

    def file(self) -> str:
        choose = self.random
        self.files += 1
        path = self.folder / f"f{self.files}.{choose.choice(('yaml', 'yml', 'json', 'toml', 'txt'))}"
        path.write_bytes(self.damaged(self.text()))
        return choose.choice((path.name,) * 9 + ("missing.yaml", ".", "/dev/null", "/dev/zero"))

    def settings(self) -> str:
        self.files += 1
        path = self.folder / f"s{self.files}" / self.random.choice(("nbrun.toml", "pyproject.toml"))
        path.parent.mkdir()
        path.write_bytes(self.damaged("\n".join(self.random.sample(SETTINGS, self.random.randint(1, 3)))))
        return str(path.relative_to(self.folder))

    def damaged(self, text: str) -> bytes:
        data = text.encode(self.random.choice(("utf-8",) * 8 + ("utf-8-sig", "utf-16", "latin-1")), "replace")
        if data and self.random.random() < 0.1:
            at = self.random.randrange(len(data))
            data = data[:at] + bytes([self.random.randrange(256)]) + data[at + 1 :]
        return data if self.random.random() < 0.95 else data[: len(data) // 2]

    def text(self) -> str:
        choose = self.random
        size = choose.choice((3, 50, 2000, 30_000))
        match choose.randrange(16):
            case 0:
                return "a: " + choose.choice(("[", "{a: ", "- ", "? ")) * size
            case 1:
                return "a: " + "[" * size + "]" * size
            case 2:
                return json.dumps({"x": json.loads("[" * min(size, 300) + "]" * min(size, 300))})
            case 3:
                return "a" + ".a" * size + " = 1"
            case 4:
                return "a: &a " + choose.choice(("[*a]", "{x: *a}", "[1]")) + "\nb: [*a, *a]\n<<: *a"
            case 5:
                lines = ["a0: &a0 [x, x, x]"]
                lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, choose.randint(2, 20))]
                return "\n".join(lines)
            case 6:
                lines = ["a0: &a0 {k: 1}"]
                lines += [
                    f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, choose.randint(2, 20))
                ]
                return "\n".join(lines)
            case 7:
                return f"region: {choose.choice(('0x', '0o', '0b', ''))}{'1' * size}"
            case 8:
                return f"x = {choose.choice(('0x', '0b', '', '1e', '1.', 'inf', 'nan', chr(34)))}{'1' * size}"
            case 9:
                return json.dumps({choose.choice(NAMES): choose.choice(SCALARS) for _ in range(5)})
            case 10:
                return '{"x": ' + choose.choice(("1e400", "9" * size, "NaN", '"\\ud800"', "1,}", "/**/ 1")) + "}"
            case 11:
                return "".join(choose.choice(string.printable) for _ in range(min(size, 2000)))
            case 12:
                return "\n".join(f"k{n}: {choose.choice(SCALARS)}" for n in range(min(size, 20)))
            case 13:
                return "x: " + ":".join(["1"] * min(size, 20_000)) + choose.choice(("", ".5"))
            case _:
                return "\n".join(
                    f"{choose.choice(NAMES)}: {choose.choice(SCALARS)}" for _ in range(choose.randint(1, 4))
                )


def run_child(folder: Path, first: int, calls: list[list[str]]) -> list[tuple[int, object, float, int, str]]:
    lines = "".join(json.dumps([first + number, call]) + "\n" for number, call in enumerate(calls))
    ended = subprocess.run(
        [sys.executable, "-c", CHILD], input=lines, cwd=folder, capture_output=True, text=True, timeout=280, check=False
    )
    found = [tuple(json.loads(line)) for line in ended.stdout.splitlines()]
    assert len(found) == len(calls), (
        f"died after call {first + len(found)}: {calls[len(found)]}\n{ended.stderr[-2000:]}"
    )
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(CALLS // PER_CHILD))
def test_a_generated_call_succeeds_or_is_refused_at_once(seed: int, tmp_path: Path) -> None:
    cells = (code('region = "EU"\nlimit: int = 5\nnames: list[str] = []', tags=["parameters"]), "print(region)")
    write_notebook(tmp_path / "report.ipynb", notebook(*cells))
    write_notebook(tmp_path / "bash.ipynb", notebook(code("region=EU", tags=["parameters"]), kernel="bash"))
    (tmp_path / ".git").mkdir()
    maker = Calls(tmp_path, seed)
    calls = [maker.call() for _ in range(PER_CHILD)]

    found = run_child(tmp_path, seed * PER_CHILD, calls)

    wrong = [
        (calls[number - seed * PER_CHILD], code_, round(seconds, 1), megabytes, said)
        for number, code_, seconds, megabytes, said in found
        if code_ not in (0, 2) or seconds > SECONDS or megabytes > MEGABYTES or "Traceback" in said
    ]
    assert not wrong, "\n".join(str(each)[:1500] for each in wrong[:5])
    codes = [code_ for _, code_, *_ in found]
    assert codes.count(0) > PER_CHILD // 20
    assert codes.count(2) > PER_CHILD // 2
