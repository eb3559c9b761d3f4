"""The failing line of a cell, and trimmed tracebacks."""

import pytest

from nbrun.core.formats.tracebacks import excerpt, failing_line, plain, trimmed

RULE = "\x1b[31m" + "-" * 75 + "\x1b[39m"
HEAD = "\x1b[31mValueError\x1b[39m                                Traceback (most recent call last)"
LIBRARY = [
    f"File /v/lib/python3.11/site-packages/p/m{n}.py:{n}, in f()\n      {n} x\n----> {n} y\n" for n in range(1, 6)
]
CALL = (
    "\x1b[36mCell\x1b[39m \x1b[32mIn[3]\x1b[39m\x1b[32m, line 5\x1b[39m\n      4 \n"
    "\x1b[32m----> \x1b[39m\x1b[32m5\x1b[39m f()\n"
)
RAISE = "Cell In[3], line 2, in f()\n      1 def f():\n----> 2     raise ValueError('x')\n"
OTHER = "Cell In[1], line 9, in g()\n----> 9 raise ValueError('x')\n"
LAST = "\x1b[31mValueError\x1b[39m: x"
GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "/v/lib/python3.11/site-packages/IPython/core/interactiveshell.py", line 3821, in run_code
  |     await eval(code_obj, self.user_global_ns, self.user_ns)
  |   File "/tmp/ipykernel_12/345.py", line 5, in <module>
  |     async with asyncio.TaskGroup() as tg:
  |   File "/p/lib/python3.11/asyncio/tasks.py", line 1, in g
  |     x
  |   File "/p/lib/python3.11/asyncio/taskgroups.py", line 145, in __aexit__
  |     raise me from None
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/tmp/ipykernel_12/345.py", line 2, in boom
    |     raise ValueError("why")
    |     ^^^^^^^^^^^^^^^^^^^^^^^
    | ValueError: why
    +------------------------------------""".splitlines()
FIVE = "def f():\n    raise ValueError('x')\n\n\nf()"


@pytest.mark.parametrize(
    ("traceback", "source", "count", "line"),
    [
        ([RULE, HEAD, CALL, LAST], FIVE, 3, 5),
        ([RULE, HEAD, CALL, RAISE, LAST], FIVE, 3, 2),
        ([RULE, HEAD, CALL, OTHER, LAST], FIVE, 3, 5),
        ([RULE, HEAD, CALL, LAST], FIVE, None, 5),
        ([RULE, HEAD, CALL, *LIBRARY, LAST], FIVE, 3, 5),
        ([RULE, HEAD, OTHER, LAST], FIVE, 3, None),
        ([RULE, HEAD, CALL.replace("5", "50"), LAST], FIVE, 3, None),
        (
            [HEAD, RAISE, LAST, "\nDuring handling of the above exception, another exception occurred:\n", CALL],
            FIVE,
            3,
            5,
        ),
        (["The above exception was the direct cause of"], FIVE, 3, None),
        (["Cell In[6], line 1\n----> 1 g()\n"], "\n  \ng()", 6, 3),
        (["Cell In[7], line 1\n----> 1 get_ipython()\n", "File <timed exec>:2\n"], "%%time\na\nb", 7, 3),
        (["  Cell In[4], line 1\n    x = (1,\n       ^\nSyntaxError: incomplete input\n"], "x = (1,\n", 4, 1),
        (["Input In [3], in <cell line: 2>()\n      1 a\n----> 2 b\n"], "a\nb", 3, 2),
        (["<ipython-input-3-0a1b2c> in <module>\n      1 a\n----> 2 b\n"], "a\nb", 3, 2),
        (['  File "<ipython-input-3-0a1b>", line 2\n    b b\n      ^\nSyntaxError: invalid'], "a\nb b", 3, 2),
        (["Cell In[3], without a number\n"], "a", 3, None),
        (["Error: no\n    at <anonymous>:2:7\n"], "a\nb", None, 2),
        (["Traceback:\n", "1. stop('x') at line 2 of file <text>"], "a\nb", None, 2),
        (["bash: line 2: nosuch: command not found"], "a\nnosuch", None, 2),
        (["Error: nothing of use"], "a", None, None),
        ([], "a", 1, None),
        (GROUP, FIVE, 3, 5),
        (GROUP, "\n" + FIVE, 3, 6),
        (GROUP, "a", 3, None),
        ([r'File "C:\T\ipykernel_1\2.py", line 2, in <module>'], "a\nb", 3, 2),
    ],
    ids=[
        "the frame of the cell",
        "of two frames the innermost",
        "not the frame of another cell",
        "without a count any cell's",
        "not a library's",
        "none of its own",
        "none that the source has",
        "the last of two exceptions",
        "nothing after a cause",
        "blank lines at the start do not count",
        "under %%time",
        "a syntax error",
        "IPython 8.0",
        "IPython 7",
        "a syntax error in IPython 7",
        "a frame without a line",
        "Deno",
        "R",
        "Bash",
        "no line at all",
        "no traceback",
        "an exception group",
        "an exception group under a blank line",
        "an exception group of another cell",
        "as Python prints it, on Windows",
    ],
)
def test_the_failing_line_is_found(traceback: list[str], source: str, count: int | None, line: int | None) -> None:
    assert failing_line(traceback, source, count) == line


def test_a_trimmed_traceback_has_where_each_frame_is_and_its_failing_line() -> None:
    assert trimmed([RULE, HEAD, CALL, RAISE, *LIBRARY[:2], LAST]) == [
        "Cell In[3], line 5",
        "----> 5 f()",
        "Cell In[3], line 2, in f()",
        "----> 2     raise ValueError('x')",
        "File …/site-packages/p/m1.py:1, in f()",
        "File …/site-packages/p/m2.py:2, in f()",
        "ValueError: x",
    ]


def test_of_many_frames_in_libraries_the_first_and_the_last_stay() -> None:
    assert trimmed([*LIBRARY, "ValueError: x"]) == [
        "File …/site-packages/p/m1.py:1, in f()",
        "  … 3 more in libraries …",
        "File …/site-packages/p/m5.py:5, in f()",
        "ValueError: x",
    ]


def test_frames_in_one_entry_are_told_apart() -> None:
    assert trimmed(["".join([CALL, LIBRARY[0], RAISE, "ValueError: x\nmore of it"])]) == [
        "Cell In[3], line 5",
        "----> 5 f()",
        "File …/site-packages/p/m1.py:1, in f()",
        "Cell In[3], line 2, in f()",
        "----> 2     raise ValueError('x')",
        "ValueError: x",
        "more of it",
    ]


def test_of_an_exception_group_each_sub_exception_stays_and_frames_in_libraries_are_cut_down() -> None:
    assert trimmed(GROUP) == [
        "  + Exception Group Traceback (most recent call last):",
        '  |   File "…/site-packages/IPython/core/interactiveshell.py", line 3821, in run_code',
        '  |   File "/tmp/ipykernel_12/345.py", line 5, in <module>',
        "  |     async with asyncio.TaskGroup() as tg:",
        '  |   File "…/python3.11/asyncio/taskgroups.py", line 145, in __aexit__',
        "  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)",
        "  +-+---------------- 1 ----------------",
        '    |   File "/tmp/ipykernel_12/345.py", line 2, in boom',
        '    |     raise ValueError("why")',
        "    |     ^^^^^^^^^^^^^^^^^^^^^^^",
        "    | ValueError: why",
        "    +------------------------------------",
    ]
    library = 'File "/p/lib/python3.11/a.py", line 1, in f'
    assert trimmed([library]) == ['File "…/python3.11/a.py", line 1, in f']


def test_what_is_no_python_traceback_stays_as_it_is_but_for_repeated_blank_lines() -> None:
    text = "Error in f(): x\n\n\n  1. f()\n       ^\n"
    assert trimmed(["", text]) == ["Error in f(): x", "", "  1. f()", "       ^"]


def test_a_long_traceback_is_cut_in_the_middle() -> None:
    assert trimmed(["\n".join(f"l{n}" for n in range(100))], longest=7) == [
        "l0", "l1", "  … 94 lines …", "l96", "l97", "l98", "l99",
    ]  # fmt: skip


def test_plain_text_has_no_escapes_and_nothing_that_xml_cannot_hold() -> None:
    assert (
        plain("\x1b[1;31mred\x1b[0m\x1b]8;;http://x\x07link\x1b]8;;\x07\x00\x08\ud800\ufffe\tend\n")
        == "redlink\ufffd\tend\n"
    )


def test_an_excerpt_shows_the_failing_line_and_those_around_it() -> None:
    source = "\n".join("abcdefghij")
    assert excerpt(source, 5, around=1) == [(4, "d", False), (5, "e", True), (6, "f", False)]
    assert excerpt(source, 1, around=1) == [(1, "a", True), (2, "b", False)]
    assert [number for number, _, hit in excerpt(source, None, around=1) if not hit] == [1, 2, 3]
    assert excerpt("", None) == [(1, "", False)]
