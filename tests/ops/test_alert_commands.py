"""Every command that an alert names can be typed on an installation at work: it does its work, or starts its role."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.faults.installation import COMMAND, Folder, Installation, until
from tests.ops.test_alert_rules import ALERTS

LABELS = {"source": "bucket", "delivery": "p/jsonl", "project": "p"}
ROLES = {"run", "watch", "dispatch", "work"}
USAGE = 2
"""How a command ends that could not be called so."""


def lines() -> list[str]:
    """Each command of ours in the rules, once, with labels of the installation below."""
    texts = [ALERTS[name]["annotations"][kind] for name in ALERTS for kind in ("diagnose", "mend")]
    filled = [re.sub(r"\{\{ *\$labels\.(\w+) *\}\}", lambda found: LABELS[found[1]], text) for text in texts]
    parts = [part.strip() for text in filled for part in text.partition("#")[0].split(";")]
    return sorted({part for part in parts if part.startswith("labelfeed ")})


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory, kafka: object, redis_server: object
) -> Iterator[Installation]:
    """One with Kafka, Redis, a delivery, an object that failed and one that is imported."""
    place = tmp_path_factory.mktemp("alerts")
    (inbox := place / "inbox").mkdir()
    name = f"t{place.name.replace('-', '')}{id(place)}"
    events, jobs = f"{kafka.url}/{name}", f"{redis_server.url}?namespace={name}"  # type: ignore[attr-defined]
    made = Installation(place, Folder(inbox), "sqlite:///labelfeed.db", events, jobs)
    document = yaml.safe_load(made.config.read_text())
    document["projects"]["p"]["deliveries"] = [{"jsonl": {"url": "./delivered"}}]
    made.config.write_text(yaml.safe_dump(document))
    run = made.start("run")
    made.put(2)
    made.place.put("broken.json", b"{")
    made.imported(failed=1)
    assert run.end() == 0
    yield made
    made.close()


@pytest.mark.parametrize("line", lines())
def test_command(line: str, installation: Installation, tmp_path: Path) -> None:
    """It is understood and ends, or it is a role, which starts and ends when it is told to."""
    _, verb, *words = shlex.split(line)
    if verb in ROLES and not words:
        role = installation.start(verb)
        until(lambda: role.said("started"), what=line)
        assert role.end() == 0
        return
    command = [*COMMAND, verb, *words, "--config", str(installation.config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, cwd=tmp_path)

    assert done.returncode < USAGE, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
