"""From what a person writes (a path, a URI, `source:key`) to objects of the ledger."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from pipeline.errors import UsageError
from pipeline.ledger import Filter, Reports

PAGE = 500
VALUES = ("redis://", "rediss://")
"""Where keys are behind a prefix that need not end with a slash."""


def found(reports: Reports, text: str) -> list[dict[str, Any]]:
    """The objects that a text names; UsageError if there are none."""
    objects = looked_up(reports, text)
    if not objects:
        raise unknown(text)
    return objects


def looked_up(reports: Reports, text: str) -> list[dict[str, Any]]:
    """The objects that a text names; none if there are none."""
    objects: dict[int, dict[str, Any]] = {}
    for source, key in readings(reports.sources(), text):
        objects.update({row["id"]: row for row in reports.find(source, key)})
    return list(objects.values())


def check_source(reports: Reports, name: str | None) -> None:
    """Raise UsageError if the ledger has no source of this name."""
    names = [row["name"] for row in reports.sources()]
    if name is not None and name not in names:
        raise UsageError(f"the ledger has no source {name!r}; there are {', '.join(names) or 'none'}")


def unknown(text: str) -> UsageError:
    """The error of a text that names nothing."""
    return UsageError(
        f"the ledger has no object {text!r}; write its path, its URI or SOURCE:KEY, as `labelfeed objects` shows it"
    )


def readings(sources: Sequence[dict[str, Any]], text: str) -> Iterator[tuple[str | None, str]]:
    """What a text may mean: source (None for any) and key."""
    yield None, text
    name, colon, key = text.partition(":")
    if colon and any(source["name"] == name for source in sources):
        yield name, key
    uri = text if "://" in text else "file://" + quote(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100 - no link is followed
    for source in sources:
        root = source["uri"]
        if root.startswith(VALUES) and uri.startswith(root):
            yield source["name"], uri[len(root) :]
        if uri == root:
            yield source["name"], unquote(root.rpartition("/")[2])
        folder = root if root.endswith("/") else root + "/"
        if uri.startswith(folder):
            rest = uri[len(folder) :]
            yield source["name"], unquote(rest)
            yield source["name"], rest


def uri_of(sources: dict[str, dict[str, Any]], source: str, key: str) -> str:
    """The canonical URI of an object, from its source's."""
    root: str = sources[source]["uri"]
    if key.startswith(("http://", "https://")) and root.startswith(("http://", "https://", "file://")):
        return key
    folder = root if root.endswith("/") else root + "/"
    if root.startswith(("http://", "https://")):
        return folder + quote(key)
    if root.startswith(VALUES):
        return root + key
    if not root.startswith("file://"):
        return folder + key
    path = quote(key)
    return root if root.endswith("/" + path) and not Path(unquote(root[7:])).is_dir() else folder + path


def objects(reports: Reports, which: Filter, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """Objects of the ledger in pages, so that no read is long."""
    after, left = 0, limit
    while left is None or left > 0:
        page = reports.objects(which, after, PAGE if left is None else min(PAGE, left))
        yield from page
        if not page:
            return
        after = page[-1]["id"]
        left = None if left is None else left - len(page)
