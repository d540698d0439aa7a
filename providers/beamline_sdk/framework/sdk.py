"""Providers that call somebody's API: authentication, requests, and one type of result.

``make_request`` is the same for all: the request's id is made before anything is sent, so that a call that
never comes back can still be named; the limit per minute is kept on this side, so that a burst is refused
here and not billed there; what an author raises becomes an error of the closed list, without its text.

Nothing is retried unless ``retry_attempts`` says so (see :class:`~.provider.ProviderConfig`).
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, TypeVar
from uuid import uuid4

import structlog
from pydantic import Field, SecretStr, field_validator

from beamline_contract.errors import ErrorCode, WireError

from ..logs import place_of
from ..results import ExtensionError
from .provider import BaseProvider, ProviderConfig, ProviderKind

log = structlog.get_logger()

RATE_WINDOW_S: Final = 60.0
DataT = TypeVar("DataT")


class SDKConfig(ProviderConfig):
    """What an API needs. The key is a secret string: it is in no ``repr`` and no dump."""

    api_endpoint: str = Field(pattern=r"^https?://[^\s@]+$", max_length=2048)
    """Base URL, without user and password."""
    api_key: SecretStr
    timeout_ms: int = Field(default=10_000, ge=1, le=600_000)
    rate_limit: int = Field(default=100, ge=1, le=1_000_000)
    """Requests per minute that this process sends at most; further ones are refused with retry_after_ms."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Further settings, for the provider's own model."""

    @field_validator("api_key")
    @classmethod
    def _not_empty(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().strip():
            raise ValueError("must not be empty")
        return value


@dataclass(frozen=True, slots=True)
class SDKResponse(Generic[DataT]):
    """What came of a request: ``data`` where ``success``, else ``error``.

    ``latency_ms`` covers all attempts.
    """

    success: bool
    data: DataT | None
    error: WireError | None
    latency_ms: float
    request_id: str


SDKConfigT = TypeVar("SDKConfigT", bound=SDKConfig)


class SDKProvider(BaseProvider[SDKConfigT]):
    """A client of one API. Authors write ``send`` and ``authenticate``."""

    kind: ClassVar[ProviderKind] = "sdk"
    config_model: ClassVar[type[ProviderConfig]] = SDKConfig

    def __init__(self, config: SDKConfigT, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(config)
        self._clock = clock
        self._sent: deque[float] = deque()

    @abstractmethod
    async def send(self, operation: str, payload: Mapping[str, Any], request_id: str) -> Any:
        """Sends one request and returns its answer. Raises ExtensionError, or anything: that is INTERNAL."""

    @abstractmethod
    async def authenticate(self) -> bool:
        """Whether the API accepts the key."""

    async def open(self) -> None:
        """Authenticates. Raises :class:`ExtensionError` (UNAUTHENTICATED) where the key is refused."""
        if not await self.authenticate():
            raise ExtensionError(ErrorCode.UNAUTHENTICATED, f"{self.name}: the API refuses the key")

    async def make_request(self, operation: str, payload: Mapping[str, Any]) -> SDKResponse[Any]:
        """Sends ``payload`` to ``operation``. Never raises, except when the caller is cancelled."""
        request_id = str(uuid4())
        began = self._clock()
        attempt = 0
        while True:
            error = self._over_the_limit(self._clock())
            if error is None:
                data, error = await self._attempt(operation, payload, request_id)
            if error is None:
                return SDKResponse(True, data, None, self._ms(began), request_id)
            if not error.retryable or error.retry_after_ms or attempt == self.config.retry_attempts:
                break
            attempt += 1
        error = error.at(request_id=request_id)
        log.debug(
            "provider.request_failed", provider=self.name, request_id=request_id, error=error.code.value
        )
        return SDKResponse(False, None, error, self._ms(began), request_id)

    async def _attempt(
        self, operation: str, payload: Mapping[str, Any], request_id: str
    ) -> tuple[Any, WireError | None]:
        try:
            async with asyncio.timeout(self.config.timeout_ms / 1000):
                return await self.send(operation, payload, request_id), None
        except ExtensionError as error:
            return None, error.to_wire_error()
        except TimeoutError:
            # What ran into its time may have been executed, and paid for: another try is the caller's choice.
            what = f"{self.name} did not answer within {self.config.timeout_ms} ms"
            return None, WireError.of(ErrorCode.DEADLINE_EXCEEDED, what, retryable=False)
        except Exception as error:  # noqa: BLE001 -- its text may hold a prompt or a key
            log.warning(
                "provider.request_fault",
                provider=self.name,
                request_id=request_id,
                error=type(error).__name__,
                at=place_of(error),
            )
            return None, WireError.of(ErrorCode.INTERNAL, f"{self.name} failed", retryable=False)

    def _over_the_limit(self, now: float) -> WireError | None:
        while self._sent and self._sent[0] <= now - RATE_WINDOW_S:
            self._sent.popleft()
        if len(self._sent) < self.config.rate_limit:
            self._sent.append(now)
            return None
        wait_ms = int((self._sent[0] + RATE_WINDOW_S - now) * 1000) + 1
        what = f"{self.name} sends at most {self.config.rate_limit} requests per minute"
        return WireError.of(ErrorCode.RESOURCE_EXHAUSTED, what, retry_after_ms=wait_ms)

    def _ms(self, began: float) -> float:
        return round((self._clock() - began) * 1000, 3)
