-- Times are seconds since 1970, except leases.until: seconds since the machine's boot.

CREATE TABLE projects (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  tokens REAL NOT NULL DEFAULT 0,           -- the throttle's token bucket ...
  tokens_at REAL NOT NULL DEFAULT 0         -- ... as of this time
) STRICT;

CREATE TABLE sources (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  project_id INTEGER NOT NULL REFERENCES projects (id),
  identity TEXT NOT NULL,                   -- which store this name stands for
  uri TEXT NOT NULL,
  shape TEXT NOT NULL,                      -- hash of the configuration that shapes its tasks
  retired INTEGER NOT NULL DEFAULT 0,       -- 1: not in the configuration any more
  accepted INTEGER NOT NULL DEFAULT 0,      -- 1: the next complete pass may archive as much as it finds gone
  cursor_due REAL NOT NULL DEFAULT 0,       -- where the scheduler's claims have come to
  cursor_id INTEGER NOT NULL DEFAULT 0,
  deficit REAL NOT NULL DEFAULT 0,
  finished INTEGER NOT NULL DEFAULT 0,      -- objects that ever ended
  finished_at REAL,
  changes INTEGER NOT NULL DEFAULT 0,       -- new versions that on_change: ignore left alone
  tasks INTEGER NOT NULL DEFAULT 0,         -- live tasks, kept by deltas
  rejected INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE source_counts (                -- objects by state, kept by deltas
  source_id INTEGER NOT NULL,
  state TEXT NOT NULL,
  n INTEGER NOT NULL,
  PRIMARY KEY (source_id, state)
) STRICT, WITHOUT ROWID;

CREATE TABLE objects (
  id INTEGER PRIMARY KEY,
  source_id INTEGER NOT NULL,
  key TEXT NOT NULL,
  state TEXT NOT NULL,
  wanted_version TEXT,
  imported_version TEXT,
  sequencer TEXT,
  lease INTEGER,
  due REAL NOT NULL,                        -- ready objects: not before
  attempts INTEGER NOT NULL DEFAULT 0,
  lost INTEGER NOT NULL DEFAULT 0,          -- workers that died with it
  redo INTEGER NOT NULL DEFAULT 0,          -- put back by hand, with force
  size INTEGER,
  tasks INTEGER NOT NULL DEFAULT 0,         -- live ones
  rejected INTEGER NOT NULL DEFAULT 0,
  changes INTEGER NOT NULL DEFAULT 0,
  code TEXT,
  reason TEXT,                              -- JSON
  discovered_by TEXT,
  first_seen REAL NOT NULL,
  last_event REAL NOT NULL,
  finished_at REAL
) STRICT;
CREATE UNIQUE INDEX objects_key ON objects (source_id, key);
CREATE INDEX objects_ready ON objects (source_id, due, id) WHERE state = 'ready';
CREATE INDEX objects_ended_badly ON objects (state, id) WHERE state IN ('failed', 'skipped');

CREATE TABLE leases (
  id INTEGER PRIMARY KEY AUTOINCREMENT,     -- never used twice; also the number of the import
  source_id INTEGER NOT NULL,
  ids TEXT NOT NULL,                        -- JSON list of the objects claimed
  open INTEGER NOT NULL,                    -- at least as many as have no outcome yet
  alone INTEGER NOT NULL,
  epoch TEXT NOT NULL,                      -- the queue incarnation that holds the message
  boot TEXT NOT NULL,
  until REAL NOT NULL,
  started_at REAL,
  worker TEXT
) STRICT;

CREATE TABLE workers (
  name TEXT PRIMARY KEY,
  threads INTEGER NOT NULL,
  boot TEXT NOT NULL,
  until REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE imports (
  object_id INTEGER NOT NULL,
  lease INTEGER NOT NULL,
  state TEXT NOT NULL,                      -- staged | live | replaced | archived | discarded
  mode TEXT NOT NULL,                       -- new | replace | append
  version TEXT,
  shape TEXT,
  tasks INTEGER NOT NULL DEFAULT 0,         -- as written
  rejected INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0,
  at REAL NOT NULL,
  seconds REAL NOT NULL DEFAULT 0,
  PRIMARY KEY (object_id, lease)
) STRICT, WITHOUT ROWID;
CREATE INDEX imports_unpublished ON imports (lease) WHERE state IN ('staged', 'discarded');

CREATE TABLE task_rows (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  object_id INTEGER NOT NULL,
  lease INTEGER NOT NULL,                   -- the import
  position INTEGER NOT NULL,                -- from 0 within the import
  row INTEGER NOT NULL,                     -- from 1 within the file
  data TEXT NOT NULL,                       -- JSON object
  annotations TEXT,                         -- JSON lists, NULL for none
  predictions TEXT,
  meta TEXT,
  extra TEXT,                               -- JSON object of root keys that are none of ours
  external_id TEXT,
  revision INTEGER NOT NULL DEFAULT 1,
  archived_at REAL
) STRICT;
-- The database itself refuses a task that was written before, even if the program is wrong.
CREATE UNIQUE INDEX task_rows_once ON task_rows (object_id, lease, position);

CREATE TABLE rejected_rows (
  object_id INTEGER NOT NULL,
  lease INTEGER NOT NULL,
  n INTEGER NOT NULL,                       -- from 0 within the import
  row INTEGER NOT NULL,
  line INTEGER,
  column INTEGER,
  code TEXT NOT NULL,
  message TEXT NOT NULL,
  excerpt TEXT NOT NULL,
  PRIMARY KEY (object_id, lease, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE history (                      -- the last events and attempts of objects that had more than one
  id INTEGER PRIMARY KEY,
  object_id INTEGER NOT NULL,
  at REAL NOT NULL,
  kind TEXT NOT NULL,
  detail TEXT NOT NULL                      -- JSON
) STRICT;
CREATE INDEX history_of ON history (object_id, id);

CREATE TABLE positions (                    -- how far the ledger reflects each event log
  log TEXT NOT NULL,
  partition INTEGER NOT NULL,
  position INTEGER NOT NULL,
  PRIMARY KEY (log, partition)
) STRICT, WITHOUT ROWID;

CREATE TABLE passes (
  id INTEGER PRIMARY KEY,
  source_id INTEGER NOT NULL,
  started REAL NOT NULL,
  after_key TEXT,
  listed INTEGER NOT NULL DEFAULT 0,
  published INTEGER NOT NULL DEFAULT 0,
  candidates INTEGER NOT NULL DEFAULT 0,
  finished REAL,
  stopped TEXT,
  positions TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE INDEX passes_of ON passes (source_id, id);

CREATE TABLE pass_gone (
  pass_id INTEGER NOT NULL,
  key TEXT NOT NULL,
  PRIMARY KEY (pass_id, key)
) STRICT, WITHOUT ROWID;

-- What people query: tasks that are published and not archived.
CREATE VIEW tasks AS
  SELECT t.id, p.name AS project, s.name AS source, o.key AS key, i.version AS version, t.position, t.row,
         t.external_id, t.data, t.annotations, t.predictions, t.meta, t.extra, t.revision, i.at AS imported_at
    FROM task_rows AS t
    JOIN imports AS i ON i.object_id = t.object_id AND i.lease = t.lease AND i.state = 'live'
    JOIN objects AS o ON o.id = t.object_id
    JOIN sources AS s ON s.id = o.source_id
    JOIN projects AS p ON p.id = s.project_id
   WHERE t.archived_at IS NULL;

CREATE VIEW annotations AS
  SELECT t.id AS task_id, t.project, t.source, t.key, a.key AS n, a.value AS annotation
    FROM tasks AS t, json_each(t.annotations) AS a;

CREATE VIEW predictions AS
  SELECT t.id AS task_id, t.project, t.source, t.key, a.key AS n, a.value AS prediction
    FROM tasks AS t, json_each(t.predictions) AS a;

CREATE VIEW rejected AS
  SELECT s.name AS source, o.key AS key, r.object_id, r.lease, r.n, r.row, r.line, r.column, r.code, r.message, r.excerpt
    FROM rejected_rows AS r
    JOIN objects AS o ON o.id = r.object_id
    JOIN sources AS s ON s.id = o.source_id
   WHERE NOT EXISTS (SELECT 1 FROM imports AS i WHERE i.object_id = r.object_id AND i.lease = r.lease AND i.state = 'staged');
