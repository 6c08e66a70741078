"""A project of a real Label Studio, as a person sees it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from deploy.services.model import Service

CHOICES = (
    '<View><Text name="t" value="$text"/><Choices name="c" toName="t"><Choice value="a"/><Choice value="b"/>'
    "</Choices></View>"
)


def choice(value: str, **columns: Any) -> dict[str, Any]:
    """An annotation or a prediction."""
    result = {"from_name": "c", "to_name": "t", "type": "choices", "value": {"choices": [value]}}
    return {"result": [result], **columns}


@dataclass
class Studio:
    """A project, and a client that may do everything in it."""

    url: str
    token: str
    project: int
    client: httpx.Client

    @classmethod
    def make(cls, service: Service, config: str = CHOICES) -> Studio:
        """A new project."""
        token = service.env["LABEL_STUDIO_TOKEN"]
        client = httpx.Client(
            base_url=service.url, headers={"Authorization": f"Token {token}"}, timeout=900, trust_env=False
        )
        answer = client.post("/api/projects/", json={"title": uuid.uuid4().hex, "label_config": config})
        answer.raise_for_status()
        return cls(service.url, token, answer.json()["id"], client)

    def personal_token(self) -> str:
        """A personal access token of the user; there is one at a time."""
        found = self.client.post("/api/token/")
        if found.status_code == httpx.codes.CONFLICT:
            for known in self.client.get("/api/token/").json():
                self.client.post("/api/token/blacklist/", json={"refresh": known["token"]})
            found = self.client.post("/api/token/")
        found.raise_for_status()
        return str(found.json()["token"])

    def export(self) -> list[dict[str, Any]]:
        """All tasks by number, as its own export gives them."""
        path = f"/api/projects/{self.project}/export"
        answer = self.client.get(path, params={"exportType": "JSON", "download_all_tasks": "true"})
        answer.raise_for_status()
        return sorted(answer.json(), key=lambda task: int(task["id"]))

    def texts(self) -> list[str]:
        """The text of every task."""
        return sorted(task["data"]["text"] for task in self.export())

    def count(self) -> int:
        """How many tasks there are."""
        answer = self.client.get(f"/api/projects/{self.project}/").raise_for_status()
        return int(answer.json()["task_number"])

    def annotate(self, task: str | int, value: str) -> None:
        """Annotate a task, as a labeller does."""
        self.client.post(f"/api/tasks/{task}/annotations/", json=choice(value)).raise_for_status()

    def delivery(self, **options: Any) -> Mapping[str, Any]:
        """What a configuration says of it."""
        return {"label_studio": {"url": self.url, "project": self.project, "token": self.token, **options}}

    def close(self) -> None:
        """Delete the project."""
        self.client.delete(f"/api/projects/{self.project}/")
        self.client.close()
