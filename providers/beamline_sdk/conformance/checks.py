"""All rules, in the order in which they are checked. Each is a function beside its like; this is the list."""

from __future__ import annotations

from typing import Final

from . import checks_hostile, checks_identity, checks_load, checks_process, checks_stream, checks_time
from .results import Check

CHECKS: Final[tuple[Check, ...]] = (
    Check(
        "service",
        "answers $SRV.PING, INFO and STATS",
        "Serve the NATS services protocol: name, semantic version, metadata beamline.type, and an endpoint "
        "with the subject and its queue group. The official NATS clients have it as `micro` or `services`.",
        checks_identity.service,
    ),
    Check(
        "schema",
        "publishes the JSON Schema of its configuration",
        "Put the schema, as a JSON text, into the service metadata as beamline.config_schema.",
        checks_identity.schema,
    ),
    Check(
        "contract",
        "answers with the shape of its kind",
        "Compare the reply with docs/extensions/wire.md: each kind has one shape, and every error the same.",
        checks_identity.contract,
    ),
    Check(
        "config",
        "uses the configuration of each request",
        "Read `config` of the request at hand, not only BEAMLINE_CONFIG, and answer INTERNAL where it breaks "
        "the schema: a change in the custom resource holds from the next request on.",
        checks_identity.config,
    ),
    Check(
        "malformed",
        "refuses malformed and hostile input with an error",
        "Answer what is no request with INVALID_ARGUMENT. Catch every exception: one answer for each "
        "request, whatever it holds.",
        checks_hostile.malformed,
    ),
    Check(
        "oversize",
        "survives input and answers that are too large",
        "Bound the answer to 1 MiB before it is published, and answer an error instead: NATS refuses larger "
        "messages, and the caller would wait for nothing.",
        checks_hostile.oversize,
    ),
    Check(
        "expired",
        "refuses expired work unexecuted",
        "Before any work, look at Beamline-Deadline-Ms (0 or less) and Beamline-Deadline-At (Unix "
        "milliseconds in the past), and answer DEADLINE_EXCEEDED.",
        checks_time.expired,
    ),
    Check(
        "deadline",
        "answers or gives up before the deadline",
        "Take the time that Beamline-Deadline-Ms leaves as the timeout of the work, and answer "
        "DEADLINE_EXCEEDED when it runs out.",
        checks_time.deadline,
    ),
    Check(
        "concurrency",
        "answers many requests at once, each with its own answer",
        "Do not work inside the subscription's callback: start a task for each message, keep nothing of a "
        "request in shared variables, and bound how many run.",
        checks_load.concurrency,
    ),
    Check(
        "trace",
        "returns the trace context",
        "Copy traceparent and tracestate from the request's headers into those of each reply, errors too.",
        checks_identity.trace,
    ),
    Check(
        "queue-group",
        "answers once, however many instances run",
        "Subscribe in the queue group NATS_QUEUE_GROUP: without one every replica answers, and bills.",
        checks_load.queue_group,
    ),
    Check(
        "streaming",
        "streams by the protocol where it says that it can",
        "See docs/extensions/streaming.md: opening message 0 with a control subject, numbered chunks within "
        "the window, one end; and stop when the reader cancels.",
        checks_stream.streaming,
    ),
    Check(
        "probes",
        "serves /healthz, /readyz and /metrics",
        "Listen on METRICS_PORT: Kubernetes asks the first two, Prometheus the third.",
        checks_process.probes,
    ),
    Check(
        "drain",
        "loses nothing on SIGTERM",
        "On SIGTERM drain the subscription, finish what is in work, drain the connection, exit with 0.",
        checks_process.drain,
    ),
    Check(
        "logs",
        "writes no payload to its log",
        "Log ids, durations and codes; never a prompt, an output, or the text of an exception.",
        checks_process.logs,
    ),
)
