CREATE TABLE standings (                          -- how a source's objects have ended of late; no row: nothing to tell
  source_id bigint PRIMARY KEY REFERENCES sources (id),
  failing integer NOT NULL DEFAULT 0,             -- so many failed one after another ...
  code text,                                      -- ... all with this code
  paused text,                                    -- NULL, hand or failures
  since timestamptz,                              -- when it was paused
  probe_due timestamptz NOT NULL DEFAULT 'epoch'  -- when the next object may be tried
);
