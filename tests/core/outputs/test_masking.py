"""Secrets are masked everywhere, in any form and at any split."""

import base64
import html
import json
import pprint
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nbrun.core.outputs.masking import MASK, Mask, MaskedMessages, is_too_short, lines_to_mask
from nbrun.core.protocol.messages import Channel, Message
from tests.core.conversation import message

SECRET = "pa\"ss'w\\rd<é>&1"


def stream(text: str, name: str = "stdout", parent: str = "cell") -> Message:
    return message("stream", {"name": name, "text": text}, parent=parent)


def texts(messages: Sequence[Message], name: str = "stdout") -> str:
    return "".join(each.content["text"] for each in messages if each.content.get("name") == name)


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET,
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        repr(SECRET)[1:-1],
        repr([SECRET])[2:-2],
        repr(f"it's {SECRET}")[7:-1],
        ascii(SECRET)[1:-1],
        html.escape(SECRET),
        html.escape(SECRET, quote=False),
        quote(SECRET),
        quote(SECRET, safe=""),
        base64.b64encode(SECRET.encode()).decode(),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        repr(SECRET.encode())[2:-1],
        re.sub("%..", lambda found: found[0].lower(), quote(SECRET, safe="")),
        re.sub("%..", lambda found: found[0].lower(), quote_plus(SECRET)),
        "".join(f"%{byte:02x}" for byte in SECRET.encode()),
        quote(quote(SECRET)),
        json.dumps(SECRET)[1:-1].replace("u00e9", "u00E9"),
        "".join(f"\\u{ord(character):04x}" for character in SECRET),
        "".join(f"\\u{ord(character):04X}" for character in SECRET),
        SECRET.encode().hex(":"),
        SECRET.encode().hex(" ").upper(),
        SECRET.encode().hex("-"),
        "\\x" + "\\x".join(f"{byte:02x}" for byte in SECRET.encode()),
        html.escape(SECRET).encode("ascii", "xmlcharrefreplace").decode(),
    ],
)
def test_a_secret_is_masked_in_every_spelling(spelling: str) -> None:
    masked = Mask([SECRET]).text(f"a {spelling} b")
    assert masked in (f"a {MASK} b", f"a \\x{MASK} b")


@pytest.mark.parametrize("before", ["", "u", "us", "user:"])
def test_of_base64_that_holds_a_secret_among_other_things_nothing_of_the_secret_is_left(before: str) -> None:
    secret = "0123456789abcdef"
    encoded = base64.b64encode(f"{before}{secret}:x".encode()).decode()
    masked = Mask([secret]).text(encoded)
    assert MASK in masked
    assert len(masked) <= len(MASK) + 4 * (len(before) + 6) // 3 + 4


def test_terminal_codes_do_not_hide_a_secret_and_are_kept() -> None:
    mask = Mask(["hunter2222"])
    assert mask.text("\x1b[31mhun\x1b[0;1mter\x1b[32m2222\x1b[0m!") == "\x1b[31m***\x1b[0;1m\x1b[32m\x1b[0m!"
    assert mask.text("\x1b[31mnothing\x1b[0m") == "\x1b[31mnothing\x1b[0m"
    assert mask.text("\x1b]0;title\x07hunter2222") == "\x1b]0;title\x07***"


def test_of_several_secrets_the_longest_goes_first_and_lines_are_secrets_of_their_own() -> None:
    mask = Mask(["hunter2222", "hunter2222-and-more"])
    assert mask.text("hunter2222-and-more hunter2222") == "*** ***"
    key = Mask(["-----BEGIN-----\nabcdefgh\r\nxy\n"])
    assert key.text("abcdefgh") == "***"
    assert key.text("xy") == "xy"


def test_values_of_json_are_masked_to_the_bottom_and_stay_themselves_where_nothing_is() -> None:
    mask = Mask(["hunter2222", "12345678"])
    clean = {"a": ["b", 1, None, 2.5, True], "c": {"d": "e"}}
    assert mask.value(clean) is clean
    assert mask.value({"hunter2222": [{"x": "a hunter2222"}], "n": 12345678, "t": ("hunter2222", 1)}) == {
        "***": [{"x": "a ***"}], "n": "***", "t": ["***", 1],
    }  # fmt: skip


def test_binary_data_keeps_its_length() -> None:
    assert Mask(["hunter2222"]).data(b"\0hunter2222\xff") == b"\0**********\xff"
    assert Mask(["hunter2222"]).data(b"\0\xff") == b"\0\xff"


def test_without_secrets_there_is_nothing_to_mask() -> None:
    assert not Mask()
    assert not Mask(["abc"])
    assert Mask(["abcd"])
    assert is_too_short("abc ")
    assert not is_too_short("abcd")
    assert lines_to_mask("a\n\n b\r\n") == ["a", " b"]


