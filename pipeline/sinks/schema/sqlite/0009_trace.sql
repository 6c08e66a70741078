ALTER TABLE objects ADD COLUMN trace TEXT;     -- the W3C trace id of the event that made it ready last
