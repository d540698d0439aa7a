"""The baseline's loop through the router's transport: three requests one after the other, with headers.

``python -m bench.transport_loop KIND URL IN_FLIGHT WARM_UP_S SECONDS SUBJECT...`` prints one JSON line;
KIND is ``plain`` or ``fast``, as in BEAMLINE_TRANSPORT.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time

import orjson
import structlog

from beamline_router.core.ports import TransportFault
from beamline_router.edges.fast_nats import FastTransport
from beamline_router.edges.nats_transport import NatsTransport
from beamline_sdk import link
from bench.baseline import BODY

HEADERS = {"Beamline-Request-Id": "0" * 32, "Beamline-Deadline-Ms": "5000", "Beamline-Attempt": "1"}


async def main(
    kind: str, url: str, subjects: list[str], *, in_flight: int, warm_up: float, seconds: float
) -> None:
    nc = await link.connect(link.LinkSettings(url, "bench"))
    transport = FastTransport(nc) if kind == "fast" else NatsTransport(nc)
    done, going = 0, True

    async def loop() -> None:
        nonlocal done
        while going:
            for subject in subjects:
                reply = await transport.request(subject, orjson.dumps(BODY), HEADERS, 5.0)
                assert not isinstance(reply, TransportFault), reply.value
                orjson.loads(reply)
            done += 1

    tasks = [asyncio.ensure_future(loop()) for _ in range(in_flight)]
    await asyncio.sleep(warm_up)
    before, began, cpu = done, time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    figures = {
        "requests": done - before,
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
    }
    sys.stdout.write(orjson.dumps(figures).decode() + "\n")
    sys.stdout.flush()
    going = False
    await asyncio.gather(*tasks)
    await link.close(nc, grace_s=1.0)


if __name__ == "__main__":
    import uvloop

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    kind, url, in_flight, warm_up, seconds, *subjects = sys.argv[1:]
    uvloop.run(
        main(
            kind,
            url,
            subjects,
            in_flight=int(in_flight),
            warm_up=float(warm_up),
            seconds=float(seconds),
        )
    )
