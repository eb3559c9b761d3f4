"""A secret appears in no written byte and in no process list."""

import base64
import json
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from nbrun.errors import ExitCode
from tests.e2e.test_kernels import in_language
from tests.publishing.notifications.servers import hook_server, mail_server
from tests.support.kernelspecs import jupyter_path
from tests.support.notebooks import code, markdown, notebook, outputs_of, read_notebook, run_nbrun, write_notebook
from tests.support.stores import SECRET as STORE_SECRET
from tests.support.stores import s3_by_moto, web_store

SECRET = "hunter2-S3cr3t/+Key"
FILE_SECRET = "first-line-of-key\nsecond-line-of-key"
LEAKS = (
    code("TOKEN = ''\nregion = 'EU'", tags=["parameters"]),
    "assert TOKEN == REAL, 'the secret did not win over the parameters cell'\nprint(TOKEN)",
    (
        "import sys, time\nfor piece in (TOKEN[:5], TOKEN[5:]):\n    sys.stdout.write(piece)\n    sys.stdout.flush()\n"
        "    time.sleep(0.3)"
    ),
    "print('\\n'.join(f'{TOKEN[:i]}\\x1b[31m{TOKEN[i:]}' for i in (3, 9)), file=sys.stderr)",
    (
        "import base64, html, json, urllib.parse\n"
        "[base64.b64encode(f'user:{TOKEN}'.encode()), TOKEN.encode().hex(), urllib.parse.quote(TOKEN, safe='')]"
    ),
    (
        "from IPython.display import display, HTML, JSON\n"
        "display(HTML(f'<b>{html.escape(TOKEN)}</b>'), JSON({TOKEN: [TOKEN]}), metadata={'note': TOKEN})"
    ),
    "handle = display('shown first', display_id=True)\nhandle.update(TOKEN)",
    (
        "import ipywidgets\nwidget = ipywidgets.Text(value=TOKEN)\ndisplay(widget)\n"
        "image = ipywidgets.Image(value=TOKEN.encode())"
    ),
    "import os; os.write(2, TOKEN.encode()); import subprocess; subprocess.run(['cat'], input=TOKEN.encode())",
    "print(KEY)\nprint(KEY.splitlines()[1])",
    "print(TOKEN[:6], end='')\nprint('x' + TOKEN[:-1] + '\\b' + TOKEN[-2:])",
    "print(In, _ih)",
    "def fails(argument):\n    raise type(TOKEN, (Exception,), {})(argument)\nfails(TOKEN)",
)


def forms(secret: str) -> list[bytes]:
    """Return what must not be found: the secret and the spellings that the cells above put out."""
    lines = [secret, *secret.splitlines()]
    return [form for line in lines for form in (line.encode(), line.encode().hex().encode(), json.dumps(line).encode())]


FORBIDDEN = [
    *forms(SECRET),
    *forms(FILE_SECRET),
    b"aHVudGVyMi1TM2NyM3Q",
    b"odW50ZXIyLVMzY3IzdC8rS2V5",
    b"hunter2-S3cr3t%2F",
]


@contextmanager
def watched() -> Iterator[set[bytes]]:
    """Collect the command lines of all processes, and the private servers' logs, while the block runs."""
    seen: set[bytes] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            for process in psutil.process_iter():
                try:
                    seen.add("\0".join(process.cmdline()).encode())
                except psutil.Error:
                    continue
            for log in Path(tempfile.gettempdir()).glob("nbrun-*/log"):
                try:
                    seen.add(b"log: " + log.read_bytes())
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


@pytest.fixture(scope="module")
def leaked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str], set[bytes]]:
    """The cells above, run once with both secrets."""
    folder = tmp_path_factory.mktemp("leaks")
    secrets = tmp_path_factory.mktemp("secrets")
    (secrets / "key.pem").write_text(FILE_SECRET + "\n")
    (secrets / "real.txt").write_text(SECRET)
    write_notebook(folder / "in.ipynb", notebook(*LEAKS))
    with watched() as seen:
        process = run_nbrun(
            "run", "in.ipynb", "-o", "out.ipynb", "-p", "region", "US", "--json", "result.json", "--log-output",
            "--secret", "TOKEN=THE_TOKEN", "--secret-file", f"KEY={secrets / 'key.pem'}",
            "--secret-file", f"REAL={secrets / 'real.txt'}",
            "--stdout-file", "stdout.txt", "--stderr-file", "stderr.txt",
            cwd=folder, env={"THE_TOKEN": SECRET},
        )  # fmt: skip
    return folder, process, seen


