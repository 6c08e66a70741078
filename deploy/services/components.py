"""The table of components: version, how to get it, how to start it, how to know that it is ready."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from deploy.services import amazon, apache, azure, debian, google, labelstudio, obtain, toxiproxy
from deploy.services.model import ACCESS_KEY, HOST, REGION, SECRET_KEY, Component

_AWS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_REGION": REGION,
    "AWS_ALLOW_HTTP": "true",
}
_HTTP = f"http://{HOST}:{{port}}"

TABLE: tuple[Component, ...] = (
    Component(
        name="kafka",
        version="4.4.0",
        origin="Maven",
        about="the event log: Apache Kafka, one broker in KRaft mode",
        obtain=partial(
            obtain.maven,
            name="kafka",
            artifacts=("org.apache.kafka:kafka_2.13:4.4.0", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5"),
        ),
        launch=apache.launch_kafka,
        ready=apache.kafka_ready,
        url=f"kafka://{HOST}:{{port}}",
        env={"KAFKA_BOOTSTRAP": f"{HOST}:{{port}}"},
        ports=("main", "controller"),
        start_seconds=120,
    ),
    Component(
        name="redis",
        version="7",
        origin="Debian",
        about="the work queue: Redis",
        obtain=debian.obtain_redis,
        launch=debian.launch_redis,
        ready=debian.redis_ready,
        url=f"redis://{HOST}:{{port}}/0",
        env={"REDIS_URL": f"redis://{HOST}:{{port}}/0"},
    ),
    Component(
        name="postgres",
        version="15",
        origin="Debian, else a wheel",
        about="the database: PostgreSQL",
        obtain=debian.obtain_postgres,
        launch=debian.launch_postgres,
        ready=debian.postgres_ready,
        url=f"postgresql://postgres@{HOST}:{{port}}/postgres",
        env={"DATABASE_URL": f"postgresql://postgres@{HOST}:{{port}}/postgres"},
        stop=signal.SIGINT,
    ),
    Component(
        name="pgbouncer",
        version="1",
        origin="Debian",
        about="PgBouncer in transaction mode before a PostgreSQL (setting: postgres)",
        obtain=debian.obtain_pgbouncer,
        launch=debian.launch_pgbouncer,
        ready=debian.pgbouncer_ready,
        url=f"postgresql://postgres@{HOST}:{{port}}/postgres",
        env={"PGBOUNCER_URL": f"postgresql://postgres@{HOST}:{{port}}/postgres"},
        on_request=True,
    ),
    Component(
        name="seaweedfs",
        version="4.48",
        origin="wheel",
        about="S3: SeaweedFS, with real authentication",
        obtain=partial(obtain.wheel, name="seaweedfs", program="bin/weed"),
        launch=amazon.launch_seaweedfs,
        ready=amazon.seaweedfs_ready,
        url=_HTTP,
        env={"AWS_ENDPOINT_URL_S3": _HTTP, **_AWS},
        ports=("main", "s3_grpc", "master", "master_grpc", "volume", "volume_grpc", "filer", "filer_grpc"),
        # Asked to end, it waits 25 s for others of its cluster; killed, it keeps what it has answered for.
        stop=signal.SIGKILL,
    ),
    Component(
        name="versitygw",
        version="v1.8.0",
        origin="Go",
        about="S3 on a folder, which can notify Kafka (settings: kafka, topic)",
        obtain=partial(
            obtain.go,
            package="github.com/versity/versitygw/cmd/versitygw",
            version="v1.8.0",
            checksum="h1:au+wI+aybno/STsQiSm35Uu6Q6iK5MWReQxgO6SEMFc=",
        ),
        launch=amazon.launch_versitygw,
        ready=amazon.s3_ready,
        url=_HTTP,
        env={"VERSITYGW_URL": _HTTP},
    ),
    Component(
        name="elasticmq",
        version="1.7.1",
        origin="Maven",
        about="SQS: ElasticMQ",
        obtain=partial(obtain.maven, name="elasticmq", artifacts=("org.elasticmq:elasticmq-server_2.13:1.7.1",)),
        launch=amazon.launch_elasticmq,
        ready=amazon.elasticmq_ready,
        url=_HTTP,
        env={"AWS_ENDPOINT_URL_SQS": _HTTP, **_AWS},
        start_seconds=90,
    ),
    Component(
        name="azurite",
        version="3.35.0",
        origin="npm",
        about="Azure Storage: Azurite, blobs and queues (settings: cert, key)",
        obtain=azure.obtain_azurite,
        launch=azure.launch_azurite,
        ready=azure.azurite_ready,
        url=f"{_HTTP}/{azure.ACCOUNT}",
        env={"AZURE_STORAGE_CONNECTION_STRING": azure.CONNECTION},
        ports=("main", "queue", "table"),
    ),
    Component(
        name="fakegcs",
        version="v1.56.1",
        origin="Go",
        about="Google Cloud Storage: fake-gcs-server, in memory (settings: pubsub, project, topic)",
        obtain=partial(
            obtain.go,
            package="github.com/fsouza/fake-gcs-server",
            version="v1.56.1",
            checksum="h1:K03sAvbLvDz4hAynpCCUqnNRp+ik9JFSvHbkD/wTPOU=",
        ),
        launch=google.launch_fake_gcs,
        ready=google.fake_gcs_ready,
        url=_HTTP,
        env={"STORAGE_EMULATOR_HOST": _HTTP},
    ),
    Component(
        name="pubsub",
        version="v2.8.1",
        origin="Go",
        about="Pub/Sub: Google's fake for tests, in memory",
        obtain=google.obtain_pubsub,
        launch=google.launch_pubsub,
        ready=google.pubsub_ready,
        url=f"{HOST}:{{port}}",
        env={"PUBSUB_EMULATOR_HOST": f"{HOST}:{{port}}"},
    ),
    Component(
        name="toxiproxy",
        version="v2.5.0",
        origin="Go",
        about="faults of the network: toxiproxy",
        obtain=partial(
            obtain.go,
            package="github.com/Shopify/toxiproxy/v2/cmd/server",
            version="v2.5.0",
            checksum="h1:i4LPT+qrSlKNtQf5QliVjdP08GyAH8+BUIc9gT0eahc=",
        ),
        launch=toxiproxy.launch,
        ready=toxiproxy.ready,
        url=_HTTP,
        env={"TOXIPROXY_URL": _HTTP},
    ),
    Component(
        name="minio",
        version="v0.0.0-20260212201848-7aac2a2c5b7c",
        origin="Go",
        about="S3: MinIO, which can notify Kafka bucket by bucket (settings: kafka, topic); takes minutes to build",
        obtain=partial(
            obtain.go,
            package="github.com/minio/minio",
            version="v0.0.0-20260212201848-7aac2a2c5b7c",
            checksum="h1:/qdoYujxF5MBLDMVLeiYJ/7fBa1HikX39Dvzb9Ji8pA=",
        ),
        launch=amazon.launch_minio,
        ready=amazon.minio_ready,
        url=_HTTP,
        env={"MINIO_URL": _HTTP},
        on_request=True,
    ),
    Component(
        name="label_studio",
        version="1.23.2",
        origin="wheels",
        about="where tasks are delivered to: Label Studio on SQLite (settings: files)",
        obtain=labelstudio.obtain_label_studio,
        launch=labelstudio.launch_label_studio,
        ready=labelstudio.label_studio_ready,
        url=_HTTP,
        env={"LABEL_STUDIO_URL": _HTTP, "LABEL_STUDIO_TOKEN": labelstudio.TOKEN},
        start_seconds=240,
        on_request=True,
    ),
    Component(
        name="prometheus",
        version="2",
        origin="Debian",
        about="metrics: Prometheus (settings: targets, rules, alertmanager)",
        obtain=partial(debian.obtain_program, package="prometheus", command="prometheus"),
        launch=debian.launch_prometheus,
        ready=debian.prometheus_ready,
        url=_HTTP,
        env={"PROMETHEUS_URL": _HTTP},
        on_request=True,
    ),
    Component(
        name="alertmanager",
        version="0",
        origin="Debian",
        about="alerts: Prometheus' Alertmanager (settings: webhook)",
        obtain=partial(debian.obtain_program, package="prometheus-alertmanager", command="prometheus-alertmanager"),
        launch=debian.launch_alertmanager,
        ready=debian.prometheus_ready,
        url=_HTTP,
        env={"ALERTMANAGER_URL": _HTTP},
        on_request=True,
    ),
)

BY_NAME: Mapping[str, Component] = {component.name: component for component in TABLE}


def program_home(root: Path, component: Component) -> Path:
    """Where a component's program is kept: of one version, so that another one doesn't meet it."""
    return root / "programs" / f"{component.name}-{component.version}"
