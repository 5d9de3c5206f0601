//! Looking back: a camera between two times, one event, and what people say of it.

use hyper::{
    StatusCode,
    header::{self, HeaderMap, HeaderName},
};
use nursery_shared::{
    curve::{self, Curve},
    history::{
        Answer, Cry, EventFile, Feedback, MAX_CAMERA, MAX_POINTS, MAX_SPAN_US, Motion, Question, Subject,
        Timeline, Verdict,
    },
    timestamp::{self, rfc3339},
};
use serde_json::{Value, json};

use super::{
    feed::{Feed, NoEvents},
    routes::{Reply, document, no_events, refuse},
};

/// What is shown where nothing else is asked for.
const SPAN_US: i64 = 12 * 3_600 * 1_000_000;
const POINTS: u32 = 720;

/// What `/api/cameras/{name}/timeline` is asked for.
///
/// # Errors
/// One line: what is wrong with the query.
fn asked(camera: &str, query: &str, now_us: i64) -> Result<Question, String> {
    if camera.is_empty() || camera.len() > MAX_CAMERA {
        return Err(format!("expected a camera's name of 1 to {MAX_CAMERA} characters"));
    }
    let (mut from, mut until, mut points) = (None, None, POINTS);
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let time = || timestamp::parse_since(&value).map_err(|e| format!("{key}: {e}"));
        match &*key {
            "from" => from = Some(time()?),
            "until" => until = Some(time()?),
            "points" => {
                points = value
                    .parse()
                    .ok()
                    .filter(|n| (1..=MAX_POINTS).contains(n))
                    .ok_or_else(|| format!("points: expected a number from 1 to {MAX_POINTS}"))?;
            }
            _ => return Err("expected only from, until and points".into()),
        }
    }
    let until_us = until.unwrap_or(now_us);
    let from_us = from.unwrap_or_else(|| until_us.saturating_sub(SPAN_US).max(0));
    let question = Question::Timeline { camera: camera.to_owned(), from_us, until_us, points };
    if !question.is_sound() {
        let days = MAX_SPAN_US / 86_400_000_000;
        return Err(format!("expected `from` to be before `until`, by {days} days at the most"));
    }
    Ok(question)
}

fn curve_document(curve: &Curve) -> Value {
    let scores: Vec<Option<f64>> = curve.scores.iter().map(|b| curve::score(*b)).collect();
    let levels = |bytes: &[u8]| bytes.iter().map(|b| curve::level(*b)).collect::<Vec<_>>();
    json!({
        "from": rfc3339(curve.from_us),
        "step_s": curve.step_us / 1_000_000,
        "score": scores,
        "level_dbfs": levels(&curve.levels),
        "peak_dbfs": levels(&curve.peaks),
    })
}

fn feedback_document(feedback: Option<&Feedback>) -> Value {
    feedback
        .map_or(Value::Null, |f| json!({"verdict": f.verdict.as_str(), "at": rfc3339(f.at_us), "by": f.by}))
}

fn cry_document(cry: &Cry) -> Value {
    json!({
        "event_id": cry.event_id,
        "onset": rfc3339(cry.onset_us),
        "offset": cry.offset_us.map(rfc3339),
        "score": cry.score,
        "peak_score": cry.peak_score,
        "feedback": cry.feedback.as_ref().map(|f| f.verdict.as_str()),
    })
}

fn motion_document(motion: &Motion) -> Value {
    json!({
        "event_id": motion.event_id,
        "onset": rfc3339(motion.onset_us),
        "offset": motion.offset_us.map(rfc3339),
        "motion": motion.motion,
        "peak_motion": motion.peak_motion,
    })
}

fn timeline_document(camera: &str, from_us: i64, until_us: i64, found: &Timeline) -> Value {
    let outages: Vec<Value> = found
        .outages
        .iter()
        .map(|o| {
            json!({
                "event_id": o.event_id,
                "since": rfc3339(o.since_us),
                "until": o.until_us.map(rfc3339),
                "reason": o.reason,
            })
        })
        .collect();
    json!({
        "camera": camera,
        "from": rfc3339(from_us),
        "until": rfc3339(until_us),
        "threshold": found.threshold,
        "curve": curve_document(&found.curve),
        "cries": found.cries.iter().map(cry_document).collect::<Vec<_>>(),
        "motions": found.motions.iter().map(motion_document).collect::<Vec<_>>(),
        "outages": outages,
        "truncated": found.truncated,
    })
}

fn event_document(file: &EventFile) -> Value {
    let (mut value, others) = match &file.subject {
        Subject::Cry(cry) => (cry_document(cry), ["motion", "peak_motion"]),
        Subject::Motion(motion) => (motion_document(motion), ["score", "peak_score"]),
    };
    for other in others {
        value[other] = Value::Null;
    }
    let (onset_us, offset_us) = file.subject.times_us();
    value["kind"] = if matches!(file.subject, Subject::Cry(_)) { "cry" } else { "motion" }.into();
    value["camera"] = file.subject.camera().into();
    value["duration_s"] = offset_us
        .map_or(Value::Null, |offset| ((offset.saturating_sub(onset_us) as f64 / 1e3).round() / 1e3).into());
    value["threshold"] = file.threshold.into();
    value["picture"] = file.picture.into();
    value["feedback"] = said_of(file);
    value["curve"] = curve_document(&file.curve);
    value
}