def test_the_end_of_a_piece_is_held_back_while_it_may_be_the_beginning_of_a_secret() -> None:
    masked = MaskedMessages(Mask(["hunter2222"]))
    first, second = masked.mask(stream("it is hun")), masked.mask(stream("ter2222."))
    assert (texts(first), texts(second)) == ("it is ", "***.")
    assert [each.id for each in first + second] == ["x", "x"]


def test_what_was_held_back_and_is_no_secret_comes_out_in_its_place() -> None:
    masked = MaskedMessages(Mask(["hunter2222"]))
    assert texts(masked.mask(stream("hun"))) == ""
    assert texts(masked.mask(stream("gry"))) == "hungry"
    masked.mask(stream("hun"))
    released, error = masked.mask(message("error", {"evalue": "hunter2222"}, parent="cell"))
    assert (texts([released]), released.id, error.content) == ("hun", "", {"evalue": "***"})


def test_another_stream_or_the_end_of_the_cell_brings_out_what_was_held_back() -> None:
    masked = MaskedMessages(Mask(["hunter2222"]))
    masked.mask(stream("hun"))
    assert [each.content["text"] for each in masked.mask(stream("h", "stderr"))] == ["hun", ""]
    masked.mask(stream("hun", parent="other"))
    idle = message("status", {"execution_state": "idle"}, parent="cell")
    assert [each.content.get("text") for each in masked.mask(idle)] == ["h", None]
    next_cell = replace(idle, parent={"msg_id": "next", "msg_type": "execute_request"})
    assert [each.content.get("text") for each in masked.mask(next_cell)] == ["hun", None]
    assert masked.release() == []


def test_a_request_on_the_control_channel_does_not_cut_a_secret_in_two() -> None:
    masked = MaskedMessages(Mask(["hunter2222"]))
    masked.mask(stream("hunter"))
    for state in ("busy", "idle"):
        status = message("status", {"execution_state": state}, parent="question")
        asked = replace(status, parent={"msg_id": "question", "msg_type": "nbrun_resend_request"})
        assert [each.type for each in masked.mask(asked)] == ["status"]
    assert texts(masked.mask(stream("2222\n"))) == "***\n"


def test_of_a_cell_that_is_done_what_is_held_back_comes_out_when_the_run_may_end() -> None:
    masked = MaskedMessages(Mask(["hunter2222"]))
    masked.mask(message("status", {"execution_state": "busy"}, parent="cell"))
    masked.mask(stream("hun"))
    assert masked.release_late() == []
    masked.mask(message("status", {"execution_state": "idle"}, parent="cell"))
    masked.mask(stream("hunt"))
    assert texts(masked.release_late()) == "hunt"
    masked.mask(stream("hunte", parent="running"))
    assert masked.release_late() == []
    assert texts(masked.release()) == "hunte"


def test_a_terminal_code_that_is_cut_is_held_back_too() -> None:
    mask = Mask(["hunter2222"])
    masked = MaskedMessages(mask)
    assert texts(masked.mask(stream("a hunt\x1b[3"))) == "a "
    assert texts(masked.mask(stream("1mer2222 b"))) == "***\x1b[31m b"
    assert texts(masked.mask(stream("plain \x1b["))) == "plain "
    assert texts(masked.mask(stream("0mhun"))) == "\x1b[0m"
    assert texts(masked.mask(stream("d"))) == "hund"


def test_what_begins_inside_a_whole_secret_is_not_held_back() -> None:
    masked = MaskedMessages(Mask(["xyzx"]))
    assert texts(masked.mask(stream("a xyzx"))) == "a ***"


def test_replies_and_comms_are_masked_with_their_buffers() -> None:
    masked = MaskedMessages(Mask(["hunter2222"]))
    reply = message("execute_reply", {"traceback": ["hunter2222"]}, channel=Channel.SHELL)
    assert masked.mask(reply)[0].content == {"traceback": ["***"]}
    comm = Message(
        "iopub", {"msg_type": "comm_msg"}, {}, {"data": {"state": {"v": "hunter2222"}}}, {}, (b"hunter2222",)
    )
    (found,) = masked.mask(comm)
    assert (found.content, found.buffers) == ({"data": {"state": {"v": "***"}}}, (b"**********",))
    odd = message("stream", {"name": "stdout", "text": None}, parent="cell")
    assert masked.mask(odd)[0].content["text"] is None


