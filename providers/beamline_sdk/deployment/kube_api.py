"""The Kubernetes API in plain JSON: one method, one error.

The ``kubernetes`` package's async client brings what is hard to get right, credentials (kubeconfig with exec
plug-ins, the rotating ServiceAccount token) and TLS. Its typed models are left out: they cost more than the
request, and server-side apply wants exactly the fields that were written.

Every request is bounded (:data:`TIMEOUT_S`) and never retried here: whoever asked decides when to ask again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from kubernetes.aio import client, config

TIMEOUT_S: Final = 10.0
WATCH_S: Final = 240
"""After so many seconds the API server is asked to end a watch; it is opened again."""
_client: Any = client
_config: Any = config  # half of the package is typed, and not the half that is used here
PAGE: Final = 500
JSON: Final = "application/json"
MERGE: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
APPLY: Final = "application/apply-patch+yaml"
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
"""Asks for metadata alone: the API server then leaves everything else out."""


_OBJECTS: Final = ("/api/", "/apis/")
"""Below these every answer says what kind it is."""


class KubeError(Exception):
    """What the API server answered instead of success. ``status`` is 0 where it did not answer at all."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later: no answer, 409, 429 and 5xx."""
        return self.status in {0, 409, 429} or self.status >= 500


class KubeApi:
    """One API server. Close it with :meth:`close`. ``calls`` counts requests by verb and status code."""

    def __init__(self, configuration: Any) -> None:
        self.configuration = configuration
        self.calls: dict[tuple[str, int], int] = {}
        # Asked to trust the environment, aiohttp reads ~/.netrc and the proxy variables anew for every
        # request, in a thread each. Who the proxy is, is found out once; nothing here is in a netrc.
        configuration.client_session_kwargs = {"trust_env": False}
        configuration.proxy = configuration.proxy or proxy_for(configuration.host)
        self._client: Any = _client.ApiClient(configuration)

    @classmethod
    async def connect(cls, kubeconfig: str | None = None, context: str | None = None) -> KubeApi:
        """By ``kubeconfig``, else by the pod's ServiceAccount, else by the default kubeconfig.

        Raises :class:`KubeError` where there are no credentials.
        """
        configuration = _client.Configuration()
        configuration.retries = None
        # Many clusters' own CAs lack what RFC 5280 asks of one, and Python 3.13 refuses those by default.
        # Chain, validity and host name are still checked.
        configuration.disable_strict_ssl_verification = True
        try:
            if kubeconfig is None:
                try:
                    _config.load_incluster_config(client_configuration=configuration)
                    return cls(configuration)
                except _config.ConfigException:
                    pass
            await _config.load_kube_config(
                config_file=kubeconfig,
                context=context,
                client_configuration=configuration,
                persist_config=False,
            )
        except (_config.ConfigException, OSError) as error:
            raise KubeError(
                0, "NoCredentials", f"no credentials for a Kubernetes API server: {error}"
            ) from error
        return cls(configuration)

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content_type: str = JSON,
        params: Mapping[str, str | int] | None = None,
        accept: str = JSON,
    ) -> dict[str, Any]:
        """The JSON answer. Raises :class:`KubeError`."""
        url = self.configuration.host + path + (f"?{urlencode(params)}" if params else "")
        headers = await self._headers(accept, content_type)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                response = await self._client.rest_client.request(method, url, headers=headers, body=body)
                text = await response.read()
        except (TimeoutError, OSError, aiohttp.ClientError) as error:
            self._count(method, 0)
            raise KubeError(
                0, "Unreachable", f"the API server does not answer: {str(error) or 'timeout'}"
            ) from error
        self._count(method, response.status)
        if response.status >= 400:
            said = _told(text)
            raise KubeError(
                response.status,
                str(said.get("reason") or response.reason),
                str(said.get("message") or response.reason),
            )
        document = _document(text)
        if path.startswith(_OBJECTS) and "kind" not in document:
            raise _garbled(text)
        return document

    async def watch(
        self, path: str, params: Mapping[str, str | int], *, accept: str = JSON
    ) -> AsyncIterator[dict[str, Any]]:
        """The events of a watch until the API server ends it (within :data:`WATCH_S`). Raises
        :class:`KubeError`, also where the stream breaks, is silent for longer than that, or tells what is no
        event.
        """
        query = {**params, "watch": "true", "timeoutSeconds": WATCH_S}
        async with self._stream(
            path, query, accept=accept, verb="WATCH", broke="the watch broke", silence_s=WATCH_S
        ) as lines:
            async for line in lines:
                event = _document(line)
                if not isinstance(event.get("object"), dict):
                    raise _garbled(line)
                yield event

    async def lines(
        self, path: str, params: Mapping[str, str | int] | None = None, *, silence_s: float = TIMEOUT_S
    ) -> AsyncIterator[bytes]:
        """The lines of a text, such as a pod's log, as they come. Raises :class:`KubeError`, also where the
        server has said nothing for ``silence_s`` seconds (0: it may be silent for ever).
        """
        async with self._stream(
            path, params or {}, accept="*/*", verb="GET", broke="the stream broke", silence_s=silence_s
        ) as lines:
            async for line in lines:
                yield line

    async def clock(self) -> datetime:
        """The API server's time, to the second, as its answers are stamped. Raises :class:`KubeError`."""
        async with self._stream(
            "/version", {}, accept=JSON, verb="GET", broke="no answer", silence_s=TIMEOUT_S
        ) as answer:
            stamp = answer.response_headers.get("Date", "")
        try:
            return parsedate_to_datetime(stamp).astimezone(UTC)
        except ValueError as error:
            raise KubeError(0, "NoDate", "the API server's answer bears no date") from error

    @asynccontextmanager
    async def _stream(
        self,
        path: str,
        params: Mapping[str, str | int],
        *,
        accept: str,
        verb: str,
        broke: str,
        silence_s: float,
    ) -> AsyncIterator[_Lines]:
        """An answer that is read as it comes. Raises :class:`KubeError`."""
        url = self.configuration.host + path + (f"?{urlencode(params)}" if params else "")
        limits = aiohttp.ClientTimeout(
            total=None, sock_connect=TIMEOUT_S, sock_read=silence_s + TIMEOUT_S if silence_s else None
        )
        try:
            response = await self._client.rest_client.request(
                "GET", url, headers=await self._headers(accept, JSON), _request_timeout=limits
            )
            stream = response.response
            self._count(verb, response.status)
            try:
                if response.status >= 400:
                    said = _told(await response.read())
                    raise KubeError(response.status, str(said.get("reason")), str(said.get("message")))
                yield _Lines(stream)
            finally:
                stream.close()
        except (TimeoutError, OSError, aiohttp.ClientError) as error:
            self._count(verb, 0)
            raise KubeError(0, "Unreachable", f"{broke}: {str(error) or 'timeout'}") from error

    async def _headers(self, accept: str, content_type: str) -> dict[str, str]:
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": "beamline"}
        for auth in (await self.configuration.auth_settings()).values():
            if auth["in"] == "header" and auth["value"]:
                headers[auth["key"]] = auth["value"]
        return headers

    async def items(
        self, path: str, params: Mapping[str, str | int] | None = None, *, accept: str = JSON
    ) -> AsyncIterator[dict[str, Any]]:
        """Every object of a collection, page by page. Raises :class:`KubeError`."""
        token = ""
        while True:
            page: dict[str, str | int] = {**(params or {}), "limit": PAGE}
            if token:
                page["continue"] = token
            answer = await self.request("GET", path, params=page, accept=accept)
            if "items" not in answer:  # an empty list would be taken for the truth
                raise _garbled(str(answer).encode())
            for item in answer["items"] or ():
                yield item
            token = str(answer.get("metadata", {}).get("continue") or "")
            if not token:
                return

    async def apply(
        self, path: str, document: Mapping[str, Any], *, field_manager: str, force: bool = True
    ) -> dict[str, Any]:
        """Server-side apply; the object as it is afterwards. Raises :class:`KubeError`."""
        return await self.request(
            "PATCH",
            path,
            body=dict(document),
            content_type=APPLY,
            params={"fieldManager": field_manager, "force": "true" if force else "false"},
        )

    async def find(self, path: str) -> dict[str, Any] | None:
        """One object, None where there is none. Raises :class:`KubeError`."""
        try:
            return await self.request("GET", path)
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def delete(self, path: str, *, uid: str | None = None) -> None:
        """Deletes one object, what it owns in the background; absent is fine. Raises :class:`KubeError`."""
        options: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self.request("DELETE", path, body=options)
        except KubeError as error:
            if error.status != 404:
                raise

    def _count(self, method: str, status: int) -> None:
        self.calls[method, status] = self.calls.get((method, status), 0) + 1


