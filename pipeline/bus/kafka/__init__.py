"""The event log of the distributed setting: a topic of Apache Kafka, written and read by kafka-python.

Messages are CloudEvents 1.0 in binary mode; what stores write to the topic by themselves is understood too.
A message's key is its source and object key, so that all that is said of an object stays in order.
"""

from pipeline.bus.kafka.log import KafkaLog
from pipeline.bus.kafka.options import KafkaOptions, parse
from pipeline.notifications import Route

__all__ = ["KafkaLog", "KafkaOptions", "open_log", "parse"]


def open_log(url: str, route: Route) -> KafkaLog:
    """The log that a `kafka://` URL names; nothing is asked of the broker yet. Raises UsageError."""
    return KafkaLog(parse(url), route)
