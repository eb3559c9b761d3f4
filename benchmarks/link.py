"""A far server: a TCP proxy that holds everything for half a round trip, each way. ``link.py BACKEND_PORT SECONDS``.

Fair because both clients of W7 go through the same one, and because it costs no more than a real link: bytes are held,
not thinned out; what is sent close together arrives close together. A proxy on this machine cannot delay the handshake
of TCP, so the first bytes of a connection are held a whole round trip longer, as the handshake would have held them.
It prints the port on which it listens.
"""

import asyncio
import sys

_CHUNK = 1 << 18


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float, first: float) -> None:
    """Hand on what is read, `delay` seconds later, and the very first bytes `first` seconds later still."""
    loop = asyncio.get_running_loop()
    held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, data = await held.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                writer.close()
                return
            writer.write(data)
            await writer.drain()

    delivering = asyncio.create_task(deliver())
    not_before = loop.time() + first
    try:
        while data := await reader.read(_CHUNK):
            held.put_nowait((max(loop.time(), not_before) + delay, data))
    except ConnectionError:
        pass
    held.put_nowait((loop.time() + delay, b""))
    await asyncio.gather(delivering, return_exceptions=True)


async def serve(backend: int, delay: float) -> None:
    """Listen on a free port of loopback until the process is ended."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", backend)
        await asyncio.gather(
            carry(reader, far_writer, delay, 2 * delay), carry(far_reader, writer, delay, 0.0), return_exceptions=True
        )

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
