"""A private kernel has neither the server's token nor nbrun's credentials."""

from pathlib import Path

import pytest

from nbrun.cli.options.server import PASSWORD_VARIABLE, TOKEN_VARIABLES
from nbrun.errors import ExitCode
from nbrun.local_server.launcher import EmbeddedServer
from nbrun.local_server.process.kernel_environment import SECRET_VARIABLES, kernel_environment, withheld_from_server
from tests.local_server.process.test_zygote import fresh, is_forked
from tests.support.notebooks import assert_exit, notebook, read_notebook, run_nbrun, write_notebook
from tests.support.private import http

IN_MEMORY = """
import sys
backwards, found = {backwards!r}, []
with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
    for line in maps:
        place, mode = line.split()[:2]
        if mode.startswith("r") and "[v" not in line:
            begin, end = (int(word, 16) for word in place.split("-"))
            memory.seek(begin)
            try:
                if memory.read(end - begin)[::-1].find(backwards) >= 0:
                    found.append(line)
            except OSError:
                pass
frame, names = sys._getframe(), set()
while frame:
    names |= set(frame.f_globals) | set(frame.f_locals)
    frame = frame.f_back
print(found, sorted(names & {{"settings", "token", "order", "control_pipe", "main", "zygote"}}))
"""


@pytest.mark.parametrize("zygote", [False, True], ids=["started", "forked"])
async def test_the_servers_token_is_nowhere_in_the_memory_of_a_kernel(tmp_path: Path, zygote: bool) -> None:
    async with EmbeddedServer(tmp_path, zygote=zygote) as server, http(server.endpoint) as client:
        backwards = (server.endpoint.token or "").encode()[::-1]
        assert backwards
        assert await fresh(server, client, IN_MEMORY.format(backwards=backwards)) == "[] []"
        assert is_forked(server)


SEARCH = """
import os, subprocess
from pathlib import Path
def ancestors(pid):
    while pid > 1:
        yield pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
places = [str(dict(os.environ)), subprocess.run(["env"], capture_output=True, text=True).stdout]
for pid in list(ancestors(os.getpid()))[:2]:  # the kernel and the private server
    places += [Path(f"/proc/{pid}/environ").read_text(), Path(f"/proc/{pid}/cmdline").read_text()]
print([word in place for word in ("op" + "en-1", "op" + "en-2", "op" + "en-3") for place in places].count(True))
"""


@pytest.mark.parametrize("option", ["--no-zygote", ""], ids=["started", "forked"])
def test_no_variable_that_opens_a_server_reaches_a_kernel_unless_it_is_given_as_a_secret(
    tmp_path: Path, option: str
) -> None:
    path = write_notebook(
        tmp_path / "a.ipynb", notebook(SEARCH, "print(NBRUN_TOKEN[::-1], 'NBRUN_TOKEN' in __import__('os').environ)")
    )
    environment = {"NBRUN_TOKEN": "open-1", "NBRUN_PASSWORD": "open-2", "JUPYTER_TOKEN": "open-3"}
    assert_exit(
        run_nbrun("run", path, "--secret", "NBRUN_TOKEN", *filter(None, [option]), env=environment), ExitCode.OK
    )
    first, second = read_notebook(path)["cells"]
    assert first["outputs"][0]["text"] == "0\n"
    assert second["outputs"][0]["text"] == "1-nepo False\n"


def test_what_nbrun_reads_secrets_from_is_what_kernels_do_not_get() -> None:
    assert {*TOKEN_VARIABLES, PASSWORD_VARIABLE} == SECRET_VARIABLES
    assert kernel_environment({**dict.fromkeys(SECRET_VARIABLES, "x"), "JUPYTERHUB_API_TOKEN": "y"}) == {
        "JUPYTERHUB_API_TOKEN": "y"
    }


@pytest.mark.parametrize(
    ("environment", "withheld"),
    [
        ({"PYTHONOPTIMIZE": "2", "PYTHONPATH": "/x"}, {"PYTHONOPTIMIZE"}),
        ({"PYTHONWARNINGS": "error", "PYTHONDEVMODE": ""}, {"PYTHONWARNINGS"}),
        ({"PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1", "PYTHON_VERSION": "3.11"}, set()),
    ],
)
def test_only_what_would_change_the_servers_interpreter_is_withheld_from_it(
    environment: dict[str, str], withheld: set[str]
) -> None:
    assert withheld_from_server(environment).keys() == withheld
