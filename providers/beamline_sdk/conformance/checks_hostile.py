"""Input that no router sends, or that somebody sends through one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import orjson

from beamline_contract.wire import MAX_BODY_BYTES, MAX_REPLY_BYTES

from .results import FailedError
from .session import Session
from .shapes import error_code, reply_faults
from .target import Target

_LARGE: Final = 900_000
"""Bytes of a request that NATS still takes (1 MiB), and no router sends."""


def refused(target: Target) -> Iterator[tuple[str, bytes]]:
    """What is no request, with words for it; an error is the only right answer."""
    whole = target.request()
    needed = "output" if target.kind == "post" else "prompt"
    yield "an empty message", b""
    yield "text that is no JSON", f"hello {target.canary}".encode()
    yield "half a JSON text", orjson.dumps(whole)[:-3]
    yield "bytes that are no UTF-8", b'{"prompt": "\xff\xfe", "output": "\xc3"}'
    yield "null", b"null"
    yield "a list", orjson.dumps([whole])
    yield "a text", orjson.dumps(target.canary)
    yield (
        f"a request without {needed}",
        orjson.dumps({k: v for k, v in whole.items() if k not in {needed, "messages"}}),
    )
    for name, wrong in (
        (needed, {"text": target.canary}),
        ("messages", target.canary),
        ("parameters", [1]),
        ("config", target.canary),
        ("context", "x"),
        ("trace_id", 7),
    ):
        yield f"a request whose {name} has the wrong type", orjson.dumps({**whole, name: wrong})
    yield "100,000 opening brackets", b"[" * 100_000


def odd(target: Target) -> Iterator[tuple[str, dict[str, Any], dict[str, str]]]:
    """What is strange and allowed: any well-formed answer is right."""
    field = "output" if target.kind == "post" else "prompt"
    for words, text in (
        ("an empty text", ""),
        ("control characters", "\x00\x01\x1b[2J\r\n"),
        ("text in many scripts", "\u202e\u0645\u0631\u062d\u0628\u0627 \U0001f9ea \u4f60\u597d e\u0301"),
        ("a template's code", "{{7*7}} ${jndi:ldap://x} %s %n {0} `id`"),
        ("SQL and HTML", "'; DROP TABLE x; -- <script>alert(1)</script>"),
    ):
        yield words, target.request(**{field: text}), {}
    yield "unknown fields", target.request(__proto__={"admin": True}, constructor=None, extra=[1]), {}
    yield "headers that are no numbers", target.request(), {"Beamline-Deadline-Ms": "soon"}
    yield "a trace context that is none", target.request(), {"traceparent": "\u00e9" * 30}
    yield (
        "numbers without bound",
        target.request(parameters={"max_tokens": 10**15, "temperature": -1e300}),
        {},
    )


async def malformed(session: Session) -> str:
    """Every one is answered, and an ordinary request afterwards as well."""
    count = 0
    for words, payload in refused(session.target):
        count += 1
        body = (await _answer(session, words, payload)).body
        faults = reply_faults(session.target.kind, body, {})
        if error_code(body) is None:
            raise FailedError(f"{words} was not answered with an error")
        if faults:
            raise FailedError(f"{words}: {'; '.join(faults)}")
    for words, request, headers in odd(session.target):
        count += 1
        answer = await _answer(session, words, orjson.dumps(request), headers)
        faults = reply_faults(session.target.kind, answer.body, request)
        if faults:
            raise FailedError(f"{words}: {'; '.join(faults)}")
    await session.caller.nc.publish(session.target.subject, b"nobody waits for an answer to this")
    await session.answered(session.target.request())
    return f"{count} inputs answered, and it still serves"


async def oversize(session: Session) -> str:
    """The largest request that a router sends, one that is larger, and answers that NATS takes."""
    for words, size in (("the largest request", MAX_BODY_BYTES - 2_000), ("a request of 900 kB", _LARGE)):
        field = "output" if session.target.kind == "post" else "prompt"
        request = session.target.request(**{field: ("large " * (size // 6))})
        answer = await _answer(session, words, orjson.dumps(request))
        faults = reply_faults(session.target.kind, answer.body, request)
        if faults:
            raise FailedError(f"{words}: {'; '.join(faults)}")
        if len(answer.data) > MAX_REPLY_BYTES:
            raise FailedError(f"{words} was answered with {len(answer.data):,} bytes")
    # Some encoders escape these, six bytes for one or two: an answer that repeats them no longer fits.
    request = session.target.request(**{field: "\u00e9<&" * (_LARGE // 4)})
    await _answer(session, "a text that an encoder may escape", orjson.dumps(request))
    await session.answered(session.target.request())
    return f"{_LARGE:,} bytes answered, and it still serves"


async def _answer(session: Session, words: str, payload: bytes, headers: dict[str, str] | None = None) -> Any:
    try:
        return await session.caller.ask(payload, headers, seconds=5.0)
    except FailedError as failure:
        await asyncio.sleep(0.1)  # a process that dies of it needs a moment to be gone
        raise FailedError(f"{words}: {failure}") from failure
