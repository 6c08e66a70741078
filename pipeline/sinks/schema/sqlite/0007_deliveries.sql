-- Deliveries: where a project's tasks go on to, and how far they have come. Times as in the first migration;
-- deliveries.until is seconds since the machine's boot.

CREATE TABLE deliveries (
  id INTEGER PRIMARY KEY,
  project_id INTEGER NOT NULL REFERENCES projects (id),
  name TEXT NOT NULL,
  kind TEXT NOT NULL,                       -- label_studio | jsonl | …
  target TEXT NOT NULL,                     -- which remote this name stands for
  stamp TEXT NOT NULL,                      -- begins the names of its batches; no other database has the same
  retired INTEGER NOT NULL DEFAULT 0,
  backfill INTEGER,                         -- objects up to this number are in the outbox; NULL: all are
  lease INTEGER NOT NULL DEFAULT 0,         -- the number of the last grant
  what TEXT,                                -- import | resolve | change: what was last granted
  epoch TEXT,                               -- the queue incarnation that holds the grant's message
  boot TEXT,
  until REAL,                               -- the grant's end; NULL: nobody has one
  started INTEGER NOT NULL DEFAULT 0,
  worker TEXT,
  ended_at REAL NOT NULL DEFAULT 0,         -- end of the last import
  due REAL NOT NULL DEFAULT 0,              -- nothing is begun before
  failing INTEGER NOT NULL DEFAULT 0,       -- so many attempts failed one after another ...
  code TEXT,                                -- ... the last one with this code
  reason TEXT,
  since REAL,                               -- when the first of them failed
  refusals INTEGER NOT NULL DEFAULT 0,      -- tasks that were refused since one was accepted
  paused_at REAL,                           -- by hand
  imports INTEGER NOT NULL DEFAULT 0,       -- imports sent, repeated ones too
  delivered INTEGER NOT NULL DEFAULT 0,     -- tasks by what became of them
  updated INTEGER NOT NULL DEFAULT 0,
  deleted INTEGER NOT NULL DEFAULT 0,
  kept INTEGER NOT NULL DEFAULT 0,
  refused INTEGER NOT NULL DEFAULT 0,
  label_config TEXT,                        -- the remote's, as it was last seen
  UNIQUE (project_id, name)
) STRICT;

CREATE TABLE outbox (                       -- tasks of an object that a delivery has yet to look at
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  delivery_id INTEGER NOT NULL,
  object_id INTEGER NOT NULL,
  lease INTEGER NOT NULL,                   -- from this position of this import ...
  position INTEGER NOT NULL,
  to_lease INTEGER NOT NULL,                -- ... up to this one, which is not in it
  to_position INTEGER NOT NULL,
  tasks INTEGER NOT NULL,
  at REAL NOT NULL,
  done_at REAL
) STRICT;
CREATE INDEX outbox_waiting ON outbox (delivery_id, id) WHERE done_at IS NULL;
CREATE INDEX outbox_done ON outbox (done_at) WHERE done_at IS NOT NULL;

CREATE TABLE batches (                      -- imports into a remote, each committed before anything is sent
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  delivery_id INTEGER NOT NULL,
  state TEXT NOT NULL,                      -- filling | ready | sending | unsure | done | refused
  tasks INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0,
  tries INTEGER NOT NULL DEFAULT 0,         -- times that it was sent
  looks INTEGER NOT NULL DEFAULT 0,         -- times that it was looked for since
  handle TEXT,                              -- the remote's own name of an import that goes on behind its answer
  created_at REAL NOT NULL,
  sent_at REAL,
  look_due REAL NOT NULL DEFAULT 0,
  settled_at REAL,                          -- from then on `absent` means that it never arrived
  ended_at REAL
) STRICT;
CREATE INDEX batches_open ON batches (delivery_id, id) WHERE ended_at IS NULL;
CREATE INDEX batches_ended ON batches (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE delivered (                    -- one row for each task that was given to a batch
  delivery_id INTEGER NOT NULL,
  task_id INTEGER NOT NULL,
  batch_id INTEGER NOT NULL,
  revision INTEGER NOT NULL,                -- of the task, as it was last sent
  state TEXT NOT NULL,                      -- batched | done | refused | deleted
  pending TEXT,                             -- update | delete: what the remote does not have yet
  remote_id TEXT,
  reason TEXT,                              -- why it was refused, or why a change was not made
  PRIMARY KEY (delivery_id, task_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX delivered_in ON delivered (batch_id, task_id);
CREATE INDEX delivered_pending ON delivered (delivery_id, task_id) WHERE pending IS NOT NULL;
CREATE INDEX delivered_refused ON delivered (delivery_id, task_id) WHERE state = 'refused';

-- What people query: our tasks and the remote's, side by side.
CREATE VIEW deliveries_of_tasks AS
  SELECT x.task_id, p.name AS project, d.name AS delivery, x.state, x.remote_id, x.revision, x.reason
    FROM delivered AS x
    JOIN deliveries AS d ON d.id = x.delivery_id
    JOIN projects AS p ON p.id = d.project_id;
