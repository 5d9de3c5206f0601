//! The ledger of truth: what became of every window and record, kept beside the policy and independent of it. Every
//! method that takes in what the policy did says what was wrong with it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use nursery_shared::{
    message::{CameraReport, Record, RecordKind, WindowJob},
    model_state::ModelState,
};
use nursery_supervisor::policy::{Accounts, Time};

/// What was promised and is not so.
pub type Broken = String;

/// Inference processes that a window may cost.
const MAX_DEATHS: u8 = 2;
/// Records that the supervisor keeps at the most, before it scores no more; those being scored then come on top.
const MOST_RECORDS: u64 = 40_000;

/// So long a window may wait for those of other cameras.
const GATHER: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Waiting,
    InHand,
    Scored,
    Dropped,
    SetAside,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    /// Slot of the capture process that brought it.
    camera: u32,
    /// By the policy's clock, as it came.
    arrived: Time,
    place: Place,
    deaths: u8,
}

/// One camera: the slot of its capture process names it, since its name may be given again.
#[derive(Debug, Default)]
struct Camera {
    waiting: VecDeque<u64>,
    in_hand: Option<u64>,
    last_scored: Option<u64>,
    lossless: bool,
    taken: u64,
    dropped: u64,
    /// Its queue is short; so many had been dropped when it was long the last time.
    short: bool,
    dropped_before: u64,
}

/// Batches that an inference process has in hand at the most.
const IN_HAND: usize = 2;

/// A batch that an inference process has in hand.
#[derive(Debug)]
struct Hand {
    batch: u64,
    windows: Vec<u64>,
}

/// All of it, for one life of the supervisor.
#[derive(Debug)]
pub struct Truth {
    /// Windows that may wait per camera, and in an overload.
    queue: usize,
    short: usize,
    max_batch: usize,
    windows: BTreeMap<u64, Window>,
    cameras: BTreeMap<u32, Camera>,
    /// The one that is scored first.
    hands: BTreeMap<u32, VecDeque<Hand>>,
    /// Scored; their records come in this order.
    to_record: VecDeque<u64>,
    /// Set aside; their records come in this order.
    to_keep: VecDeque<u64>,
    /// Set aside, and the sink was told.
    pub kept: BTreeSet<u64>,
    /// Records that the sink was sent and that were not acknowledged; the first has this number.
    records: VecDeque<Record>,
    first_record: u64,
    /// Every record before this one was stored by a sink.
    stored: u64,
    expect: Accounts,
}

/// What a model remembers after a window; told apart by the window's number.
pub fn state_after(window: u64, bytes: usize) -> ModelState {
    let mut state = vec![0; bytes];
    let number = window.to_le_bytes();
    state[..number.len().min(bytes)].copy_from_slice(&number[..number.len().min(bytes)]);
    state.into()
}

/// The number of a window that travels in its samples.
pub fn number_in(pcm: &[u8]) -> u64 {
    pcm.first_chunk::<8>().map_or(u64::MAX, |b| u64::from_le_bytes(*b))
}

impl Truth {
    /// Of a supervisor that begins.
    pub fn new((queue, short): (usize, usize), max_batch: usize) -> Self {
        Self {
            queue,
            short,
            max_batch,
            windows: BTreeMap::new(),
            cameras: BTreeMap::new(),
            hands: BTreeMap::new(),
            to_keep: VecDeque::new(),
            kept: BTreeSet::new(),
            to_record: VecDeque::new(),
            records: VecDeque::new(),
            first_record: 0,
            stored: 0,
            expect: Accounts::default(),
        }
    }

    /// Windows of one batch, from now on.
    pub fn batches(&mut self, max: usize) {
        self.max_batch = max;
    }

    /// A recording that is played as fast as it is scored loses nothing.
    pub fn is_lossless(&mut self, camera: u32, lossless: bool) {
        self.cameras.entry(camera).or_default().lossless = lossless;
    }

    /// The policy takes this window from a capture process.
    pub fn window_comes(&mut self, camera: u32, number: u64, arrived: Time) {
        self.windows.insert(number, Window { camera, arrived, place: Place::Waiting, deaths: 0 });
        let known = self.cameras.entry(camera).or_default();
        known.waiting.push_back(number);
        known.taken += 1;
        self.expect.taken += 1;
        self.expect.queued += 1;
    }

    /// The same, afterwards: its oldest give way where more wait than may.
    pub fn after_window(&mut self, camera: u32) {
        let known = self.cameras.entry(camera).or_default();
        let most = match (known.lossless, known.short) {
            (true, _) => self.queue * 8,
            (false, false) => self.queue,
            (false, true) => self.short,
        };
        let surplus = known.waiting.len().saturating_sub(most);
        let given_way: Vec<u64> = known.waiting.drain(..surplus).collect();
        known.dropped += given_way.len() as u64;
        for number in given_way {
            self.expect.dropped += 1;
            self.expect.queued -= 1;
            self.place(number, Place::Dropped);
        }
    }

