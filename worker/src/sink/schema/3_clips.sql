CREATE TABLE clips (
    -- Of the alert that announced the event; names the file.
    alert_id INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    camera TEXT NOT NULL,
    -- wav, m4a or mp4
    format TEXT NOT NULL,
    from_us INTEGER NOT NULL,
    until_us INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    -- Why it is shorter than it was meant to be.
    note TEXT
);
CREATE INDEX clips_by_time ON clips (from_us);
