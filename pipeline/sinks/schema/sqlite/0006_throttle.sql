-- What the objects of a claim are expected to bring, each.
ALTER TABLE leases ADD COLUMN tasks_each REAL NOT NULL DEFAULT 0;
ALTER TABLE leases ADD COLUMN bytes_each REAL NOT NULL DEFAULT 0;

-- What was ever read of a source, and what came of it.
ALTER TABLE sources ADD COLUMN read_objects INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sources ADD COLUMN read_tasks INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sources ADD COLUMN read_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sources ADD COLUMN passed_over REAL NOT NULL DEFAULT 0;   -- since when others go before it; 0: they don't
ALTER TABLE sources ADD COLUMN bytes_allowed REAL NOT NULL DEFAULT 0; -- the bucket of bytes_per_second ...
ALTER TABLE sources ADD COLUMN bytes_at REAL NOT NULL DEFAULT 0;      -- ... as of this time

ALTER TABLE projects ADD COLUMN paused REAL;                          -- since when; NULL: it is not

-- Commits that a process has made, and the seconds they took together.
ALTER TABLE workers ADD COLUMN commits INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN commit_seconds REAL NOT NULL DEFAULT 0;

CREATE TABLE scheduling (                     -- one row: what all schedulers share
  one INTEGER PRIMARY KEY CHECK (one = 1),
  noted_at REAL NOT NULL DEFAULT 0,           -- when a scheduler last said what waits, and why
  notes TEXT NOT NULL DEFAULT '{}',           -- JSON
  bound REAL NOT NULL DEFAULT 0,              -- claims that may be in flight by the database's pressure; 0: any number
  best REAL NOT NULL DEFAULT 0,               -- seconds of a commit when it is well
  commits INTEGER NOT NULL DEFAULT 0,         -- what the workers had told ...
  commit_seconds REAL NOT NULL DEFAULT 0,
  adapted_at REAL NOT NULL DEFAULT 0          -- ... when the bound was last looked at
) STRICT;
INSERT INTO scheduling (one) VALUES (1);
