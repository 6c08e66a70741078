"""Apache Kafka: one broker that is its own controller (KRaft), on two ports of loopback."""

from __future__ import annotations

import base64
import struct
import uuid
from pathlib import Path

from deploy.services import obtain, probe
from deploy.services.model import HOST, Launch, Site

HEAP = "320m"
_LOGGING = Path(__file__).parent / "kafka_log4j2.xml"
_METADATA_REQUEST = struct.pack(">hhih", 3, 4, 1, -1) + struct.pack(">ib", 0, 0)
"""Metadata v4 of no topic: answered with the list of brokers that are ready to serve."""
_ANSWER = struct.Struct(">iiii")
"""Its answer's length, correlation id, throttle time and count of brokers."""

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={host}:{controller}
listeners=PLAINTEXT://{host}:{main},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{main}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}/log
num.partitions=1
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
broker.heartbeat.interval.ms=1000
broker.session.timeout.ms=5000
log.segment.bytes=67108864
num.network.threads=2
num.io.threads=2
background.threads=2
log.cleaner.dedupe.buffer.size=4194304
"""


def launch_kafka(site: Site) -> Launch:
    """Format the storage if it is new, and say how to run the broker."""
    properties = site.data / "server.properties"
    text = _PROPERTIES.format(host=HOST, data=site.data, **site.ports)
    # A setting may name a port, as `listeners` must.
    text += "".join(f"{name}={value.format(host=HOST, **site.ports)}\n" for name, value in site.settings.items())
    properties.write_text(text)
    java = (
        "java", "-Xms96m", f"-Xmx{HEAP}", "-XX:+UseSerialGC", "-Xshare:auto",
        f"-Dlog4j2.configurationFile={_LOGGING.as_uri()}", "-cp", f"{site.program}/*",
    )  # fmt: skip
    if not (site.data / "log" / "meta.properties").exists():
        obtain.run([*java, "kafka.tools.StorageTool", "format", "--standalone", new_cluster(), "-c", str(properties)])
    return Launch((*java, "kafka.Kafka", str(properties)))


def new_cluster() -> str:
    """The argument that names a new cluster: one word, as one name in 64 begins with a dash, like an option."""
    return "--cluster-id=" + base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()


def kafka_ready(site: Site) -> bool:
    """Whether the broker answers as the one at this port, and has been let in by its controller."""
    request = struct.pack(">i", len(_METADATA_REQUEST)) + _METADATA_REQUEST
    answer = probe.exchange(site.port, request, at_least=_ANSWER.size)
    if len(answer) < _ANSWER.size:
        return False
    _, correlation, _, brokers = _ANSWER.unpack_from(answer)
    return (correlation, brokers) == (1, 1)
