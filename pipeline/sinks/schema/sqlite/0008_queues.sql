CREATE TABLE queues (                       -- how far a stream has been taken, for sources that are streams
  source_id INTEGER PRIMARY KEY,
  position TEXT NOT NULL                    -- the key of the last range that was recorded
) STRICT;
