//! The figures as JSON, for scripts: the names stay as they are.

use super::lasting::Lasting;
use super::percentile;
use super::report::Report;
use super::score::{EventBased, Scores, Share};
use serde_json::{Map, Value, json};

/// The whole report. Figures that do not exist (shares of nothing) are null.
pub fn value(report: &Report) -> Value {
    let mut out = scores(&report.scores);
    let all: Vec<Value> = report.sensitivities.iter().map(|s| Value::Object(scores(s))).collect();
    out.insert("title".into(), json!(report.title));
    out.insert("sensitivities".into(), Value::Array(all));
    for (name, ap) in &report.frame_ap {
        out.insert(format!("frame_ap_{name}"), json!(ap));
    }
    for (name, r) in &report.reliability {
        let bin = |b: &super::reliability::Bin| json!({"frames": b.frames, "predicted": b.predicted(), "observed": b.observed()});
        let figures = json!({
            "bins": r.bins.iter().map(bin).collect::<Vec<_>>(),
            "expected_calibration_error": r.calibration_error(),
            "brier": r.brier(),
            "prior": r.prior(),
        });
        out.insert(format!("reliability_{name}"), figures);
    }
    for (name, e) in &report.streams {
        out.insert(format!("stream_{name}"), events(e));
    }
    out.insert("lasting".into(), report.lasting.iter().map(lasting).collect());
    out.insert("worst_misses".into(), json!(report.misses));
    out.insert("worst_false_alarms".into(), json!(report.false_alarms));
    Value::Object(out)
}

fn scores(s: &Scores) -> Map<String, Value> {
    let mut out = Map::new();
    out.insert("threshold".into(), json!(s.threshold));
    for (name, e) in &s.events {
        out.insert(format!("event_{name}"), events(e));
    }
    if let Some(best) = &s.best {
        let figures = json!({
            "threshold": best.threshold,
            "ER": best.figures.error_rate(),
            "F1": best.figures.f1(),
        });
        out.insert("oracle_dcase".into(), figures);
    }
    for (name, c) in &s.clips {
        let figures =
            json!({"precision": c.precision, "recall": c.recall, "f1": c.f1(), "ap": c.average_precision});
        out.insert(format!("clip_{name}"), figures);
    }
    out.insert("EVENT RECALL (overlap) by condition".into(), recall(s.recall_by_condition.clone()));
    out.insert("EVENT RECALL by condition and EBR".into(), recall(s.recall_by_named_level()));
    out.insert("EVENT RECALL by target source".into(), recall(s.recall_by_source.clone()));
    if !s.onset_errors.is_empty() {
        let magnitudes: Vec<f64> = s.onset_errors.iter().map(|e| e.abs()).collect();
        out.insert("onset_error_median".into(), json!(percentile(&s.onset_errors, 50.0)));
        out.insert("onset_error_90".into(), json!(percentile(&magnitudes, 90.0)));
    }
    if !s.delays.is_empty() {
        out.insert("delay_median".into(), json!(percentile(&s.delays, 50.0)));
        out.insert("delay_95".into(), json!(percentile(&s.delays, 95.0)));
    }
    for (name, f) in &s.false_alarms {
        let figures = json!({
            "hours": f.hours,
            "events_per_h": f.events_per_hour(),
            "alerts_per_h": f.alerts_per_hour(),
        });
        out.insert(format!("fa_{name}"), figures);
    }
    let confusions = s.confusions.iter().map(|(name, share)| (name.clone(), json!([share.part, share.of])));
    out.insert("confusions".into(), Value::Object(confusions.collect()));
    out
}

fn lasting(l: &Lasting) -> Value {
    let delay = |q: f64| Some(percentile(&l.delays, q)).filter(|s| s.is_finite());
    json!({
        "heard": l.name,
        "announced": l.announced.part,
        "of": l.announced.of,
        "delay_median": delay(50.0),
        "delay_90": delay(90.0),
        "delay_95": delay(95.0),
    })
}

fn events(e: &EventBased) -> Value {
    json!({
        "N": e.events,
        "TP": e.hits,
        "deletions": e.deletions(),
        "insertions": e.insertions,
        "ER": e.error_rate(),
        "F1": e.f1(),
        "precision": e.precision(),
        "recall": e.recall(),
    })
}

/// By kind: recall, and of how many.
fn recall(shares: impl IntoIterator<Item = (String, Share)>) -> Value {
    shares.into_iter().map(|(name, share)| (name, json!([share.value(), share.of]))).collect()
}
