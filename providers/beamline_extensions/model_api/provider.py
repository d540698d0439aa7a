"""A provider of a remote model API: from a request to one answer, or to one error of the closed list.

What a call goes through, outer to inner:

    our own rate limit > a key that does not rest > the head as the SDK writes it > the transport (checked
    addresses; no retries, no redirects)

There is one retry in here and no other: a key that was refused (401) or is over its limit (429) is put to
rest and the next one tried, before anything has been computed or delivered. Every other repetition is the
router's, which knows the request's budget.

Time: the request's deadline bounds all of it. When it passes, or when the caller leaves, the task is
cancelled, and the connection is closed where it stands, so that the API can stop generating.
"""

from __future__ import annotations

import asyncio
import os
import time
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeVar

import httpx2
import orjson
import structlog

from beamline_contract.errors import ErrorCode
from beamline_sdk import ExtensionError, ExtensionRequest, NotReadyError, Provider, ProviderReply, Setup
from beamline_sdk.results import StreamPart

from . import failures, spans
from .base_url import BaseUrlError
from .calls import Written
from .config import ModelApiConfig
from .figures import ApiFigures
from .keys import Key, KeyRing, KeySourceError, Resting
from .place import Places
from .prices import Price, price_of
from .rate_limit import BYTES_PER_TOKEN, RateLimit
from .sdk import EventStream, Sdk, StatusError, Words
from .translate import translated
from .transport import ModelApiTransport, Resolve, resolve

log = structlog.get_logger()
ConfigT = TypeVar("ConfigT", bound=ModelApiConfig)

NO_DEADLINE_S: Final = 600.0
"""For a request that came without one: the longest that a policy may grant."""
_CALLS: Final = 64
"""Heads that are kept: one per key, base URL, and way to answer."""
_LOG_SECONDS: Final = 1.0
_END: Final = object()


@dataclass(slots=True)
class _Call:
    """One request on its way: what is sent, until when (the loop's time), and what was estimated."""

    request: ExtensionRequest
    model: str
    price: Price | None
    base_url: str
    body: bytes
    headers: Mapping[str, Any] | None
    ignored: tuple[str, ...]
    ends_at: float
    connect_s: float
    estimated: int
    stream: bool
    span: spans.CallSpan
    started: float = field(default_factory=time.monotonic)


