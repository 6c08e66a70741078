-- How many tasks labellers have still before them, where they label in the remote of a delivery.
ALTER TABLE deliveries ADD COLUMN open_there bigint;       -- tasks that were open there when it was last counted ...
ALTER TABLE deliveries ADD COLUMN open_delivered bigint;   -- ... and how many had been delivered by then
ALTER TABLE deliveries ADD COLUMN count_due timestamptz;       -- it is counted again from then on; NULL: at once
ALTER TABLE deliveries ADD COLUMN uncounted text;       -- why the last count failed; NULL: it did not
