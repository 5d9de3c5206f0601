-- What a camera showed when an event began.
CREATE TABLE pictures (
    id INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    camera TEXT NOT NULL,
    time_us INTEGER NOT NULL,
    -- How much of it was different from the one before, 0 to 1.
    motion REAL,
    bytes INTEGER NOT NULL,
    -- A JPEG file.
    jpeg BLOB NOT NULL
);
CREATE INDEX pictures_by_time ON pictures (time_us);
