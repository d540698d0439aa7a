"""What ``/metrics`` answers: Prometheus' text format, or OpenMetrics for who asks for it, with exemplars.

An exemplar is the id of one sampled trace beside the bucket it fell into; the plain format has no room for
it. Prometheus asks for OpenMetrics by itself and stores exemplars with
``--enable-feature=exemplar-storage``.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder


def render(registry: CollectorRegistry, accept: str | None) -> tuple[bytes, str]:
    """The body and its content type. ``accept`` is the request's header; what makes no sense gets the plain
    format.
    """
    try:
        encode, kind = choose_encoder(accept or "")
    except (TypeError, ValueError):  # a version that is no number
        return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4
    return encode(registry), kind
