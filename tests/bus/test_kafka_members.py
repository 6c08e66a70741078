"""Dispatchers of one configuration are different members of their group, wherever they run."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing

import pytest

from pipeline.bus.kafka import KafkaLog, parse
from tests.bus.contract import events_of, nothing, some
from tests.bus.test_backlog import until

NAMES = """
import os, socket
os.getpid, socket.gethostname = lambda: 1, lambda: "machine"
from pipeline.app.roles import worker_name
from pipeline.bus.kafka import parse
from pipeline.bus.kafka.member import member_name
print(worker_name(), member_name(parse("kafka://host/t")), member_name(parse("kafka://host/t?member=our+own")))
assert worker_name() == worker_name()
"""


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_two_dispatchers_of_one_configuration_share_the_topic(kafka_url: str) -> None:
    """`member=` is in the configuration that all have: none puts another one out of the group, and each has a share."""
    options = parse(f"{kafka_url}?partitions=2&member=dispatcher&group={kafka_url.rpartition('/')[2]}")
    with closing(KafkaLog(options)) as log, closing(KafkaLog(options)) as other:
        log.ping()
        with closing(log.consumer(nothing)) as first, closing(other.consumer(nothing)) as second:
            seen: list[set[str]] = [set(), set()]
            rounds = iter(range(1000))

            def both_read() -> bool:
                log.publish(some(20, f"{next(rounds)}"))
                for consumer, found in zip((first, second), seen, strict=True):
                    found |= {event.source for event in events_of(consumer.poll(100, 0.2).records)}
                return bool(seen[0] & seen[1])

            until(both_read, 90.0)


def test_containers_that_share_a_host_s_name_have_names_of_their_own() -> None:
    """Processes with the same host and the same number, as the first ones of containers on a host's network are, have
    different names as workers and as members."""
    names = [
        subprocess.run([sys.executable, "-c", NAMES], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    ]
    assert [first == second for first, second in zip(*names, strict=True)] == [False] * 3
    assert [name.rpartition("-")[0] for name in names[0]] == ["machine:1", "machine-1", "our-own"]
