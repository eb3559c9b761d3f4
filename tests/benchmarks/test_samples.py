"""The profile of a run: samples of its processes, summed up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import samples
from benchmarks.contenders import CLIENTS
from benchmarks.report import page
from benchmarks.results import Results

LINES = [
    "10\t100.012\t12000000\tstarted\t1",
    "10\t100.021\t8000000\trich.text\trich.text:<module>",
    "11\t100.030\t10000000\tstarted\t10",
    "12\t100.041\t1000000\tforked\t11",
    "13\t100.042\t1000000\tforked\t12",
    "14\t100.043\t1000000\tforked\t13",
    "14\t100.060\t60000000\t\tIPython.core.interactiveshell:run_cell",
    "11\t100.061\t200000\t\ttornado.iostream:write",
    "11\t100.062\t200000\t\ttornado.web:finish",
]


def test_each_process_is_known_by_how_it_began() -> None:
    found = samples.read(LINES)
    assert [sample.role for sample in found] == [
        *("client", "client", "server", "zygote"),
        *("kernel", "kernel", "kernel", "server", "server"),
    ]


def test_large_items_have_rows_and_all_of_the_time_is_accounted_for() -> None:
    found = samples.items(samples.read(LINES), cpu=0.1)
    assert found[:4] == [
        ["kernel", "IPython.core.interactiveshell:run_cell", 0.06],
        ["client", "interpreter", 0.012],
        ["server", "interpreter", 0.01],
        ["client", "import rich", 0.008],
    ]
    assert sum(took for _, _, took in found) == pytest.approx(0.1)


def test_the_timeline_has_a_row_for_every_10_ms() -> None:
    rows = samples.timeline(samples.read(LINES), began=100.0, wall=0.064)
    assert [row["at"] for row in rows] == [0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
    assert rows[1]["client"] == ["interpreter", 0.012]
    assert rows[6]["kernel"][0] == "IPython.core.interactiveshell:run_cell"


def test_the_page_shows_profiles() -> None:
    found = samples.read(LINES)
    told = {
        "wall": 0.06,
        "cpu": 0.1,
        "items": samples.items(found, 0.1),
        "timeline": samples.timeline(found, 100, 0.06),
    }
    text = page([Results({"date": "2026-01-01 00:00 UTC", "python": "3.11"}, [], {"profile of W1": told})])
    assert "| kernel | IPython.core.interactiveshell:run_cell | 60 | 60.0% |" in text
    assert "| 30 |  | interpreter 10 |" in text


PROGRAM = """
import hashlib, os
def work():
    for _ in range(60):
        hashlib.sha256(bytes(1 << 20)).digest()
child = os.fork()
work()
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the profiler reads the CPU clocks of threads")
def test_the_profiler_sees_what_a_process_and_its_fork_do(tmp_path: Path) -> None:
    record = tmp_path / "samples.tsv"
    variables = {**os.environ, "PYTHONPATH": str(CLIENTS / "sampler"), "BENCHMARK_SAMPLES": str(record)}
    subprocess.run([sys.executable, "-c", PROGRAM], env=variables, check=True, timeout=60)
    found = samples.read(record.read_text().splitlines())
    assert {sample.item for sample in found} >= {"interpreter", "fork", "__main__:work"}
