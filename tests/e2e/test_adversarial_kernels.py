"""Code that exits, asks for input, interrupts itself or fails in unusual ways."""

from typing import Any

import pytest

from nbrun.errors import ExitCode
from tests.support.live_runs import Place, outcomes, text_of
from tests.support.notebooks import code


def enames(outputs: list[dict[str, Any]]) -> list[str]:
    """Return the names of the errors among outputs."""
    return [output["ename"] for output in outputs if output["output_type"] == "error"]


LEAVING = pytest.mark.parametrize("leave", ["exit()", "quit()", "exit", "get_ipython().ask_exit()"])


@LEAVING
async def test_leaving_the_kernel_before_the_last_cell_is_a_failure_of_the_kernel(leave: str, place: Place) -> None:
    result = await place.run("print('one')", leave, "open('third', 'w')")

    assert result.exit_code == ExitCode.KERNEL
    assert outcomes(result) == ["passed", "passed", "not-run"]
    assert result.problem is not None
    assert "the kernel was told to exit in cell 2 of 3" in result.problem.message
    assert "sys.exit(0)" in result.problem.hint
    assert not (place.folder / "third").exists()
    assert place.nothing_is_left()


async def test_leaving_the_kernel_in_the_last_cell_is_fine(place: Place) -> None:
    result = await place.run("print('one')", "exit()")

    assert (result.exit_code, outcomes(result)) == (ExitCode.OK, ["passed", "passed"])
    assert text_of(place.outputs()[0]) == "one\n"
    assert place.nothing_is_left()


async def test_leaving_while_the_kernel_is_kept_leaves_nothing(on_stock: Place) -> None:
    result = await on_stock.run("exit(keep_kernel=True)", "print('still here')")

    assert (result.exit_code, outcomes(result)) == (ExitCode.OK, ["passed", "passed"])


@pytest.mark.parametrize("leave", ["sys.exit()", "sys.exit(0)", "raise SystemExit"])
async def test_sys_exit_without_a_code_ends_the_notebook_early_and_well(leave: str, on_stock: Place) -> None:
    result = await on_stock.run("import sys", leave, "open('third', 'w')")

    assert (result.exit_code, outcomes(result)) == (ExitCode.OK, ["passed", "passed", "skipped"])
    assert not (on_stock.folder / "third").exists()
    assert on_stock.read()["cells"][2]["execution_count"] is None
    assert on_stock.nothing_is_left()


@pytest.mark.parametrize("leave", ["sys.exit(3)", "sys.exit('disk full')"])
async def test_sys_exit_with_a_code_fails_the_notebook(leave: str, on_stock: Place) -> None:
    result = await on_stock.run("import sys", leave, "print('never')")

    assert result.exit_code == ExitCode.NOTEBOOK_FAILED
    assert outcomes(result) == ["passed", "failed", "not-run"]
    assert enames(on_stock.outputs()[1]) == ["SystemExit"]


async def test_after_sys_exit_with_a_code_the_kernel_goes_on_where_errors_are_allowed(on_stock: Place) -> None:
    result = await on_stock.run("import sys\nkept = 42", "sys.exit(3)", "kept", allow_errors=True)

    assert outcomes(result) == ["passed", "failed", "passed"]
    assert on_stock.outputs()[2][0]["data"]["text/plain"] == "42"


@pytest.mark.parametrize("ask", ["input('Name? ')", "import getpass; getpass.getpass()", "import pdb; pdb.set_trace()"])
async def test_code_that_asks_a_person_fails_at_once_and_hangs_for_nobody(ask: str, on_stock: Place) -> None:
    result = await on_stock.run(ask, "print('never')")

    assert result.exit_code == ExitCode.NOTEBOOK_FAILED
    assert outcomes(result) == ["failed", "not-run"]
    assert result.cells[0].seconds is not None
    assert result.cells[0].seconds < 15
    assert enames(on_stock.outputs()[0]) != []


async def test_a_kernel_that_asks_though_it_was_told_not_to_is_interrupted(on_stock: Place) -> None:
    result = await on_stock.run("get_ipython().kernel._allow_stdin = True\ninput('Sure? ')", "print('never')")

    assert result.exit_code == ExitCode.NOTEBOOK_FAILED
    assert outcomes(result) == ["failed", "not-run"]
    assert result.problem is not None
    assert "asked for input ('Sure?')" in result.problem.message


