"""Questions that people ask of the SQLite database; each is one short read."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from pipeline.ledger import STATES, Audit, Filter, RevisionFilter, on_retry
from pipeline.ledger.labelling import OpenThere
from pipeline.ledger.reports import Tally
from pipeline.sinks.sqlite import outages, passes, projects, revisions
from pipeline.sinks.sqlite.record import Counts, add_counts, write_history
from pipeline.sinks.sqlite.standings import standings
from pipeline.sinks.texts import differences, paused_of, text_of
from pipeline.sqlitefile import SqliteFile, boot_id, now, uptime

_TASK = (
    "t.id, p.name AS project, s.name AS source, o.key, i.version, t.position,"
    " t.row, t.external_id, t.data, t.annotations, t.predictions, t.meta, t.extra"
)
_TASK_FROM = (
    "FROM task_rows AS t CROSS JOIN imports AS i ON i.object_id = t.object_id AND i.lease = t.lease AND"
    " i.state = 'live'"
    " CROSS JOIN objects AS o ON o.id = t.object_id CROSS JOIN sources AS s ON s.id = o.source_id"
    " CROSS JOIN projects AS p ON p.id = s.project_id WHERE t.archived_at IS NULL"
)
_SHOWN = (
    "CASE WHEN s.retired THEN 'retired' WHEN o.state = 'claimed' AND EXISTS"
    " (SELECT 1 FROM leases AS l WHERE l.id = o.lease AND l.started_at IS NOT NULL) THEN 'running' ELSE o.state END"
)
_OBJECT = (
    f"SELECT o.id, s.name AS source, o.key, {_SHOWN} AS state, o.wanted_version AS version, o.imported_version, o.size,"
    " o.attempts, o.lost, o.tasks, o.rejected, o.changes, o.reason, o.due AS not_before, o.discovered_by, o.first_seen,"
    " o.last_event, o.finished_at, o.lease, o.trace FROM objects AS o CROSS JOIN sources AS s ON s.id = o.source_id"
)
_STARTED = "EXISTS (SELECT 1 FROM leases AS l WHERE l.id = o.lease AND l.started_at IS NOT NULL)"
# The states stand in the text, not in a parameter: only so can SQLite use an index on some states.
_IN_STATE: dict[str, str] = {
    **{state: f" AND NOT s.retired AND o.state = '{state}'" for state in STATES},
    "claimed": f" AND NOT s.retired AND o.state = 'claimed' AND NOT {_STARTED}",
    "running": f" AND NOT s.retired AND o.state = 'claimed' AND {_STARTED}",
    "retired": " AND s.retired",
}
# One statement, and so of one moment; one walk over all objects.
_MISCOUNTED = (
    "WITH found AS MATERIALIZED (SELECT source_id, state, count(*) AS n, sum(tasks) AS tasks, sum(rejected) AS rejected"
    " FROM objects GROUP BY source_id, state),"
    " both AS (SELECT source_id, state AS name, n AS kept, 0 AS counted FROM source_counts"
    " UNION ALL SELECT id, 'tasks', tasks, 0 FROM sources UNION ALL SELECT id, 'rejected', rejected, 0 FROM sources"
    " UNION ALL SELECT source_id, state, 0, n FROM found UNION ALL SELECT source_id, 'tasks', 0, tasks FROM found"
    " UNION ALL SELECT source_id, 'rejected', 0, rejected FROM found)"
    " SELECT s.name AS source, b.name, sum(b.kept) AS kept, sum(b.counted) AS counted"
    " FROM both AS b JOIN sources AS s ON s.id = b.source_id GROUP BY s.name, b.name"
    " HAVING sum(b.kept) <> sum(b.counted) ORDER BY 1, 2"
)


class SqliteReports:
    """`pipeline.ledger.Reports` on a SQLite file."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def _rows(self, statement: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
        with self._file.read() as connection:
            cursor = connection.execute(statement, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def sources(self) -> list[dict[str, Any]]:
        """As `Reports.sources`."""
        rows = self._rows(
            "SELECT s.id, s.name, p.name AS project, s.retired, s.uri, s.shape, s.tasks, s.rejected,"
            " s.changes, s.finished,"
            " s.finished_at, (SELECT min(o.due) FROM objects AS o WHERE o.source_id = s.id AND o.state ="
            " 'ready') AS oldest_ready,"
            " (SELECT coalesce(sum(l.open), 0) FROM leases AS l WHERE l.source_id = s.id AND l.started_at IS"
            " NOT NULL) AS running"
            " FROM sources AS s JOIN projects AS p ON p.id = s.project_id ORDER BY s.id"
        )
        counts = {
            (row["source_id"], row["state"]): row["n"]
            for row in self._rows("SELECT source_id, state, n FROM source_counts")
        }
        with self._file.read() as connection:
            known = standings(connection)
            proposed = revisions.waiting(connection)
        for row in rows:
            row.update({state: counts.get((row["id"], state), 0) for state in STATES})
            row["running"] = min(row["running"], row["claimed"])
            row["claimed"] -= row["running"]
            row["retired"] = bool(row["retired"])
            row["last_pass"] = self._last_pass(row["id"])
            with self._file.read() as connection:
                row["problems"] = passes.problems(connection, row["id"])
            row["paused"] = paused_of(known.get(row["id"]))
            row["revisions"] = proposed.get(row["id"], 0)
        return rows

    def _last_pass(self, source_id: int) -> dict[str, Any] | None:
        with self._file.read() as connection:
            last = passes.last(connection, source_id)
        if last is None:
            return None
        names = ("started", "finished", "listed", "published", "candidates", "stopped", "left_out", "whole", "whole_at")
        return {name: getattr(last, name) for name in names}

    def projects(self) -> list[dict[str, Any]]:
        """As `Reports.projects`."""
        return self._rows(projects.PROJECTS)

    def scheduling(self) -> dict[str, Any]:
        """As `Reports.scheduling`."""
        with self._file.read() as connection:
            return projects.scheduling(connection)

    def open_tasks(self, project: str) -> Tally:
        """As `Reports.open_tasks`."""
        with self._file.read() as connection:
            return projects.open_tasks(connection, project)

    def open_there(self, project: str) -> OpenThere:
        """As `Reports.open_there`."""
        with self._file.read() as connection:
            return projects.open_there(connection, project)

    def undelivered(self, project: str) -> Tally:
        """As `Reports.undelivered`."""
        with self._file.read() as connection:
            return projects.undelivered(connection, project)

    def objects(self, which: Filter, after: int, limit: int) -> list[dict[str, Any]]:
        """As `Reports.objects`."""
        clauses, values = _where(which)
        rows = self._rows(
            f"SELECT * FROM ({_OBJECT} WHERE o.id > ?{clauses}) ORDER BY id LIMIT ?", (after, *values, limit)
        )
        return [_object(row) for row in rows]

    def find(self, source: str | None, key: str) -> list[dict[str, Any]]:
        """As `Reports.find`."""
        rows = self._rows(
            f"{_OBJECT} WHERE o.key = ?1 AND o.source_id IN (SELECT id FROM sources WHERE ?2 IS NULL OR name = ?2)",
            (key, source),
        )
        return [_object(row) for row in rows]

    def history(self, object_id: int) -> list[dict[str, Any]]:
        """As `Reports.history`."""
        rows = self._rows("SELECT at, kind, detail FROM history WHERE object_id = ? ORDER BY id", (object_id,))
        return [{"at": row["at"], "kind": row["kind"], **orjson.loads(row["detail"])} for row in rows]

    def imports(self, object_id: int) -> list[dict[str, Any]]:
        """As `Reports.imports`."""
        return self._rows(
            "SELECT lease, version, state, mode, shape, tasks, rejected, bytes, at, seconds FROM imports"
            " WHERE object_id = ? ORDER BY lease",
            (object_id,),
        )

    def tasks(self, project: str | None, after: int, limit: int) -> list[dict[str, Any]]:
        """As `Reports.tasks`."""
        chosen = "" if project is None else " AND p.name = ?"
        values = (after,) if project is None else (after, project)
        return self._rows(f"SELECT {_TASK} {_TASK_FROM} AND t.id > ?{chosen} ORDER BY t.id LIMIT ?", (*values, limit))

    def object_tasks(self, object_id: int, limit: int) -> list[dict[str, Any]]:
        """As `Reports.object_tasks`."""
        return self._rows(
            f"SELECT {_TASK} {_TASK_FROM} AND t.object_id = ? ORDER BY t.lease, t.position LIMIT ?", (object_id, limit)
        )

    def rejected(self, which: Filter, after: tuple[int, int, int], limit: int) -> list[dict[str, Any]]:
        """As `Reports.rejected`."""
        clauses = "".join(f" AND {name} = ?" for name in ("source", "code") if getattr(which, name) is not None)
        values = [value for value in (which.source, which.code) if value is not None]
        return self._rows(
            f"SELECT * FROM rejected WHERE (object_id, lease, n) > (?, ?, ?){clauses} ORDER BY object_id,"
            " lease, n LIMIT ?",
            (*after, *values, limit),
        )

    def revisions(self, which: RevisionFilter, after: int, limit: int) -> list[dict[str, Any]]:
        """As `Reports.revisions`."""
        statement, values = revisions.statement(which)
        return self._rows(statement, (after, *values, limit))

    def retry(self, ids: Sequence[int], *, force: bool) -> dict[int, str]:
        """As `Reports.retry`."""
        return self._file.write(lambda connection: _retry(connection, ids, force=force))

    def unanswered(self, source: str) -> dict[str, Any] | None:
        """As `Reports.unanswered`."""
        with self._file.read() as connection:
            return outages.unanswered(connection, source)

    def staged(self, source: str) -> int:
        """As `Reports.staged`."""
        with self._file.read() as connection:
            return outages.staged(connection, source)

    def hasten(self, source: str) -> int:
        """As `Reports.hasten`."""
        return self._file.write(lambda connection: outages.hasten(connection, source))

    def audit(self, source_id: int, after: str | None, limit: int) -> Iterator[Audit]:
        """As `Reports.audit`."""
        rows = self._rows(
            "SELECT o.id, o.key, o.state, o.wanted_version, o.imported_version, (SELECT count(*) FROM imports AS i"
            " CROSS JOIN task_rows AS t ON t.object_id = i.object_id AND t.lease = i.lease AND t.archived_at IS NULL"
            " WHERE i.object_id = o.id AND i.state = 'live') AS live, o.tasks AS counted, (SELECT count(*)"
            " FROM imports AS i"
            " WHERE i.object_id = o.id AND i.state = 'live' AND i.mode = 'new') AS imports"
            " FROM objects AS o WHERE o.source_id = ? AND o.key > ? ORDER BY o.key LIMIT ?",
            (source_id, after or "", limit),
        )
        return (Audit(*row.values()) for row in rows)

    def miscounted(self) -> dict[str, dict[str, tuple[int, int]]]:
        """As `Reports.miscounted`."""
        return differences(self._rows(_MISCOUNTED))

    def recount(self) -> dict[str, dict[str, tuple[int, int]]]:
        """As `Reports.recount`."""
        return differences(self._file.write(_recount))

    def threads(self) -> int:
        """As `Reports.threads`."""
        statement = "SELECT coalesce(sum(threads), 0) AS n FROM workers WHERE boot = ? AND until > ?"
        return int(self._rows(statement, (boot_id(), uptime()))[0]["n"])


def _recount(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    names = ("source", "name", "kept", "counted")
    rows = [dict(zip(names, row, strict=True)) for row in connection.execute(_MISCOUNTED)]
    for row in rows:
        values = (row["counted"] - row["kept"], row["source"])
        if row["name"] in STATES:
            (source_id,) = connection.execute("SELECT id FROM sources WHERE name = ?", (row["source"],)).fetchone()
            add_counts(connection, Counter({(source_id, row["name"]): values[0]}))
        elif row["name"] == "tasks":
            connection.execute("UPDATE sources SET tasks = tasks + ? WHERE name = ?", values)
        else:
            connection.execute("UPDATE sources SET rejected = rejected + ? WHERE name = ?", values)
    return rows


def _where(which: Filter) -> tuple[str, list[object]]:
    clauses = ""
    values: list[object] = []
    if which.source is not None:
        clauses += " AND o.source_id = (SELECT id FROM sources WHERE name = ?)"
        values.append(which.source)
    if which.state is not None:
        clauses += _IN_STATE.get(which.state, " AND 0")
    if which.code is not None:
        clauses += " AND o.code = ?"
        values.append(which.code)
    return clauses, values


def _object(row: dict[str, Any]) -> dict[str, Any]:
    row["reason"] = orjson.loads(row["reason"]) if row["reason"] else None
    return row


def _retry(connection: sqlite3.Connection, ids: Sequence[int], *, force: bool) -> dict[int, str]:
    refused = {}
    counts: Counts = Counter()
    at = now()
    for object_id in ids:
        row = connection.execute(
            "SELECT o.state, o.source_id, l.started_at IS NOT NULL FROM objects AS o LEFT JOIN leases AS l ON"
            " l.id = o.lease"
            " WHERE o.id = ?",
            (object_id,),
        ).fetchone()
        if row is None:
            refused[object_id] = "there is no such object"
            continue
        state, source_id, running = row
        why = on_retry(state, running=bool(running), force=force)
        if why is not None:
            refused[object_id] = why
            continue
        connection.execute(
            "UPDATE objects SET state = 'ready', due = ?, attempts = 0, lost = 0, redo = ?, lease = NULL WHERE id = ?",
            (at, force and state == "done", object_id),
        )
        counts[source_id, state] -= 1
        counts[source_id, "ready"] += 1
        write_history(connection, [(object_id, at, "retry", text_of({"by": "hand", "force": force}))])
    add_counts(connection, counts)
    return refused
