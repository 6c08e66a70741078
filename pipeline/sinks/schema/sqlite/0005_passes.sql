ALTER TABLE passes ADD COLUMN left_out TEXT NOT NULL DEFAULT '{}';  -- JSON: objects left out, by rule
ALTER TABLE passes ADD COLUMN whole INTEGER NOT NULL DEFAULT 1;     -- 0: lists only what comes after the last one's end
ALTER TABLE passes ADD COLUMN whole_at REAL;                        -- when the last whole one that is complete began
CREATE TABLE problems (                     -- why a source is not listed, or its notifications are not heard, now
  source_id INTEGER NOT NULL,
  part TEXT NOT NULL,                       -- listing | notifications
  code TEXT NOT NULL,
  message TEXT NOT NULL,
  since REAL NOT NULL,
  PRIMARY KEY (source_id, part)
) STRICT, WITHOUT ROWID;