    /// These cameras' queues are short from now on, since more is heard of each of them than is scored; what waits longer
    /// than it may gives way at once.
    pub fn strained(&mut self, slots: &BTreeSet<u32>) -> Result<(), Broken> {
        let mut begins = Vec::new();
        for (slot, camera) in &mut self.cameras {
            let before = std::mem::replace(&mut camera.short, slots.contains(slot));
            match (before, camera.short) {
                (true, false) => camera.dropped_before = camera.dropped,
                (false, true) if camera.dropped == camera.dropped_before => {
                    return Err(format!("the queue of capture slot {slot} is short, and it lost nothing"));
                }
                (false, true) => begins.push(*slot),
                _ => {}
            }
        }
        begins.into_iter().for_each(|slot| self.after_window(slot));
        Ok(())
    }

    fn place(&mut self, number: u64, place: Place) {
        match place {
            // Their story is over; a number that comes again is then an unknown one.
            Place::Dropped | Place::SetAside => {
                self.windows.remove(&number);
            }
            _ => {
                if let Some(window) = self.windows.get_mut(&number) {
                    window.place = place;
                }
            }
        }
    }

    /// An inference process is given a batch. Returns the windows' numbers.
    pub fn batch(&mut self, slot: u32, batch: u64, jobs: &[WindowJob]) -> Result<Vec<u64>, Broken> {
        let in_hand = self.hands.get(&slot).map_or(0, VecDeque::len);
        if in_hand >= IN_HAND {
            return Err(format!("slot {slot} is given batch {batch} with {in_hand} in hand"));
        }
        let hands = self.hands.get(&slot).into_iter().flatten().flat_map(|hand| &hand.windows);
        let own = jobs.iter().map(|job| number_in(job.pcm.as_bytes()));
        let suspect = |number: u64| self.windows.get(&number).is_some_and(|w| w.deaths > 0);
        if in_hand > 0 && hands.copied().chain(own).any(suspect) {
            return Err(format!("batch {batch} waits behind, or with, a window that a process died with"));
        }
        if jobs.is_empty() || jobs.len() > self.max_batch {
            return Err(format!("batch {batch} has {} windows of at most {}", jobs.len(), self.max_batch));
        }
        let mut numbers = Vec::with_capacity(jobs.len());
        for job in jobs {
            let number = number_in(job.pcm.as_bytes());
            let Some(window) = self.windows.get(&number).copied() else {
                return Err(format!("batch {batch} has window {number}, which is over and done"));
            };
            if window.place != Place::Waiting {
                return Err(format!("window {number} is sent out while it is {:?}", window.place));
            }
            if window.deaths > 0 && jobs.len() > 1 {
                return Err(format!("window {number}, with which a process died, does not travel alone"));
            }
            let camera = self.cameras.entry(window.camera).or_default();
            if camera.in_hand.is_some() {
                return Err(format!("two windows of capture slot {} are scored at once", window.camera));
            }
            if camera.waiting.front() != Some(&number) {
                return Err(format!("window {number} goes before {:?}", camera.waiting.front()));
            }
            if !job.state.is_fresh() && Some(number_in(job.state.as_bytes())) != camera.last_scored {
                return Err(format!(
                    "window {number} goes with the state after {}, but the camera's last one was {:?}",
                    number_in(job.state.as_bytes()),
                    camera.last_scored
                ));
            }
            camera.waiting.pop_front();
            camera.in_hand = Some(number);
            self.place(number, Place::InHand);
            numbers.push(number);
        }
        self.expect.queued -= numbers.len() as u64;
        self.expect.in_flight += numbers.len() as u64;
        self.hands.entry(slot).or_default().push_back(Hand { batch, windows: numbers.clone() });
        Ok(numbers)
    }

    /// The policy takes the scores of this batch from a process that has it in hand.
    pub fn scored(&mut self, slot: u32, batch: u64) {
        let Some(hands) = self.hands.get_mut(&slot) else { return };
        let Some(hand) = hands.pop_front_if(|h| h.batch == batch) else { return };
        if hands.is_empty() {
            self.hands.remove(&slot);
        }
        for number in hand.windows {
            self.expect.in_flight -= 1;
            self.expect.scored += 1;
            if let Some(window) = self.windows.get(&number).copied() {
                let camera = self.cameras.entry(window.camera).or_default();
                camera.in_hand = None;
                camera.last_scored = Some(number);
            }
            self.place(number, Place::Scored);
            self.to_record.push_back(number);
        }
    }

    /// The policy knows that an inference process is gone.
    pub fn process_gone(&mut self, slot: u32) {
        let hands = self.hands.remove(&slot).into_iter().flatten().enumerate();
        for (nth, number) in hands.flat_map(|(nth, hand)| hand.windows.into_iter().map(move |w| (nth, w))) {
            self.expect.in_flight -= 1;
            let Some(window) = self.windows.get_mut(&number) else { continue };
            // The other batch it had not begun.
            window.deaths += u8::from(nth == 0);
            let (aside, camera) = (nth == 0 && window.deaths >= MAX_DEATHS, window.camera);
            let known = self.cameras.entry(camera).or_default();
            known.in_hand = None;
            if aside {
                self.expect.set_aside += 1;
                self.to_keep.push_back(number);
                self.place(number, Place::SetAside);
            } else {
                known.waiting.push_front(number);
                self.expect.queued += 1;
                self.place(number, Place::Waiting);
            }
        }
    }

