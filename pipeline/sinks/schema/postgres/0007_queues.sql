CREATE TABLE queues (                             -- how far a stream has been taken, for sources that are streams
  source_id bigint PRIMARY KEY REFERENCES sources (id),
  position text NOT NULL                          -- the key of the last range that was recorded
);
