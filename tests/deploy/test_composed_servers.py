"""The servers of the compose file run here with its very commands and environment, but for ports and folders."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from kafka import KafkaAdminClient

from deploy.services import Service, apache, install, obtain, probe, processes
from deploy.services.model import HOST, Site
from pipeline.consumers.broker import queue
from tests.faults.installation import until
from tests.servers import needed

DEPLOY = Path(__file__).parents[2] / "deploy"
HTTP_OK = 200
SERVERS = {"watch", "dispatch", "work", "links", "kafka", "redis", "postgres", "s3", "bucket", "prometheus", "grafana"}
pytestmark = pytest.mark.timeout(300)
Start = Callable[..., subprocess.Popen[bytes]]


def compose() -> dict[str, Any]:
    """The compose file's services, with what the environment leaves to its defaults."""
    text = (DEPLOY / "compose.yaml").read_text()
    document = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    return dict(document["services"])


def changed(words: list[str], changes: Mapping[str, str]) -> list[str]:
    """A command with other ports and folders."""
    for old, new in changes.items():
        assert any(old in word for word in words), f"{old} is not in {words}"
        words = [word.replace(old, new) for word in words]
    return words


def healthy(service: Mapping[str, Any], changes: Mapping[str, str]) -> bool:
    """Whether the service's own health check is content."""
    kind, *words = service["healthcheck"]["test"]
    words = changed(words, changes)
    argv = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
    return subprocess.run(argv, capture_output=True, check=False, timeout=60).returncode == 0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a command in the background, its output in a file."""
    running: list[subprocess.Popen[bytes]] = []

    def started(*command: str, **env: str) -> subprocess.Popen[bytes]:
        with (tmp_path / f"server{len(running)}.log").open("wb") as log:
            running.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, env=os.environ | env))
        return running[-1]

    yield started
    for process in running:
        process.kill()
        process.wait(30)


def program(name: str) -> Path:
    """A server's program, as the tests' servers have it."""
    with needed():
        return install(name)


def test_every_service_is_run_by_some_test() -> None:
    """What the compose file starts by default is run here or with the roles; Label Studio, which it may add, has tests
    of its own."""
    assert {name for name, service in compose().items() if service.get("profiles") != ["label-studio"]} == SERVERS


def test_redis(start: Start, tmp_path: Path) -> None:
    """Its options are Redis's, its health check works, and Labelfeed has nothing to say against it."""
    service = compose()["redis"]
    port = str(processes.free_ports(("main",))["main"])
    command = [*service["command"], "--port", port, "--bind", HOST, "--dir", str(tmp_path)]
    start(str(program("redis")), *command[1:])
    kind, *check = service["healthcheck"]["test"]
    ping = [check[0], "-p", port, *check[1:]]
    until(lambda: subprocess.run(ping, capture_output=True, check=False).stdout == b"PONG\n", what="a healthy Redis")
    with closing(queue(f"redis://{HOST}:{port}/0")) as jobs:
        health = jobs.health()

    assert kind == "CMD"
    assert command[0] == "redis-server"
    assert list(health.concerns) == []


