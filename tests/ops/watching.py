"""A Prometheus and an Alertmanager that watch an installation's processes, and who hears their alerts."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from deploy import services
from deploy.services.model import Service
from tests.faults.installation import Role
from tests.servers import needed
from tests.serving import Handler, serving

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "labelfeed.rules.yaml"
WINDOW = "15s"
"""What the rules' and the dashboard's windows are in these tests ..."""
PATIENCE = "1s"
"""... and how long an alert's condition has to hold."""


def hastened(rules: str) -> str:
    """The rules with short windows, and alerts that wait but a second; nothing else is changed."""
    rules = re.sub(r"\[\d+[mh]\]", f"[{WINDOW}]", rules)
    rules = re.sub(r"^(  +for: ).*$", rf"\g<1>{PATIENCE}", rules, flags=re.MULTILINE)
    return rules.replace("oldest_waiting_seconds > 60", "oldest_waiting_seconds > 1")


class Prometheus:
    """A Prometheus that runs."""

    def __init__(self, service: Service) -> None:
        self._url = service.url

    def query(self, query: str) -> list[dict[str, Any]]:
        """The samples that a query gives."""
        return list(self._get("query", query=query)["result"])

    def targets_up(self) -> int:
        """How many targets it has scraped."""
        return sum(sample["value"][1] == "1" for sample in self.query("up"))

    def firing(self) -> dict[str, dict[str, str]]:
        """Alert → labels, of those that fire."""
        return {row["metric"]["alertname"]: row["metric"] for row in self.query('ALERTS{alertstate="firing"}')}

    def _get(self, what: str, **parameters: str) -> dict[str, Any]:
        where = f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(where, timeout=10) as answer:
            document = json.load(answer)
        assert document["status"] == "success", document
        return dict(document["data"])


class Heard:
    """Alerts that came to a webhook: name and status, with their annotations."""

    def __init__(self) -> None:
        self.alerts: dict[tuple[str, str], dict[str, str]] = {}

    def take(self, document: dict[str, Any]) -> None:
        """Remember what one call brought."""
        for alert in document["alerts"]:
            self.alerts[alert["labels"]["alertname"], alert["status"]] = alert["annotations"] | alert["labels"]


@contextmanager
def webhook() -> Iterator[tuple[str, Heard]]:
    """Somebody who hears alerts: the URL to call, and what was heard."""
    heard = Heard()

    class Listening(Handler):
        def answered(self) -> None:
            heard.take(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with serving(Listening) as url:
        yield f"{url}/", heard


@contextmanager
def watched(name: str, folder: Path, roles: list[Role]) -> Iterator[tuple[Prometheus, Heard]]:
    """A Prometheus that scrapes these processes each second, and an Alertmanager; of the test alone."""
    rules = folder / "rules.yaml"
    rules.write_text(hastened(RULES.read_text()))
    targets = ",".join(f"127.0.0.1:{role.port}" for role in roles)
    with ExitStack() as stack:
        url, heard = stack.enter_context(webhook())
        manager = _started(stack, "alertmanager", name, {"webhook": url})
        settings = {"targets": targets, "rules": str(rules), "alertmanager": manager.address}
        yield Prometheus(_started(stack, "prometheus", name, settings)), heard


def _started(stack: ExitStack, component: str, name: str, settings: dict[str, str]) -> Service:
    with needed():
        return stack.enter_context(services.using(component, name, settings=settings))
