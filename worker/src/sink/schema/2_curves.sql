-- What cameras were like, when they were not heard, and what people say of events.
CREATE TABLE curve_cameras (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
-- A row per minute and camera: 60 bytes of scores, 60 of levels, a byte per second (shared/src/curve.rs). Rows of one
-- minute lie together, since they are written together.
CREATE TABLE seconds (
    minute INTEGER NOT NULL,
    camera INTEGER NOT NULL REFERENCES curve_cameras (id),
    data BLOB NOT NULL,
    PRIMARY KEY (minute, camera)
) WITHOUT ROWID;
-- What becomes of them after a day, a row per hour and camera: 60 bytes each of the greatest score, the mean level and
-- the greatest level of each minute.
CREATE TABLE minutes (
    hour INTEGER NOT NULL,
    camera INTEGER NOT NULL REFERENCES curve_cameras (id),
    data BLOB NOT NULL,
    PRIMARY KEY (hour, camera)
) WITHOUT ROWID;
CREATE TABLE outages (
    event_id TEXT PRIMARY KEY,
    camera TEXT NOT NULL,
    since_us INTEGER NOT NULL,
    -- NULL: it goes on.
    until_us INTEGER,
    reason TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX outages_by_camera ON outages (camera, since_us);
-- The newest answer about each event.
CREATE TABLE feedback (
    event_id TEXT PRIMARY KEY,
    verdict TEXT NOT NULL CHECK (verdict IN ('cry', 'not_cry')),
    at_us INTEGER NOT NULL,
    -- The way it came: page or api.
    by TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX alerts_by_event ON alerts (event_id);
CREATE INDEX alerts_by_camera ON alerts (camera, time_us);
