"""Time limits: each one ends what it limits, whatever the cell does."""

from pathlib import Path

import pytest

import nbrun
from nbrun.errors import ExitCode
from tests.support.live_runs import Place, outcomes, place_on, text_of
from tests.support.notebooks import code, notebook

LOOP = "while True:\n    pass"
DEAF = """import time
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        print('no', flush=True)"""
AWAITING = "import asyncio\nawait asyncio.sleep(1e9)"
MASKED = (
    "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('masked', flush=True)\ntime.sleep(600)"
)

ENDLESS = pytest.mark.parametrize(
    "endless",
    [
        pytest.param(LOOP, id="a loop"),
        pytest.param(AWAITING, id="an await"),
        pytest.param("import time\ntime.sleep(1e6)", id="a sleep"),
    ],
)


def errors(outputs: list[dict[str, object]]) -> list[object]:
    """Return the names of the errors among outputs."""
    return [output["ename"] for output in outputs if output["output_type"] == "error"]


@ENDLESS
async def test_the_cell_timeout_interrupts_and_the_notebook_ends_there(endless: str, on_stock: Place) -> None:
    result = await on_stock.run("print('one')", endless, "print('never')", cell_timeout=1.0)

    assert result.exit_code == ExitCode.NOTEBOOK_FAILED
    assert outcomes(result) == ["passed", "timed-out", "not-run"]
    assert result.problem is not None
    assert "the cell's limit of 1.0 s" in result.problem.message
    assert "cell 2 of 3" in result.problem.message
    seconds = result.cells[1].seconds
    assert seconds is not None
    assert 1 <= seconds < 11
    _, stopped, never = on_stock.outputs()
    assert len(errors(stopped)) == 1
    assert never == []
    assert on_stock.nothing_is_left()


@ENDLESS
async def test_under_allow_errors_the_kernel_goes_on_after_a_cell_that_took_too_long(
    endless: str, on_stock: Place
) -> None:
    result = await on_stock.run("kept = 42", endless, "kept", cell_timeout=1.0, allow_errors=True)

    assert outcomes(result) == ["passed", "timed-out", "passed"]
    assert on_stock.outputs()[2][0]["data"]["text/plain"] == "42"


