CREATE TABLE leaders (                      -- who lists and watches a source
  source_id INTEGER PRIMARY KEY,
  holder TEXT NOT NULL,
  boot TEXT NOT NULL,
  until REAL NOT NULL                       -- seconds since the machine's boot
) STRICT;
