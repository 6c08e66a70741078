CREATE TABLE clock (                          -- one row: the clock that deliveries go by, which nobody sets
  one INTEGER PRIMARY KEY CHECK (one = 1),
  boot TEXT NOT NULL DEFAULT '',              -- it was read in this boot of the machine ...
  uptime REAL NOT NULL DEFAULT 0,             -- ... so many seconds after its start ...
  at REAL NOT NULL DEFAULT 0                  -- ... as this
) STRICT;
INSERT INTO clock (one) VALUES (1);
