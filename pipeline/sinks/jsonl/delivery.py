"""Tasks as files of JSON lines: `BATCH.jsonl`, which counts once there is a manifest `manifests/BATCH.json` of it.

Whoever reads goes by the manifests. A task that was changed comes again, in a file of changes; one that was deleted as
`{"id": …, "deleted": true}`, and one that has come back since once more, maybe in the same `revision`. Files are
numbered as they are begun, and each line bears its file's number as `order`: the line of the highest one is the task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import orjson

from pipeline.config.projects import JsonLines
from pipeline.errors import BatchUnsure, UnavailableError
from pipeline.ledger.deliveries import Change, ChangeOutcome, Item
from pipeline.sinks import Encoded
from pipeline.sinks.jsonl.places import open_place

MANIFESTS = "manifests/"


class JsonLinesDelivery:
    """`pipeline.sinks.Delivery` into files of a folder or a bucket."""

    def __init__(self, options: JsonLines, folder: Path) -> None:
        self._place = open_place(options, folder)

    def encode(self, batch: str, item: Item) -> bytes:
        """As `Delivery.encode`."""
        task = item.task
        parts = [f"{{{_head(batch, item)}", f'"data":{task.data}']
        named = {"annotations": task.annotations, "predictions": task.predictions, "meta": task.meta}
        parts += [f'"{name}":{text}' for name, text in named.items() if text]
        if task.external_id is not None:
            parts.append(f'"external_id":{orjson.dumps(task.external_id).decode()}')
        return (",".join(parts) + "}").encode()

    def size(self, bodies: int, tasks: int) -> int:
        """As `Delivery.size`: each line's end."""
        return bodies + tasks

    def send(
        self,
        batch: str,
        tasks: Sequence[Encoded],
        ready: Callable[[], None],
        named: Callable[[str], None] = lambda _: None,  # noqa: ARG002 - nothing goes on here
    ) -> Mapping[int, str]:
        """As `Delivery.send`."""
        manifest = self._written(batch, [task.body for task in tasks], [task.id for task in tasks], ready)
        ready()
        try:
            self._publish(batch, manifest)
        except UnavailableError as error:
            raise BatchUnsure(str(error), retry_after=error.retry_after, code=error.code) from error
        return {task.id: f"{batch}.jsonl#{number}" for number, task in enumerate(tasks, 1)}

    def find(
        self,
        batch: str,
        handle: str | None,  # noqa: ARG002 - none here
        going: Callable[[], None] = lambda: None,  # noqa: ARG002 - it is one question
    ) -> Mapping[int, str] | Literal["absent"]:
        """As `Delivery.find`."""
        found = self._place.read(f"{MANIFESTS}{batch}.json")
        if found is None:
            return "absent"
        return {task: f"{batch}.jsonl#{number}" for number, task in enumerate(orjson.loads(found)["ids"], 1)}

    def change(
        self, changes: Sequence[Change], name: str, ready: Callable[[], None], most: int
    ) -> Mapping[int, tuple[ChangeOutcome, str]]:
        """As `Delivery.change`: as many as there is room for, in one file."""
        made: dict[int, tuple[ChangeOutcome, str]] = {}
        lines: dict[int, bytes] = {}
        size = 0
        for one in changes:
            line = self._line(name, one)
            alone = self.size(len(line), 1)
            if alone > most:
                made[one.item.id] = "kept", f"too_large: it has {alone:,} bytes, and bytes_per_import is {most:,}"
                continue
            size += alone
            if size > most:
                break
            lines[one.item.id] = line
            made[one.item.id] = "done", ""
        if lines:
            manifest = self._written(name, list(lines.values()), list(lines), ready)
            ready()
            self._publish(name, manifest)
        return made

    def open_tasks(self) -> int | None:
        """As `Delivery.open_tasks`: nobody labels in files."""
        return None

    def label_config(self) -> str | None:
        """As `Delivery.label_config`: files have none."""
        return None

    def ping(self) -> str:
        """As `Delivery.ping`."""
        return self._place.ping()

    def close(self) -> None:
        """As `Delivery.close`."""
        self._place.close()

    def _line(self, name: str, change: Change) -> bytes:
        item = change.item
        if change.delete:
            return f'{{{_head(name, item)},"deleted":true}}'.encode()
        return self.encode(name, item)

    def _written(self, name: str, lines: Sequence[bytes], ids: Sequence[int], ready: Callable[[], None]) -> bytes:
        """The manifest of a file, which has been written; until that is there, too, the file does not count."""
        body = b"".join(line + b"\n" for line in lines)
        manifest = {
            "file": f"{name}.jsonl", "tasks": len(lines), "bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(), "ids": list(ids),
        }  # fmt: skip
        ready()
        self._place.write(f"{name}.jsonl", body)
        return orjson.dumps(manifest)

    def _publish(self, name: str, manifest: bytes) -> None:
        self._place.write(f"{MANIFESTS}{name}.json", manifest)


def _head(name: str, item: Item) -> str:
    """What every line begins with."""
    number = int(name.rpartition("-")[2])
    return f'"id":{item.id},"revision":{item.revision},"batch":"{name}","order":{number}'
