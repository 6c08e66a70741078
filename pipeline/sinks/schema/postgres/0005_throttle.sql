-- What the objects of a claim are expected to bring, each.
ALTER TABLE leases
  ADD COLUMN tasks_each double precision NOT NULL DEFAULT 0,
  ADD COLUMN bytes_each double precision NOT NULL DEFAULT 0;

-- What was ever read of a source is in counters: read_objects, read_tasks, read_bytes.
ALTER TABLE sources
  ADD COLUMN passed_over double precision NOT NULL DEFAULT 0,   -- since when others go before it; 0: they don't
  ADD COLUMN bytes_allowed double precision NOT NULL DEFAULT 0, -- the bucket of bytes_per_second ...
  ADD COLUMN bytes_at double precision NOT NULL DEFAULT 0;      -- ... as of this time

ALTER TABLE projects ADD COLUMN paused timestamptz;             -- since when; NULL: it is not

-- Commits that a process has made, and the seconds they took together.
ALTER TABLE workers
  ADD COLUMN commits bigint NOT NULL DEFAULT 0,
  ADD COLUMN commit_seconds double precision NOT NULL DEFAULT 0;

CREATE TABLE scheduling (                         -- one row: what all schedulers share
  one integer PRIMARY KEY CHECK (one = 1),
  noted_at double precision NOT NULL DEFAULT 0,   -- when a scheduler last said what waits, and why
  notes text NOT NULL DEFAULT '{}',               -- JSON
  bound double precision NOT NULL DEFAULT 0,      -- claims that may be in flight by the database's pressure; 0: any number
  best double precision NOT NULL DEFAULT 0,       -- seconds of a commit when it is well
  commits bigint NOT NULL DEFAULT 0,              -- what the workers had told ...
  commit_seconds double precision NOT NULL DEFAULT 0,
  adapted_at double precision NOT NULL DEFAULT 0  -- ... when the bound was last looked at
) WITH (fillfactor = 50);
INSERT INTO scheduling (one) VALUES (1);
