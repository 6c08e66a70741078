"""What the configuration's limits allow in one turn, for each project and each source."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from pipeline import throttle
from pipeline.config import Config, Throttle
from pipeline.consumers.counting import Counting
from pipeline.consumers.queueing import by_reference
from pipeline.ledger import Load, ProjectLoad, SourceLoad, Tick
from pipeline.throttle import Bucket, Cost, Permit, Wait


class Permits:
    """The permits of one turn. Sources of one project share its permits; all share that of bytes in flight."""

    def __init__(self, config: Config, load: Load, counting: Counting) -> None:
        self._config = config
        self._load = load
        self._counting = counting
        self._sources = {source.name: source for source in config.sources}
        limit = config.limits.in_flight_bytes
        in_flight = sum(source.expected[1] for source in load.sources)
        self._bytes = Permit("in_flight", "bytes", limit - in_flight, first=True, of=limit)
        self._projects = {project.id: project for project in load.projects}
        self._tokens: dict[int, Bucket] = {}
        self._buckets: dict[int, Bucket] = {}
        self._by_project: dict[int, list[Permit]] = {}
        self._by_source: dict[int, list[Permit]] = {}

    def paused(self, source: SourceLoad) -> bool:
        """Whether a source's project is paused."""
        return self._projects[source.project_id].paused is not None

    def of(self, source: SourceLoad) -> list[Permit]:
        """All that limits a source."""
        if source.id not in self._by_source:
            project = self._projects[source.project_id]
            self._by_source[source.id] = [*self._project(project), *self._own(source), self._bytes]
        return self._by_source[source.id]

    def project_wait(self, project: ProjectLoad, *, wanted: bool) -> Wait | None:
        """What a project waits for; a rate is only waited for while something is `wanted`."""
        if project.paused is not None:
            return Wait("paused")
        least = Cost(1, 1.0, 1.0)
        for permit in self._project(project):
            if not permit.admits(least) and (wanted or not permit.rate):
                return permit.wait(least, self._load.now)
        return None

    def with_bucket(self, source: SourceLoad) -> SourceLoad:
        """A source with its bucket as it is now."""
        bucket = self._buckets.get(source.id)
        return source if bucket is None else source._replace(bucket=(bucket.allowed, bucket.at))

    def set_back(self, source: SourceLoad) -> bool:
        """Whether a source's bucket is to be kept though nothing was claimed: the clock was set back."""
        return source.id in self._buckets and throttle.set_back(Bucket(*source.bucket), self._load.now)

    def save(self, tick: Tick, served: AbstractSet[int]) -> None:
        """Remember the buckets of projects of which something was claimed, new ones, and those from before the clock
        was set back."""
        for project_id, bucket in self._tokens.items():
            project = self._projects[project_id]
            kept = Bucket(project.tokens, project.tokens_at)
            if project_id in served or kept.at <= 0 or throttle.set_back(kept, self._load.now):
                tick.spend(project_id, bucket.allowed)

    def _project(self, project: ProjectLoad) -> list[Permit]:
        if project.id not in self._by_project:
            settings = self._config.projects.get(project.name)
            made = self._of_project(project, settings.throttle) if settings is not None else []
            self._by_project[project.id] = made
        return self._by_project[project.id]

    def _of_project(self, project: ProjectLoad, limits: Throttle) -> list[Permit]:
        in_flight = sum(source.expected[0] for source in self._load.sources if source.project_id == project.id)
        made = []
        if limits.max_tasks:
            made.append(throttle.full("full", limits.max_tasks, project.tasks, in_flight))
        if limits.open_tasks:
            found = self._counting.open(project)
            unknown = Permit("uncounted", "tasks", 0.0, whole=0.0)
            made.append(unknown if found is None else throttle.full("enough", limits.open_tasks, found, in_flight))
        if limits.undelivered_tasks and self._config.projects[project.name].deliveries:
            behind = self._counting.undelivered.of(project)
            made.append(throttle.full("undelivered", limits.undelivered_tasks, behind, in_flight))
        if limits.tasks_per_second:
            rate, used = limits.tasks_per_second, project.imported + in_flight
            bucket = throttle.refill(Bucket(project.tokens, project.tokens_at), self._load.now, rate, used)
            self._tokens[project.id] = bucket
            made += throttle.paced("tasks", bucket, rate, used, in_flight)
        return made

    def _own(self, source: SourceLoad) -> list[Permit]:
        settings = self._sources.get(source.name)
        if settings is None:
            return []
        made = []
        if settings.max_in_flight:
            most = settings.max_in_flight
            made.append(Permit("in_flight", "objects", most - source.claimed, of=most))
        if settings.bytes_per_second and not by_reference(settings):
            rate, used = float(settings.bytes_per_second), source.read[2] + source.expected[1]
            bucket = throttle.refill(Bucket(*source.bucket), self._load.now, rate, used)
            self._buckets[source.id] = bucket
            made += throttle.paced("bytes", bucket, rate, used, source.expected[1])
        return made
