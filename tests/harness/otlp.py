"""An OpenTelemetry collector on loopback: takes OTLP over HTTP, protobuf only, and keeps what came."""

from __future__ import annotations

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

SERVER, CLIENT = 2, 3
"""``SpanKind`` on the wire."""
ERROR = 2
"""``StatusCode`` on the wire."""


class Collector:
    """What an OTLP/HTTP endpoint has received. ``bodies`` are the raw requests, unpacked."""

    def __init__(self) -> None:
        collector = self
        self.paths: list[str] = []
        self.bodies: list[bytes] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.paths.append(self.path)
                collector.bodies.append(body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def resources(self) -> list[dict[str, Any]]:
        return [
            {one.key: one.value.string_value for one in resource.resource.attributes}
            for resource in self._resource_spans()
        ]

    def spans(self) -> list[Any]:
        return [
            span
            for resource in self._resource_spans()
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def by_service(self) -> list[tuple[str, Any]]:
        """Each span with the ``service.name`` of its process."""
        found = []
        for resource in self._resource_spans():
            names = [
                one.value.string_value for one in resource.resource.attributes if one.key == "service.name"
            ]
            found += [(names[0], span) for scope in resource.scope_spans for span in scope.spans]
        return found

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans() if span.name == name]

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def _resource_spans(self) -> list[Any]:
        found = []
        for body in tuple(self.bodies):
            request = ExportTraceServiceRequest()
            request.ParseFromString(body)
            found.extend(request.resource_spans)
        return found


def attributes(span: Any) -> dict[str, Any]:
    """The attributes of a span: texts and integers."""
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