def test_the_cells_did_put_the_secret_out(
    leaked: tuple[Path, subprocess.CompletedProcess[str], set[bytes]],
) -> None:
    folder, process, _ = leaked
    assert process.returncode == ExitCode.NOTEBOOK_FAILED, process.stderr
    result = json.loads((folder / "result.json").read_text())
    outcomes = [cell["outcome"] for cell in result["cells"]]
    assert outcomes == ["passed"] * len(LEAKS) + ["failed"]
    assert [cell["incomplete"] for cell in result["cells"]] == [None] * (len(LEAKS) + 1)
    assert result["cells"][-1]["error"]["ename"] == "***"
    outputs = outputs_of(read_notebook(folder / "out.ipynb"))
    assert outputs[2][0]["text"] == "***\n"
    assert outputs[3][0]["text"] == "***"
    assert outputs[7][0]["data"]["text/plain"] == "'***'"
    streams = {output["name"]: output["text"] for output in outputs[9] if "name" in output}
    assert streams == {"stdout": "***", "stderr": "***"}, "what reaches the descriptors is put out, too"
    assert outputs[10][0]["text"] == "***\n***\n"


def test_no_byte_that_was_written_has_the_secret_in_it(
    leaked: tuple[Path, subprocess.CompletedProcess[str], set[bytes]],
) -> None:
    folder, process, seen = leaked
    written = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(written) == 5
    written |= {"standard output": process.stdout.encode(), "standard error": process.stderr.encode()}
    written |= {f"process or server log {number}": text for number, text in enumerate(seen)}
    assert any(b"process.boot" in text for text in seen)
    assert any(text.startswith(b"log: ") for text in seen)
    found = {(name, form) for name, text in written.items() for form in FORBIDDEN if form in text}
    assert found == set()


def test_neither_notebook_nor_result_record_a_secret_as_a_parameter(
    leaked: tuple[Path, subprocess.CompletedProcess[str], set[bytes]],
) -> None:
    folder, _, _ = leaked
    saved = read_notebook(folder / "out.ipynb")
    assert saved["metadata"]["nbrun"]["run"]["parameters"] == {"region": "US"}
    assert saved["cells"][1]["source"] == '# Parameters\nregion = "US"'
    assert json.loads((folder / "result.json").read_text())["parameters"] == {"region": "US"}
    # The silent requests counted for nothing.
    assert [cell["execution_count"] for cell in saved["cells"]] == list(range(1, len(LEAKS) + 2))


def test_github_is_told_what_to_mask_and_a_short_secret_is_warned_of(tmp_path: Path) -> None:
    write_notebook(tmp_path / "in.ipynb", notebook("print(A, B)"))
    process = run_nbrun(
        "run", "in.ipynb", "--secret", "A", "--secret", "B", "--json", "-", cwd=tmp_path,
        env={"A": "50%-of\nthe-key", "B": "abc", "GITHUB_ACTIONS": "true"},
    )  # fmt: skip
    assert process.returncode == ExitCode.OK, process.stderr
    assert "::add-mask::50%25-of\n::add-mask::the-key\n::add-mask::abc\n" in process.stderr
    result = json.loads(process.stdout)
    assert result["warnings"] == ["the secret B is too short to be masked in the outputs"]


def test_a_secret_that_is_not_there_is_an_error_and_nothing_runs(tmp_path: Path) -> None:
    write_notebook(tmp_path / "in.ipynb", notebook("1"))
    before = (tmp_path / "in.ipynb").read_bytes()
    for option, said in {
        ("--secret", "NOT_SET_ANYWHERE"): "the environment variable NOT_SET_ANYWHERE is not set",
        ("--secret-file", "A=missing.txt"): "missing.txt: cannot be read",
        ("--secret-file", "A"): "NAME=PATH is wanted",
        ("--secret", "=HOME"): "a name is wanted",
        ("--secret", "a b=HOME"): "no name of a variable",
    }.items():
        process = run_nbrun("run", "in.ipynb", *option, cwd=tmp_path)
        assert (process.returncode, said in process.stderr) == (ExitCode.USAGE, True), process.stderr
    both = run_nbrun("run", "in.ipynb", "--secret", "HOME", "-p", "HOME", "x", cwd=tmp_path)
    assert (both.returncode, "both" in both.stderr or "as a secret" in both.stderr) == (ExitCode.USAGE, True)
    assert (tmp_path / "in.ipynb").read_bytes() == before


@pytest.mark.parametrize(
    ("kernel", "declaring", "showing"),
    [
        ("bash", "TOKEN=\nregion=EU", 'test "$TOKEN" = "$REAL" && echo $region same $TOKEN'),
        (
            "deno",
            'let TOKEN = "";\nlet region = "EU";',
            'console.log(region, TOKEN === REAL ? "same" : "another", TOKEN)',
        ),
    ],
)
def test_secrets_and_parameters_reach_kernels_that_are_not_pythons(
    kernel: str, declaring: str, showing: str, tmp_path: Path
) -> None:
    path = jupyter_path(kernel)
    write_notebook(tmp_path / "in.ipynb", in_language(kernel, code(declaring, tags=["parameters"]), showing))
    process = run_nbrun(
        "run", "in.ipynb", "--secret", "TOKEN=THE_TOKEN", "--secret", "REAL=THE_TOKEN", "-p", "region", "US",
        cwd=tmp_path, env={"JUPYTER_PATH": path, "THE_TOKEN": SECRET},
    )  # fmt: skip
    assert process.returncode == ExitCode.OK, process.stderr
    assert outputs_of(read_notebook(tmp_path / "in.ipynb"))[2][0]["text"] == "US same ***\n"


