"""What no single key can tell: names given twice, projects that are not there, sources that cover each other."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import combinations
from typing import NamedTuple
from urllib.parse import urlsplit

from pipeline.config.addresses import blob_account
from pipeline.config.models import NAME, Config, Source
from pipeline.config.routing import name_of, others

WILD = "*?[{"
"""Where a glob stops being plain text."""


class Conflict(NamedTuple):
    """One thing that is wrong: where, what, and what to do."""

    path: tuple[str | int, ...]
    message: str
    hint: str = ""


def conflicts(config: Config) -> Iterator[Conflict]:
    """All that is wrong between the parts of a configuration whose keys are right."""
    names: dict[str, int] = {}
    for index, source in enumerate(config.sources):
        if source.name in names:
            yield Conflict(
                ("sources", index, "name"), f"sources.{names[source.name]} has the name {source.name!r} already"
            )
        names.setdefault(source.name, index)
        if source.project not in config.projects:
            near = get_close_matches(source.project, config.projects, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(config.projects) or 'none'}"
            yield Conflict(("sources", index, "project"), f"there is no project {source.project!r}", hint)
        yield from _links(config, index, source)
        if source.row_key is not None and source.on_change != "replace":
            yield Conflict(("sources", index, "row_key"), "row_key needs on_change: replace")
        yield from _misrouted(config, index, source)
    yield from _overlaps(config)
    yield from _deliveries(config)


def _deliveries(config: Config) -> Iterator[Conflict]:
    """Names of deliveries and remotes that are there twice: the limits on imports hold for each delivery alone."""
    remotes: dict[str, str] = {}
    for project, settings in config.projects.items():
        names: set[str] = set()
        for index, delivery in enumerate(settings.deliveries):
            path, known_as = ("projects", project, "deliveries", index), f"{project}/{delivery.known_as}"
            if delivery.known_as in names:
                yield Conflict(path, f"there is a delivery {known_as} already", "give it a name: of its own")
            elif delivery.target in remotes:
                other = remotes[delivery.target]
                message = f"{other} delivers to {delivery.target} already, and throttles hold for each delivery alone"
                yield Conflict(path, message, "bring both projects' sources into one project, or deliver elsewhere")
            names.add(delivery.known_as)
            remotes.setdefault(delivery.target, known_as)


def _misrouted(config: Config, index: int, source: Source) -> Iterator[Conflict]:
    for place, route in enumerate(source.routes):
        if route.project not in config.projects:
            yield Conflict(
                ("sources", index, "routes", place, "project"),
                f"there is no project {route.project!r}",
                f"there are {', '.join(config.projects)}",
            )
    taken = {other.name for other in config.sources}
    for project in others(source):
        name = name_of(source, project)
        if re.fullmatch(NAME, name) is None:
            yield Conflict(
                ("sources", index, "routes"),
                f"what goes into {project!r} would be the source {name!r}, which is no name of a source",
                "letters, digits, dots, dashes and underscores, at most 63",
            )
        elif name in taken:
            yield Conflict(("sources", index, "routes"), f"there is a source {name!r} already")


def _links(config: Config, index: int, source: Source) -> Iterator[Conflict]:
    if source.links == "durable" and config.links is None:
        yield Conflict(
            ("sources", index, "links"), "durable links need links: at the top of the file", "with base_url: and key:"
        )


def _overlaps(config: Config) -> Iterator[Conflict]:
    roots = [_root(config, source) for source in config.sources]
    for (one, first), (two, second) in combinations(enumerate(config.sources), 2):
        shared = {first.project, *others(first)} & {second.project, *others(second)}
        if not shared or first.overlap or second.overlap:
            continue
        if (first.as_ == "urls") != (second.as_ == "urls"):
            # The objects of a list are its URLs, wherever the list itself is.
            continue
        if _cover(roots[one], first, roots[two], second):
            yield Conflict(
                ("sources", two, "url"),
                f"this source covers objects that {first.name!r} covers too, for the same project",
                "narrow match: or exclude:, or say overlap: true to import them twice",
            )


def _root(config: Config, source: Source) -> str:
    parts = urlsplit(source.url)
    address = blob_account(source.url)
    if address is not None or parts.scheme == "az":
        account = address[0] if address is not None else source.account or os.environ.get("AZURE_STORAGE_ACCOUNT", "")
        place = parts.path if address is not None else f"/{parts.netloc}{parts.path}"
        return f"az://{account}{place}".rstrip("/") + "/"
    if len(parts.scheme) > 1 and parts.scheme != "file":
        host = (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
        return f"{parts.scheme}://{host}{parts.path}".rstrip("/") + "/" + (f"?{parts.query}" if parts.query else "")
    path = parts.path if parts.scheme == "file" else source.url
    return os.path.realpath(config.resolve(path)).rstrip("/") + "/"


def _cover(root: str, first: Source, other: str, second: Source) -> bool:
    if not (root.startswith(other) or other.startswith(root)):
        return False
    starts = (
        [root + prefix for prefix in first.prefixes or ("",)],
        [other + prefix for prefix in second.prefixes or ("",)],
    )
    if all(not (one.startswith(two) or two.startswith(one)) for one in starts[0] for two in starts[1]):
        return False
    return any(
        not _disjoint(root + one, other + two)
        for one in first.match
        for two in second.match
        if not (_left_out(one, second) or _left_out(two, first))
    )


def _left_out(pattern: str, source: Source) -> bool:
    return pattern in source.exclude


def _disjoint(one: str, two: str) -> bool:
    """Whether two globs surely have no key in common: their plain beginnings or endings contradict."""
    starts = _beginning(one), _beginning(two)
    ends = _ending(one), _ending(two)
    return not (
        (starts[0].startswith(starts[1]) or starts[1].startswith(starts[0]))
        and (ends[0].endswith(ends[1]) or ends[1].endswith(ends[0]))
    )


def _beginning(pattern: str) -> str:
    return re.split(f"[{re.escape(WILD)}]", pattern, maxsplit=1)[0]


def _ending(pattern: str) -> str:
    return re.split(r"[*?\]}]", pattern)[-1]
