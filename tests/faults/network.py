"""Proxies between roles and servers, which cut and slow what goes through them."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from typing import Any

from deploy.services import HOST, Service
from deploy.services.processes import free_ports


@dataclass
class Proxy:
    """One proxy of toxiproxy: what connects to `port` reaches a server, as long as it is not cut."""

    toxiproxy: Service
    name: str
    port: int

    @classmethod
    def to(cls, toxiproxy: Service, name: str, upstream: int, port: int | None = None) -> Proxy:
        """A new proxy to a server's port."""
        made = cls(toxiproxy, name, port or free_ports(("main",))["main"])
        addresses = {"listen": f"{HOST}:{made.port}", "upstream": f"{HOST}:{upstream}"}
        made._ask("POST", "/proxies", {"name": name, "enabled": True} | addresses)
        return made

    def cut(self) -> None:
        """Close all connections, and refuse new ones."""
        self._ask("POST", f"/proxies/{self.name}", {"enabled": False})

    def mend(self) -> None:
        """Let connections through again."""
        self._ask("POST", f"/proxies/{self.name}", {"enabled": True})

    def hang(self) -> None:
        """Take all that is sent, and pass nothing on, with every connection open."""
        for stream in ("upstream", "downstream"):
            toxic = {"name": f"hang-{stream}", "type": "timeout", "stream": stream, "attributes": {"timeout": 0}}
            self._ask("POST", f"/proxies/{self.name}/toxics", toxic)

    def answer(self) -> None:
        """Undo `hang`; what was sent meanwhile is lost, and connections stay as they are."""
        for stream in ("upstream", "downstream"):
            self._ask("DELETE", f"/proxies/{self.name}/toxics/hang-{stream}")

    def slow(self, milliseconds: int) -> None:
        """Let every answer take this much longer."""
        toxic = {"name": "slow", "type": "latency", "attributes": {"latency": milliseconds}}
        self._ask("POST", f"/proxies/{self.name}/toxics", toxic)

    def hurry(self) -> None:
        """Undo `slow`."""
        self._ask("DELETE", f"/proxies/{self.name}/toxics/slow")

    def remove(self) -> None:
        """Take the proxy away."""
        self._ask("DELETE", f"/proxies/{self.name}")

    def _ask(self, method: str, path: str, body: Any = None) -> None:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.toxiproxy.url + path, data, {"User-Agent": "labelfeed"}, method=method)
        urllib.request.urlopen(request, timeout=10).close()
