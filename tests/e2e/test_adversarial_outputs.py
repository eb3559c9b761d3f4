"""Large, late, broken or unusual outputs are complete in the saved notebook."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

import nbrun
from nbrun.errors import ExitCode
from tests.support.live_runs import Place, outcomes, place_on, text_of
from tests.support.notebooks import notebook
from tests.support.servers import jupyter_server

SHOW = "from IPython.display import display\n"


def datas(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mime bundles of outputs."""
    return [output["data"] for output in outputs if "data" in output]


async def run(place: Place, *cells: str, **options: Any) -> list[list[dict[str, Any]]]:
    """Run cells that are all to pass; returns the saved outputs, of a file that is valid JSON."""
    result = await place.run(*cells, **options)
    assert result.exit_code == ExitCode.OK, result.problem
    (place.folder / "notebook.ipynb").read_bytes().decode("utf-8")
    json.loads((place.folder / "notebook.ipynb").read_text(), parse_constant=no_constant)
    return place.outputs()


def no_constant(word: str) -> None:
    """Refuse NaN and Infinity, which no JSON has."""
    raise AssertionError(f"{word} is no JSON")


async def test_a_picture_of_many_megabytes_arrives_whole(place: Place) -> None:
    size = 20_000_000
    [[output]] = await run(place, f"{SHOW}display({{'image/png': 'A' * {size}}}, raw=True)")
    assert output["data"]["image/png"] == "A" * size


async def test_bytes_that_are_no_utf8_become_replacement_characters(on_stock: Place) -> None:
    raw = "import os\nos.write(1, b'left \\xff right\\n')"
    surrogate = "print('left \\udc80 right')"
    both = await run(on_stock, raw, surrogate)
    assert sum(text_of(outputs).count("left \ufffd right\n") for outputs in both) == 2


async def test_text_that_the_kernel_cannot_send_costs_that_text_only(on_stock: Place) -> None:
    # The first cells are for the server's own questions to the kernel, beside which one lost message says nothing.
    result = await on_stock.run("1", "2", "3", "print('\\ud800')", "print('after')")
    outputs = on_stock.outputs()
    assert text_of(outputs[4]) == "after\n"
    assert (result.outcome, result.exit_code) == (nbrun.Outcome.INCOMPLETE, ExitCode.INCOMPLETE)
    assert [cell.incomplete.lost if cell.incomplete else 0 for cell in result.cells] == [0, 0, 0, 1, 0]


ODD_RESULTS = """class Own:
    def _ipython_display_(self):
        display('shown by itself')
class Hidden:
    _ipython_display_ = None
    def _repr_mimebundle_(self, **kwargs):
        return {'text/html': '<b>bundle</b>'}"""


@pytest.mark.parametrize("resend", [True, False], ids=["resent", "not resent"])
async def test_a_result_that_displays_itself_is_no_message_missing(place: Place, resend: bool) -> None:
    """ipykernel numbers the message of each result, also of one that it has then not to send."""
    own, printed, plain, bundle = (
        await run(place, ODD_RESULTS, "Own()", "print(1)\nOwn()", "5", "Hidden()", resend=resend)
    )[1:]
    assert [output["output_type"] for output in own] == ["display_data"]
    assert [output["output_type"] for output in printed] == ["stream", "display_data"]
    assert datas(plain) == [{"text/plain": "5"}]
    assert datas(bundle)[0]["text/html"] == "<b>bundle</b>"


@pytest.mark.parametrize("resend", [True, False], ids=["resent", "not resent"])
async def test_results_of_all_lines_of_which_some_display_themselves_are_no_messages_missing(
    place: Place, resend: bool
) -> None:
    every = "get_ipython().ast_node_interactivity = 'all'"
    outputs = await run(place, ODD_RESULTS, every, "1\nOwn()\nOwn()\n2", "%reset -f out", resend=resend)
    assert [output["output_type"] for output in outputs[2]] == [
        "execute_result",
        *["display_data"] * 2,
        "execute_result",
    ]


UNSENT = {
    "of a cell within a cell": "get_ipython().run_cell('Own()')\n3",
    "swallowed by a hook": """publisher = get_ipython().display_pub
swallow = lambda message: None
publisher.register_hook(swallow)
display(1)
display(2)
publisher.unregister_hook(swallow)
3""",
    "sent a cell later": """held = []
hold = lambda message: held.append(message)
publisher.register_hook(hold)
display(4)
publisher.unregister_hook(hold)
3""",
    "taken by hand": "session = get_ipython().kernel.session\nsession.msg('status')\nsession.msg_id\n3",
    "more than mean anything beside others": "for _ in range(30): get_ipython().displayhook(Own())\n3",
    "of a forked child": """import os
if not (child := os.fork()):
    get_ipython().kernel.session.msg('status')
    os._exit(0)
os.waitpid(child, 0)
3""",
    "of a shell within the shell": """import builtins, IPython
def nobody(*_):
    raise EOFError
asking, builtins.input = builtins.input, nobody
IPython.embed()
builtins.input = asking
Own()""",
    "behind that": "3",
}
"""Cells that let ipykernel take numbers for messages that it then does not send, or not yet."""
SEND_LATE = "get_ipython().kernel.session.send(publisher.pub_socket, held[0], ident=b'display_data');"


