"""The alerts: each is tested, says which commands help, and has its section in the runbook."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections import Counter
from typing import Any

import pytest
import typer
import yaml

from deploy.services import obtain
from pipeline.cli import app
from pipeline.metrics import CONCERNS, PREFIX, TABLE
from tests.ops.watching import ROOT, RULES
from tests.servers import needed

FOLDER = RULES.parent
RUNBOOK = (ROOT / "docs" / "operations.md").read_text()
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
VERBS = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group
LABEL = re.compile(r"\{\{ *\$labels\.\w+ *\}\}")


def promtool() -> str:
    """The program, which comes with Prometheus."""
    return shutil.which("promtool") or str(obtain.debian(("prometheus",), "promtool"))


def test_promtool() -> None:
    """Promtool finds nothing wrong with the rules and the configuration, and each alert fires and keeps still when its
    tests say so."""
    with needed():
        tool = promtool()
    for arguments in (
        ("check", "config", "prometheus.yml"),
        ("check", "rules", RULES.name),
        ("test", "rules", "labelfeed.tests.yaml"),
    ):
        found = subprocess.run([tool, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr


def test_each_alert_is_tested_firing_and_not() -> None:
    """Each alert has a test in which it fires and one in which it does not."""
    found = Counter()
    for test in yaml.safe_load((FOLDER / "labelfeed.tests.yaml").read_text())["tests"]:
        for expected in test["promql_expr_test"]:
            (name,) = re.findall(r'alertname="(\w+)"', expected["expr"])
            found[name, bool(expected["exp_samples"])] += 1

    assert set(found) == {(name, fires) for name in ALERTS for fires in (True, False)}


@pytest.mark.parametrize("name", ALERTS)
def test_what_an_alert_says(name: str) -> None:
    """An alert has a severity, a summary, and two commands that exist and stand in its section of the runbook."""
    alert = ALERTS[name]
    notes: dict[str, Any] = alert["annotations"]
    section = re.search(rf"^### {name}\n(.*?)(?=^##)", RUNBOOK, re.MULTILINE | re.DOTALL)

    assert alert["labels"]["severity"] in ("critical", "warning")
    assert notes["summary"]
    assert notes["runbook"] == f"docs/operations.md#{name.lower()}"
    assert section
    told = " ".join(section[1].split())
    for command in (notes["diagnose"], notes["mend"]):
        ours = [part for part in re.split(r";|#", command) if part.strip().startswith("labelfeed ")]
        assert ours, command
        for part in re.split(r";|#.*", command):
            assert LABEL.sub("NAME", part).strip() in told, part
        for part in ours:
            check_command(LABEL.sub("NAME", part))


def check_command(line: str) -> None:
    """Raise unless the command line could be called so."""
    _, verb, *rest = shlex.split(line)
    command = VERBS[verb]
    while rest and hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    options = {word for option in command.params for word in option.opts}
    assert {word for word in rest if word.startswith("--")} <= options, line


def test_metrics_in_rules_exist() -> None:
    """Rules speak only of metrics that there are, and of every concern that there is."""
    names = {PREFIX + metric.name for metric in TABLE}
    ends = {"histogram": ("_bucket", "_count", "_sum")}
    known = names | {PREFIX + metric.name + end for metric in TABLE for end in ends.get(metric.kind, ())}
    text = RULES.read_text()

    assert set(re.findall(r"\blabelfeed_\w+", text)) <= known
    for code in CONCERNS.keys() - {"counters_differ"}:
        assert f'code="{code}"' in text
