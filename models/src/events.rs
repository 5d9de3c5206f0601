//! From frame probabilities to events: threshold with hysteresis, accumulated crying before an event is
//! announced, gaps on the breath bridged, an end after silence, a cooldown. Pure: no clock, no IO; the whole
//! state can be stored and restored.

use serde::{Deserialize, Serialize};

/// Babies cry in bursts of about a second and breathe in between; gaps up to this long do not break a run of
/// crying that is not announced yet.
const BRIDGE_US: i64 = 700_000;
/// Where frames are missing for longer than this (restart, lost windows), an open event ends at its last cry
/// when frames come again.
const MAX_GAP_US: i64 = 30_000_000;
/// While crying goes on, frames count from this share of the threshold on (hysteresis).
const RELEASE: f32 = 0.6;

/// When probabilities are an event.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EventParams {
    /// Probability from which a frame counts as crying.
    pub threshold: f32,
    /// Seconds of crying frames, gaps on the breath bridged but not counted, before an event is announced.
    pub min_duration_s: f64,
    /// Seconds without crying after which an event has ended.
    pub end_after_s: f64,
    /// Seconds after an announced event's end in which new crying is not announced. Crying that still goes on,
    /// or begins again, after that is announced as an event of its own.
    pub cooldown_s: f64,
}

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Transition {
    /// An event is announced. `onset_us` is the start of its first crying frame, `decided_us` the end of the
    /// frame that decided, `score` the highest probability so far.
    Started { onset_us: i64, decided_us: i64, score: f32 },
    /// It has ended: `offset_us` is the end of its last crying frame, `crying_us` the sum of its crying frames.
    Ended { onset_us: i64, offset_us: i64, peak_score: f32, crying_us: i64 },
}

/// A run of crying, announced or not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Run {
    onset_us: i64,
    /// End of the last crying frame.
    last_us: i64,
    crying_us: i64,
    peak: f32,
    announced: bool,
}

/// State of one camera's event logic. All times are microseconds of one clock, usually since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventLogic {
    params: EventParams,
    /// End of the newest frame that was seen; older ones are ignored, so replays change nothing.
    seen_us: Option<i64>,
    run: Option<Run>,
    /// No announcement before this.
    quiet_until_us: Option<i64>,
}

fn us(seconds: f64) -> i64 {
    (seconds * 1e6).round() as i64
}

impl EventLogic {
    /// Nothing heard yet.
    pub fn new(params: EventParams) -> Self {
        Self { params, seen_us: None, run: None, quiet_until_us: None }
    }

    /// Other settings from the next frame on; an event that is open stays open.
    pub fn set_params(&mut self, params: EventParams) {
        self.params = params;
    }

    /// The settings in force.
    pub fn params(&self) -> &EventParams {
        &self.params
    }

    /// End of the newest frame that was taken in.
    pub fn seen_us(&self) -> Option<i64> {
        self.seen_us
    }

    /// Both would go on in the same way, whatever frames they saw last: what `self` lost by going back to
    /// `other` is only time, which the next frame tells again.
    pub fn is_same_but_for_time(&self, other: &Self) -> bool {
        let timeless = |logic: &Self| Self { seen_us: None, ..logic.clone() };
        timeless(self) == timeless(other)
    }

    /// Nothing is open, nothing is beginning and no cooldown runs at `now_us`: a restart forgets nothing but
    /// the time of the last frame.
    pub fn is_idle(&self, now_us: i64) -> bool {
        self.run.is_none() && self.quiet_until_us.is_none_or(|t| t <= now_us)
    }

    /// An event was announced and has not ended.
    pub fn is_open(&self) -> bool {
        self.run.is_some_and(|r| r.announced)
    }

    /// Takes one frame in: its start, its length and the probability of crying (NaN counts as 0). Frames that
    /// begin before the end of one that was seen already are ignored.
    pub fn push(&mut self, start_us: i64, step_us: u32, probability: f32, out: &mut Vec<Transition>) {
        let end_us = start_us.saturating_add(i64::from(step_us));
        // Rounding of window times may make neighbours overlap by a little.
        let slack = i64::from(step_us) / 2;
        if self.seen_us.is_some_and(|seen| start_us.saturating_add(slack) < seen) {
            return;
        }
        let gap = self.seen_us.map_or(0, |seen| start_us.saturating_sub(seen));
        self.seen_us = Some(end_us);
        if gap > MAX_GAP_US {
            self.close(out);
        }
        let crying_before = self.run.is_some_and(|r| start_us.saturating_sub(r.last_us) <= BRIDGE_US);
        let bar = self.params.threshold * if crying_before { RELEASE } else { 1.0 };
        if probability >= bar {
            self.crying(start_us, end_us, probability, out);
        } else {
            self.quiet(end_us, out);
        }
    }

