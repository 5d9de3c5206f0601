//! Many measurements in a table: the middle of the rounds with its extremes, and ratios to nursery round by round, in
//! which what the machine was like at that time cancels.

use std::{collections::BTreeMap, fmt::Write};

use serde::{Deserialize, Serialize};

use super::{
    measure::Measurement,
    plot::{Bar, Bars, Page, shown},
    statistics::{Delays, Spread},
    system::Which,
};

/// A figure of a measurement; less is better in all of them.
struct Figure {
    key: &'static str,
    title: &'static str,
    unit: &'static str,
    value: fn(&Measurement) -> Option<f64>,
}

const FIGURES: [Figure; 9] = [
    Figure {
        key: "cpu_s_per_camera_hour",
        title: "processor per camera-hour",
        unit: "s",
        value: |m| Some(m.cpu_per_camera_hour()),
    },
    Figure {
        key: "memory_mb_per_camera",
        title: "proportional memory per camera",
        unit: "MB",
        value: |m| Some(m.memory_per_camera() / 1e6),
    },
    Figure {
        key: "alert_p50_ms",
        title: "last sample to alert, p50",
        unit: "ms",
        value: |m| m.alerts.last_sample.map(|d| d.p50),
    },
    Figure {
        key: "alert_p99_ms",
        title: "last sample to alert, p99",
        unit: "ms",
        value: |m| m.alerts.last_sample.map(|d| d.p99),
    },
    Figure {
        key: "alert_max_ms",
        title: "last sample to alert, max",
        unit: "ms",
        value: |m| m.alerts.last_sample.map(|d| d.max),
    },
    Figure {
        key: "onset_p50_ms",
        title: "cry's onset to alert, p50",
        unit: "ms",
        value: |m| m.alerts.onset.map(|d| d.p50),
    },
    Figure {
        key: "onset_p99_ms",
        title: "cry's onset to alert, p99",
        unit: "ms",
        value: |m| m.alerts.onset.map(|d| d.p99),
    },
    Figure { key: "start_s", title: "start to all cameras live", unit: "s", value: |m| m.readiness.after_s },
    Figure {
        key: "processes_per_camera",
        title: "processes per camera",
        unit: "",
        value: |m| Some(m.processes.values().sum::<usize>() as f64 / f64::from(m.cameras)),
    },
];

/// All rounds of a system.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// By the name of the figure.
    pub figures: BTreeMap<String, Spread>,
    /// The same over nursery's in the same round.
    pub ratios: BTreeMap<String, Spread>,
    /// Seconds of processor per camera-hour, by role.
    pub cpu_by_role: BTreeMap<String, Spread>,
    /// Megabytes per camera, by role.
    pub memory_by_role: BTreeMap<String, Spread>,
    /// Over all rounds: cries, missed, repeated and unfounded alerts; windows scored, dropped and late.
    pub cries: usize,
    pub missed: usize,
    pub repeated: usize,
    pub unfounded: usize,
    pub windows: u64,
    pub dropped: u64,
    pub late: Option<u64>,
    pub scored_share: Option<Spread>,
    /// Delays of all rounds together.
    pub last_sample: Option<Delays>,
    pub onset: Option<Delays>,
    /// What was not as it should be, by round.
    pub complaints: Vec<String>,
    pub doubts: Vec<String>,
}