async def test_an_interrupt_that_the_code_raises_itself_is_an_error_like_any_other(on_stock: Place) -> None:
    result = await on_stock.run("raise KeyboardInterrupt", "print('never')")

    assert (result.exit_code, outcomes(result)) == (ExitCode.NOTEBOOK_FAILED, ["failed", "not-run"])
    assert enames(on_stock.outputs()[0]) == ["KeyboardInterrupt"]


async def test_an_unknown_magic_fails_its_cell_though_it_puts_out_no_error(on_stock: Place) -> None:
    result = await on_stock.run("%no_such_magic", "print('never')")

    assert (result.exit_code, outcomes(result)) == (ExitCode.NOTEBOOK_FAILED, ["failed", "not-run"])
    assert "no_such_magic" in text_of(on_stock.outputs()[0])
    assert enames(on_stock.outputs()[0]) == []


async def test_a_shell_cell_that_ends_badly_fails(on_stock: Place) -> None:
    result = await on_stock.run("%%bash\necho before\nexit 3", "print('never')")

    assert (result.exit_code, outcomes(result)) == (ExitCode.NOTEBOOK_FAILED, ["failed", "not-run"])
    assert enames(on_stock.outputs()[0]) == ["CalledProcessError"]
    assert text_of(on_stock.outputs()[0]).startswith("before\n")


async def test_the_reply_is_the_verdict_where_a_representation_raises(on_stock: Place) -> None:
    broken = "class Broken:\n    def _repr_html_(self):\n        raise ValueError('no picture')\nBroken()"
    result = await on_stock.run(broken, allow_errors=True)

    [outputs] = on_stock.outputs()
    assert [output["output_type"] for output in outputs] == ["error", "execute_result"], "both are kept"
    assert outcomes(result) == ["failed"], "this kernel's reply says error"


async def test_a_change_of_the_working_folder_lasts(on_stock: Place) -> None:
    result = await on_stock.run("import os\nos.mkdir('below')\nos.chdir('below')", "os.path.basename(os.getcwd())")

    assert outcomes(result) == ["passed", "passed"]
    assert on_stock.outputs()[1][0]["data"]["text/plain"] == "'below'"


async def test_cells_without_code_are_emptied_and_comments_count(on_stock: Place) -> None:
    stale = [{"output_type": "stream", "name": "stdout", "text": "old"}]
    result = await on_stock.run(code("  \n", outputs=stale, count=3), "# only words", "%time", "1")

    assert outcomes(result) == ["skipped", "passed", "passed", "passed"]
    cells = on_stock.read()["cells"]
    assert (cells[0]["outputs"], cells[0]["execution_count"]) == ([], None)
    assert [cell["execution_count"] for cell in cells[1:]] == [1, 2, 3]


async def test_an_error_that_is_expected_ends_nothing(on_stock: Place) -> None:
    result = await on_stock.run(code("1 / 0", tags=["raises-exception"]), "print('after')")

    assert (result.exit_code, outcomes(result)) == (ExitCode.OK, ["passed", "passed"])
    assert enames(on_stock.outputs()[0]) == ["ZeroDivisionError"]


async def test_a_forked_child_may_print_and_leave(on_stock: Place) -> None:
    forking = """import os, sys
pid = os.fork()
if pid == 0:
    print('child', flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print('parent')"""
    result = await on_stock.run(forking, "1")

    assert (result.exit_code, outcomes(result)) == (ExitCode.OK, ["passed", "passed"])
    assert sorted(text_of(on_stock.outputs()[0]).split()) == ["child", "parent"]


async def test_code_that_wants_to_write_a_cell_is_told_of_and_writes_none(on_stock: Place) -> None:
    result = await on_stock.run("get_ipython().set_next_input('print(1)')", "2")

    assert result.exit_code == ExitCode.OK
    assert len(on_stock.read()["cells"]) == 2
    assert any("write a new cell" in warning for warning in result.warnings)
