"""What `status` says of a source beside its row in the table, and `explain` of an object that is left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipeline.cli import output, places
from pipeline.config import Source
from pipeline.errors import LabelfeedError

if TYPE_CHECKING:
    from pipeline.app import App
    from pipeline.app.parts import Feed


def source_notes(row: dict[str, Any]) -> Iterator[str]:
    """Sentences on a source that wants to be looked at."""
    if row["retired"]:
        return
    name, last = row["name"], row["last_pass"]
    for problem in row["problems"]:
        part = {"listing": "it cannot be listed", "notifications": "its notifications are not heard"}[problem["part"]]
        yield f"{name}: {part} since {output.clock(problem['since'])}: {problem['code']}: {problem['message']}"
    if row["unanswered"]:
        yield output.unanswered(name, row["unanswered"])
    if last and last["left_out"]:
        rules = ", ".join(f"{count:,} by {rule}" for rule, count in sorted(last["left_out"].items()))
        yield f"{name}: the last pass left out {rules}"
    if last and not last["whole"]:
        yield f"{name}: the last pass listed new names only; the last whole one began {output.clock(last['whole_at'])}"
    if row["revisions"]:
        waiting = f"{row['revisions']:,} proposed revisions of annotated tasks wait"
        yield f"{name}: {waiting}; `labelfeed revisions` lists them"


def left_out(app: App, text: str) -> list[dict[str, Any]]:
    """Objects that a text names and the configuration leaves out: `source, key`, the `rule` and a sentence, `why`."""
    found = []
    sources = [{"name": name, "uri": feed.store.uri("")} for name, feed in app.feeds.items()]
    for name, key in places.readings(sources, text):
        for feed in app.feeds.values() if name is None else filter(None, [app.feeds.get(name)]):
            rule = _rule(feed, key, certain=name is not None)
            if rule is not None and not (rule == "routes" and _taken(app, feed, key)):
                row = {"source": feed.source.name, "key": key, "rule": rule, "why": _why(feed.source, rule)}
                found += [row] if row not in found else []
    return found


def _rule(feed: Feed, key: str, *, certain: bool) -> str | None:
    """The rule that leaves out a key; the store is asked where only that tells, or where the key is but a guess."""
    rule = feed.scope.left_out(key)
    if certain and (rule is not None or feed.scope.bounds is None):
        return rule
    try:
        entry = feed.store.head(key)
    except LabelfeedError:
        return None
    return None if entry is None else feed.scope.refuses(entry)


def _taken(app: App, feed: Feed, key: str) -> bool:
    """Whether another source that shares these routes takes the key."""
    return any(other.source.routes == feed.source.routes and other.scope.covers(key) for other in app.feeds.values())


def _why(source: Source, rule: str) -> str:
    if rule == "placeholder":
        return "it only stands for a folder"
    value = getattr(source, rule)
    told = ", ".join(map(str, value)) if isinstance(value, tuple) else value
    return f"{rule}: {told}"