/// Sums up rounds, by system.
pub fn sum_up(all: &[Measurement]) -> BTreeMap<Which, Summary> {
    let measured = |m: &&Measurement| m.seconds > 0.0;
    let mut systems: BTreeMap<Which, Summary> = BTreeMap::new();
    for which in all.iter().map(|m| m.system) {
        let own: Vec<&Measurement> = all.iter().filter(|m| m.system == which).collect();
        let whole: Vec<&Measurement> = own.iter().copied().filter(measured).collect();
        let mut summary = Summary::default();
        for figure in &FIGURES {
            let spread = Spread::of(whole.iter().filter_map(|m| (figure.value)(m)));
            spread.map(|s| summary.figures.insert(figure.key.into(), s));
            let ratio = |m: &&Measurement| {
                let beside =
                    |o: &&Measurement| o.system == Which::Nursery && o.round == m.round && measured(o);
                Some((figure.value)(m)? / (figure.value)(all.iter().find(beside)?)?)
            };
            let ratios = Spread::of(whole.iter().filter_map(ratio));
            ratios.map(|s| summary.ratios.insert(figure.key.into(), s));
        }
        let hours = |m: &Measurement| f64::from(m.cameras) * m.seconds / 3600.0;
        let roles: Vec<&String> = whole.iter().flat_map(|m| m.cpu_s.keys().chain(m.memory.keys())).collect();
        for role in roles {
            let cpu = whole.iter().map(|m| m.cpu_s.get(role).copied().unwrap_or(0.0) / hours(m));
            Spread::of(cpu).map(|s| summary.cpu_by_role.insert(role.clone(), s));
            let bytes = |m: &Measurement| m.memory.get(role).copied().unwrap_or(0) as f64;
            let memory = whole.iter().map(|m| bytes(m) / 1e6 / f64::from(m.cameras));
            Spread::of(memory).map(|s| summary.memory_by_role.insert(role.clone(), s));
        }
        let delays = |of: fn(&Measurement) -> &Vec<i64>| {
            Delays::of(&whole.iter().flat_map(|m| of(m).iter().copied()).collect::<Vec<_>>())
        };
        summary.last_sample = delays(|m| &m.alerts.last_sample_us);
        summary.onset = delays(|m| &m.alerts.onset_us);
        summary.cries = whole.iter().map(|m| m.alerts.cries).sum();
        summary.missed = whole.iter().map(|m| m.alerts.missed).sum();
        summary.repeated = whole.iter().map(|m| m.alerts.repeated).sum();
        summary.unfounded = whole.iter().map(|m| m.alerts.unfounded).sum();
        summary.windows = whole.iter().map(|m| m.counters.windows).sum();
        summary.dropped = whole.iter().map(|m| m.counters.dropped).sum();
        summary.late = whole.iter().filter_map(|m| m.counters.late).reduce(|a, b| a + b);
        summary.scored_share = Spread::of(whole.iter().map(|m| m.scored_share()));
        let rounds = |of: fn(&Measurement) -> Vec<String>| {
            let told = |m: &&Measurement| {
                let what = of(m);
                (!what.is_empty()).then(|| format!("round {}: {}", m.round, what.join(", ")))
            };
            own.iter().filter_map(told).collect()
        };
        summary.complaints = rounds(Measurement::complaints);
        summary.doubts = rounds(Measurement::doubts);
        systems.insert(which, summary);
    }
    systems
}

/// The table for people.
pub fn table(systems: &BTreeMap<Which, Summary>) -> String {
    let mut text = format!("{:<36}", "");
    let column = 26;
    for which in systems.keys() {
        let _ = write!(text, "{:>column$}", which.as_str());
    }
    text.push('\n');
    let mut row = |title: &str, cell: &dyn Fn(&Summary) -> String| {
        let _ = write!(text, "{title:<36}");
        for summary in systems.values() {
            let _ = write!(text, "{:>column$}", cell(summary));
        }
        text.push('\n');
    };
    let spread = |s: Option<&Spread>| {
        s.map_or("-".into(), |s| format!("{} ({}-{})", shown(s.median), shown(s.min), shown(s.max)))
    };
    for figure in &FIGURES {
        let unit = if figure.unit.is_empty() { String::new() } else { format!(", {}", figure.unit) };
        row(&format!("{}{unit}", figure.title), &|s| spread(s.figures.get(figure.key)));
        if systems.len() > 1 {
            row("  times nursery's", &|s| spread(s.ratios.get(figure.key)));
        }
    }
    row("cries / missed", &|s| format!("{} / {}", s.cries, s.missed));
    row("alerts repeated / unfounded", &|s| format!("{} / {}", s.repeated, s.unfounded));
    row("windows scored / dropped / late", &|s| {
        format!("{} / {} / {}", s.windows, s.dropped, s.late.map_or("-".into(), |late| late.to_string()))
    });
    row("audio scored, of what was sent", &|s| spread(s.scored_share.as_ref()));
    for (which, summary) in systems {
        let _ = writeln!(text, "{}, by role (processor per camera-hour, memory per camera):", which.as_str());
        for (role, cpu) in &summary.cpu_by_role {
            let memory = summary.memory_by_role.get(role).map_or(0.0, |s| s.median);
            let _ = writeln!(text, "  {role:<20} {:>10} s {:>10} MB", shown(cpu.median), shown(memory));
        }
        for complaint in &summary.complaints {
            let _ = writeln!(text, "  not borne: {complaint}");
        }
        for doubt in &summary.doubts {
            let _ = writeln!(text, "  in doubt: {doubt}");
        }
    }
    text
}

/// The picture for people.
pub fn picture(systems: &BTreeMap<Which, Summary>) -> String {
    let mut page = Page::default();
    for figure in &FIGURES {
        let bars = systems.iter().filter_map(|(which, summary)| {
            let spread = summary.figures.get(figure.key)?;
            let (name, between) = (which.as_str().to_owned(), (spread.min, spread.max));
            Some(Bar { name, value: spread.median, between })
        });
        let (title, unit) = (figure.title.to_owned(), figure.unit.to_owned());
        let bars = Bars { title, unit, bars: bars.collect() };
        if !bars.bars.is_empty() && !figure.unit.is_empty() {
            page.add_bars(&bars);
        }
    }
    page.svg()
}