    /// The sink is sent a record. True where it is a new one.
    pub fn record(&mut self, seq: u64, record: &Record) -> Result<bool, Broken> {
        let next = self.first_record + self.records.len() as u64;
        if seq < self.first_record {
            return Err(format!("record {seq} is sent again after it was acknowledged"));
        }
        if let Some(known) = self.records.get((seq - self.first_record) as usize) {
            return if known == record { Ok(false) } else { Err(format!("record {seq} is another one now")) };
        }
        if seq != next {
            return Err(format!("record {seq} is sent, and {next} never was"));
        }
        if let RecordKind::Scores { level_dbfs, .. } = &record.what {
            let number = *level_dbfs as u64;
            if self.to_record.pop_front() != Some(number) {
                return Err(format!("window {number} is recorded twice or out of order"));
            }
            self.windows.remove(&number);
        }
        if let RecordKind::SetAside(window) = &record.what {
            let number = number_in(window.pcm.as_bytes());
            if self.to_keep.pop_front() != Some(number) || window.deaths.len() != usize::from(MAX_DEATHS) {
                return Err(format!("window {number} is set aside and should not be: {:?}", window.deaths));
            }
            self.windows.remove(&number);
            self.kept.insert(number);
        }
        self.records.push_back(record.clone());
        Ok(true)
    }

    /// A sink was sent this record.
    pub fn was_sent(&self, seq: u64) -> bool {
        seq < self.first_record + self.records.len() as u64
    }

    /// A sink has stored, or had nothing to store of, every record up to this one.
    pub fn stored(&mut self, up_to: u64) {
        self.stored = self.stored.max(up_to + 1);
    }

    /// The policy's accounts must be these. Called after every event.
    pub fn audit(&mut self, accounts: &Accounts) -> Result<(), Broken> {
        while self.first_record < accounts.oldest_record {
            if self.first_record >= self.stored {
                return Err(format!("record {} was forgotten and no sink has stored it", self.first_record));
            }
            if self.records.pop_front().is_none() {
                return Err(format!("record {} was forgotten before it was sent", self.first_record));
            }
            self.first_record += 1;
        }
        self.expect.records = accounts.records;
        self.expect.oldest_record = accounts.oldest_record;
        if *accounts != self.expect {
            return Err(format!("the accounts are {accounts:?} and should be {:?}", self.expect));
        }
        if accounts.records > MOST_RECORDS + 4096 {
            return Err(format!("{} records are kept", accounts.records));
        }
        let known = self.records.len() + self.to_record.len() + self.to_keep.len();
        if accounts.records < known as u64 {
            return Err(format!("{} records are kept, some are lost", accounts.records));
        }
        Ok(())
    }

    /// No queue is longer than it may be: one window that was taken back, and for a recording those that were on
    /// their way when it was held back, come on top.
    pub fn audit_queues(&self) -> Result<(), Broken> {
        for (slot, camera) in &self.cameras {
            let most = if camera.lossless { self.queue * 8 } else { self.queue };
            if camera.waiting.len() > most + 1 {
                return Err(format!("{} windows of capture slot {slot} wait", camera.waiting.len()));
            }
        }
        Ok(())
    }

    /// A camera has a window waiting and none in hand, so that an idle process must be given it; unless it has waited for
    /// less than [`GATHER`], and a timer is armed for the end of that.
    pub fn anybody_waits(&self, now: Time, armed: Option<Time>) -> bool {
        let first = self.cameras.values().filter(|c| c.in_hand.is_none()).filter_map(|c| c.waiting.front());
        first.filter_map(|number| self.windows.get(number)).any(|window| {
            let due = window.arrived + GATHER;
            due <= now || armed.is_none_or(|armed| armed > due)
        })
    }

    /// The process of this slot has nothing in hand.
    pub fn is_idle(&self, slot: u32) -> bool {
        !self.hands.contains_key(&slot)
    }

    /// Nothing waits and nothing is under way any more.
    pub fn is_settled(&self) -> Result<(), Broken> {
        let unrecorded = self.to_record.len() + self.to_keep.len();
        if self.expect.queued + self.expect.in_flight + self.expect.records > 0 || unrecorded > 0 {
            return Err(format!("something is never done with: {:?}", self.expect));
        }
        Ok(())
    }

    /// Windows taken from and dropped for the camera of a capture slot.
    pub fn taken_and_dropped(&self, camera: u32) -> (u64, u64) {
        self.cameras.get(&camera).map_or((0, 0), |c| (c.taken, c.dropped))
    }
}

/// A report of a capture process, as it would send it.
pub fn report(state: nursery_shared::message::StreamState, last_audio_us: Option<u64>) -> CameraReport {
    CameraReport {
        state,
        error: None,
        level_dbfs: Some(-40.0),
        last_audio_us,
        dropped: 0,
        corrupt: 0,
        connects: 1,
    }
}