class ModelApiProvider(Provider[ConfigT]):
    """Base of the providers of remote model APIs. A subclass says which API, SDK and words."""

    api: ClassVar[str]
    """Its name in metrics and spans."""
    key_name: ClassVar[str]
    """The environment variable with its key or keys."""
    needs_key: ClassVar[bool] = True
    base_url_name: ClassVar[str]
    """The environment variable with its default base URL."""
    usual_base_url: ClassVar[str | None]

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        resolver: Resolve = resolve,
    ) -> None:
        self._environment = os.environ if environment is None else environment
        self._clock = clock
        self._resolver = resolver
        self._id = self.name
        self._keys = KeyRing(self.key_name, self._environment, clock)
        self._limit = RateLimit()
        self._calls: OrderedDict[tuple[object, ...], Written] = OrderedDict()
        self._places: Places | None = None
        self._figures: ApiFigures | None = None
        self._transport: ModelApiTransport | None = None
        self._logged_at = float("-inf")
        self._unlogged = 0

    @property
    @abstractmethod
    def sdk(self) -> Sdk:
        """The vendor's SDK."""

    @property
    @abstractmethod
    def words(self) -> Words:
        """The API's words."""

    async def initialize(self, setup: Setup) -> None:
        self._id = setup.extension_id
        places = Places(self._environment, self.base_url_name, self.usual_base_url)
        try:
            base_url = setup.config.get("base_url")
            if isinstance(base_url, str):
                places.of(base_url)
        except BaseUrlError as error:
            raise NotReadyError("BaseUrlNotAllowed", str(error)) from None
        fault = self._keys.fault()
        if fault is not None and self.needs_key:
            raise NotReadyError("CredentialsMissing", fault)
        if self._figures is None:
            self._figures = ApiFigures(setup.registry, self.api, self._id)
        self._places = places
        self._transport = ModelApiTransport(places.rule, resolver=self._resolver)

    async def health_check(self) -> str | None:
        fault = self._keys.fault()
        return f"CredentialsMissing: {fault}" if fault is not None and self.needs_key else None

    async def stop(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()

    async def handle(self, request: ExtensionRequest, config: ConfigT) -> ProviderReply:
        call = await self._begin(request, config, stream=False)
        try:
            async with asyncio.timeout_at(call.ends_at):
                _, answer = await self._asked(call)
                await _read(answer)
            reply = self.words.reply(_object(answer.content))
        except BaseException as error:  # noqa: BLE001 -- cancellation is counted as well, and raised again
            raise self._failed(call, error) from None
        self._succeeded(call, reply, answer)
        return reply

    async def stream(self, request: ExtensionRequest, config: ConfigT) -> AsyncGenerator[StreamPart, None]:
        call = await self._begin(request, config, stream=True)
        events: EventStream | None = None
        try:
            async with asyncio.timeout_at(call.ends_at):
                events = self.sdk.events(*await self._asked(call))
            reader = self.words.reader()
            iterator = aiter(events)
            while True:
                async with asyncio.timeout_at(call.ends_at):
                    event = await anext(iterator, _END)
                if event is _END:
                    break
                for part in reader.feed(event):
                    yield part
            reply = reader.end()
        except BaseException as error:  # noqa: BLE001 -- cancellation is counted as well, and raised again
            raise self._failed(call, error) from None
        finally:
            if events is not None:
                await events.close()
        self._succeeded(call, reply, events.response)
        yield reply

    async def _begin(self, request: ExtensionRequest, config: ConfigT, *, stream: bool) -> _Call:
        assert self._places is not None
        try:
            place = self._places.of(config.base_url)
        except BaseUrlError as error:
            raise ExtensionError(ErrorCode.INTERNAL, str(error), retryable=False) from None
        asked = self.words.asked(request, config, stream=stream)
        body = asked.body
        sent = orjson.dumps(body)
        most = body.get("max_tokens") or body.get("max_completion_tokens")
        estimated = len(sent) // BYTES_PER_TOKEN + (most if isinstance(most, int) else 0)
        remaining = request.remaining_ms()
        ends_at = asyncio.get_running_loop().time() + (
            NO_DEADLINE_S if remaining is None else remaining / 1000
        )
        await self._admit(config, estimated, ends_at)
        model = str(body["model"])
        return _Call(
            request=request,
            model=model,
            price=price_of(model, config.prices),
            base_url=str(place),
            body=sent,
            headers=asked.headers,
            ignored=asked.ignored,
            ends_at=ends_at,
            connect_s=config.connect_timeout_ms / 1000,
            estimated=estimated,
            stream=stream,
            span=spans.begin(
                self._id, self.api, body, server=(place.host, place.port), headers=request.headers
            ),
        )

    async def _admit(self, config: ConfigT, tokens: int, ends_at: float) -> None:
        """Waits for a turn under our own limits, or raises RESOURCE_EXHAUSTED."""
        per_minute, tokens_per_minute = config.requests_per_minute, config.tokens_per_minute
        if per_minute is None and tokens_per_minute is None:
            return
        loop = asyncio.get_running_loop()
        patience = min(loop.time() + config.rate_limit_wait_ms / 1000, ends_at)
        while wait := self._limit.admit(
            self._clock(), tokens, per_minute=per_minute, tokens_per_minute=tokens_per_minute
        ):
            if loop.time() + wait > patience:
                assert self._figures is not None
                self._figures.refused()
                raise ExtensionError(
                    ErrorCode.RESOURCE_EXHAUSTED,
                    f"{self._id} is at its own limit of requests or tokens per minute",
                    retry_after_ms=int(wait * 1000) + 1,
                )
            await asyncio.sleep(wait)

    async def _asked(self, call: _Call) -> tuple[Written, httpx2.Response]:
        """Asks with one key after the other, until one is taken. Raises UpstreamError, CancelledError.

        The answer is one of success, and its body may still be on its way.
        """
        tried: set[str] = set()
        last: failures.UpstreamError | None = None
        while True:
            key = self._key(tried, last)
            try:
                found = await self._ask(call, key)
            except Exception as error:
                fault = translated(error, self.sdk, unix_s=time.time(), leaks=self._keys.holds)
                if fault is None:
                    raise
                last = fault
            else:
                if key is not None:
                    self._keys.worked(key)
                return found
            if key is None or last.status not in {401, 429}:
                raise last
            why: Any = "refused" if last.status == 401 else "limited"
            wait = None if last.retry_after_ms is None else last.retry_after_ms / 1000
            self._keys.rest(key, why, wait if why == "limited" else None)
            log.warning("provider.key_rests", extension_id=self._id, key=key.digest, reason=why, seconds=wait)
            tried.add(key.digest)

    async def _ask(self, call: _Call, key: Key | None) -> tuple[Written, httpx2.Response]:
        assert self._transport is not None
        written = await self._written(call, key)
        answer = await self._transport.ask(written, call.body, call.connect_s)
        if not answer.is_success:
            raise StatusError(answer, _json_or_text(await _read(answer)))
        return written, answer

    async def _written(self, call: _Call, key: Key | None) -> Written:
        """The call's head, from the last call of its kind where that may be used again."""
        headers = call.headers
        kind = (
            call.base_url,
            None if key is None else key.digest,
            call.stream,
            headers and (*headers.items(),),
        )
        written = self._calls.get(kind)
        if written is None:
            secret = None if key is None else key.secret
            written = await self.sdk.written(call.base_url, secret, headers, stream=call.stream)
            if written.kept:
                self._calls[kind] = written
                if len(self._calls) > _CALLS:
                    self._calls.popitem(last=False)
        return written

    def _key(self, tried: set[str], last: failures.UpstreamError | None) -> Key | None:
        try:
            found = self._keys.pick(frozenset(tried))
        except KeySourceError as error:
            if not self.needs_key:
                return None
            raise failures.UpstreamError(
                ErrorCode.UNAVAILABLE, f"CredentialsMissing: {error}", outcome="api_error"
            ) from None
        if isinstance(found, Key):
            return found
        if last is not None:
            raise last
        raise _resting(found)

    def _succeeded(self, call: _Call, reply: ProviderReply, answer: httpx2.Response) -> None:
        figures = self._figures
        assert figures is not None
        figures.called(call.model, "success", time.monotonic() - call.started, call.span.trace_id)
        figures.used(call.model, reply.prompt_tokens, reply.completion_tokens, call.price)
        figures.headers(answer.headers)
        if call.ignored:
            reply.metadata = {**reply.metadata, "ignored_parameters": list(call.ignored)}
        self._limit.correct(call.estimated, reply.prompt_tokens + reply.completion_tokens)
        call.span.end(
            response_model=reply.model,
            response_id=str(reply.metadata.get("response_id", "")),
            finish_reasons=[reply.finish_reason],
            input_tokens=reply.prompt_tokens,
            output_tokens=reply.completion_tokens,
        )

    def _failed(self, call: _Call, error: BaseException) -> BaseException:
        """Counts a failure and gives what is to be raised."""
        late = asyncio.get_running_loop().time() >= call.ends_at
        fault: BaseException | None = None
        if isinstance(error, TimeoutError) and late:
            fault = failures.too_late()
        elif isinstance(error, Exception):
            fault = translated(error, self.sdk, unix_s=time.time(), leaks=self._keys.holds)
        fault = error if fault is None else fault
        outcome = "api_error" if late or isinstance(fault, Exception) else "cancelled"
        word, status = ("DEADLINE_EXCEEDED" if late else "CANCELLED"), None
        if isinstance(fault, failures.UpstreamError):
            outcome, word, status = fault.outcome, fault.code.value, fault.status
        assert self._figures is not None
        self._figures.called(call.model, outcome, time.monotonic() - call.started, call.span.trace_id)
        call.span.end(error=word, **({} if status is None else {"status": status}))
        self._log(call, word, status, fault)
        return fault

    def _log(self, call: _Call, word: str, status: int | None, fault: BaseException) -> None:
        now = time.monotonic()
        if now - self._logged_at < _LOG_SECONDS:
            self._unlogged += 1
            return
        log.warning(
            "provider.call_failed",
            extension_id=self._id,
            trace_id=call.request.trace_id[:128],
            tenant_id=call.request.tenant_id[:128],
            latency_ms=round((now - call.started) * 1000, 3),
            status=status,
            error=word,
            upstream_request_id=getattr(fault, "details", {}).get("upstream_request_id"),
            unlogged=self._unlogged,
        )
        self._logged_at, self._unlogged = now, 0


def _resting(found: Resting) -> failures.UpstreamError:
    if found.refused:
        _, retryable, message = failures.BY_STATUS[401]
        return failures.UpstreamError(
            ErrorCode.UNAUTHENTICATED, message, outcome="api_error", status=401, retryable=retryable
        )
    return failures.UpstreamError(
        ErrorCode.RESOURCE_EXHAUSTED,
        failures.BY_STATUS[429][2],
        outcome="api_error",
        status=429,
        retry_after_ms=int(found.seconds * 1000) + 1,
    )


async def _read(answer: httpx2.Response) -> bytes:
    """All of it. A reader that is interrupted takes the connection down."""
    try:
        return await answer.aread()
    finally:
        await answer.aclose()


def _json_or_text(content: bytes) -> object:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return content.decode(errors="replace")


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        data = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise failures.undecodable("not JSON") from None
    if not isinstance(data, dict):
        raise failures.undecodable("not a JSON object")
    return data
