"""Every metric, in one table. Labels are bounded: never a key, a URI or an exception's text.

Names follow Vector's template (component, received or sent, unit, `_total`) with Prometheus's base units. A
process counts what it does itself, and serves it on a port of its own. What a server knows and this process only
asks for (`asked`) is absent while it could not be asked: nothing is known then, and 0 would be a lie.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import product
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

PREFIX = "labelfeed_"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
FRESH_SECONDS = 15.0
"""What a server was asked for is told for so long after it was asked."""

Role = Literal["watch", "dispatch", "work", "deliver", "serve", "process"]


class Concern(NamedTuple):
    """Something that works but should be mended: what (one of CONCERNS), and a sentence for a person."""

    code: str
    text: str


CONCERNS: Mapping[str, str] = {
    "redis_evicts": "Redis may throw messages away when its memory is full",
    "redis_not_persistent": "Redis forgets all messages when it restarts",
    "few_partitions": "the topic has fewer partitions than are configured: fewer dispatchers can share it",
    "counters_differ": "the ledger's counters are not what a count gives",
}


class Metric(NamedTuple):
    """One row of the table; the name stands without its prefix.

    `values` are those that the last label may have, where they are few: a counter that has them, and whose other
    label if any is the source, is there from the start with 0, so that its first increase is seen. `asked`: see above.
    """

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    labels: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    asked: bool = False


ROLES: Mapping[Role, tuple[Metric, ...]] = {
    "watch": (
        Metric("counter", "listed_objects_total", "Objects that passes looked at.", ("source",)),
        Metric(
            "counter",
            "left_out_objects_total",
            "Objects that a pass or a notification told of and the configuration leaves out, by its rule.",
            ("source", "rule"),
        ),
        Metric(
            "counter",
            "sent_events_total",
            "Events put on the event log, by what noticed the change.",
            ("source", "discovered_by"),
            ("listing", "notification"),
        ),
        Metric(
            "counter",
            "passes_total",
            "Passes that ended, by how.",
            ("source", "outcome"),
            ("complete", "stopped", "interrupted", "failed"),
        ),
        Metric("histogram", "pass_duration_seconds", "Time from the start of a pass to its end.", ("source",)),
        Metric(
            "counter",
            "missed_by_notification_total",
            "Objects that a pass found and no notification had brought.",
            ("source",),
        ),
        Metric(
            "gauge", "leader", "1 while this process lists and watches the source, 0 while it stands by.", ("source",)
        ),
        Metric("counter", "leads_taken_total", "Times that this process began to lead a source.", ("source",)),
    ),
    "dispatch": (
        Metric("counter", "received_events_total", "Events read from the event log."),
        Metric("counter", "recorded_events_total", "Events applied to the ledger, by what they did.", ("effect",)),
        Metric(
            "counter",
            "discarded_events_total",
            "Events that changed nothing, by why: out of scope, known already, older than what is known, unreadable.",
            ("reason",),
            ("out_of_scope", "unknown", "duplicate", "stale", "dead_letter"),
        ),
        Metric(
            "counter",
            "dead_letters_total",
            "Records that could not be read or were refused, and were put aside.",
            ("reason",),
            ("unreadable", "refused"),
        ),
        Metric("histogram", "record_duration_seconds", "Time of one transaction that records events."),
        Metric(
            "gauge",
            "log_lag_records",
            "Records of the event log that the ledger does not reflect yet.",
            ("partition",),
            asked=True,
        ),
        Metric("counter", "claimed_objects_total", "Objects claimed for the workers.", ("source",)),
        Metric(
            "counter",
            "leases_ended_total",
            "Objects whose lease ended without their worker's commit.",
            ("why",),
            ("ended",),
        ),
        Metric("histogram", "tick_duration_seconds", "Time of one turn of the scheduler."),
        Metric("gauge", "in_flight_objects", "Objects that are claimed or running.", asked=True),
        Metric("gauge", "in_flight_bytes", "Bytes of objects that are claimed or running.", asked=True),
        Metric(
            "gauge",
            "claims_bound",
            "Claims that may be in flight by the database's pressure; 0: any number.",
            asked=True,
        ),
        Metric("gauge", "source_waits", "1 for what a source waits for.", ("source", "why"), asked=True),
        Metric("gauge", "project_waits", "1 for what a project waits for.", ("project", "why"), asked=True),
        Metric("gauge", "ready_objects", "Objects that wait to be claimed.", ("source",), asked=True),
        Metric(
            "gauge",
            "source_paused",
            "1 while a source is paused, by hand or by its failures.",
            ("source",),
            asked=True,
        ),
        Metric(
            "counter",
            "throttle_wait_seconds_total",
            "Seconds in which a source had objects ready and the throttle let none of them start, by cause.",
            ("source", "cause"),
        ),
        Metric("gauge", "objects", "Objects of the ledger, by state.", ("source", "state"), asked=True),
        Metric(
            "gauge",
            "oldest_waiting_seconds",
            "How long the object that waits longest has been due; 0 where none waits.",
            ("source",),
            asked=True,
        ),
        Metric("gauge", "tasks", "Live tasks.", ("project",), asked=True),
        Metric("gauge", "tasks_limit", "Most tasks that a project may have, where it is limited.", ("project",)),
        Metric(
            "gauge",
            "miscounted_objects",
            "By how much the ledger's counters differ from a count, as of the last nightly one.",
            ("source",),
        ),
        Metric(
            "gauge",
            "queue_messages",
            "Messages of the work queue: listed (wait to be taken), taken (and not finished), stored (both together).",
            ("part",),
            asked=True,
        ),
    ),
    "work": (
        Metric(
            "counter",
            "imported_objects_total",
            "Objects that ended, by state.",
            ("source", "state"),
            ("done", "failed", "skipped", "gone", "ready"),
        ),
        Metric("counter", "read_bytes_total", "Bytes read from storage.", ("source",)),
        Metric("counter", "written_tasks_total", "Tasks committed to the database.", ("source",)),
        Metric("counter", "rejected_rows_total", "Rows that became no task.", ("source",)),
        Metric("counter", "duplicates_avoided_total", "Outcomes that another owner had written already."),
        Metric(
            "counter",
            "busy_seconds_total",
            "Seconds that worker threads spent in each stage; its rate is how many are in it.",
            ("stage",),
            ("open", "parse", "commit"),
        ),
        Metric("histogram", "claim_duration_seconds", "Time from a claim's start to the end of its last object."),
        Metric("histogram", "commit_duration_seconds", "Time of one transaction that commits outcomes."),
        Metric(
            "histogram",
            "end_to_end_seconds",
            "Time from an object's last change to the commit of its tasks.",
            ("source",),
        ),
    ),
    "deliver": (
        Metric(
            "counter",
            "deliveries_total",
            "Attempts to deliver a batch, by outcome.",
            ("delivery", "outcome"),
            ("delivered", "retried", "refused", "unsure", "absent", "lost"),
        ),
        Metric(
            "counter",
            "delivered_tasks_total",
            "Tasks by what became of them at the labelling side.",
            ("delivery", "outcome"),
            ("delivered", "refused", "changed", "kept", "gone"),
        ),
        Metric(
            "histogram",
            "delivery_duration_seconds",
            "Time from the mark that a batch is sent to what came of it.",
            ("delivery",),
        ),
        Metric("gauge", "undelivered_tasks", "Tasks that a delivery has not taken yet.", ("delivery",)),
        Metric("gauge", "delivery_waits", "1 for what a delivery waits for.", ("delivery", "why"), asked=True),
        Metric("gauge", "delivery_waiting", "1 while a delivery is paused or its last attempt failed.", ("delivery",)),
    ),
    "serve": (
        Metric(
            "counter",
            "links_total",
            "Links that were answered, by how: with a signed URL, with bytes, by what the client has already.",
            ("source", "outcome"),
            ("redirected", "streamed", "unchanged", "missing", "failed"),
        ),
    ),
    "process": (
        Metric("gauge", "up", "1 while a role of this process works, 0 while it waits for a server.", ("role",)),
        Metric("counter", "errors_total", "What failed or is to be tried again, by code.", ("stage", "code")),
        Metric(
            "counter",
            "store_requests_total",
            "Requests to storage: list and head by passes, get for each object, or each 8 MiB of a large one.",
            ("source", "operation"),
            ("list", "head", "get"),
        ),
        Metric(
            "gauge",
            "clock_skew_seconds",
            "How far the clock of the database or of Redis is ahead of this process's.",
            ("server",),
            asked=True,
        ),
        Metric(
            "gauge",
            "concern",
            "1 while something works but should be mended; /readyz and the log say what.",
            ("code",),
            asked=True,
        ),
        Metric("gauge", "disk_free_bytes", "Free space where this process writes.", ("place",), asked=True),
        Metric("gauge", "disk_size_bytes", "All space where this process writes.", ("place",), asked=True),
        Metric(
            "gauge",
            "credentials_expire_timestamp_seconds",
            "When a token that says so itself expires, in seconds since 1970.",
            ("of",),
        ),
        Metric("gauge", "build_info", "Always 1; the version is in the label.", ("version",)),
    ),
}
"""The metrics, by the role whose process has them."""

TABLE: tuple[Metric, ...] = tuple(metric for rows in ROLES.values() for metric in rows)

_BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in TABLE}

Labels = tuple[str, ...]


class _Asked(Collector):
    """A gauge of what servers were asked for: a value that was not told for FRESH_SECONDS is absent. Thread-safe."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._told: dict[Labels, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def set(self, labels: Labels, value: float) -> None:
        """Tell one value."""
        with self._lock:
            self._told[labels] = (value, time.monotonic())

    def replace(self, values: Mapping[Labels, float]) -> None:
        """Tell all values, and forget the others."""
        at = time.monotonic()
        with self._lock:
            self._told = {labels: (value, at) for labels, value in values.items()}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """As `Collector.collect`."""
        family = GaugeMetricFamily(PREFIX + self._metric.name, self._metric.help, labels=self._metric.labels)
        for labels, value in self.fresh().items():
            family.add_metric(labels, value)
        yield family

    def fresh(self) -> dict[Labels, float]:
        """The values that are told still."""
        since = time.monotonic() - FRESH_SECONDS
        with self._lock:
            return {labels: value for labels, (value, at) in self._told.items() if at >= since}


