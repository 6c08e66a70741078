CREATE TABLE revisions (                          -- what a new version of a file would make of a task that carries annotations
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  object_id bigint NOT NULL,
  task_id bigint NOT NULL,
  version text,                                   -- the object's, that says so
  data jsonb NOT NULL,                            -- as in task_rows
  annotations jsonb,
  predictions jsonb,
  meta jsonb,
  extra jsonb,
  external_id text,
  state text NOT NULL,                            -- proposed | accepted | rejected | withdrawn
  proposed_at timestamptz NOT NULL,
  decided_at timestamptz,
  replaced jsonb                                  -- what an accepted one took the place of
);
CREATE INDEX revisions_of ON revisions (object_id, id);
CREATE UNIQUE INDEX revisions_open ON revisions (task_id) WHERE state = 'proposed';
