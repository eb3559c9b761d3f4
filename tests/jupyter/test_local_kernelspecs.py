"""The kernels of this machine."""

import json
import sys
from pathlib import Path

import pytest

from nbrun.jupyter.local_kernelspecs import other_python


@pytest.mark.parametrize(
    ("program", "other"),
    [
        ("/opt/env/bin/python3.12", True),
        ("/opt/env/bin/python", True),
        ("python3", False),
        (sys.executable, False),
        ("/usr/bin/R", False),
    ],
)
def test_the_program_of_a_kernel_in_another_python_environment_is_known(
    program: str, other: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "kernels" / "other"
    folder.mkdir(parents=True)
    spec = {"argv": [program, "-m", "ipykernel"], "display_name": "Other", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert other_python("other") == (program if other else "")
    assert other_python("unknown") == ""