class Metrics:
    """The metrics of one process, in a registry of its own. Thread-safe."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._metrics = {metric.name: self._make(metric) for metric in TABLE if not metric.asked}
        self._asked = {metric.name: _Asked(metric) for metric in TABLE if metric.asked}
        for asked in self._asked.values():
            self.registry.register(asked)
        ProcessCollector(registry=self.registry)

    def _make(self, metric: Metric) -> MetricWrapperBase:
        name = PREFIX + metric.name
        if metric.kind == "counter":
            return Counter(name, metric.help, metric.labels, registry=self.registry)
        if metric.kind == "gauge":
            return Gauge(name, metric.help, metric.labels, registry=self.registry)
        return Histogram(name, metric.help, metric.labels, registry=self.registry, buckets=SECONDS)

    def begin(self, roles: Collection[str], sources: Iterable[str]) -> None:
        """Let what these roles count of these sources stand at 0, where it is known what there will be to count."""
        names = list(sources)
        for role, rows in ROLES.items():
            if role in roles or role == "process":
                for metric in rows:
                    self._begin(metric, names)

    def _begin(self, metric: Metric, sources: list[str]) -> None:
        if metric.kind == "gauge" or not metric.labels:
            return
        by_source = metric.labels[0] == "source"
        rest = metric.labels[1:] if by_source else metric.labels
        if len(rest) == bool(metric.values):
            for labels in product(*([sources] if by_source else []), *([metric.values] if rest else [])):
                self._metrics[metric.name].labels(*labels)

    def add(self, name: str, amount: float = 1, /, **labels: str) -> None:
        """Raise a counter. KeyError if the table has no such metric."""
        metric = self._of(name, labels)
        assert isinstance(metric, Counter)
        metric.inc(amount)

    def set(self, name: str, value: float, /, **labels: str) -> None:
        """Set a gauge. KeyError if the table has no such metric."""
        if name in self._asked:
            self._asked[name].set(tuple(labels[label] for label in _BY_NAME[name].labels), value)
            return
        metric = self._of(name, labels)
        assert isinstance(metric, Gauge)
        metric.set(value)

    def replace(self, name: str, values: Mapping[Labels, float], /) -> None:
        """Set a gauge that is `asked`, and forget what it said of other labels. KeyError as above."""
        self._asked[name].replace(values)

    def observe(self, name: str, value: float, /, **labels: str) -> None:
        """Add one value to a histogram. KeyError if the table has no such metric."""
        metric = self._of(name, labels)
        assert isinstance(metric, Histogram)
        metric.observe(value)

    def value(self, name: str, /, **labels: str) -> float:
        """What a counter or gauge stands at; 0 if it was never touched, or its server could not be asked of late."""
        if name in self._asked:
            return self._asked[name].fresh().get(tuple(labels[label] for label in _BY_NAME[name].labels), 0.0)
        samples = [sample for family in self._of(name, labels).collect() for sample in family.samples]
        return next((sample.value for sample in samples if sample.name == PREFIX + name), 0.0)

    def totals(self, name: str, /) -> tuple[int, float]:
        """How many values a histogram without labels has had, and their sum."""
        found = {sample.name: sample.value for family in self._metrics[name].collect() for sample in family.samples}
        return int(found[f"{PREFIX}{name}_count"]), found[f"{PREFIX}{name}_sum"]

    def _of(self, name: str, labels: Mapping[str, str]) -> MetricWrapperBase:
        metric = self._metrics[name]
        return metric.labels(**labels) if labels else metric


def described(name: str) -> Metric:
    """The table's row of this name (without prefix)."""
    return _BY_NAME[name]
