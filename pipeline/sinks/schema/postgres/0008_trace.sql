ALTER TABLE objects ADD COLUMN trace uuid;                       -- the W3C trace id of the event that made it ready last
