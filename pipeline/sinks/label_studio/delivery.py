"""Tasks into a project of a Label Studio, by its import API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import orjson

from pipeline.config.projects import LabelStudio
from pipeline.errors import BatchRefused, BatchUnsure, ChangesFailed, LeaseLost, UnavailableError
from pipeline.ledger.deliveries import Change, ChangeOutcome, Item
from pipeline.sinks import Encoded
from pipeline.sinks.label_studio.client import Client

POLL_SECONDS = 0.5
"""Between two questions for an import that goes on behind its answer."""
FIND_PAGE = 500
MOST_FAILURES = 10
"""So many tasks may fail in one round of changes; then the others wait for the next one."""
COUNTED = ("task_number", "finished_task_number")
"""What is asked of a project for a count: it counts much else otherwise, which takes long in a large one."""
EMPTY_CONFIG = "<View></View>"
"""What a new project has, and what means that it has none."""
MARK = "labelfeed"
"""The key in a task's meta under which batch and number stand."""
_ENDED = frozenset({"completed", "failed"})
"""What an import is that makes no more tasks."""
_OF_A_REQUEST = frozenset({"server_error", "refused", "no_project", "no_json"})
"""Codes of answers that may be about one task, unlike those about the token or too many requests, and none at all."""


class LabelStudioDelivery:
    """`pipeline.sinks.Delivery` into a project of a Label Studio."""

    def __init__(self, options: LabelStudio, folder: Path) -> None:  # noqa: ARG002 - relative paths are not for it
        self._client = Client(options.url, options.token.get_secret_value(), options.timeout)
        self._project = options.project
        self._timeout = options.timeout

    def encode(self, batch: str, item: Item) -> bytes:
        """As `Delivery.encode`."""
        task = item.task
        parts = [f'{{"data":{task.data}', f'"meta":{_meta(task.meta, batch, item.id)}']
        if task.annotations:
            parts.append(f'"annotations":{task.annotations}')
        if task.predictions:
            parts.append(f'"predictions":{task.predictions}')
        if task.extra and (skip := orjson.loads(task.extra).get("allow_skip")) is not None:
            parts.append(f'"allow_skip":{orjson.dumps(skip).decode()}')
        return (",".join(parts) + "}").encode()

    def size(self, bodies: int, tasks: int) -> int:
        """As `Delivery.size`: a list's brackets, and a comma between two tasks."""
        return bodies + max(tasks, 1) + 1

    def send(
        self,
        batch: str,
        tasks: Sequence[Encoded],
        ready: Callable[[], None],
        named: Callable[[str], None] = lambda _: None,
    ) -> Mapping[int, str]:
        """As `Delivery.send`."""
        ending = time.monotonic() + self._timeout
        answer = self._client.post(
            f"/api/projects/{self._project}/import?return_task_ids=true", list(_listed(tasks)), ready
        )
        if isinstance(answer, Mapping) and isinstance(answer.get("import"), int):
            named(str(answer["import"]))
            return self._awaited(batch, str(answer["import"]), [task.id for task in tasks], ending)
        ids = answer.get("task_ids") if isinstance(answer, Mapping) else None
        return self._paired(ids, [task.id for task in tasks], batch)

    def find(
        self, batch: str, handle: str | None, going: Callable[[], None] = lambda: None
    ) -> Mapping[int, str] | Literal["absent"]:
        """As `Delivery.find`."""
        state = None if handle is None else self._state(handle)
        status = None if state is None else state.get("status")
        if state is not None and status not in _ENDED:
            raise UnavailableError(f"import {handle} goes on: {status}", code="goes_on")
        found = self._there(batch, going)
        if not found and state is not None and status == "failed":
            raise _failed(state)
        return found or "absent"

    def change(
        self,
        changes: Sequence[Change],
        name: str,
        ready: Callable[[], None],
        most: int,  # noqa: ARG002 - each is a request of its own
    ) -> Mapping[int, tuple[ChangeOutcome, str]]:
        """As `Delivery.change`: one question, and a request or a few, for each. Nothing is changed that has
        annotations. What there is no time for is left out."""
        made: dict[int, tuple[ChangeOutcome, str]] = {}
        failed: ChangesFailed | None = None
        failures = 0
        for change in changes:
            try:
                ready()
                made[change.item.id] = (
                    self._delete(change, ready) if change.delete else self._update(change, name, ready)
                )
            except LeaseLost:
                if not made and failed is None:
                    raise
                break
            except UnavailableError as error:
                failures += 1
                failed = ChangesFailed(error, made, change.item.id, waits=_ends(error))
                if failed.waits or failures >= MOST_FAILURES:
                    break
        if failed is not None:
            raise failed
        return made

    def open_tasks(self) -> int | None:
        """As `Delivery.open_tasks`. A task is finished there, and shown to nobody any more, when as many people have
        annotated it as its project asks for; that it was skipped counts only if its project ignores what is skipped."""
        found = self._own(include=",".join(("id", *COUNTED)))
        total, finished = map(found.get, COUNTED)
        if not isinstance(total, int) or not isinstance(finished, int):
            raise UnavailableError(f"{self._client.url} does not tell how many tasks are finished", code="no_json")
        return max(0, total - finished)

    def label_config(self) -> str | None:
        """As `Delivery.label_config`."""
        xml = str(self._own().get("label_config") or "").strip()
        return None if xml in ("", EMPTY_CONFIG) else xml

    def ping(self) -> str:
        """As `Delivery.ping`."""
        found = self._own()
        return f"Label Studio at {self._client.url}, project {self._project}: {found.get('title', '')}"

    def close(self) -> None:
        """As `Delivery.close`."""
        self._client.close()

    def _own(self, **params: str) -> Mapping[str, Any]:
        found = self._client.ask(f"/api/projects/{self._project}/", params=params)
        if not isinstance(found, Mapping) or "id" not in found:
            raise UnavailableError(f"{self._client.url} does not answer as a Label Studio", code="no_json")
        return found

    def _paired(self, ids: object, ours: Sequence[int], batch: str) -> Mapping[int, str]:
        if isinstance(ids, list) and len(ids) == len(ours):
            return dict(zip(ours, map(str, ids), strict=True))
        raise BatchUnsure(f"{self._client.url} did not name the tasks that it made of batch {batch}", code="no_ids")

    def _awaited(self, batch: str, handle: str, ours: Sequence[int], ending: float) -> Mapping[int, str]:
        """Wait for an import that goes on behind its answer."""
        while True:
            try:
                state = self._state(handle)
            except UnavailableError as error:
                raise BatchUnsure(str(error), code=error.code, handle=handle) from None
            status = state.get("status") if state is not None else None
            if status == "completed":
                return self._paired((state or {}).get("task_ids"), ours, batch)
            if status == "failed":
                raise self._broken_off(batch, handle, _failed(state or {}))
            if time.monotonic() > ending:
                raise BatchUnsure(f"import {handle} goes on: {status}", code="goes_on", handle=handle)
            time.sleep(POLL_SECONDS)

    def _broken_off(self, batch: str, handle: str, failed: BatchRefused) -> BatchRefused | BatchUnsure:
        """What an import has come to that failed behind its answer: it may have made a part of its tasks before, and
        makes no more."""
        try:
            made = any(self._borne(batch))
        except UnavailableError as error:
            return BatchUnsure(str(error), code=error.code, handle=handle)
        if not made:
            return failed
        return BatchUnsure(f"import {handle} failed with some tasks made: {failed}", code="failed", handle=handle)

    def _state(self, handle: str) -> Mapping[str, Any] | None:
        found = self._client.ask(f"/api/projects/{self._project}/imports/{handle}/", missing=True)
        return found if isinstance(found, Mapping) else None

    def _there(self, batch: str, going: Callable[[], None]) -> dict[int, str]:
        """Our number → the remote's, of a batch's tasks that are there now."""
        found: dict[int, str] = {}
        for number, remote in self._borne(batch, going):
            found.setdefault(number, remote)
        return found

    def _borne(self, batch: str, going: Callable[[], None] = lambda: None) -> Iterator[tuple[int, str]]:
        for task in self._marked(batch, going):
            mark = _mark(task.get("meta"))
            if mark is not None and mark.get("batch") == batch and str(mark.get("key", "")).isdecimal():
                yield int(mark["key"]), str(task["id"])

    def _marked(self, batch: str, going: Callable[[], None]) -> Iterator[Mapping[str, Any]]:
        """The remote's tasks that bear a batch's name in their meta."""
        item = {"filter": "filter:tasks:meta", "operator": "contains", "type": "String", "value": f'"{batch}"'}
        query = {"filters": {"conjunction": "and", "items": [item]}, "ordering": ["tasks:id"]}
        seen, page = 0, 1
        while True:
            params = {
                "project": self._project, "page": page, "page_size": FIND_PAGE, "resolve_uri": "false",
                "query": orjson.dumps(query).decode(),
            }  # fmt: skip
            going()
            found = self._client.ask("/api/tasks", params=params)
            if not isinstance(found, Mapping) or not isinstance(found.get("tasks"), list):
                raise UnavailableError(f"{self._client.url} did not list its tasks", code="no_json")
            yield from found["tasks"]
            seen, page = seen + len(found["tasks"]), page + 1
            if not found["tasks"] or seen >= int(found.get("total", 0)):
                return

    def _task(self, path: str) -> Mapping[str, Any] | None:
        found = self._client.ask(path, missing=True)
        if found is not None and not (isinstance(found, Mapping) and "id" in found):
            raise UnavailableError(f"{self._client.url} did not show a task", code="no_json")
        return found

    def _delete(self, change: Change, ready: Callable[[], None]) -> tuple[ChangeOutcome, str]:
        path = f"/api/tasks/{change.remote_id}/"
        try:
            if self._task(path) is None:
                return "gone", "it was deleted there before"
            self._client.tell("DELETE", path, ready, missing=True)
        except BatchRefused as error:
            return "kept", str(error)
        return "done", ""

    def _update(self, change: Change, name: str, ready: Callable[[], None]) -> tuple[ChangeOutcome, str]:
        path, task = f"/api/tasks/{change.remote_id}/", change.item.task
        try:
            there = self._task(path)
            if there is None:
                return "gone", "it was deleted there"
            if there.get("annotations") or there.get("total_annotations") or there.get("drafts"):
                return "kept", "somebody has annotated it there"
            mark = _mark(there.get("meta")) or {}
            meta = orjson.loads(_meta(task.meta, str(mark.get("batch", name)), change.item.id))
            value = {"data": orjson.loads(task.data), "meta": meta}
            old, new = there.get("predictions") or [], orjson.loads(task.predictions or "[]")
            if [_told(one) for one in new] == [_told(one) for one in old]:
                self._client.tell("PATCH", path, ready, value=value)
            else:
                self._replace(change.remote_id, value, old, new, ready)
        except BatchRefused as error:
            return "kept", str(error)
        return "done", ""

    def _replace(
        self,
        task: str,
        value: Mapping[str, Any],
        old: Sequence[Mapping[str, Any]],
        new: Sequence[Mapping[str, Any]],
        ready: Callable[[], None],
    ) -> None:
        """Update a task, and put new predictions in the place of its old ones. Where any of that is refused, the task
        is left with what it had: the old ones go last."""
        made: list[int] = []
        try:
            for one in new:
                number = self._predicted(_told(one) | {"task": int(task)}, ready)
                made.append(number)
            self._client.tell("PATCH", f"/api/tasks/{task}/", ready, value=value)
        except BatchRefused:
            self._unpredict(made, ready)
            raise
        self._unpredict([one["id"] for one in old], ready)

    def _predicted(self, value: Mapping[str, Any], ready: Callable[[], None]) -> int:
        made = self._client.tell("POST", "/api/predictions/", ready, value=value)
        if not (isinstance(made, Mapping) and isinstance(made.get("id"), int)):
            raise UnavailableError(f"{self._client.url} did not name a prediction that it made", code="no_json")
        return int(made["id"])

    def _unpredict(self, predictions: Sequence[int], ready: Callable[[], None]) -> None:
        for number in predictions:
            self._client.tell("DELETE", f"/api/predictions/{number}/", ready, missing=True)


