CREATE TABLE projects (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE,
  tokens double precision NOT NULL DEFAULT 0,     -- the throttle's token bucket ...
  tokens_at timestamptz NOT NULL DEFAULT 'epoch'  -- ... as of this time
);

CREATE TABLE sources (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE,
  project_id bigint NOT NULL REFERENCES projects (id),
  identity text NOT NULL,                         -- which store this name stands for
  uri text NOT NULL,
  shape text NOT NULL,                            -- hash of the configuration that shapes its tasks
  retired boolean NOT NULL DEFAULT false,         -- not in the configuration any more
  cursor_due timestamptz NOT NULL DEFAULT 'epoch', -- where the scheduler's claims have come to
  cursor_id bigint NOT NULL DEFAULT 0,
  deficit double precision NOT NULL DEFAULT 0,
  accepted boolean NOT NULL DEFAULT false         -- the next complete pass may archive as much as it finds gone
);

CREATE TABLE counters (                           -- kept by deltas; the rows of all shards are summed
  source_id bigint NOT NULL,
  name text NOT NULL,                             -- a state, or finished, changes, tasks, rejected
  shard smallint NOT NULL,
  n bigint NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (source_id, name, shard)
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE objects (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  source_id bigint NOT NULL,
  key text COLLATE "C" NOT NULL,
  state text NOT NULL,
  wanted_version text,
  imported_version text,
  sequencer text,
  lease bigint,
  due timestamptz NOT NULL,                       -- ready objects: not before
  attempts integer NOT NULL DEFAULT 0,
  lost integer NOT NULL DEFAULT 0,                -- workers that died with it
  redo boolean NOT NULL DEFAULT false,            -- put back by hand, with force
  size bigint,
  tasks integer NOT NULL DEFAULT 0,               -- live ones
  rejected integer NOT NULL DEFAULT 0,
  changes integer NOT NULL DEFAULT 0,
  code text,
  reason jsonb,
  discovered_by text,
  first_seen timestamptz NOT NULL,
  last_event timestamptz NOT NULL,
  finished_at timestamptz
) WITH (
  -- Every row is updated at least twice: free space on its page, and a vacuum that keeps up.
  fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0,
  autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.05
);
CREATE UNIQUE INDEX objects_key ON objects (source_id, key);
CREATE INDEX objects_ready ON objects (source_id, due, id) WHERE state = 'ready';
CREATE INDEX objects_ended_badly ON objects (state, id) WHERE state IN ('failed', 'skipped');

CREATE TABLE leases (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- never used twice; also the number of the import
  source_id bigint NOT NULL,
  ids bigint[] NOT NULL,                          -- the objects claimed
  open integer NOT NULL,                          -- at least as many as have no outcome yet
  alone boolean NOT NULL,
  epoch text NOT NULL,                            -- the queue incarnation that holds the message
  until timestamptz NOT NULL,
  started_at timestamptz,
  worker text
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE workers (
  name text PRIMARY KEY,
  threads integer NOT NULL,
  until timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE imports (
  object_id bigint NOT NULL,
  lease bigint NOT NULL,
  state text NOT NULL,                            -- staged | live | replaced | archived | discarded
  mode text NOT NULL,                             -- new | replace | append
  version text,
  shape text,
  tasks integer NOT NULL DEFAULT 0,               -- as written
  rejected integer NOT NULL DEFAULT 0,
  bytes bigint NOT NULL DEFAULT 0,
  at timestamptz NOT NULL,
  seconds double precision NOT NULL DEFAULT 0,
  PRIMARY KEY (object_id, lease)
);
CREATE INDEX imports_unpublished ON imports (lease) WHERE state IN ('staged', 'discarded');

CREATE TABLE task_rows (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  object_id bigint NOT NULL,
  lease bigint NOT NULL,                          -- the import
  position integer NOT NULL,                      -- from 0 within the import
  row integer NOT NULL,                           -- from 1 within the file
  data jsonb NOT NULL,                            -- an object
  annotations jsonb,                              -- lists, NULL for none
  predictions jsonb,
  meta jsonb,
  extra jsonb,                                    -- an object of root keys that are none of ours
  external_id text,
  revision integer NOT NULL DEFAULT 1,
  archived_at timestamptz
);
-- The database itself refuses a task that was written before, even if the program is wrong.
CREATE UNIQUE INDEX task_rows_once ON task_rows (object_id, lease, position);

CREATE TABLE rejected_rows (
  object_id bigint NOT NULL,
  lease bigint NOT NULL,
  n integer NOT NULL,                             -- from 0 within the import
  row integer NOT NULL,
  line integer,
  "column" integer,
  code text NOT NULL,
  message text NOT NULL,
  excerpt text NOT NULL,
  PRIMARY KEY (object_id, lease, n)
);

CREATE TABLE history (                            -- the last events and attempts of objects that had more than one
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  object_id bigint NOT NULL,
  at timestamptz NOT NULL,
  kind text NOT NULL,
  detail jsonb NOT NULL
);
CREATE INDEX history_of ON history (object_id, id);

CREATE TABLE positions (                          -- how far the ledger reflects each event log
  log text NOT NULL,
  partition integer NOT NULL,
  position bigint NOT NULL,
  PRIMARY KEY (log, partition)
) WITH (fillfactor = 50);

CREATE TABLE leaders (                            -- who lists and watches a source
  source_id bigint PRIMARY KEY,
  holder text NOT NULL,
  until timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE passes (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  source_id bigint NOT NULL,
  started timestamptz NOT NULL,
  after_key text COLLATE "C",
  listed bigint NOT NULL DEFAULT 0,
  published bigint NOT NULL DEFAULT 0,
  candidates bigint NOT NULL DEFAULT 0,
  finished timestamptz,
  stopped text,
  positions jsonb NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);
CREATE INDEX passes_of ON passes (source_id, id);

CREATE TABLE pass_gone (
  pass_id bigint NOT NULL,
  key text COLLATE "C" NOT NULL,
  PRIMARY KEY (pass_id, key)
);

CREATE VIEW source_counts AS
  SELECT source_id, name AS state, sum(n)::bigint AS n FROM counters GROUP BY source_id, name;

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
  SELECT t.id AS task_id, t.project, t.source, t.key, a.n::integer - 1 AS n, a.value AS annotation
    FROM tasks AS t, jsonb_array_elements(t.annotations) WITH ORDINALITY AS a (value, n);

CREATE VIEW predictions AS
  SELECT t.id AS task_id, t.project, t.source, t.key, a.n::integer - 1 AS n, a.value AS prediction
    FROM tasks AS t, jsonb_array_elements(t.predictions) WITH ORDINALITY AS a (value, n);

CREATE VIEW rejected AS
  SELECT s.name AS source, o.key AS key, r.object_id, r.lease, r.n, r.row, r.line, r."column", r.code, r.message, r.excerpt
    FROM rejected_rows AS r
    JOIN objects AS o ON o.id = r.object_id
    JOIN sources AS s ON s.id = o.source_id
   WHERE NOT EXISTS (SELECT 1 FROM imports AS i WHERE i.object_id = r.object_id AND i.lease = r.lease AND i.state = 'staged');