/// What was said of it, which nobody is asked where it is no cry.
fn said_of(file: &EventFile) -> Value {
    match &file.subject {
        Subject::Cry(cry) => feedback_document(cry.feedback.as_ref()),
        Subject::Motion(_) => Value::Null,
    }
}

/// Nothing is known of what was asked for.
fn is_blank(found: &Timeline) -> bool {
    let curve = &found.curve;
    let mut levels = curve.levels.iter().chain(&curve.peaks);
    found.cries.is_empty()
        && found.motions.is_empty()
        && found.outages.is_empty()
        && curve.scores.iter().all(|b| curve::score(*b).is_none())
        && levels.all(|b| curve::level(*b).is_none())
}

/// A camera's curves, cries, motions and outages between two times; `is_there`: there is a camera of this name now.
pub async fn timeline(feed: &Feed, camera: &str, query: &str, is_there: bool) -> Reply {
    let question = match asked(camera, query, timestamp::now_us()) {
        Ok(question) => question,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
    };
    let (from_us, until_us) = match &question {
        Question::Timeline { from_us, until_us, .. } => (*from_us, *until_us),
        _ => (0, 0),
    };
    match feed.answer(question).await {
        // A name that was mistyped would be a quiet night.
        Ok(Answer::Timeline(found)) if !is_there && is_blank(&found) => refuse(
            StatusCode::NOT_FOUND,
            "there is no camera of this name, see /api/cameras, and nothing is stored of one between these times",
        ),
        Ok(Answer::Timeline(found)) => document(&timeline_document(camera, from_us, until_us, &found)),
        other => without(other.map(|_| ())),
    }
}

/// One event.
pub async fn event(feed: &Feed, event_id: &str) -> Reply {
    let question = Question::Event { event_id: event_id.to_owned() };
    give(feed, question, "there is no cry and no motion with this event_id", event_document).await
}

/// Notes what somebody says of an event.
pub async fn feedback(feed: &Feed, event_id: &str, by: &'static str, body: &Value) -> Reply {
    let Some(verdict) = body["verdict"].as_str().and_then(Verdict::parse) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "expected {\"verdict\": \"cry\"} or {\"verdict\": \"not_cry\"}",
        );
    };
    let question = Question::Feedback { event_id: event_id.to_owned(), verdict, by: by.to_owned() };
    let said = |file: &EventFile| json!({"event_id": event_id, "feedback": said_of(file)});
    give(feed, question, "there is no cry with this event_id", said).await
}

async fn give(feed: &Feed, question: Question, none: &str, show: impl Fn(&EventFile) -> Value) -> Reply {
    let missing = || refuse(StatusCode::NOT_FOUND, none);
    if !question.is_sound() {
        return missing();
    }
    match feed.answer(question).await {
        Ok(Answer::Event(Some(file))) => document(&show(&file)),
        Ok(Answer::Event(None)) => missing(),
        other => without(other.map(|_| ())),
    }
}

fn without(outcome: Result<(), NoEvents>) -> Reply {
    no_events(outcome.err().unwrap_or_else(|| NoEvents::Failed("the store answered another question".into())))
}

/// How something that is said came here: by the page in a browser, or by a script.
pub fn way(headers: &HeaderMap) -> &'static str {
    let browser = [HeaderName::from_static("sec-fetch-site"), header::COOKIE];
    if browser.iter().any(|name| headers.contains_key(name)) { "page" } else { "api" }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use nursery_shared::history::Outage;

    use super::*;

    const NOW: i64 = 1_800_000_000_000_000;

    #[test]
    fn what_is_asked_of_a_timeline_is_bounded_and_the_last_night_where_nothing_is_said() {
        let Ok(Question::Timeline { camera, from_us, until_us, points }) = asked("crib", "", NOW) else {
            panic!()
        };
        assert_eq!((&camera[..], from_us, until_us, points), ("crib", NOW - SPAN_US, NOW, POINTS));
        let query = "from=2026-01-31T02:00:00Z&until=2026-01-31T03:00:00Z&points=2000";
        assert!(asked("crib", query, NOW).is_ok());
        for bad in [
            "points=0",
            "points=2001",
            "from=never",
            "x=1",
            "from=2026-01-31T02:00:00Z&until=2026-01-31T02:00:00Z",
            "from=2026-01-31T02:00:00Z&until=2026-03-31T02:00:00Z",
        ] {
            assert!(asked("crib", bad, NOW).is_err(), "{bad}");
        }
        assert!(asked("", "", NOW).is_err() && asked(&"x".repeat(65), "", NOW).is_err());
    }

    #[test]
    fn what_is_not_known_is_null() {
        let curve = Curve {
            from_us: NOW,
            step_us: 1_000_000,
            scores: vec![250, 255],
            levels: vec![140, 255],
            peaks: vec![160, 255],
        };
        let outage = Outage {
            event_id: "o".into(),
            camera: "crib".into(),
            since_us: NOW,
            until_us: None,
            reason: "no audio".into(),
        };
        let found = Timeline { curve, outages: vec![outage], threshold: 0.5, ..Timeline::default() };
        let value = timeline_document("crib", NOW, NOW + 2_000_000, &found);
        assert_eq!(value["curve"]["score"], json!([1.0, null]));
        assert_eq!(value["curve"]["level_dbfs"], json!([-50.0, null]));
        assert_eq!(value["curve"]["peak_dbfs"], json!([-40.0, null]));
        assert_eq!((&value["curve"]["step_s"], &value["outages"][0]["until"]), (&json!(1), &Value::Null));
    }
}
