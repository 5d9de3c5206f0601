//! The bench counts what there is: a short measurement of nursery before a few cameras of the farm.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeMap, time::Duration};

use nursery_tests::bench::{
    Measurement, Mix, Plan, Rivals, Which,
    measure::measure,
    report::{picture, sum_up, table},
    routing, scale, start,
};

fn plan() -> Plan {
    Plan {
        which: Which::Nursery,
        cameras: 12,
        // The mix of cameras without AAC, which takes ffmpeg.
        mix: "pcmu=1,pcmu40=1".parse::<Mix>().unwrap(),
        warm_up: Duration::from_secs(2),
        lasting: Duration::from_secs(20),
        web: false,
        rivals: Rivals::default(),
    }
}

#[test]
fn a_measurement_accounts_for_every_role_window_and_cry() {
    let measured = measure(&plan(), 1).unwrap();
    let shown = serde_json::to_string_pretty(&measured).unwrap();
    assert_eq!(measured.readiness.live, 12, "{shown}");
    for role in ["supervisor", "capture", "infer", "sink"] {
        assert!(measured.cpu_s.contains_key(role), "{role}: {shown}");
        // Other than root may not look into caged processes.
        let memory = measured.memory.get(role).is_some_and(|bytes| *bytes > 100_000);
        assert!(memory || measured.memory_unseen > 0, "{role}: {shown}");
    }
    assert_eq!((measured.processes["capture"], measured.processes["sink"]), (12, 1), "{shown}");
    // Four windows a second and camera; how many of them on a busy machine is not this test's business.
    assert!(measured.counters.windows > 100 && measured.scored_share() < 1.2, "{shown}");
    // Twelve cameras cry 24 times in three minutes.
    let alerts = &measured.alerts;
    assert!((1..=5).contains(&alerts.cries) && alerts.unfounded == 0, "{shown}");
    // Each comes after the last sample of the window that decided it, and that after the onset.
    for (last_us, onset_us) in alerts.last_sample_us.iter().zip(&alerts.onset_us) {
        assert!(*last_us > 0 && last_us < onset_us, "{shown}");
    }
    assert!(!alerts.onset_us.is_empty(), "{shown}");
    assert!(measured.farm.counts.packets > 5_000 && measured.farm.cpu_s > 0.0, "{shown}");

    let twice = [measured.clone(), Measurement { round: 2, ..measured.clone() }];
    let summary = sum_up(&twice);
    assert_eq!(summary[&Which::Nursery].ratios["cpu_s_per_camera_hour"].median, 1.0);
    assert!(table(&summary).contains("supervisor") && picture(&summary).contains("nursery"));
    let sizes = BTreeMap::from([(Which::Nursery, twice.to_vec())]);
    assert!(scale::table(&twice).contains("12") && scale::picture(&sizes).contains("<polyline"));
    // What is written can be read.
    assert_eq!(serde_json::from_str::<Measurement>(&shown).unwrap().cameras, 12);
}

#[test]
fn a_start_ends_when_all_cameras_are_scored() {
    let start = start::start(&plan(), 1).unwrap();
    assert_eq!(start.readiness.live, 12);
    assert!(start.readiness.after_s.is_some_and(|s| s > 0.0) && start.cpu_s > 0.0);
}

#[test]
fn a_rival_that_is_not_there_is_an_error_that_says_so() {
    let rivals = Rivals { folder: Some("/nowhere".into()), ..Rivals::default() };
    let error = start::start(&Plan { which: Which::Pipes, rivals, ..plan() }, 1).unwrap_err();
    assert!(error.contains("/nowhere/pipes/main.py"), "{error}");
}

#[test]
fn windows_of_nothing_go_through_a_real_supervisor_and_none_is_lost() {
    let lasting = Duration::from_secs(3);
    let paced = routing::routed(4, true, lasting);
    assert!(paced.windows > 20 && paced.dropped == 0 && paced.cpu_s.contains_key("supervisor"), "{paced:?}");
    let flooded = routing::routed(4, false, lasting);
    assert!(flooded.rate() > 2.0 * paced.rate() && flooded.dropped == 0, "{flooded:?}");
    let bare = routing::bare(routing::Exchange { there: 26_000, back: 18_000 }, lasting);
    assert!(bare.windows > 100 && bare.latency_ms.is_some(), "{bare:?}");
}