    fn crying(&mut self, start_us: i64, end_us: i64, probability: f32, out: &mut Vec<Transition>) {
        let probability = probability.min(1.0);
        let run = self.run.get_or_insert(Run {
            onset_us: start_us,
            last_us: end_us,
            crying_us: 0,
            peak: 0.0,
            announced: false,
        });
        run.last_us = end_us;
        run.crying_us = run.crying_us.saturating_add(end_us.saturating_sub(start_us));
        run.peak = run.peak.max(probability);
        let quiet = self.quiet_until_us.is_some_and(|t| end_us < t);
        if !run.announced && !quiet && run.crying_us >= us(self.params.min_duration_s) {
            run.announced = true;
            let (onset_us, score) = (run.onset_us, run.peak);
            out.push(Transition::Started { onset_us, decided_us: end_us, score });
        }
    }

    fn quiet(&mut self, end_us: i64, out: &mut Vec<Transition>) {
        let Some(run) = &self.run else { return };
        let silence = end_us.saturating_sub(run.last_us);
        // A cry during a cooldown lasts, like an announced one, over pauses; otherwise a cry that goes on and
        // on would begin anew with every breath and never be announced.
        let long_enough = run.crying_us >= us(self.params.min_duration_s);
        let patience = if run.announced || long_enough { us(self.params.end_after_s) } else { BRIDGE_US };
        if silence >= patience {
            self.close(out);
        }
    }

    /// The stream ended at `at_us`, or will not be heard for long: an open event ends at its last cry, and not
    /// after the stream.
    pub fn finish(&mut self, at_us: i64, out: &mut Vec<Transition>) {
        if let Some(run) = &mut self.run {
            run.last_us = run.last_us.min(at_us.max(run.onset_us.saturating_add(1)));
        }
        self.close(out);
    }

