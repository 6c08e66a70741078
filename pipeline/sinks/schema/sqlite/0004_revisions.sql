CREATE TABLE revisions (                    -- what a new version of a file would make of a task that carries annotations
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  object_id INTEGER NOT NULL,
  task_id INTEGER NOT NULL,
  version TEXT,                             -- the object's, that says so
  data TEXT NOT NULL,                       -- as in task_rows
  annotations TEXT,
  predictions TEXT,
  meta TEXT,
  extra TEXT,
  external_id TEXT,
  state TEXT NOT NULL,                      -- proposed | accepted | rejected | withdrawn
  proposed_at REAL NOT NULL,
  decided_at REAL,
  replaced TEXT                             -- JSON: what an accepted one took the place of
) STRICT;
CREATE INDEX revisions_of ON revisions (object_id, id);
CREATE UNIQUE INDEX revisions_open ON revisions (task_id) WHERE state = 'proposed';
