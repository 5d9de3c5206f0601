-- Alerts, their deliveries, and what the event logic of each camera must not forget.
CREATE TABLE alerts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL UNIQUE,
    event_id TEXT NOT NULL,
    type TEXT NOT NULL,
    camera TEXT NOT NULL,
    time_us INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX alerts_by_time ON alerts (time_us);
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    alert_id INTEGER NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
    receiver TEXT NOT NULL,
    camera TEXT NOT NULL,
    -- NULL: not confirmed yet.
    delivered_us INTEGER,
    -- Why it will never be tried again.
    gave_up TEXT
);
CREATE INDEX deliveries_pending ON deliveries (receiver, camera, id)
    WHERE delivered_us IS NULL AND gave_up IS NULL;
CREATE INDEX deliveries_by_alert ON deliveries (alert_id);
CREATE TABLE cameras (name TEXT PRIMARY KEY, state TEXT NOT NULL);
-- Survives the removal of old rows.
CREATE TABLE totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT INTO totals VALUES ('delivered', 0);
