CREATE TABLE standings (                    -- how a source's objects have ended of late; no row: nothing to tell
  source_id INTEGER PRIMARY KEY,
  failing INTEGER NOT NULL,                 -- so many failed one after another ...
  code TEXT,                                -- ... all with this code
  paused TEXT,                              -- NULL | hand | failures
  since REAL,                               -- when it was paused
  probe_due REAL NOT NULL                   -- when the next object may be tried
) STRICT;
