"""Outputs of cells as lines of a log."""

from nbrun.core.outputs.mimebundle import Output
from nbrun.reporters.console.output_log import OutputLog


def logged(*outputs: Output, finish: bool = True) -> list[str]:
    lines: list[str] = []
    log = OutputLog(lines.append)
    for output in outputs:
        log.show(0, "> ", output)
    if finish:
        log.finish(0, "> ")
    return lines


def stream(text: str, name: str = "stdout") -> Output:
    return {"output_type": "stream", "name": name, "text": text}


def test_lines_are_written_when_they_are_whole() -> None:
    assert logged(stream("one\ntw"), stream("o\nthree"), finish=False) == ["> one", "> two"]


def test_what_has_no_line_end_is_written_when_the_cell_ends() -> None:
    assert logged(stream("one"), stream("err", "stderr")) == ["> one", "> err"]


def test_a_progress_bar_is_one_line_as_it_ends() -> None:
    bar = [stream(f"\r{percent:3d}%") for percent in range(101)]
    assert logged(*bar, stream("\n"), stream("after\n")) == ["> 100%", "> after"]


def test_a_value_is_told_after_the_text_before_it() -> None:
    value: Output = {"output_type": "execute_result", "data": {"text/plain": "42"}}
    assert logged(stream("before"), value) == ["> before", "> 42"]


def test_cells_do_not_finish_each_others_lines() -> None:
    lines: list[str] = []
    log = OutputLog(lines.append)
    log.show(0, "0 ", stream("zero"))
    log.show(1, "1 ", stream("one"))
    log.finish(1, "1 ")
    assert lines == ["1 one"]