def _ends(error: UnavailableError) -> bool:
    """Whether a failure means that no other change is to be tried now."""
    return error.code not in _OF_A_REQUEST or error.retry_after is not None


def _listed(tasks: Sequence[Encoded]) -> Iterator[bytes]:
    for number, task in enumerate(tasks):
        yield b"," + task.body if number else b"[" + task.body
    yield b"]"


def _meta(meta: str | None, batch: str, number: int) -> str:
    """A task's meta with our mark in it, as JSON text; put together, as most have none."""
    mark = f'{{"batch":"{batch}","key":"{number}"}}'
    text = (meta or "").strip()
    if text in ("", "{}", "[]", "null"):
        return f'{{"{MARK}":{mark}}}'
    if MARK in text:
        found = orjson.loads(text)
        found = [one for one in found if _mark(one) is None] if isinstance(found, list) else found | {MARK: None}
        found.append({MARK: orjson.loads(mark)}) if isinstance(found, list) else found.update(
            {MARK: orjson.loads(mark)}
        )
        return orjson.dumps(found).decode()
    if text.startswith("["):
        return f'{text[:-1]},{{"{MARK}":{mark}}}]'
    return f'{text[:-1]},"{MARK}":{mark}}}'


def _mark(meta: object) -> Mapping[str, Any] | None:
    """Our mark in a task's meta, if it is there."""
    for part in meta if isinstance(meta, list) else (meta,):
        mark = part.get(MARK) if isinstance(part, Mapping) else None
        if isinstance(mark, Mapping):
            return mark
    return None


def _told(prediction: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a prediction."""
    return {
        "result": prediction.get("result"),
        "score": prediction.get("score"),
        "model_version": prediction.get("model_version") or "undefined",
    }


def _failed(state: Mapping[str, Any]) -> BatchRefused:
    return BatchRefused(str(state.get("error") or "the import failed there")[:2000])
