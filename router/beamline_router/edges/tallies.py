"""Counting at the price of an addition; what Prometheus wants is made of it when it asks.

A child of prometheus_client takes a lock and several calls for each ``inc`` and ``observe``, and a request
needs seventeen of them. Here a count is an entry of a dictionary and an observation an entry of a list, in
plain Python objects that only the event loop changes. :class:`TallyCollector` makes samples of them in a
scrape.

A scrape runs in a thread. It copies each container by one call that does not give up the interpreter's
lock, so it never meets one that changes size. A request that is counted meanwhile may be in one series and
not yet in another, which Prometheus allows; within a histogram the count is always the sum of its buckets,
because it is made of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, Exemplar, HistogramMetricFamily, Metric

SECONDS_BUCKETS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
"""Upper bounds, from a guard on the same node to a long completion. The last bucket has none."""


class Tally:
    """Things that end in one of a few words after some seconds. ``buckets`` are not cumulative."""

    __slots__ = ("buckets", "ends", "examples", "seconds")

    def __init__(self) -> None:
        self.ends: defaultdict[str, int] = defaultdict(int)
        self.examples: dict[int, Exemplar] = {}
        self.buckets = [0] * (len(SECONDS_BUCKETS) + 1)
        self.seconds = 0.0

    def add(self, end: str, seconds: float) -> None:
        """One more, which ended in ``end``."""
        self.ends[end] += 1
        self.buckets[bisect_left(SECONDS_BUCKETS, seconds)] += 1
        self.seconds += seconds

    def add_at_once(self, end: str) -> None:
        """As :meth:`add` of one that took no time at all."""
        self.ends[end] += 1
        self.buckets[0] += 1

    def example(self, trace_id: str, seconds: float, unix: float) -> None:
        """The trace of one that was added, shown beside its bucket until the next one of that bucket."""
        self.examples[bisect_left(SECONDS_BUCKETS, seconds)] = Exemplar({"trace_id": trace_id}, seconds, unix)


TOKEN_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
"""Of ``gen_ai.client.token.usage`` (OpenTelemetry semantic conventions), up to the largest contexts."""


class Tokens:
    """Tokens of one kind that answers of a provider stated. ``buckets`` are not cumulative."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(TOKEN_BUCKETS) + 1)
        self.total = 0

    def add(self, count: int) -> None:
        """One more answer."""
        self.total += count
        self.buckets[bisect_left(TOKEN_BUCKETS, count)] += 1


class Count:
    """A counter without a time: ``by`` holds how often, by the values of ``labels``. A collector itself."""

    __slots__ = ("_help", "_labels", "_name", "by")

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self.by: defaultdict[tuple[str, ...], int] = defaultdict(int)
        self._name, self._help, self._labels = name, text, tuple(labels)

    def collect(self) -> Iterable[Metric]:
        """What prometheus_client calls in a scrape."""
        counter = CounterMetricFamily(self._name, self._help, labels=self._labels)
        for values, count in tuple(self.by.items()):
            counter.add_metric(values, count)
        yield counter


@dataclass(frozen=True, slots=True)
class Family:
    """The metrics of one kind of tally: ``counter``, where it has one, by ``label`` and end, and
    ``histogram`` by ``label``. ``constant`` labels stand before.
    """

    tallies: Mapping[str, Tally]
    label: str
    histogram: str
    histogram_help: str
    counter: str | None = None
    counter_help: str = ""
    end: str = ""
    constant: tuple[tuple[str, str], ...] = ()

    def metrics(self) -> Iterable[Metric]:
        """All of them, as they are now."""
        names = tuple(name for name, _ in self.constant)
        values = tuple(value for _, value in self.constant)
        histogram = HistogramMetricFamily(self.histogram, self.histogram_help, labels=(*names, self.label))
        tallies = tuple(self.tallies.items())
        if self.counter is not None:
            counter = CounterMetricFamily(self.counter, self.counter_help, labels=(self.label, self.end))
            for key, tally in tallies:
                for end, count in tuple(tally.ends.items()):
                    counter.add_metric((key, end), count)
            yield counter
        for key, tally in tallies:
            seconds, buckets = tally.seconds, accumulate(tuple(tally.buckets))
            bounds = (*map(str, SECONDS_BUCKETS), "+Inf")
            examples = tally.examples.copy()
            rows = [
                (bound, count, examples[index]) if index in examples else (bound, count)
                for index, (bound, count) in enumerate(zip(bounds, buckets, strict=True))
            ]
            histogram.add_metric((*values, key), rows, seconds)
        yield histogram


class TallyCollector:
    """The tallies of a process as a collector; also the tokens of each provider, prompt and completion."""

    def __init__(self, families: Iterable[Family], tokens: Mapping[str, tuple[Tokens, Tokens]]) -> None:
        self._families = tuple(families)
        self._tokens = tokens

    def collect(self) -> Iterable[Metric]:
        """What prometheus_client calls in a scrape."""
        for family in self._families:
            yield from family.metrics()
        tokens = CounterMetricFamily(
            "provider_tokens_total", "Tokens as providers report them.", labels=("provider_id", "type")
        )
        usage = HistogramMetricFamily(
            "gen_ai_client_token_usage",
            "gen_ai.client.token.usage: tokens of one answer, as its provider reports them.",
            labels=("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_token_type"),
        )
        bounds = (*map(str, map(float, TOKEN_BUCKETS)), "+Inf")
        for provider_id, counts in tuple(self._tokens.items()):
            for kind, word, count in zip(("prompt", "completion"), ("input", "output"), counts, strict=True):
                buckets = accumulate(tuple(count.buckets))
                if count.total:
                    tokens.add_metric((provider_id, kind), count.total)
                    rows = list(zip(bounds, buckets, strict=True))
                    usage.add_metric(("chat", provider_id, word), rows, count.total)
        yield tokens
        yield usage
