-- Deliveries: where a project's tasks go on to, and how far they have come.

CREATE TABLE deliveries (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  project_id bigint NOT NULL REFERENCES projects (id),
  name text NOT NULL,
  kind text NOT NULL,                             -- label_studio | jsonl | …
  target text NOT NULL,                           -- which remote this name stands for
  stamp text NOT NULL,                            -- begins the names of its batches; no other database has the same
  retired boolean NOT NULL DEFAULT false,
  backfill bigint,                                -- objects up to this number are in the outbox; NULL: all are
  backfill_from xid8,                             -- objects are looked at once all older transactions have ended
  lease bigint NOT NULL DEFAULT 0,                -- the number of the last grant
  what text,                                      -- import | resolve | change: what was last granted
  epoch text,                                     -- the queue incarnation that holds the grant's message
  until timestamptz,                              -- the grant's end; NULL: nobody has one
  started boolean NOT NULL DEFAULT false,
  worker text,
  ended_at timestamptz NOT NULL DEFAULT 'epoch',  -- end of the last import
  due timestamptz NOT NULL DEFAULT 'epoch',       -- nothing is begun before
  failing integer NOT NULL DEFAULT 0,             -- so many attempts failed one after another ...
  code text,                                      -- ... the last one with this code
  reason text,
  since timestamptz,                              -- when the first of them failed
  refusals integer NOT NULL DEFAULT 0,            -- tasks that were refused since one was accepted
  paused_at timestamptz,                          -- by hand
  imports bigint NOT NULL DEFAULT 0,              -- imports sent, repeated ones too
  delivered bigint NOT NULL DEFAULT 0,            -- tasks by what became of them
  updated bigint NOT NULL DEFAULT 0,
  deleted bigint NOT NULL DEFAULT 0,
  kept bigint NOT NULL DEFAULT 0,
  refused bigint NOT NULL DEFAULT 0,
  label_config text,                              -- the remote's, as it was last seen
  UNIQUE (project_id, name)
) WITH (fillfactor = 50);

CREATE TABLE outbox (                             -- tasks of an object that a delivery has yet to look at
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  delivery_id bigint NOT NULL,
  object_id bigint NOT NULL,
  lease bigint NOT NULL,                          -- from this position of this import ...
  position integer NOT NULL,
  to_lease bigint NOT NULL,                       -- ... up to this one, which is not in it
  to_position integer NOT NULL,
  tasks integer NOT NULL,
  at timestamptz NOT NULL,
  done_at timestamptz
);
CREATE INDEX outbox_waiting ON outbox (delivery_id, id) WHERE done_at IS NULL;
CREATE INDEX outbox_done ON outbox (done_at) WHERE done_at IS NOT NULL;

CREATE TABLE batches (                            -- imports into a remote, each committed before anything is sent
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  delivery_id bigint NOT NULL,
  state text NOT NULL,                            -- filling | ready | sending | unsure | done | refused
  tasks integer NOT NULL DEFAULT 0,
  bytes bigint NOT NULL DEFAULT 0,
  tries integer NOT NULL DEFAULT 0,               -- times that it was sent
  looks integer NOT NULL DEFAULT 0,               -- times that it was looked for since
  handle text,                                    -- the remote's own name of an import that goes on behind its answer
  created_at timestamptz NOT NULL,
  sent_at timestamptz,
  look_due timestamptz NOT NULL DEFAULT 'epoch',
  settled_at timestamptz,                         -- from then on `absent` means that it never arrived
  ended_at timestamptz
);
CREATE INDEX batches_open ON batches (delivery_id, id) WHERE ended_at IS NULL;
CREATE INDEX batches_ended ON batches (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE delivered (                          -- one row for each task that was given to a batch
  delivery_id bigint NOT NULL,
  task_id bigint NOT NULL,
  batch_id bigint NOT NULL,
  revision integer NOT NULL,                      -- of the task, as it was last sent
  state text NOT NULL,                            -- batched | done | refused | deleted
  pending text,                                   -- update | delete: what the remote does not have yet
  remote_id text,
  reason text,                                    -- why it was refused, or why a change was not made
  PRIMARY KEY (delivery_id, task_id)
) WITH (fillfactor = 70);
CREATE INDEX delivered_in ON delivered (batch_id, task_id);
CREATE INDEX delivered_pending ON delivered (delivery_id, task_id) WHERE pending IS NOT NULL;
CREATE INDEX delivered_refused ON delivered (delivery_id, task_id) WHERE state = 'refused';

-- What people query: our tasks and the remote's, side by side.
CREATE VIEW deliveries_of_tasks AS
  SELECT x.task_id, p.name AS project, d.name AS delivery, x.state, x.remote_id, x.revision, x.reason
    FROM delivered AS x
    JOIN deliveries AS d ON d.id = x.delivery_id
    JOIN projects AS p ON p.id = d.project_id;
