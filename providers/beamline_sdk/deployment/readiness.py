"""What a workload says of itself while it is not ready: its answer to its own readiness probe.

An extension that can't serve yet stays up and says why on ``/readyz`` (:mod:`beamline_sdk.health`). A kubelet
keeps no more than the status code, so who wants the words asks the pod.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import orjson

from .port import Phase

POD_TIMEOUT_S: Final = 1.0
MAX_SAID: Final = 300
_ANSWER_BYTES: Final = 64 * 1024
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]{1,9})", re.IGNORECASE)
_CREDENTIALS: Final = "CredentialsMissing"


async def probe(host: str, port: int, path: str, timeout_s: float) -> str | OSError | None:
    """Asks a health page. None: ready; words: why not; an :class:`OSError`: no answer."""
    at = f"[{host}]" if ":" in host else host
    request = f"GET {path} HTTP/1.1\r\nHost: {at}:{port}\r\nConnection: close\r\n\r\n".encode()
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            body = await _body(reader, head)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return OSError("not HTTP")
    except OSError as error:  # a timeout is one too
        return error
    finally:
        if writer is not None:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        return OSError("not HTTP")
    if 200 <= int(words[1]) < 300:
        return None
    with suppress(orjson.JSONDecodeError):
        document = orjson.loads(body)
        if isinstance(document, dict) and isinstance(document.get("reason"), str):
            return " ".join(str(document["reason"]).split())[:MAX_SAID]
    return f"{path} answers {int(words[1])}"


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """As much as the head promises, else all until the end; it may come in several pieces."""
    stated = _LENGTH.search(head)
    wanted = min(int(stated[1]), _ANSWER_BYTES) if stated else _ANSWER_BYTES
    body = b""
    while len(body) < wanted and (more := await reader.read(wanted - len(body))):
        body += more
    return body


async def said_by(pods: Iterable[Mapping[str, Any]], deployment: Mapping[str, Any]) -> str:
    """Why the first pod that runs and is not ready is not, in its own words; empty where none can be asked.

    Where to ask is what the Deployment says, never the pod.
    """
    template = deployment.get("spec", {}).get("template", {}).get("spec", {})
    page = (template.get("containers") or [{}])[0].get("readinessProbe", {}).get("httpGet") or {}
    port, path = page.get("port"), str(page.get("path", "/"))
    address = next(filter(None, map(_address, pods)), None)
    if address is None or not isinstance(port, int):
        return ""
    answer = await probe(address, port, path, POD_TIMEOUT_S)
    return answer if isinstance(answer, str) else ""


def worded(said: str) -> tuple[Phase, str]:
    """The phase of what is not ready for the reason that it gives, and the sentence."""
    if said.startswith(_CREDENTIALS):
        return Phase.CREDENTIALS_MISSING, said.removeprefix(_CREDENTIALS).lstrip(": ")
    return Phase.PROGRESSING, said


def _address(pod: Mapping[str, Any]) -> str | None:
    """Where the pod can be asked: it has started (its startup probe has passed), and is not ready."""
    status = pod.get("status", {})
    containers = status.get("containerStatuses") or ()
    asked = any(one.get("started") and not one.get("ready") for one in containers)
    leaving = pod.get("metadata", {}).get("deletionTimestamp")
    return str(status.get("podIP") or "") or None if asked and not leaving else None