    fn close(&mut self, out: &mut Vec<Transition>) {
        let Some(run) = self.run.take().filter(|r| r.announced) else { return };
        self.quiet_until_us = Some(run.last_us.saturating_add(us(self.params.cooldown_s)));
        out.push(Transition::Ended {
            onset_us: run.onset_us,
            offset_us: run.last_us,
            peak_score: run.peak,
            crying_us: run.crying_us,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    const STEP: u32 = 40_000;

    fn params() -> EventParams {
        EventParams { threshold: 0.5, min_duration_s: 0.6, end_after_s: 5.0, cooldown_s: 60.0 }
    }

    /// Feeds stretches of (seconds, probability) and returns what changed.
    fn feed(logic: &mut EventLogic, at_us: &mut i64, stretches: &[(f64, f32)]) -> Vec<Transition> {
        let mut out = Vec::new();
        for (seconds, p) in stretches {
            for _ in 0..(seconds * 1e6 / f64::from(STEP)).round() as usize {
                logic.push(*at_us, STEP, *p, &mut out);
                *at_us += i64::from(STEP);
            }
        }
        out
    }

    fn run(stretches: &[(f64, f32)]) -> Vec<Transition> {
        feed(&mut EventLogic::new(params()), &mut 0, stretches)
    }

    #[test]
    fn a_cry_is_announced_after_its_minimum_and_ends_after_silence() {
        let out = run(&[(2.0, 0.0), (3.0, 0.9), (6.0, 0.1)]);
        assert_eq!(
            out,
            [
                Transition::Started { onset_us: 2_000_000, decided_us: 2_600_000, score: 0.9 },
                Transition::Ended {
                    onset_us: 2_000_000,
                    offset_us: 5_000_000,
                    peak_score: 0.9,
                    crying_us: 3_000_000
                },
            ]
        );
    }

    #[test]
    fn a_click_is_no_event_and_clicks_apart_do_not_add_up() {
        assert_eq!(run(&[(0.4, 0.9), (5.0, 0.0)]), []);
        assert_eq!(run(&[(0.4, 0.9), (1.0, 0.0)].repeat(10)), []);
    }

    #[test]
    fn bursts_on_the_breath_are_one_event() {
        let bursts = [(0.4, 0.9), (0.5, 0.1)].repeat(10);
        let out = run(&[&bursts[..], &[(6.0, 0.0)]].concat());
        assert!(
            matches!(out[..], [Transition::Started { onset_us: 0, .. }, Transition::Ended { .. }]),
            "{out:?}"
        );
    }

    #[test]
    fn while_crying_goes_on_weaker_frames_count_and_weak_ones_alone_do_not() {
        assert_eq!(run(&[(5.0, 0.4)]), []);
        let out = run(&[(0.2, 0.6), (0.6, 0.4)]);
        assert!(matches!(out[..], [Transition::Started { onset_us: 0, .. }]), "{out:?}");
    }

    #[test]
    fn a_cooldown_keeps_quiet_and_hides_nothing_that_lasts() {
        let (mut logic, mut t) = (EventLogic::new(params()), 0);
        assert_eq!(feed(&mut logic, &mut t, &[(1.0, 0.9), (6.0, 0.0)]).len(), 2);
        assert_eq!(feed(&mut logic, &mut t, &[(2.0, 0.9), (6.0, 0.0)]), [], "in the cooldown");
        let onset = t;
        let out = feed(&mut logic, &mut t, &[(0.8, 0.9), (0.8, 0.0)].repeat(60));
        let Transition::Started { onset_us, decided_us, .. } = out[0] else { panic!("{out:?}") };
        assert_eq!(onset_us, onset, "the event begins where the crying began");
        assert!(decided_us >= 61_000_000, "announced when the cooldown was over");
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn replayed_frames_change_nothing() {
        let mut logic = EventLogic::new(params());
        feed(&mut logic, &mut 0, &[(1.0, 0.9)]);
        let before = logic.clone();
        assert_eq!(feed(&mut logic, &mut 0, &[(1.0, 0.9)]), []);
        assert_eq!(logic, before);
    }

    #[test]
    fn missing_frames_are_no_silence_but_a_long_gap_ends_an_event() {
        let (mut logic, mut t) = (EventLogic::new(params()), 0);
        feed(&mut logic, &mut t, &[(1.0, 0.9)]);
        t += 20_000_000;
        assert_eq!(feed(&mut logic, &mut t, &[(0.48, 0.9)]), [], "it goes on");
        t += 31_000_000;
        let out = feed(&mut logic, &mut t, &[(0.5, 0.0)]);
        assert!(matches!(out[..], [Transition::Ended { offset_us: 21_480_000, .. }]), "{out:?}");
    }

    #[test]
    fn the_state_survives_storage() {
        let (mut logic, mut t) = (EventLogic::new(params()), 0);
        feed(&mut logic, &mut t, &[(1.0, 0.9)]);
        let mut restored: EventLogic = serde_json::from_str(&serde_json::to_string(&logic).unwrap()).unwrap();
        assert_eq!(restored, logic);
        let out = feed(&mut restored, &mut t, &[(6.0, 0.0)]);
        assert!(matches!(out[..], [Transition::Ended { onset_us: 0, .. }]), "not announced twice: {out:?}");
    }

    #[test]
    fn whatever_comes_events_alternate_and_have_sane_times() {
        for seed in 0..300 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut logic = EventLogic::new(EventParams {
                threshold: rng.random_range(0.1..0.9),
                min_duration_s: rng.random_range(0.0..2.0),
                end_after_s: rng.random_range(0.1..6.0),
                cooldown_s: rng.random_range(0.0..20.0),
            });
            let (mut t, mut out) = (rng.random_range(-10..10_000_000), Vec::new());
            for _ in 0..2000 {
                let p = match rng.random_range(0..20) {
                    0 => f32::NAN,
                    1 => f32::INFINITY,
                    2..8 => 0.95,
                    _ => rng.random_range(0.0..0.5),
                };
                logic.push(t, STEP, p, &mut out);
                t += match rng.random_range(0..100) {
                    0 => rng.random_range(-5_000_000..50_000_000),
                    1 => 0,
                    _ => i64::from(STEP),
                };
            }
            logic.finish(i64::MAX, &mut out);
            let mut open = None;
            for transition in out {
                match transition {
                    Transition::Started { onset_us, decided_us, score } => {
                        assert!(open.is_none(), "seed {seed}");
                        assert!(decided_us > onset_us && (0.0..=1.0).contains(&score), "seed {seed}");
                        open = Some(onset_us);
                    }
                    Transition::Ended { onset_us, offset_us, peak_score, .. } => {
                        assert_eq!(open.take(), Some(onset_us), "seed {seed}");
                        assert!(offset_us > onset_us && (0.0..=1.0).contains(&peak_score), "seed {seed}");
                    }
                }
            }
            assert!(open.is_none() && !logic.is_open(), "seed {seed}");
        }
    }

    #[test]
    fn extreme_times_do_not_overflow() {
        let mut logic = EventLogic::new(params());
        let mut out = Vec::new();
        for t in [i64::MIN, -1, 0, i64::MAX - 1, i64::MAX] {
            logic.push(t, u32::MAX, 0.9, &mut out);
        }
        logic.finish(i64::MAX, &mut out);
    }
}
