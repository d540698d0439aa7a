"""The vendor's SDK as its README uses it, in a closed loop: what a provider is compared with.

``python -m bench.bare_sdk openai|anthropic PORT IN_FLIGHT WARM_UP_S SECONDS`` prints one JSON line.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import orjson
import uvloop


async def main(which: str, port: str, in_flight: int, warm_up: float, seconds: float) -> None:
    if which == "openai":
        import openai

        api: Any = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
        create, model = api.chat.completions.create, "gpt-4"
    else:
        import anthropic

        api = anthropic.AsyncAnthropic(base_url=f"http://127.0.0.1:{port}", api_key="none", max_retries=0)
        create, model = api.messages.create, "claude-3-opus-20240229"
    done, stopped = 0, False

    async def loop() -> None:
        nonlocal done
        while not stopped:
            await create(model=model, max_tokens=100, messages=[{"role": "user", "content": "Hello"}])
            done += 1

    loops = [asyncio.create_task(loop()) for _ in range(in_flight)]
    await asyncio.sleep(warm_up)
    done, began, cpu = 0, time.perf_counter(), time.process_time()
    await asyncio.sleep(seconds)
    figures = {
        "requests": done,
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
    }
    stopped = True
    await asyncio.gather(*loops)
    await api.close()
    sys.stdout.write(orjson.dumps(figures).decode() + "\n")


if __name__ == "__main__":
    which, port, in_flight, warm_up, seconds = sys.argv[1:6]
    uvloop.run(main(which, port, int(in_flight), float(warm_up), float(seconds)))
