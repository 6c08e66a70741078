-- How many tasks labellers have still before them, where they label in the remote of a delivery.
ALTER TABLE deliveries ADD COLUMN open_there INTEGER;       -- tasks that were open there when it was last counted ...
ALTER TABLE deliveries ADD COLUMN open_delivered INTEGER;   -- ... and how many had been delivered by then
ALTER TABLE deliveries ADD COLUMN count_due REAL;       -- it is counted again from then on; NULL: at once
ALTER TABLE deliveries ADD COLUMN uncounted TEXT;       -- why the last count failed; NULL: it did not
