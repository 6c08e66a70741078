-- Deletions among what waits: a full project looks for these alone.
CREATE INDEX objects_leaving ON objects (source_id, due, id)
  WHERE state = 'ready' AND wanted_version IS NULL AND tasks > 0;
