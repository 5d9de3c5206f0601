//! When motion before a camera becomes an event, and when that ends: every picture over the threshold for long enough, and
//! none for long enough. Time is that of pictures and, where there are none, of sound.

use nursery_shared::{config::MotionRule, timestamp::rfc3339};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{camera::alert, store::NewAlert};

/// Where pictures stop coming an event ends for that after this time.
const GONE_US: i64 = 60_000_000;
/// Times that are so much older than those before are of a clock that was set back.
const SET_BACK_US: i64 = 10_000_000;

/// What must survive the end of the process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Motion {
    /// The first of the pictures over the threshold, while there is no event.
    since_us: Option<i64>,
    /// The newest one.
    last_us: i64,
    open: Option<Open>,
    /// Until then nothing new is announced.
    cool_until_us: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Open {
    event_id: String,
    onset_us: i64,
    motion: f32,
    peak: f32,
}

#[derive(Serialize)]
struct Data<'a> {
    event_id: &'a str,
    camera: &'a str,
    onset: String,
    /// How much of the picture moved at the announcement.
    motion: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_motion: Option<f64>,
}

fn us(seconds: f64) -> i64 {
    (seconds * 1e6) as i64
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

impl Motion {
    /// Nothing has begun.
    pub fn is_idle(&self) -> bool {
        self.open.is_none()
    }

    /// Differs from `other` in nothing that is announced.
    pub fn is_same_but_for_time(&self, other: &Self) -> bool {
        self.open == other.open && self.cool_until_us == other.cool_until_us
    }

    /// So much of a picture was different from the one before.
    pub fn push(
        &mut self,
        camera: &str,
        rule: &MotionRule,
        cooldown_s: f64,
        at_us: i64,
        motion: f32,
        alerts: &mut Vec<NewAlert>,
    ) {
        // Where it still moves, that nothing was seen since the picture before is no end of it.
        if f64::from(motion) < rule.threshold || self.is_lost(rule, at_us) {
            self.pass(camera, Some(rule), cooldown_s, at_us, alerts);
        }
        if f64::from(motion) < rule.threshold {
            self.since_us = self.since_us.filter(|_| self.open.is_some());
            return;
        }
        self.last_us = at_us;
        let since_us = *self.since_us.get_or_insert(at_us);
        match &mut self.open {
            Some(open) => open.peak = open.peak.max(motion),
            None if at_us.saturating_sub(since_us) >= us(rule.min_duration_s)
                && at_us >= self.cool_until_us =>
            {
                let event_id = Uuid::now_v7().to_string();
                let open = Open { event_id, onset_us: since_us, motion, peak: motion };
                let data = Data {
                    event_id: &open.event_id,
                    camera,
                    onset: rfc3339(open.onset_us),
                    motion: rounded(f64::from(motion)),
                    offset: None,
                    duration_s: None,
                    peak_motion: None,
                };
                alerts.push(alert("motion.started", &open.event_id, camera, at_us, data));
                self.open = Some(open);
            }
            None => {}
        }
    }

    /// It is this time.
    pub fn pass(
        &mut self,
        camera: &str,
        rule: Option<&MotionRule>,
        cooldown_s: f64,
        at_us: i64,
        alerts: &mut Vec<NewAlert>,
    ) {
        let Some(rule) = rule else { return self.finish(camera, cooldown_s, alerts) };
        let over = self.open.is_some() && at_us.saturating_sub(self.last_us) >= us(rule.end_after_s).max(1);
        if over || self.is_lost(rule, at_us) {
            self.finish(camera, cooldown_s, alerts);
        }
        if self.is_set_back(at_us) {
            *self = Self::default();
        }
    }

    /// What was seen last says nothing of now.
    fn is_lost(&self, rule: &MotionRule, at_us: i64) -> bool {
        let gone = at_us.saturating_sub(self.last_us) >= GONE_US.max(us(rule.end_after_s));
        gone || self.is_set_back(at_us)
    }

    fn is_set_back(&self, at_us: i64) -> bool {
        at_us.saturating_add(SET_BACK_US) < self.last_us
    }

    /// What is open ends with the newest picture that belonged to it.
    pub fn finish(&mut self, camera: &str, cooldown_s: f64, alerts: &mut Vec<NewAlert>) {
        self.since_us = None;
        let Some(open) = self.open.take() else { return };
        let offset_us = self.last_us.max(open.onset_us);
        let data = Data {
            event_id: &open.event_id,
            camera,
            onset: rfc3339(open.onset_us),
            motion: rounded(f64::from(open.motion)),
            offset: Some(rfc3339(offset_us)),
            duration_s: Some(rounded((offset_us - open.onset_us) as f64 / 1e6)),
            peak_motion: Some(rounded(f64::from(open.peak))),
        };
        alerts.push(alert("motion.ended", &open.event_id, camera, offset_us, data));
        self.cool_until_us = offset_us.saturating_add(us(cooldown_s));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const RULE: MotionRule = MotionRule { threshold: 0.1, min_duration_s: 2.0, end_after_s: 10.0 };

    /// Pictures of these seconds and motions, then sound until some second.
    fn told(pictures: &[(i64, f32)], until: i64) -> Vec<serde_json::Value> {
        let (mut motion, mut alerts) = (Motion::default(), Vec::new());
        for (second, value) in pictures {
            motion.push("crib", &RULE, 30.0, second * 1_000_000, *value, &mut alerts);
        }
        let last = pictures.last().map_or(0, |p| p.0);
        for second in last..until {
            motion.pass("crib", Some(&RULE), 30.0, second * 1_000_000, &mut alerts);
        }
        alerts.iter().map(|a| serde_json::from_str(&a.body).unwrap()).collect()
    }

    #[test]
    fn motion_that_lasts_is_an_event_with_a_beginning_and_an_end() {
        let told =
            told(&[(100, 0.05), (105, 0.2), (110, 0.4), (115, 0.15), (120, 0.0), (125, 0.0), (130, 0.0)], 0);
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[0]["type"], "motion.started");
        assert_eq!(told[0]["data"]["onset"], "1970-01-01T00:01:45.000Z");
        assert_eq!(told[0]["data"]["motion"], 0.4);
        assert_eq!(told[1]["type"], "motion.ended");
        assert_eq!(told[1]["data"]["event_id"], told[0]["data"]["event_id"]);
        assert_eq!(
            (&told[1]["data"]["duration_s"], &told[1]["data"]["peak_motion"]),
            (&10.0.into(), &0.4.into())
        );
    }

    #[test]
    fn what_is_short_or_comes_again_too_soon_is_none() {
        assert!(told(&[(100, 0.5), (105, 0.0), (110, 0.5), (115, 0.0)], 500).is_empty());
        let twice = [(100, 0.5), (105, 0.5), (120, 0.0), (125, 0.5), (130, 0.5)];
        assert_eq!(told(&twice, 130).len(), 2, "it cools down");
        let later = [&twice[..], &[(135, 0.5), (140, 0.5)]].concat();
        assert_eq!(told(&later, 140).len(), 3);
    }

    #[test]
    fn an_event_ends_where_pictures_stop_or_the_clock_is_set_back() {
        let begun = [(100, 0.5), (105, 0.5)];
        assert_eq!(told(&begun, 114).len(), 1);
        assert_eq!(told(&begun, 117).len(), 2);
        let back = [(100, 0.5), (105, 0.5), (20, 0.5), (25, 0.5)];
        let kinds: Vec<_> = told(&back, 26).iter().map(|t| t["type"].as_str().unwrap().to_owned()).collect();
        assert_eq!(kinds, ["motion.started", "motion.ended", "motion.started"]);
        let (mut motion, mut alerts) = (Motion::default(), Vec::new());
        motion.push("crib", &MotionRule { min_duration_s: 0.0, ..RULE }, 0.0, 5, 0.5, &mut alerts);
        assert!(!motion.is_idle());
        motion.pass("crib", None, 0.0, 6, &mut alerts);
        assert_eq!((alerts.len(), motion.is_idle()), (2, true), "the rule is gone");
    }
}