@pytest.mark.parametrize("deaf", [DEAF, MASKED], ids=["catches every interrupt", "has masked the signal"])
async def test_a_cell_that_no_interrupt_ends_ends_with_its_kernel(
    deaf: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.core.execution.interruption.INTERRUPT_GRACE", 0.5)
    result = await place.run("print('one')", deaf, "print('never')", cell_timeout=1.0, allow_errors=True)

    assert result.exit_code == ExitCode.NOTEBOOK_FAILED
    assert outcomes(result) == ["passed", "timed-out", "not-run"]
    assert result.problem is not None
    assert "did not react to interrupts" in result.problem.hint
    one, stopped, never = place.outputs()
    assert text_of(one) == "one\n"
    assert ("no" in text_of(stopped)) or ("masked" in text_of(stopped))
    assert errors(stopped) == ["CellTimeout"]
    assert never == []
    assert place.nothing_is_left()


async def test_a_cell_of_its_own_limit_is_held_to_that(on_stock: Place) -> None:
    patient = code("import time\ntime.sleep(1.5)\nprint('done')")
    patient["metadata"]["nbrun"] = {"timeout": "1h"}

    result = await on_stock.run(patient, "print('quick')", cell_timeout=1.0)

    assert (result.exit_code, outcomes(result)) == (ExitCode.OK, ["passed", "passed"])


async def test_a_limit_that_is_none_never_strikes(on_stock: Place) -> None:
    result = await on_stock.run("1", cell_timeout=float("inf"), idle_timeout=float("inf"), timeout=float("inf"))
    assert result.exit_code == ExitCode.OK


async def test_the_idle_timeout_lets_a_cell_run_that_speaks_and_stops_one_that_is_silent(on_stock: Place) -> None:
    speaking = "import time\nfor n in range(6):\n    print(n, flush=True)\n    time.sleep(0.3)"
    result = await on_stock.run(speaking, "time.sleep(600)", "print('never')", idle_timeout=1.5)

    assert result.exit_code == ExitCode.NOTEBOOK_FAILED
    assert outcomes(result) == ["passed", "timed-out", "not-run"]
    assert result.problem is not None
    assert "no output for 1.5 s" in result.problem.message
    assert text_of(on_stock.outputs()[0]).split() == [str(n) for n in range(6)]


@pytest.mark.parametrize("allow_errors", [False, True])
async def test_the_timeout_of_the_run_ends_it_in_whatever_cell(allow_errors: bool, on_stock: Place) -> None:
    half = "import time\ntime.sleep(0.9)"
    result = await on_stock.run(half, half, "time.sleep(600)", "print('never')", timeout=2.5, allow_errors=allow_errors)

    assert result.exit_code == ExitCode.NOTEBOOK_FAILED
    assert result.outcome is nbrun.Outcome.TIMED_OUT
    assert outcomes(result)[-1] == "not-run"
    assert "timed-out" in outcomes(result)
    assert result.problem is not None
    assert "the run took longer than its limit of 2.5 s" in result.problem.message


async def test_a_kernel_that_hangs_at_its_start_is_given_up_in_time(place: Place) -> None:
    before = place.write(notebook("1"))
    text = (place.folder / "notebook.ipynb").read_bytes()

    with pytest.raises(nbrun.NbrunError, match=r"did not start within 1\.5 s") as caught:
        await nbrun.run_async(before, kernel="hangs", startup_timeout=1.5, **place.options)

    assert caught.value.exit_code == ExitCode.KERNEL
    assert "--startup-timeout" in caught.value.hint
    assert (place.folder / "notebook.ipynb").read_bytes() == text
    assert place.nothing_is_left()


async def test_a_kernel_that_dies_at_its_start_is_told_of_with_what_it_said(place: Place) -> None:
    path = place.write(notebook("1"))
    limit = 6.0 if place.server is None else 3.0  # a stock server starts the kernel again and again

    with pytest.raises(nbrun.NbrunError) as caught:
        await nbrun.run_async(path, kernel="dies", startup_timeout=limit, **place.options)

    assert caught.value.exit_code == ExitCode.KERNEL
    if place.server is None:
        assert "libfoo.so" in str(caught.value), "of a private server the log is known"
        assert "nbrun has started it twice" in str(caught.value)
    assert place.nothing_is_left()


async def test_a_private_ipykernel_that_dies_at_its_start_is_not_replaced(
    tmp_path: Path, jupyter_path: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_PATH", jupyter_path)
    place = place_on(None, tmp_path)

    with pytest.raises(nbrun.NbrunError, match=r"libbar\.so") as caught:
        await nbrun.run_async(place.write(notebook("1")), kernel="broken-ipykernel", **place.options)

    assert caught.value.exit_code == ExitCode.KERNEL
    assert "twice" not in str(caught.value), "it uses Unix sockets, and no ports that could be taken"


async def test_a_kernel_whose_program_is_missing_did_not_start(place: Place) -> None:
    path = place.write(notebook("1"))

    with pytest.raises(nbrun.NbrunError, match="/no/such/program") as caught:
        await nbrun.run_async(path, kernel="missing-program", **place.options)

    assert caught.value.exit_code == ExitCode.KERNEL
    assert place.nothing_is_left()


async def test_a_kernel_that_the_server_has_not_is_refused_with_those_it_has(place: Place) -> None:
    path = place.write(notebook("1"))

    with pytest.raises(nbrun.NbrunError, match="no-such-kernel") as caught:
        await nbrun.run_async(path, kernel="no-such-kernel", **place.options)

    assert caught.value.exit_code == ExitCode.USAGE
    assert "python3" in f"{caught.value} {caught.value.hint}"
    assert place.nothing_is_left()
