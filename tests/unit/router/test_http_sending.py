"""When answers leave a connection, and in which order."""

from __future__ import annotations

import asyncio

from beamline_router.edges.http_sending import Sender, Turn


class Wire(asyncio.Transport):
    """Notes what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def two() -> tuple[tuple[Sender, Wire], tuple[Sender, Wire]]:
    turn = Turn(asyncio.get_running_loop())
    first, second = Wire(), Wire()
    return (Sender(turn, first), first), (Sender(turn, second), second)


async def test_what_is_posted_leaves_with_the_end_of_the_turn_one_write_for_each_connection() -> None:
    (here, first), (there, second) = await two()
    for number in (b"1", b"2"):
        here.post(b"a" + number)
        there.post(b"b" + number)
        here.post(b"c" + number)
        assert b"a" + number not in b"".join(first.written)
        await asyncio.sleep(0)
    assert (first.written, second.written) == ([b"a1c1", b"a2c2"], [b"b1", b"b2"])


async def test_what_is_written_leaves_at_once_behind_what_was_posted() -> None:
    (here, first), (there, second) = await two()
    here.post(b"a")
    there.post(b"b")
    here.write(b"c")
    assert (first.written, second.written) == ([b"a", b"c"], [])
    here.post(b"d")
    await asyncio.sleep(0)
    assert (first.written, second.written) == ([b"a", b"c", b"d"], [b"b"])


async def test_closing_loses_nothing_and_what_comes_later_goes_nowhere() -> None:
    (here, first), (there, second) = await two()
    here.post(b"a")
    here.close()
    assert (first.written, first.closed) == ([b"a"], True)
    here.post(b"lost")
    there.post(b"b")
    await asyncio.sleep(0)
    assert (first.written, second.written) == ([b"a"], [b"b"]), (
        "who is gone keeps nobody else from his answer"
    )
