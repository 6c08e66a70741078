"""A stand-in for a Label Studio with one project, which answers what no real one can be brought to answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pipeline.config.projects import LabelStudio
from pipeline.sinks.label_studio import LabelStudioDelivery
from tests.deliveries.wire import Answer, Spoil, tell
from tests.serving import Handler, serving

TOKEN = "0" * 40
MISSING = Answer.of(404, {"detail": "not found"})


@dataclass
class Little:
    """Tasks by number, imports that go on behind their answers, and what was asked. `spoils` (a method, a part of a
    path, what comes instead) are used up."""

    url: str = ""
    tasks: dict[int, dict[str, Any]] = field(default_factory=dict)
    imports: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    spoils: list[tuple[str, str, Spoil]] = field(default_factory=list)
    _next: int = 1

    def delivery(self, token: str = TOKEN, timeout: float = 5.0) -> LabelStudioDelivery:
        """A delivery into the project."""
        options = LabelStudio(url=self.url, project=1, token=token, timeout=timeout)  # type: ignore[arg-type]
        return LabelStudioDelivery(options, Path())

    def texts(self) -> list[str]:
        """The text of every task."""
        return sorted(task["data"]["text"] for task in self.tasks.values())

    def count(self, method: str, part: str) -> int:
        """How often something was asked."""
        return sum(asked == method and part in path for asked, path in self.asked)

    def make(self, tasks: list[dict[str, Any]]) -> list[int]:
        """Create tasks; gives their numbers."""
        made = {number: {"id": number, "predictions": [], **task} for number, task in enumerate(tasks, self._next)}
        self._next += len(made)
        self.tasks |= made
        return list(made)

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """What is answered."""
        self.asked.append((method, path))
        value = json.loads(body) if body else None
        spoilt = next((one for one in self.spoils if one[0] == method and one[1] in path), None)
        if spoilt is None:
            return self._through(method, path, value)
        self.spoils.remove(spoilt)
        return spoilt[2](lambda: self._through(method, path, value))

    def _through(self, method: str, path: str, value: Any) -> Answer:
        numbers = [int(number) for number in re.findall(r"/(\d+)(?=/)", path)]
        if "/import?" in path:
            return Answer.of(201, {"task_ids": self.make(value)})
        if "/imports/" in path:
            state = self.imports.get(str(numbers[-1]))
            return MISSING if state is None else Answer.of(200, state)
        if path.startswith("/api/tasks?"):
            return self._listed(path)
        if "/predictions/" in path:
            return self._predictions(method, numbers, value)
        return self._one(method, numbers[-1], value) if "/tasks/" in path else Answer.of(201, {"access": "given"})

    def _predictions(self, method: str, numbers: list[int], value: Any) -> Answer:
        if method == "POST":
            made = {**value, "id": self._next}
            self._next += 1
            self.tasks[value["task"]]["predictions"].append(made)
            return Answer.of(201, made)
        for task in self.tasks.values():
            task["predictions"] = [one for one in task["predictions"] if one["id"] not in numbers]
        return Answer(204, {}, b"")

    def _one(self, method: str, number: int, value: Any) -> Answer:
        task = self.tasks.get(number)
        if task is None:
            return MISSING
        if method == "DELETE":
            del self.tasks[number]
            return Answer(204, {}, b"")
        task |= value or {}
        return Answer.of(200, task)

    def _listed(self, path: str) -> Answer:
        query = parse_qs(urlsplit(path).query)
        (wanted,) = json.loads(query["query"][0])["filters"]["items"]
        found = [task for task in self.tasks.values() if wanted["value"] in json.dumps(task["meta"])]
        page, size = int(query["page"][0]), int(query["page_size"][0])
        return Answer.of(200, {"tasks": found[(page - 1) * size : page * size], "total": len(found)})


@contextmanager
def little() -> Iterator[Little]:
    """One for as long as the block runs."""
    made = Little()

    class Answering(Handler):
        disable_nagle_algorithm = True

        def answered(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if len(body) == length:
                tell(self, made.answer(self.command, self.path, body))
            else:
                self.close_connection = True

    with serving(Answering) as made.url:
        yield made


def instead(answer: Answer) -> Spoil:
    """It is not let through."""
    return lambda through: answer


def after(answer: Answer) -> Spoil:
    """It is let through, and answered otherwise."""
    return lambda through: (through(), answer)[1]


def first(do: Callable[[], object]) -> Spoil:
    """Something happens when it has been answered, before the answer goes out."""
    return lambda through: (through(), do())[0]
