"""Sources whose objects go into several projects: each project beside the first becomes a source of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.config.models import Route, Source

EVERYTHING = ("**",)


def routed(sources: Sequence[Source]) -> Iterator[Source]:
    """The sources, each followed by those that its routes make of it.

    All of them have the same routes, with a last one for what no other matches. A source takes what the first route
    that matches gives to its project, so that each object belongs to exactly one of them.
    """
    for source in sources:
        if not source.routes:
            yield source
            continue
        routes = (*source.routes, Route(match=EVERYTHING, project=source.project))
        yield source.model_copy(update={"routes": routes})
        for project in others(source):
            name = name_of(source, project)
            yield source.model_copy(update={"name": name, "project": project, "routes": routes})


def others(source: Source) -> list[str]:
    """The projects that a source's routes lead to, beside its own, in their order."""
    return [project for project in dict.fromkeys(route.project for route in source.routes) if project != source.project]


def name_of(source: Source, project: str) -> str:
    """What the source is called that takes what goes into another project."""
    return f"{source.name}.{project}"
