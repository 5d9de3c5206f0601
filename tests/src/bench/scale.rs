//! How the cost of a camera changes with their number, and what gives out first.

use std::{collections::BTreeMap, fmt::Write};

use serde::{Deserialize, Serialize};

use super::{
    machine::Machine,
    measure::{Measurement, Plan, measure},
    plot::{Chart, Curve, Page, shown},
    statistics::Line,
    system::Which,
};

/// Lines through the costs over the number of cameras.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Slopes {
    /// Seconds of processor per camera-hour, and megabytes per camera, as they change with each camera more: 0 where a
    /// camera costs the same however many there are. Only of sizes that were borne.
    pub cpu_per_camera: Option<Line>,
    pub memory_per_camera: Option<Line>,
    /// All of the processor (seconds per hour) and memory (megabytes): what a camera more costs, and what is there without
    /// any.
    pub cpu: Option<Line>,
    pub memory: Option<Line>,
    /// What gave out first, at which size.
    pub gave_out: Option<String>,
}

/// Measures each size, largest last; after one that is not borne larger ones are not tried.
pub fn measure_sizes(
    plan: &Plan,
    sizes: &[u32],
    mut tell: impl FnMut(&Measurement),
) -> Result<Vec<Measurement>, String> {
    let (mut sizes, mut all) = (sizes.to_vec(), Vec::new());
    sizes.sort_unstable();
    for cameras in sizes {
        let measured = measure(&Plan { cameras, ..plan.clone() }, 1)?;
        tell(&measured);
        let borne = measured.seconds > 0.0;
        all.push(measured);
        if !borne {
            break;
        }
    }
    Ok(all)
}

/// Sums up the sizes of one system.
pub fn slopes(all: &[Measurement]) -> Slopes {
    let borne: Vec<&Measurement> = all.iter().filter(|m| m.complaints().is_empty()).collect();
    let line = |value: &dyn Fn(&Measurement) -> f64| {
        let points: Vec<_> = borne.iter().map(|m| (f64::from(m.cameras), value(m))).collect();
        Line::through(&points)
    };
    Slopes {
        cpu_per_camera: line(&|m| m.cpu_per_camera_hour()),
        memory_per_camera: line(&|m| m.memory_per_camera() / 1e6),
        cpu: line(&|m| m.cpu_per_camera_hour() * f64::from(m.cameras)),
        memory: line(&|m| m.memory_per_camera() * f64::from(m.cameras) / 1e6),
        gave_out: all.iter().find(|m| !m.complaints().is_empty()).map(what_gave_out),
    }
}

/// What the machine had no more of.
fn what_gave_out(m: &Measurement) -> String {
    let machine = Machine::this();
    let what = if m.seconds == 0.0 {
        "not all cameras were ever live".to_owned()
    } else if m.machine_busy > 0.95 {
        format!("processors ({:.0} % busy)", m.machine_busy * 100.0)
    } else if m.memory_available < machine.memory_bytes / 20 {
        format!("memory ({} MB left)", m.memory_available >> 20)
    } else {
        let busiest = m.cpu_s.iter().max_by(|a, b| {
            let each = |role: &String, s: &f64| s / *m.processes.get(role).unwrap_or(&1) as f64;
            each(a.0, a.1).total_cmp(&each(b.0, b.1))
        });
        busiest.map_or_else(String::new, |(role, s)| {
            let share = s / *m.processes.get(role).unwrap_or(&1) as f64 / m.seconds;
            format!("neither processors nor memory; a process of {role} is {:.0} % busy", share * 100.0)
        })
    };
    format!("{} cameras: {what}: {}", m.cameras, m.complaints().join(", "))
}

/// The table for people.
pub fn table(all: &[Measurement]) -> String {
    let mut text = format!(
        "{:<10} {:>8} {:>12} {:>12} {:>9} {:>9} {:>9} {:>8} {:>8}  {}\n",
        "",
        "cameras",
        "s/cam-hour",
        "MB/camera",
        "p50 ms",
        "p99 ms",
        "max ms",
        "dropped",
        "busy %",
        "not borne"
    );
    for m in all {
        let delay = |of: fn(&super::statistics::Delays) -> f64| {
            m.alerts.last_sample.as_ref().map_or("-".into(), |d| format!("{:.0}", of(d)))
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<10} {:>8} {:>12} {:>12} {:>9} {:>9} {:>9} {:>8} {:>8.0}  {}",
            m.system.as_str(),
            m.cameras,
            if m.seconds > 0.0 { shown(m.cpu_per_camera_hour()) } else { "-".into() },
            if m.seconds > 0.0 { shown(m.memory_per_camera() / 1e6) } else { "-".into() },
            delay(|d| d.p50),
            delay(|d| d.p99),
            delay(|d| d.max),
            m.counters.dropped,
            m.machine_busy * 100.0,
            m.complaints().join(", ")
        );
    }
    text
}

/// The picture for people.
pub fn picture(systems: &BTreeMap<Which, Vec<Measurement>>) -> String {
    type Value = fn(&Measurement) -> Option<f64>;
    let figures: [(&str, &str, Value); 3] = [
        ("processor per camera-hour", "s", |m| Some(m.cpu_per_camera_hour())),
        ("proportional memory per camera", "MB", |m| Some(m.memory_per_camera() / 1e6)),
        ("last sample to alert, p99", "ms", |m| m.alerts.last_sample.map(|d| d.p99)),
    ];
    let mut page = Page::default();
    for (title, unit, value) in figures {
        let curve = |(which, all): (&Which, &Vec<Measurement>)| {
            let point = |m: &Measurement| Some((f64::from(m.cameras), value(m)?));
            let points = all.iter().filter(|m| m.seconds > 0.0).filter_map(point).collect();
            Curve { name: which.as_str().into(), points }
        };
        let curves = systems.iter().map(curve).collect();
        page.add_chart(&Chart { title: title.into(), unit: format!("{unit}, over cameras"), curves });
    }
    page.svg()
}
