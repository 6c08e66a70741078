"""Questions that people ask of the PostgreSQL database; each is one short read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.ledger import STATES, Audit, Filter, RevisionFilter, on_retry
from pipeline.ledger.labelling import OpenThere
from pipeline.ledger.reports import Tally
from pipeline.sinks.postgres import outages, passes, projects, revisions
from pipeline.sinks.postgres.database import Database, Transaction
from pipeline.sinks.postgres.record import write_history
from pipeline.sinks.postgres.standings import standings
from pipeline.sinks.texts import differences, paused_of, text_of

_TASK = (
    "t.id, p.name AS project, s.name AS source, o.key, i.version, t.position, t.row, t.external_id, t.data::text,"
    " t.annotations::text, t.predictions::text, t.meta::text, t.extra::text"
)
_TASK_FROM = (
    "FROM task_rows AS t JOIN imports AS i ON i.object_id = t.object_id AND i.lease = t.lease AND i.state = 'live'"
    " JOIN objects AS o ON o.id = t.object_id JOIN sources AS s ON s.id = o.source_id"
    " JOIN projects AS p ON p.id = s.project_id WHERE t.archived_at IS NULL"
)
_STARTED = "EXISTS (SELECT 1 FROM leases AS l WHERE l.id = o.lease AND l.started_at IS NOT NULL)"
_SHOWN = f"CASE WHEN s.retired THEN 'retired' WHEN o.state = 'claimed' AND {_STARTED} THEN 'running' ELSE o.state END"
_OBJECT = (
    f"SELECT o.id, s.name AS source, o.key, {_SHOWN} AS state, o.wanted_version AS version, o.imported_version, o.size,"
    " o.attempts, o.lost, o.tasks, o.rejected, o.changes, o.reason, extract(epoch FROM o.due)::float8 AS not_before,"
    " o.discovered_by, extract(epoch FROM o.first_seen)::float8 AS first_seen,"
    " extract(epoch FROM o.last_event)::float8 AS last_event, extract(epoch FROM o.finished_at)::float8 AS finished_at,"
    " o.lease, replace(o.trace::text, '-', '') AS trace FROM objects AS o JOIN sources AS s ON s.id = o.source_id"
)
# The states stand in the text, not in a parameter: only so can the planner use an index on some states.
_IN_STATE: dict[str, str] = {
    **{state: f" AND NOT s.retired AND o.state = '{state}'" for state in STATES},
    "claimed": f" AND NOT s.retired AND o.state = 'claimed' AND NOT {_STARTED}",
    "running": f" AND NOT s.retired AND o.state = 'claimed' AND {_STARTED}",
    "retired": " AND s.retired",
}
_COUNTERS = (*STATES, "tasks", "rejected", "changes", "finished")
_COUNTED = ", ".join(f"'{name}'" for name in (*STATES, "tasks", "rejected"))
# One statement, and so of one moment; one walk over all objects.
_MISCOUNTED = (
    "WITH found AS MATERIALIZED (SELECT source_id, state, count(*) AS n, sum(tasks) AS tasks, sum(rejected) AS rejected"
    " FROM objects GROUP BY source_id, state),"
    " both_sides AS (SELECT source_id, name, n AS kept, 0 AS counted FROM counters"
    f" WHERE name IN ({_COUNTED})"
    " UNION ALL SELECT source_id, state, 0, n FROM found UNION ALL SELECT source_id, 'tasks', 0, tasks FROM found"
    " UNION ALL SELECT source_id, 'rejected', 0, rejected FROM found)"
    " SELECT s.name AS source, b.name, sum(b.kept)::bigint AS kept, sum(b.counted)::bigint AS counted"
    " FROM both_sides AS b JOIN sources AS s ON s.id = b.source_id GROUP BY s.name, b.name"
    " HAVING sum(b.kept) <> sum(b.counted) ORDER BY 1, 2"
)


class PostgresReports:
    """`pipeline.ledger.Reports` on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def _rows(self, statement: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
        return self._database.read(lambda tx: tx.dicts(statement, values))

    def sources(self) -> list[dict[str, Any]]:
        """As `Reports.sources`."""
        return self._database.read(_sources)

    def projects(self) -> list[dict[str, Any]]:
        """As `Reports.projects`."""
        return self._rows(projects.PROJECTS)

    def scheduling(self) -> dict[str, Any]:
        """As `Reports.scheduling`."""
        return self._database.read(projects.scheduling)

    def open_tasks(self, project: str) -> Tally:
        """As `Reports.open_tasks`."""
        return self._database.read(lambda tx: projects.open_tasks(tx, project))

    def open_there(self, project: str) -> OpenThere:
        """As `Reports.open_there`."""
        return self._database.read(lambda tx: projects.open_there(tx, project))

    def undelivered(self, project: str) -> Tally:
        """As `Reports.undelivered`."""
        return self._database.read(lambda tx: projects.undelivered(tx, project))

    def objects(self, which: Filter, after: int, limit: int) -> list[dict[str, Any]]:
        """As `Reports.objects`."""
        clauses, values = _where(which)
        return self._rows(f"{_OBJECT} WHERE o.id > %s{clauses} ORDER BY o.id LIMIT %s", (after, *values, limit))

    def find(self, source: str | None, key: str) -> list[dict[str, Any]]:
        """As `Reports.find`."""
        chosen, values = ("", ()) if source is None else (" WHERE name = %s", (source,))
        return self._rows(
            f"{_OBJECT} WHERE o.source_id = ANY(ARRAY(SELECT id FROM sources{chosen})) AND o.key = %s ORDER BY o.id",
            (*values, key),
        )

    def history(self, object_id: int) -> list[dict[str, Any]]:
        """As `Reports.history`."""
        rows = self._rows(
            "SELECT extract(epoch FROM at)::float8 AS at, kind, detail FROM history WHERE object_id = %s ORDER BY id",
            (object_id,),
        )
        return [{"at": row["at"], "kind": row["kind"], **row["detail"]} for row in rows]

    def imports(self, object_id: int) -> list[dict[str, Any]]:
        """As `Reports.imports`."""
        return self._rows(
            "SELECT lease, version, state, mode, shape, tasks, rejected, bytes, extract(epoch FROM at)::float8"
            " AS at, seconds"
            " FROM imports WHERE object_id = %s ORDER BY lease",
            (object_id,),
        )

    def tasks(self, project: str | None, after: int, limit: int) -> list[dict[str, Any]]:
        """As `Reports.tasks`."""
        chosen, values = ("", ()) if project is None else (" AND p.name = %s", (project,))
        return self._rows(
            f"SELECT {_TASK} {_TASK_FROM} AND t.id > %s{chosen} ORDER BY t.id LIMIT %s", (after, *values, limit)
        )

    def object_tasks(self, object_id: int, limit: int) -> list[dict[str, Any]]:
        """As `Reports.object_tasks`."""
        return self._rows(
            f"SELECT {_TASK} {_TASK_FROM} AND t.object_id = %s ORDER BY t.lease, t.position LIMIT %s",
            (object_id, limit),
        )

    def rejected(self, which: Filter, after: tuple[int, int, int], limit: int) -> list[dict[str, Any]]:
        """As `Reports.rejected`."""
        clauses = "".join(f" AND {name} = %s" for name in ("source", "code") if getattr(which, name) is not None)
        values = [value for value in (which.source, which.code) if value is not None]
        return self._rows(
            f"SELECT * FROM rejected WHERE (object_id, lease, n) > (%s, %s, %s){clauses}"
            " ORDER BY object_id, lease, n LIMIT %s",
            (*after, *values, limit),
        )

    def revisions(self, which: RevisionFilter, after: int, limit: int) -> list[dict[str, Any]]:
        """As `Reports.revisions`."""
        return self._database.read(lambda tx: revisions.revisions(tx, which, after, limit))

    def retry(self, ids: Sequence[int], *, force: bool) -> dict[int, str]:
        """As `Reports.retry`."""
        return self._database.write(lambda tx: _retry(tx, ids, force=force))

    def unanswered(self, source: str) -> dict[str, Any] | None:
        """As `Reports.unanswered`."""
        return self._database.read(lambda tx: outages.unanswered(tx, source))

    def staged(self, source: str) -> int:
        """As `Reports.staged`."""
        return self._database.read(lambda tx: outages.staged(tx, source))

    def hasten(self, source: str) -> int:
        """As `Reports.hasten`."""
        return self._database.write(lambda tx: outages.hasten(tx, source))

    def audit(self, source_id: int, after: str | None, limit: int) -> Iterator[Audit]:
        """As `Reports.audit`."""
        rows = self._rows(
            "SELECT o.id, o.key, o.state, o.wanted_version, o.imported_version, (SELECT count(*) FROM imports AS i"
            " JOIN task_rows AS t ON t.object_id = i.object_id AND t.lease = i.lease AND t.archived_at IS NULL"
            " WHERE i.object_id = o.id AND i.state = 'live') AS live, o.tasks AS counted, (SELECT count(*)"
            " FROM imports AS i"
            " WHERE i.object_id = o.id AND i.state = 'live' AND i.mode = 'new') AS imports"
            " FROM objects AS o WHERE o.source_id = %s AND o.key > %s ORDER BY o.key LIMIT %s",
            (source_id, after or "", limit),
        )
        return (Audit(*row.values()) for row in rows)

    def miscounted(self) -> dict[str, dict[str, tuple[int, int]]]:
        """As `Reports.miscounted`."""
        return differences(self._rows(_MISCOUNTED))

    def recount(self) -> dict[str, dict[str, tuple[int, int]]]:
        """As `Reports.recount`."""
        return differences(self._database.write(_recount))

    def threads(self) -> int:
        """As `Reports.threads`."""
        statement = "SELECT coalesce(sum(threads), 0)::bigint AS n FROM workers WHERE until > clock_timestamp()"
        return int(self._rows(statement)[0]["n"])


def _recount(tx: Transaction) -> list[dict[str, Any]]:
    # Whoever has moved an object and not yet its counter is waited for, and nobody else begins.
    tx.execute("LOCK TABLE objects IN SHARE MODE")
    # All of it is counted: by an index that would be a look for each row, while nobody may write.
    tx.execute("SET LOCAL enable_seqscan = on")
    ids: dict[str, int] = dict(tx.rows("SELECT name, id FROM sources"))
    rows = tx.dicts(_MISCOUNTED)
    for row in rows:
        tx.count(ids[row["source"]], row["name"], row["counted"] - row["kept"])
    return rows


def _sources(tx: Transaction) -> list[dict[str, Any]]:
    rows = tx.dicts(
        "SELECT s.id, s.name, p.name AS project, s.retired, s.uri, s.shape, (SELECT extract(epoch FROM"
        " min(o.due))::float8"
        " FROM objects AS o WHERE o.source_id = s.id AND o.state = 'ready') AS oldest_ready,"
        " (SELECT coalesce(sum(l.open), 0)::bigint FROM leases AS l"
        " WHERE l.source_id = s.id AND l.started_at IS NOT NULL) AS running,"
        " (SELECT extract(epoch FROM max(c.at))::float8 FROM counters AS c"
        " WHERE c.source_id = s.id AND c.name = 'finished') AS finished_at"
        " FROM sources AS s JOIN projects AS p ON p.id = s.project_id ORDER BY s.id"
    )
    counted = {(row[0], row[1]): row[2] for row in tx.rows("SELECT source_id, state, n FROM source_counts")}
    known = standings(tx)
    proposed = revisions.waiting(tx)
    for row in rows:
        row.update({name: counted.get((row["id"], name), 0) for name in _COUNTERS})
        row["running"] = min(row["running"], row["claimed"])
        row["claimed"] -= row["running"]
        row["paused"] = paused_of(known.get(row["id"]))
        row["revisions"] = proposed.get(row["id"], 0)
        row["problems"] = passes.problems(tx, row["id"])
        last = passes.last(tx, row["id"])
        names = ("started", "finished", "listed", "published", "candidates", "stopped", "left_out", "whole", "whole_at")
        row["last_pass"] = last and {name: getattr(last, name) for name in names}
    return rows


def _where(which: Filter) -> tuple[str, list[object]]:
    clauses = ""
    values: list[object] = []
    if which.source is not None:
        clauses += " AND o.source_id = (SELECT id FROM sources WHERE name = %s)"
        values.append(which.source)
    if which.state is not None:
        clauses += _IN_STATE.get(which.state, " AND false")
    if which.code is not None:
        clauses += " AND o.code = %s"
        values.append(which.code)
    return clauses, values


def _retry(tx: Transaction, ids: Sequence[int], *, force: bool) -> dict[int, str]:
    locked = tx.rows(
        f"SELECT o.id, o.state, o.source_id, {_STARTED} FROM objects AS o WHERE o.id = ANY(%s) ORDER BY o.id"
        " FOR UPDATE",
        (list(ids),),
    )
    refused = dict.fromkeys(set(ids) - {row[0] for row in locked}, "there is no such object")
    chosen = []
    for object_id, state, source_id, running in locked:
        why = on_retry(state, running=running, force=force)
        if why is not None:
            refused[object_id] = why
            continue
        chosen.append((object_id, force and state == "done"))
        tx.count(source_id, state, -1)
        tx.count(source_id, "ready", 1)
    tx.execute(
        "UPDATE objects AS o SET state = 'ready', due = clock_timestamp(), attempts = 0, lost = 0, redo = u.redo,"
        " lease = NULL FROM unnest(%s::bigint[], %s::boolean[]) AS u (id, redo) WHERE o.id = ANY(ARRAY[u.id])",
        ([row[0] for row in chosen], [row[1] for row in chosen]),
    )
    detail = text_of({"by": "hand", "force": force})
    write_history(tx, [(object_id, tx.at, "retry", detail) for object_id, _ in chosen])
    return refused
