"""A floor of the chat row: an HTTP door on a bare socket that asks the four steps through nats-py, one after
the other, and answers.

It reads no field, knows no policy and has no feature, but moves the messages that a router moves. So what it
takes longer than the upstream is what four request-replies over NATS take.

``python -m bench.bare_chain URL SUBJECT...`` prints its port and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import httptools
import nats
import uvloop

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


async def main(url: str, subjects: list[str]) -> None:
    nc = await nats.connect(url)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(body: bytes, transport: asyncio.Transport) -> None:
        for subject in subjects:
            answer = (await nc.request(subject, body, timeout=5)).data
        if not transport.is_closing():
            transport.write(_HEAD % len(answer) + answer)

    class Door(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.Transport, transport)
            self.parser = httptools.HttpRequestParser(self)
            self.body = b""

        def data_received(self, data: bytes) -> None:
            self.parser.feed_data(data)

        def on_body(self, body: bytes) -> None:
            self.body += body

        def on_message_complete(self) -> None:
            task = asyncio.create_task(serve(self.body, self.transport))
            self.body = b""
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.get_running_loop().create_server(Door, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2:]))
