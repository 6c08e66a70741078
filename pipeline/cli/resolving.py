"""What the resolvers of a labelling configuration lead to, task by task, as `explain` tells it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from pipeline.cli import places
from pipeline.errors import LabelfeedError, RetriableError
from pipeline.events import check_key
from pipeline.stores.paths import dotted

if TYPE_CHECKING:
    from pipeline.app import App
    from pipeline.labelconfig import Resolver

HEAD_BYTES = 64 * 1024
"""The first row of a CSV is looked for in so much of it."""


def resolved(app: App, source: str, tasks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each of the tasks and each resolver of their source's configuration: the URI, and the cell that is shown
    for it, or why there is none."""
    feed = app.feeds.get(source)
    config = feed.rules.label_config if feed is not None else None
    resolvers = config.resolvers if config is not None else ()
    return [
        {"task": task["id"], "tag": f"<{one.tag} name='{one.name}'>", "uri": uri} | _shown(app, one, uri)
        for task in tasks
        for one in resolvers
        if isinstance(uri := _value(orjson.loads(task["data"]), one.key), str)
    ]


def _value(data: Any, key: str) -> Any:
    if isinstance(data, dict) and key in data:
        return data[key]
    first, dot, rest = key.partition(".")
    return _value(data.get(first), rest) if dot and isinstance(data, dict) else None


def _shown(app: App, resolver: Resolver, uri: str) -> dict[str, str | None]:
    why = "no source of this configuration has it"
    for source, key in _meant(app, uri):
        try:
            value = resolver.pick(_head(app, source, key))
        except RetriableError as error:
            return {"value": None, "error": str(error)}
        except LabelfeedError as error:
            why = str(error)
            continue
        return {"value": value, "error": "it has no such row or column" if value is None else None}
    return {"value": None, "error": why}


def _meant(app: App, uri: str) -> Iterator[tuple[str, str]]:
    """The objects in our sources' places that a task may mean: never a path of this machine, nor what lies beside."""
    if "://" not in uri and uri.partition(":")[0] not in app.feeds:
        return
    for source, key in dict.fromkeys(places.readings(app.ledger.reports().sources(), uri)):
        if source in app.feeds and check_key(key) is None and not dotted(key):
            yield source, key


def _head(app: App, source: str, key: str) -> str:
    with app.feeds[source].store.open(key) as reading:
        if reading.content is not None:
            return _text(reading.content)
        with reading.stream() as stream:
            return _text(stream.read(HEAD_BYTES))


def _text(content: bytes) -> str:
    return content[:HEAD_BYTES].decode("utf-8-sig", "replace")