@given(st.data(), st.sampled_from(["hunter2222", "aabaabaab", "line one\nline two", "abababab"]))
def test_a_secret_never_comes_through_wherever_the_stream_is_cut(data: Any, secret: str) -> None:
    part = st.sampled_from([secret, secret[:3], secret[1:], "x", "\n", "\x1b[31m", secret[:-1]])
    whole = "".join(data.draw(st.lists(part, max_size=6)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    masked, mask = MaskedMessages(Mask([secret])), Mask([secret])
    found = "".join(texts(masked.mask(stream(piece))) for piece in pieces) + texts(masked.release())
    assert found == mask.text(whole)


TOKEN = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
PHRASE = "correct horse battery staple and it's seven more words that nobody guesses in a thousand years"


def cores(secret: str, *, url: bool = False) -> list[str]:
    """Return what of a secret's base64 depends on nothing but the secret, for each of the three alignments."""
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    data = secret.encode()
    whole = [encode(b"\0" * before + data + b"\0" * 3).decode() for before in range(3)]
    return [text[4 : 4 * (len(data) // 3 - 1)] for text in whole]


def wrapped(data: bytes, width: int, line_break: str, *, url: bool = False) -> str:
    encoded = (base64.urlsafe_b64encode if url else base64.b64encode)(data).decode()
    return line_break.join(encoded[place : place + width] for place in range(0, len(encoded), width))


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\\n", "\\r\\n", "\\\\n"])
@pytest.mark.parametrize(("width", "url"), [(76, False), (64, False), (76, True)])
def test_wrapped_base64_hides_no_secret_at_any_place(width: int, url: bool, line_break: str) -> None:
    mask = Mask([TOKEN])
    for before in range(100):
        text = wrapped(b"x" * before + TOKEN.encode() + b"y" * 50, width, line_break, url=url)
        masked = mask.text(f"data: {text}{line_break}end")
        assert MASK in masked
        bare = masked.replace(line_break, "")
        assert not any(core in bare for core in cores(TOKEN, url=url)), before
        assert masked.endswith(f"{line_break}end")


def test_the_ends_of_ordinary_lines_join_no_secret() -> None:
    mask = Mask(["11111111", "password"])
    assert mask.text("1\n" * 20) == "1\n" * 20
    assert mask.text("pass\nword") == "pass\nword"
    assert mask.text("'pass',\n'word'") == "'pass',\n'word'"


@pytest.mark.parametrize("indent", range(0, 70, 7))
def test_what_pprint_has_wrapped_is_masked(indent: int) -> None:
    for value in (PHRASE, {"x" * indent: PHRASE}, [["y" * indent, {"k": f"{'words ' * indent}{PHRASE} and more"}]]):
        masked = Mask([PHRASE]).text(pprint.pformat(value))
        assert MASK in masked
        assert not any(word in masked for word in ("correct", "battery", "guesses", "thousand"))
    raw = pprint.pformat({"k" * indent: f"{'z' * indent}{TOKEN}{'w' * 90}".encode()})
    masked = Mask([TOKEN]).text(raw)
    assert MASK in masked
    assert not any(TOKEN[place : place + 6] in masked for place in range(len(TOKEN) - 6))


def test_a_text_as_a_list_of_its_lines_is_masked_across_them() -> None:
    mask = Mask(["hunter2222"])
    assert mask.value({"text/plain": ["a hun", "ter2222"]}) == {"text/plain": ["a ***"]}
    assert mask.value(["hunter2222", "b"]) == ["***", "b"]
    clean = ["hunger", "b"]
    assert mask.value(clean) is clean


@given(st.data(), st.integers(0, 90), st.sampled_from(["base64", "pprint", "bytes"]))
def test_a_secret_across_lines_never_comes_through_wherever_the_stream_is_cut(
    data: Any, before: int, kind: str
) -> None:
    match kind:
        case "base64":
            whole = base64.encodebytes(b"x" * before + TOKEN.encode() + b"y" * 60).decode() + "end\n"
        case "pprint":
            whole = pprint.pformat(["w" * before, PHRASE]) + "\n"
        case _:
            whole = pprint.pformat(b"x" * before + TOKEN.encode() + b"y" * 60) + "\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    mask = Mask([TOKEN, PHRASE])
    masked = MaskedMessages(mask)
    found = "".join(texts(masked.mask(stream(piece))) for piece in pieces) + texts(masked.release())
    assert found == mask.text(whole)
    assert MASK in found


def test_what_begins_inside_a_whole_secret_across_lines_keeps_all_of_it_together() -> None:
    mask = Mask(["xy z xy"])
    assert mask.undecided("a 'xy z '\n 'xy") == len("a '")
    assert mask.undecided("a 'xy z '\n 'xy'") == len("a 'xy z '\n 'xy'")
    masked = MaskedMessages(mask)
    assert texts(masked.mask(stream("a 'xy z '\n 'xy"))) == "a '"
    assert texts(masked.mask(stream("z'"))) == "***'\n 'z'"
    assert texts(masked.mask(stream("b 'xy z '\n 'xy"))) == "b '"
    assert texts(masked.release()) == "***'\n '"


def test_a_quote_or_a_line_break_behind_no_secret_holds_nothing_back() -> None:
    mask = Mask([TOKEN])
    for text in ("print('a')", "'abc'\n", "x = 'abc' \r\n  b", "100 \r", f"{'A' * 40}\n", "z \n"):
        assert mask.undecided(text) == len(text), text
    for text in (f"'{TOKEN[:9]}'", f"b'{TOKEN[:9]}'\n   b", f"{'A' * 40}{TOKEN[:4]}\r", f"{'A' * 40}{TOKEN[:4]}\\r"):
        assert mask.undecided(text) == text.index(TOKEN[:4]), text
