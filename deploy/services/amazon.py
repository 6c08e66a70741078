"""Servers that speak Amazon's protocols: S3 by SeaweedFS, versitygw and MinIO, SQS by ElasticMQ."""

from __future__ import annotations

import json

from deploy.services import probe
from deploy.services.model import ACCESS_KEY, HOST, SECRET_KEY, Launch, Site

HTTP_OK = 200
HTTP_FORBIDDEN = 403

GUEST_KEY = "guestkey"
"""The access key of SeaweedFS's user `guest`."""

_ELASTICMQ = """\
include classpath("application.conf")
node-address {{ protocol = http, host = "{host}", port = {port}, context-path = "" }}
rest-sqs {{ enabled = true, bind-port = {port}, bind-hostname = "{host}", sqs-limits = strict }}
rest-stats {{ enabled = false }}
queues {{ }}
"""


def launch_seaweedfs(site: Site) -> Launch:
    """How to run master, volume, filer and S3 gateway in one process; `iam` names a file of roles, to be assumed by
    the user `guest`, who may do nothing else; `domain` is that of which buckets may be hosts."""
    files = site.data / "files"
    files.mkdir(exist_ok=True)
    users = [_user("test", ACCESS_KEY, ["Admin", "Read", "Write", "List", "Tagging"])]
    if "iam" in site.settings:
        users.append(_user("guest", GUEST_KEY, []))
    identities = site.data / "s3.json"
    identities.write_text(json.dumps({"identities": users}))
    options = {
        "ip": HOST,
        "ip.bind": HOST,
        "dir": files,
        "s3": "true",
        "s3.port": site.port,
        "s3.port.grpc": site.ports["s3_grpc"],
        # Two fixed ports that two servers on one machine would fight over.
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": identities,
        "master.port": site.ports["master"],
        "master.port.grpc": site.ports["master_grpc"],
        "volume.port": site.ports["volume"],
        "volume.port.grpc": site.ports["volume_grpc"],
        "filer.port": site.ports["filer"],
        "filer.port.grpc": site.ports["filer_grpc"],
        "master.volumeSizeLimitMB": 64,
        # Each bucket takes several volumes; with few, the next bucket is an InternalError.
        "volume.max": 1000,
    }
    if "iam" in site.settings:
        options["s3.iam.config"] = site.settings["iam"]
    if "domain" in site.settings:
        options["s3.domainName"] = site.settings["domain"]
    return Launch((str(site.program), "server", *(f"-{name}={value}" for name, value in options.items())))


def _user(name: str, key: str, actions: list[str]) -> dict[str, object]:
    """A user of SeaweedFS."""
    return {"name": name, "credentials": [{"accessKey": key, "secretKey": SECRET_KEY}], "actions": actions}


def seaweedfs_ready(site: Site) -> bool:
    """Whether the gateway answers, and a volume server has joined its master."""
    if not s3_ready(site):
        return False
    status, body = probe.http(site.ports["master"], "/dir/status")
    return status == HTTP_OK and f":{site.ports['volume']}" in body


def launch_versitygw(site: Site) -> Launch:
    """How to run the gateway on a folder, with versioning, and with events where `kafka` is set; `domain` is that of
    which buckets may be hosts."""
    files, versions = site.data / "files", site.data / "versions"
    for folder in (files, versions):
        folder.mkdir(exist_ok=True)
    events: tuple[str, ...] = ()
    if "kafka" in site.settings:
        events = ("--event-kafka-url", site.settings["kafka"], "--event-kafka-topic", site.settings["topic"])
        events += ("--event-kafka-key", "s3")
    keys = ("--access", ACCESS_KEY, "--secret", SECRET_KEY)
    hosts = ("--virtual-domain", site.settings["domain"]) if "domain" in site.settings else ()
    folders = ("posix", "--versioning-dir", str(versions), str(files))
    return Launch((str(site.program), "--port", f"{HOST}:{site.port}", *keys, *hosts, *events, *folders))


def s3_ready(site: Site) -> bool:
    """Whether an S3 server answers: with a refusal, as the question isn't signed."""
    return probe.http(site.port, "/")[0] == HTTP_FORBIDDEN


def launch_minio(site: Site) -> Launch:
    """How to run MinIO on a folder, with a Kafka target named `primary` where `kafka` is set."""
    files = site.data / "files"
    files.mkdir(exist_ok=True)
    env = {
        "MINIO_ROOT_USER": ACCESS_KEY,
        "MINIO_ROOT_PASSWORD": SECRET_KEY,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        "MINIO_CI_CD": "1",
    }
    if "kafka" in site.settings:
        env |= {
            "MINIO_NOTIFY_KAFKA_ENABLE_PRIMARY": "on",
            "MINIO_NOTIFY_KAFKA_BROKERS_PRIMARY": site.settings["kafka"],
            "MINIO_NOTIFY_KAFKA_TOPIC_PRIMARY": site.settings["topic"],
        }
    return Launch((str(site.program), "server", "--quiet", "--address", f"{HOST}:{site.port}", str(files)), env)


def minio_ready(site: Site) -> bool:
    """Whether MinIO says that it is ready."""
    return probe.http(site.port, "/minio/health/ready")[0] == HTTP_OK


def launch_elasticmq(site: Site) -> Launch:
    """How to run ElasticMQ with AWS's limits and no queue."""
    configuration = site.data / "elasticmq.conf"
    configuration.write_text(_ELASTICMQ.format(host=HOST, port=site.port))
    java = ("java", "-Xmx128m", "-XX:+UseSerialGC", f"-Dconfig.file={configuration}", "-cp", f"{site.program}/*")
    return Launch((*java, "org.elasticmq.server.Main"))


def elasticmq_ready(site: Site) -> bool:
    """Whether it lists its queues."""
    status, body = probe.http(site.port, "/?Action=ListQueues")
    return status == HTTP_OK and "ListQueuesResponse" in body
