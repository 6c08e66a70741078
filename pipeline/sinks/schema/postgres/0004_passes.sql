ALTER TABLE passes ADD COLUMN left_out jsonb NOT NULL DEFAULT '{}';   -- objects left out, by rule
ALTER TABLE passes ADD COLUMN whole boolean NOT NULL DEFAULT true;    -- false: lists only what comes after the last one's end
ALTER TABLE passes ADD COLUMN whole_at timestamptz;                   -- when the last whole one that is complete began
CREATE TABLE problems (                           -- why a source is not listed, or its notifications are not heard, now
  source_id bigint NOT NULL,
  part text NOT NULL,                             -- listing | notifications
  code text NOT NULL,
  message text NOT NULL,
  since timestamptz NOT NULL,
  PRIMARY KEY (source_id, part)
);