PUBLISHED = """
[batch.sales]
notebooks = ["sales.ipynb"]
no-save = true
publish = "{base}/reports"
html = "site"
pdf = true
json = "{web}/r.json"
junit = "r.xml"
events = "{base}/e.jsonl"
trace = "trace.jsonl"
log-output = true
notify = ["env:MAIL", "env:HOOK"]
notify-on = ["always"]
ping = "file:ping.url"
lock = "wait"
parameters = {{ region = "{secret}-north" }}
"""
PASSWORD, KEYWORD = f"pass-{uuid.uuid4().hex}", f"key-{uuid.uuid4().hex}"
"""Parts of URLs, of which no other test that runs meanwhile knows."""


def recorder_of_moto(monkeypatch: pytest.MonkeyPatch, file: Path) -> Any:
    """Return moto's recorder, which writes the requests to a file until it is stopped."""
    from moto.moto_api import recorder

    monkeypatch.setattr(recorder, "_location", str(file))
    monkeypatch.setattr(recorder, "_user_enabled", recorder._user_enabled)
    recorder.start_recording()
    return recorder


def recorded(file: Path) -> bytes:
    """Return the recorded requests with their bodies as they were sent."""
    requests = [json.loads(line) for line in file.read_text().splitlines()]
    bodies = [base64.b64decode(one["body"]) if one["body_encoded"] else one["body"].encode() for one in requests]
    return b"\n".join([file.read_bytes(), *bodies])


def test_no_secret_of_a_run_with_reports_store_mail_and_hooks_is_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the request that a secret belongs to carries it: the path of a hook, and the login of a web server."""
    here = tmp_path / "here"
    cells = "print(TOKEN, region)", "print(f'{TOKEN[:4]}', end=''); print(TOKEN[4:])", "raise ValueError(TOKEN)"
    parameters = code("TOKEN = ''\nregion = ''", tags=["parameters"])
    write_notebook(here / "sales.ipynb", notebook(markdown("# Sales"), parameters, *cells))
    with s3_by_moto() as s3, web_store() as web, mail_server() as box, hook_server() as hook, watched() as seen:
        bucket = s3.bucket()
        login = web.url.replace("//", f"//ann:{PASSWORD}@")
        (here / "nbrun.toml").write_text(PUBLISHED.format(base=f"s3://{bucket}", web=login, secret=SECRET))
        (here / "ping.url").write_text(f"{hook.url}?key={KEYWORD}")
        recorder = recorder_of_moto(monkeypatch, tmp_path / "requests.jsonl")
        env = {
            **s3.env,
            "MAIL": box.url,
            "HOOK": f"{hook.url}?key={KEYWORD}",
            "REAL": SECRET,
            "XDG_STATE_HOME": str(tmp_path / "state"),
        }
        done = run_nbrun("batch", "sales", "-vv", "--secret", "TOKEN=REAL", cwd=here, env=env)
        recorder.stop_recording()
        stored = {key: s3.read(bucket, key) for key in s3.keys(bucket)}
    assert done.returncode == ExitCode.NOTEBOOK_FAILED, done.stderr
    assert {"e.jsonl", "reports/index.html", "reports/sales/.lock"} < stored.keys()
    assert any(key.endswith("sales.pdf") for key in stored)
    assert list(web.objects) == ["/r.json"]
    assert len(box.mails) == 2
    assert len([path for path, _ in hook.requests if KEYWORD in path]) == 4
    requests = recorded(tmp_path / "requests.jsonl")
    assert b"run.json" in requests
    assert b"%PDF-" in requests
    (here / "nbrun.toml").unlink()
    (here / "ping.url").unlink()
    written = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {path.name for path in map(Path, written)} > {"r.xml", "trace.jsonl", "index.html", "sales.pdf"}
    mails = {
        f"mail {number}, {part.get_content_type()}": bytes(part.get_payload(decode=True))
        for number, mail in enumerate(box.mails)
        for part in mail.walk()
        if not part.is_multipart()
    }
    found = {
        **written,
        **stored,
        **web.objects,
        **mails,
        "requests to S3": requests,
        "raw mails": b"".join(box.raw),
        "bodies of hooks": b"".join(body for _, body in hook.requests),
        "standard error": done.stderr.encode() + done.stdout.encode(),
        **{f"process or log {number}": text for number, text in enumerate(seen)},
    }
    forbidden = [*(word.encode() for word in (PASSWORD, KEYWORD, STORE_SECRET)), *FORBIDDEN]
    forms = {form for word in forbidden for form in (word, quote(word).encode(), base64.b64encode(word))}
    assert {(name, form) for name, text in found.items() for form in forms if form in text} == set()
