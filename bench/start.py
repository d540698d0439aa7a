"""Row "start": from a process that starts to its first answer.

The router: NATS, PostgreSQL and the steps are there; the clock runs from the start of the process to the
first request over HTTP that is answered 200. ``beamline up``: from the start of the command to its line that
the router is ready, in a new state folder, on a machine where it has run before. The baseline is an
interpreter that does nothing.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from statistics import median
from typing import Any

import orjson

from bench.baseline import BODY
from bench.parts import ROOT, Parts, Row, parts, spread
from bench.world import GUARD, PRE, PROVIDER, World, router, world

STEPS = (PRE, GUARD, PROVIDER)
GOAL_ROUTER_S, GOAL_UP_S = 1.0, 10.0
UP_LIMIT_S = 120.0


def run(*, rounds: int, seconds: float) -> tuple[list[Row], dict[str, Any]]:
    """All rounds; ``seconds`` has no meaning here."""
    with parts() as made, world(made, STEPS) as around:
        measured = [
            {
                "interpreter": _interpreter(),
                "router": _router(made, around, number),
                "up": _up(made, number),
            }
            for number in range(rounds)
        ]
    idle, served, up = ([one[what] for one in measured] for what in ("interpreter", "router", "up"))
    rows = [
        Row("an interpreter that does nothing, s", "", spread(idle, ".3f"), None),
        Row("router: start of the process -> first answer, s", f"<= {GOAL_ROUTER_S:g}",
            spread(served, ".2f"), median(served) <= GOAL_ROUTER_S),
        Row("beamline up examples/quickstart -> ready, s", f"<= {GOAL_UP_S:g}",
            spread(up, ".2f"), median(up) <= GOAL_UP_S),
    ]  # fmt: skip
    return rows, {"rounds": measured}


def _interpreter() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - began


def _router(made: Parts, around: World, number: int) -> float:
    began = time.perf_counter()
    served = router(made, around, name=f"start-{number}")
    body = orjson.dumps({**BODY, "environment": "prod"})
    request = urllib.request.Request(
        f"http://127.0.0.1:{served.port}/v1/route", body, {"content-type": "application/json"}
    )
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                answer.read()
                took = time.perf_counter() - began
                break
        except urllib.error.HTTPError as error:
            error.close()
        time.sleep(0.002)
    served.child.terminate()
    served.child.wait(30)
    return took


def _up(made: Parts, number: int) -> float:
    began = time.perf_counter()
    child = made.module(
        "beamline_cli", "up", ROOT / "examples" / "quickstart", "--port", 0,
        "--state", made.folder / f"up-{number}", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert child.stdout is not None
    give_up = threading.Timer(UP_LIMIT_S, child.terminate)
    give_up.start()
    seen = b""
    for line in child.stdout:
        seen += line
        if b"ready on http" in line:
            break
    took = time.perf_counter() - began
    give_up.cancel()
    child.send_signal(signal.SIGTERM)
    child.wait(60)
    if b"ready on http" not in seen:
        raise RuntimeError(f"beamline up did not become ready: {seen[-500:].decode(errors='replace')}")
    return took