@pytest.mark.parametrize("resend", [True, False], ids=["resent", "not resent"])
async def test_a_number_that_nothing_was_sent_with_is_no_message_missing(place: Place, resend: bool) -> None:
    outputs = await run(place, ODD_RESULTS, *UNSENT.values(), SEND_LATE, resend=resend)
    assert [data["text/plain"] for data in datas(outputs[1])] == ["'shown by itself'", "3"]
    assert [[data["text/plain"] for data in datas(each)] for each in outputs[2:]] == [
        ["3"],
        ["3", "4"],
        ["3"],
        [*["'shown by itself'"] * 30, "3"],
        ["3"],
        ["'shown by itself'"],
        ["3"],
        [],
    ]


@pytest.mark.parametrize("resend", [True, False], ids=["resent", "not resent"])
async def test_nor_is_it_where_the_last_cell_tells_the_kernel_to_exit(place: Place, resend: bool) -> None:
    outputs = await run(place, ODD_RESULTS, "Own()", "get_ipython().displayhook(Own())\nexit()", resend=resend)
    assert [datas(each) for each in outputs[1:]] == [[{"text/plain": "'shown by itself'"}]] * 2


async def test_what_is_lost_among_numbers_that_nothing_was_sent_with_is_missing(place: Place) -> None:
    lost = "for _ in range(30): get_ipython().displayhook(Own())\nprint(chr(0xd800))"
    result = await place.run("1", "2", "3", ODD_RESULTS, lost, "4")
    assert [cell.incomplete.lost if cell.incomplete else 0 for cell in result.cells] == [0, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("resend", [True, False], ids=["resent", "not resent"])
async def test_a_representation_that_is_interrupted_is_no_message_missing(place: Place, resend: bool) -> None:
    odd = "class Odd:\n    def __repr__(self): raise KeyboardInterrupt\nOdd()"
    result = await place.run(odd, "1", allow_errors=True, resend=resend)
    assert [cell.error and cell.error.ename for cell in result.cells] == ["KeyboardInterrupt", None]
    assert [cell.incomplete for cell in result.cells] == [None, None]


@pytest.mark.parametrize("kind", ["private", "stock"])
async def test_a_breakpoint_is_passed_where_nobody_is_attached(kind: str, tmp_path: Path) -> None:
    """As with nbclient: it is the debugger's own, which is in every kernel of ipykernel."""
    with contextlib.ExitStack() as stack:
        (root := tmp_path / "root").mkdir()
        stock = stack.enter_context(jupyter_server(root, env={"PYTHONPATH": ""})) if kind == "stock" else None
        [outputs] = await run(place_on(stock, tmp_path), "breakpoint()\nprint('past it')\nbreakpoint()")
    assert text_of(outputs) == "past it\n"


async def test_a_result_without_any_representation_is_no_message_missing(place: Place) -> None:
    result = await place.run(
        "class Odd:\n    def __repr__(self): raise ValueError('no words')\nOdd()", allow_errors=True
    )
    assert [cell.incomplete for cell in result.cells] == [None]
    assert result.outcome is nbrun.Outcome.PASSED
    assert "no words" in str(place.outputs()[0])


async def test_numbers_that_json_has_not_do_not_break_the_file(on_stock: Place) -> None:
    odd = f"{SHOW}display({{'application/json': {{'x': [float('nan'), float('inf'), 1]}}}}, raw=True)"
    [outputs] = await run(on_stock, odd)
    [data] = datas(outputs)
    assert data["application/json"]["x"][2] == 1


async def test_a_mime_value_of_a_wrong_type_becomes_text(on_stock: Place) -> None:
    wrong = f"{SHOW}display({{'text/plain': 5, 'text/html': '<b>5</b>', 'text/x-object': {{'a': 1}}}}, raw=True)"
    [outputs] = await run(on_stock, wrong)
    [data] = datas(outputs)
    assert (data["text/plain"], data["text/html"]) == ("5", "<b>5</b>")
    assert json.loads(data["text/x-object"]) == {"a": 1}


async def test_javascript_and_unknown_types_are_kept_as_they_are(on_stock: Place) -> None:
    bundle = {"application/javascript": "alert(1)", "application/vnd.of-mine+json": {"a": [1]}, "text/x-new": "new"}
    [outputs] = await run(on_stock, f"{SHOW}display({bundle!r}, raw=True)")
    assert datas(outputs) == [bundle]


async def test_what_a_thread_prints_after_its_cell_is_not_lost(on_stock: Place) -> None:
    starting = """import threading, time
def work():
    time.sleep(0.4)
    print('from the thread', flush=True)
thread = threading.Thread(target=work)
thread.start()"""
    outputs = await run(on_stock, starting, "thread.join()", "print('last')")
    assert "from the thread" in text_of(outputs[0]) + text_of(outputs[1])
    assert text_of(outputs[2]) == "last\n"


async def test_what_a_task_prints_goes_to_the_cell_that_started_it(on_stock: Place) -> None:
    starting = """import asyncio
async def work():
    await asyncio.sleep(0.2)
    print('from the task', flush=True)
task = asyncio.ensure_future(work())"""
    outputs = await run(on_stock, starting, "1", "await task")
    assert "from the task" in text_of(outputs[0])


async def test_what_a_child_process_writes_just_before_the_last_cell_ends_is_not_lost(place: Place) -> None:
    writing = "import subprocess\nsubprocess.run(['sh', '-c', 'echo from the child'])"
    [outputs] = await run(place, writing)
    assert text_of(outputs).count("from the child\n") == 1


async def test_what_a_thread_prints_a_moment_after_the_last_cell_is_not_lost(place: Place) -> None:
    late = "import threading\nthreading.Timer(0.1, lambda: print('late', flush=True)).start()"
    [outputs] = await run(place, late)
    assert text_of(outputs) == "late\n"


async def test_a_thread_that_never_falls_silent_does_not_keep_the_run(
    on_stock: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nbrun.core.execution.drain.DRAIN_LIMIT", 0.5)
    forever = """import threading, time
def work():
    while True:
        print('.', end='', flush=True)
        time.sleep(0.02)
threading.Thread(target=work, daemon=True).start()"""
    result = await on_stock.run(forever)
    assert (result.exit_code, outcomes(result)) == (ExitCode.OK, ["passed"])
    assert result.seconds < 40
    assert on_stock.nothing_is_left()


async def test_a_process_that_outlives_the_run_does_not_keep_it(place: Place) -> None:
    result = await place.run("import subprocess\nchild = subprocess.Popen(['sleep', '60'])\nprint('started')")
    assert (result.exit_code, text_of(place.outputs()[0])) == (ExitCode.OK, "started\n")
    assert result.seconds < 40


async def test_a_display_is_updated_in_place_from_a_cell_further_down(on_stock: Place) -> None:
    first = f"{SHOW}shown = display('before', display_id=True)\nprint('between')"
    outputs = await run(on_stock, first, "1", "shown.update('after')")
    assert [data["text/plain"] for data in datas(outputs[0])] == ["'after'"]
    assert text_of(outputs[0]) == "between\n"
    assert outputs[2] == []


async def test_an_update_of_a_display_that_nobody_has_shown_shows_nothing(on_stock: Place) -> None:
    [outputs] = await run(
        on_stock, f"{SHOW}from IPython.display import update_display\nupdate_display(1, display_id='x')"
    )
    assert outputs == []


async def test_outputs_are_cleared_when_something_takes_their_place_and_not_before(on_stock: Place) -> None:
    waits = "from IPython.display import clear_output\nprint('stays')\nclear_output(wait=True)"
    replaced = "print('goes')\nclear_output(wait=True)\nprint('comes')"
    at_once = "print('goes')\nclear_output()"
    stays, comes, nothing = await run(on_stock, waits, replaced, at_once)
    assert (text_of(stays), text_of(comes), nothing) == ("stays\n", "comes\n", [])


async def test_a_progress_bar_is_one_output_with_its_last_state(on_stock: Place) -> None:
    bar = "import sys\nfor n in range(101):\n    print(f'\\r{n:3}%', end='', flush=True)\nprint()"
    [outputs] = await run(on_stock, bar)
    assert outputs == [{"output_type": "stream", "name": "stdout", "text": "100%\n"}]


async def test_a_pager_is_shown_below_its_cell(on_stock: Place) -> None:
    [outputs] = await run(on_stock, "len?")
    assert "Return the number of items" in datas(outputs)[0]["text/plain"]


async def test_a_source_too_large_for_a_server_is_refused_before_anything_runs(on_stock: Place) -> None:
    path = on_stock.write(notebook("open('first', 'w')", f"x = '{'y' * 10_500_000}'"))

    with pytest.raises(nbrun.NbrunError, match=r"10\.5 MB") as caught:
        await nbrun.run_async(path, **on_stock.options)

    assert caught.value.exit_code == ExitCode.USAGE
    assert not (on_stock.folder / "first").exists()
    assert on_stock.nothing_is_left()


async def test_a_source_just_within_the_limit_runs(on_stock: Place) -> None:
    [outputs] = await run(on_stock, f"len('{'y' * 9_000_000}')")
    assert datas(outputs)[0]["text/plain"] == "9000000"