def test_storage(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The S3 server takes the roles' key, the next service makes the bucket, and the page's command fills it."""
    services = compose()
    weed = program("seaweedfs")
    ports = processes.free_ports(("s3", "master", "volume", "filer"))
    grpc = processes.free_ports(tuple(f"{name}_grpc" for name in ports))
    at = [f"-{name}.port={ports[name]}" for name in ports] + [
        f"-{name.replace('_', '.port.')}={port}" for name, port in grpc.items()
    ]
    monkeypatch.setenv("PATH", f"{weed.parent}{os.pathsep}{os.environ['PATH']}")
    files = {"/etc/seaweedfs/s3.json": str(DEPLOY / "compose" / "s3.json"), "=/data": f"={tmp_path / 'data'}"}
    (tmp_path / "data").mkdir()
    start(
        str(weed),
        *changed(services["s3"]["command"], files),
        f"-ip={HOST}",
        *at,
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    )
    looked_at = {"localhost:9333": f"{HOST}:{ports['master']}", "localhost:8333": f"{HOST}:{ports['s3']}"}
    until(lambda: healthy(services["s3"], looked_at), what="a healthy S3 server")
    until(lambda: f":{ports['volume']}" in probe.http(ports["master"], "/dir/status")[1], what="a volume server")
    bucket = services["bucket"]
    assert bucket["entrypoint"] == ["/bin/sh", "-c"]
    master = {"s3:9333": f"{HOST}:{ports['master']}.{grpc['master_grpc']}"}
    made = subprocess.run(
        [*bucket["entrypoint"], *changed(bucket["command"], master)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    put(ports, grpc, tmp_path)
    given = services["watch"]["environment"]
    with closing(client(given, ports["s3"])) as s3:
        found = s3.get_object(Bucket=given["BUCKET"], Key="a.json")["Body"].read()

    assert json.loads(found) == {"text": "hello"}


def put(ports: Mapping[str, int], grpc: Mapping[str, int], folder: Path) -> None:
    """The command of docs/deployment.md, which it runs inside the service `s3`."""
    page = (DEPLOY.parent / "docs" / "deployment.md").read_text()
    (inner,) = re.findall(r"exec s3 sh -c \\\n\s*'(.*)'\n", page)
    (line,) = changed([inner], {"localhost:8888": f"{HOST}:{ports['filer']}.{grpc['filer_grpc']}"})
    subprocess.run(["sh", "-ec", line], cwd=folder, check=True, capture_output=True, timeout=60)


def client(environment: Mapping[str, str], port: int) -> Any:
    """A client of S3 with what the roles have in their environment."""
    return boto3.Session().client(
        "s3", endpoint_url=f"http://{HOST}:{port}", region_name=environment["AWS_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"], aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip


def test_kafka(start: Start, kafka: Service, tmp_path: Path) -> None:
    """The broker starts with the properties that the image makes of the environment, and takes a topic of ours."""
    del kafka  # its program can be had; this test needs a broker of its own
    environment = compose()["kafka"]["environment"]
    ports = processes.free_ports(("main", "controller"))
    places = {
        "kafka:9092": f"{HOST}:{ports['main']}", "kafka:9093": f"{HOST}:{ports['controller']}",
        "://:9092": f"://{HOST}:{ports['main']}", "://:9093": f"://{HOST}:{ports['controller']}",
        "/var/lib/kafka/data": str(tmp_path / "data"),
    }  # fmt: skip
    names = [name.removeprefix("KAFKA_").lower().replace("_", ".") for name in environment]
    values = changed([str(value) for value in environment.values()], places)
    file = tmp_path / "server.properties"
    file.write_text("".join(f"{name}={value}\n" for name, value in zip(names, values, strict=True)))
    java = ("java", "-Xmx320m", "-cp", f"{program('kafka')}/*")
    obtain.run([*java, "kafka.tools.StorageTool", "format", apache.new_cluster(), "-c", str(file)])
    start(*java, "kafka.Kafka", str(file))
    site = Site(Path(), tmp_path, ports, {})
    until(lambda: apache.kafka_ready(site), 150, "a broker that its controller has let in")
    with closing(KafkaAdminClient(bootstrap_servers=f"{HOST}:{ports['main']}")) as admin:
        admin.create_topics({"labelfeed.objects": {"num_partitions": 6, "replication_factor": 1}})
        assert "labelfeed.objects" in {topic["name"] for topic in admin.describe_topics()}


def test_postgres(postgres: Service, unique: str) -> None:
    """The roles' URL names the user, the password and the database that the service is told to make."""
    del unique
    services = compose()
    made, url = services["postgres"]["environment"], services["work"]["environment"]["DATABASE_URL"]
    expected = f"postgresql://{made['POSTGRES_USER']}:{made['POSTGRES_PASSWORD']}@postgres:5432/{made['POSTGRES_DB']}"

    assert url == expected
    at = {"pg_isready": f"{program('postgres')}/pg_isready -h {HOST} -p {postgres.port}"}
    assert healthy(services["postgres"], at)


def test_prometheus(start: Start, tmp_path: Path) -> None:
    """It starts with our configuration and every rule of ours, and looks for each role under its name."""
    service = compose()["prometheus"]
    mounted = dict(str(volume).split(":")[:2][::-1] for volume in service["volumes"])
    rules, config = mounted["/etc/prometheus/rules"], mounted["/etc/prometheus/prometheus.yaml"]
    text = (DEPLOY / config).read_text()
    (copy := tmp_path / "prometheus.yaml").write_text(text.replace("/etc/prometheus/rules", str(DEPLOY / rules)))
    port = processes.free_ports(("main",))["main"]
    places = {"/etc/prometheus/prometheus.yaml": str(copy), "=/prometheus": f"={tmp_path / 'data'}"}
    start(str(program("prometheus")), *changed(service["command"], places), f"--web.listen-address={HOST}:{port}")
    until(lambda: probe.http(port, "/-/ready")[0] == HTTP_OK, what="Prometheus")
    groups = json.loads(probe.http(port, "/api/v1/rules")[1])["data"]["groups"]
    (scrape,) = yaml.safe_load(text)["scrape_configs"]
    ours = yaml.safe_load((DEPLOY / "prometheus" / "labelfeed.rules.yaml").read_text())["groups"]

    assert {group["name"]: len(group["rules"]) for group in groups} == {row["name"]: len(row["rules"]) for row in ours}
    assert scrape["dns_sd_configs"] == [{"names": ["watch", "dispatch", "work", "links"], "type": "A", "port": 9108}]


def test_grafana() -> None:
    """It is told of the Prometheus that runs beside it, and of the folder in which our dashboard is mounted."""
    service = compose()["grafana"]
    mounted = dict(str(volume).split(":")[:2][::-1] for volume in service["volumes"])
    provisioning = "/etc/grafana/provisioning"
    sources = yaml.safe_load((DEPLOY / mounted[f"{provisioning}/datasources/labelfeed.yaml"]).read_text())
    boards = yaml.safe_load((DEPLOY / mounted[f"{provisioning}/dashboards/labelfeed.yaml"]).read_text())

    assert [row["url"] for row in sources["datasources"]] == ["http://prometheus:9090"]
    (provider,) = boards["providers"]
    assert (DEPLOY / mounted[provider["options"]["path"]] / "labelfeed.json").exists()
    assert shlex.split(service["environment"]["GF_SECURITY_ADMIN_PASSWORD"])
