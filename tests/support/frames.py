"""Websocket frames (RFC 6455, section 5) for a proxy: create frames, and count the messages that pass."""

TEXT, BINARY = 0x1, 0x2
_FINAL, _MASKED, _CONTROL = 0x80, 0x80, 0x8


def websocket_frame(payload: bytes, opcode: int = BINARY) -> bytes:
    """Return a complete, unmasked websocket frame as a server sends it."""
    size = len(payload)
    if size < 126:
        length = bytes([size])
    elif size < 1 << 16:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    return bytes([_FINAL | opcode]) + length + payload


class MessageEnds:
    """Finds the ends of messages in a server's data, however it is split. Pings, pongs and closes do not count.

    The data begins with the answer to the handshake.
    """

    def __init__(self) -> None:
        self._answer: bytes | None = b""
        self._head = b""
        self._left = 0
        self._counts = False

    def feed(self, data: bytes) -> list[int]:
        """Return the positions in `data` directly after the last byte of each message that ends in it."""
        ends: list[int] = []
        place = 0
        if self._answer is not None:
            before = len(self._answer)
            self._answer += data
            end = self._answer.find(b"\r\n\r\n")
            if end < 0:
                return []
            self._answer, place = None, end + 4 - before
        while place < len(data):
            if not self._left:
                self._head += data[place : place + 1]
                place += 1
                if not self._begins():
                    continue
            step = min(self._left, len(data) - place)
            place += step
            self._left -= step
            if not self._left and self._counts:
                ends.append(place)
                self._counts = False
        return ends

    def _begins(self) -> bool:
        """Return whether the head of a frame is complete, and record what follows."""
        head = self._head
        if len(head) < 2:
            return False
        length = head[1] & 0x7F
        more = {126: 2, 127: 8}.get(length, 0)
        mask = 4 if head[1] & _MASKED else 0
        if len(head) < 2 + more:
            return False
        self._left = (int.from_bytes(head[2 : 2 + more], "big") if more else length) + mask
        self._counts = bool(head[0] & _FINAL) and not head[0] & _CONTROL
        self._head = b""
        return True