class _Lines:
    """The lines of an answer, and its headers."""

    def __init__(self, response: Any) -> None:
        self.response_headers: Mapping[str, str] = response.headers
        self._content = response.content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        rest = b""
        async for part in self._content.iter_any():  # its own reading by lines refuses long ones
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                yield line
        if rest:
            yield rest


def proxy_for(host: str) -> str | None:
    """The proxy that the environment names for a server (``HTTPS_PROXY``, ``NO_PROXY``), None for none."""
    parts = urlsplit(host)
    if not parts.hostname or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return getproxies().get(parts.scheme)


def _told(text: bytes) -> dict[str, Any]:
    """What a refusal says; that of a proxy may be anything."""
    try:
        return _document(text)
    except KubeError:
        return {"message": text[:200].decode(errors="replace")}


def _document(text: bytes) -> dict[str, Any]:
    """A JSON object. Whatever else comes as a success is somebody else's, such as a proxy's page."""
    try:
        document = orjson.loads(text)
    except ValueError:
        raise _garbled(text) from None
    if not isinstance(document, dict):
        raise _garbled(text)
    return document


def _garbled(text: bytes) -> KubeError:
    start = text[:80].decode(errors="replace")
    return KubeError(0, "Garbled", f"the answer is not an API server's: {start!r}")
