//! Frames and the messages inside, in both directions: what comes out does not depend on how the bytes arrive, and is
//! what would be written again; a length that lies costs nothing.

use std::fmt::Debug;

use fastrand::Rng;
use nursery_shared::{
    cage::{Cage, Guard},
    clip::{About, Format, Found},
    codec,
    config::{self, PicturesConfig},
    curve::Curve,
    frame::{FrameBuffer, FrameError, MAX_FROM_WORKER, MAX_TO_WORKER, PREFIX, encode_frame, read_frame},
    history::{
        Answer, Cry, EventFile, Feedback, From, History, Listing, Motion, Outage, Question, StoredEvent,
        Subject, Timeline, Verdict as Opinion,
    },
    light::{LightCamera, Picture, Wanted},
    media::ClipReport,
    message::{
        CameraDetection, CameraReport, CapturedWindow, DeliveryReport, FromWorker, Lost, ModelShape, Record,
        RecordKind, Role, SinkConfig, StreamState, ToWorker, WindowJob, WindowScores,
    },
    pcm::Pcm,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    mutate::{self, Mutator},
    target::{Check, ROOM, Target, Verdict, one_line, pieces, size, way, way_of_text},
};

pub const FROM_WORKER: Target = Target {
    name: "from-worker",
    about: "frames from a worker as the supervisor reads them",
    mutator: Mutator::Own(mutate_frames),
    words: &[],
    longest: 64 << 10,
    // A frame, once more while it grows in the buffer, and what its messages need.
    memory: |len| 3 * MAX_FROM_WORKER + 40 * len + ROOM,
    seconds: 2.0,
    short: 20_000,
    seeds: || seeds(&from_worker(), MAX_FROM_WORKER),
    check: || check::<FromWorker>(MAX_FROM_WORKER),
};

pub const TO_WORKER: Target = Target {
    name: "to-worker",
    about: "frames from the supervisor as a worker reads them",
    mutator: Mutator::Own(mutate_frames),
    words: &["rtsp://u:p@h/x", "low", "webhook"],
    longest: 64 << 10,
    memory: |len| MAX_TO_WORKER + 40 * len + 2 * ROOM,
    seconds: 2.0,
    short: 20_000,
    seeds: || seeds(&to_worker(), MAX_TO_WORKER),
    check: || check::<ToWorker>(MAX_TO_WORKER),
};

fn check<T: Serialize + DeserializeOwned + Debug + 'static>(max: usize) -> Check {
    Box::new(move |input| frames::<T>(input, max))
}

fn frames<T: Serialize + DeserializeOwned + Debug>(input: &[u8], max: usize) -> Verdict {
    let (mut rest, mut at, mut written) = (input, 0, Vec::new());
    let (mut kinds, mut count) = (Vec::new(), 0);
    let error = loop {
        match read_frame::<T>(&mut rest, max) {
            Ok(Some(message)) => {
                at = input.len() - rest.len();
                encode_frame(&message, max, &mut written)
                    .map_err(|e| format!("decoded but cannot be encoded: {e}"))?;
                if written != input[..at] {
                    return Err(format!("frame {count}, {message:?}, is written otherwise than it was read"));
                }
                count += 1;
                // A message's kind is the first word of its encoding.
                kinds.push(input.get(at - (at - PREFIX).min(4)).copied());
            }
            Ok(None) => break None,
            Err(e) => break Some(e),
        }
    };
    for where_they_are in [false, true] {
        in_pieces::<T>(input, max, where_they_are, &written, error.as_ref())?;
    }
    let words = error.map_or(0, |e| way_of_text(&e.to_string()));
    Ok(way((words, size(count), size(input.len() - at), kinds)))
}

/// Reads the same in pieces, each fed to the buffer or, as the supervisor does it, read where it is; what comes out must be
/// what was `written`, and the `error` the same.
fn in_pieces<T: Serialize + DeserializeOwned + Debug>(
    input: &[u8],
    max: usize,
    where_they_are: bool,
    written: &[u8],
    error: Option<&FrameError>,
) -> Result<(), String> {
    let (mut buffer, mut again, mut broken) = (FrameBuffer::new(max), Vec::new(), None);
    'stream: for mut piece in pieces(input, 1) {
        if !where_they_are {
            buffer.feed(std::mem::take(&mut piece));
        }
        loop {
            let next = match where_they_are {
                true => buffer.next_frame_of::<T>(&mut piece),
                false => buffer.next_frame::<T>(),
            };
            match next {
                Ok(Some(message)) => encode_frame(&message, max, &mut again).map_err(|e| e.to_string())?,
                Ok(None) => break,
                Err(e) => {
                    broken = Some(e);
                    break 'stream;
                }
            }
        }
        if !piece.is_empty() {
            return Err(format!("{} bytes of a piece were left, and no frame was", piece.len()));
        }
    }
    if again != written {
        return Err("the frames depend on how their bytes arrive".into());
    }
    match (error, &broken) {
        (None, None) if buffer.is_at_boundary() => Ok(()),
        (Some(FrameError::Truncated), None) if !buffer.is_at_boundary() => Ok(()),
        (Some(a), Some(b)) if a.to_string() == b.to_string() => one_line(&a.to_string()),
        _ => Err(format!("read at once: {error:?}; in pieces: {broken:?}")),
    }
}

/// Changes a message, the number of its bytes, or the order of frames.
pub fn mutate_frames(random: &mut Rng, input: &[u8], other: &[u8], words: &[&str]) -> Vec<u8> {
    let (mut frames, tail) = split(input);
    if frames.is_empty() || random.u8(0..10) == 0 {
        return mutate::bytes(random, input.to_vec(), other, words);
    }
    let chosen = random.usize(0..frames.len());
    match random.u8(0..10) {
        0 => drop(frames.remove(chosen)),
        1 => frames.insert(random.usize(0..=frames.len()), frames[chosen]),
        2 => {
            let (theirs, _) = split(other);
            if !theirs.is_empty() {
                frames.insert(chosen, theirs[random.usize(0..theirs.len())]);
            }
        }
        _ => {}
    }
    let mut out = Vec::new();
    for (n, body) in frames.iter().enumerate() {
        let body = if n == chosen && random.u8(0..4) > 0 {
            mutate::bytes(random, body.to_vec(), other, words)
        } else {
            body.to_vec()
        };
        let lie = n == chosen && random.u8(0..8) == 0;
        let length = if lie { random.u32(..) >> random.u8(0..32) } else { body.len() as u32 };
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&body);
    }
    out.extend_from_slice(tail);
    out
}

/// The bodies of whole frames, and what follows them.
fn split(mut input: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut frames = Vec::new();
    while let Some((prefix, rest)) = input.split_first_chunk::<PREFIX>()
        && let Some((body, after)) = rest.split_at_checked(u32::from_le_bytes(*prefix) as usize)
    {
        frames.push(body);
        input = after;
    }
    (frames, input)
}

/// Each message alone, then all in one stream.
pub fn seeds<T: Serialize>(messages: &[T], max: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut seeds = Vec::new();
    for message in messages {
        let mut one = Vec::new();
        encode_frame(message, max, &mut one).expect("a valid message fits a frame");
        all.extend_from_slice(&one);
        seeds.push(one);
    }
    seeds.push(all);
    seeds
}

fn from_worker() -> Vec<FromWorker> {
    let report = CameraReport {
        state: StreamState::Stalled,
        error: Some("192.0.2.10:554: connection refused".into()),
        level_dbfs: Some(-41.5),
        last_audio_us: Some(123_456_789),
        dropped: 3,
        corrupt: 4,
        connects: 5,
    };
    let live = CameraReport {
        state: StreamState::Live,
        error: None,
        level_dbfs: None,
        last_audio_us: None,
        ..report.clone()
    };
    let window = CapturedWindow {
        end_us: 1_769_824_984_500_000,
        arrived_us: 99,
        level_dbfs: -120.0,
        mute: false,
        pcm: Pcm::from_f32(&[0.5, -0.5, 1.0, 0.0]),
    };
    let scores = |id| WindowScores { id, scores: vec![0.1, 0.9, 0.5], state: vec![7; 24].into() };
    let deliveries = DeliveryReport {
        pending: 2,
        delivered: 3,
        failing_since_us: Some(1_769_824_984_500_000),
        last_error: Some("http://127.0.0.1:9000: 500".into()),
    };
    let mut cage = Cage::default();
    cage.note(Guard::Files, Ok(()));
    cage.note(Guard::Ports, Err("no Landlock".into()));
    vec![
        FromWorker::Hello { protocol: 2, version: "0.1.0".into(), role: Role::Capture },
        FromWorker::Ready,
        FromWorker::Progress { done: 4_000 },
        FromWorker::Camera(report),
        FromWorker::Camera(live),
        FromWorker::Window(window),
        FromWorker::Scores { batch: 8, windows: vec![scores(1), scores(2)] },
        FromWorker::Ack { up_to: 77 },
        FromWorker::Deliveries(deliveries),
        FromWorker::Event { json: r#"{"type":"cry.started"}"#.into() },
        FromWorker::Caged(cage),
        FromWorker::Loaded(model()),
        FromWorker::WantStatus,
        FromWorker::Question { ticket: 3, question: question() },
        FromWorker::Question { ticket: 4, question: timeline() },
        FromWorker::Question { ticket: 5, question: Question::Event { event_id: "0198c2a1-7000".into() } },
        FromWorker::Question { ticket: 6, question: feedback() },
        FromWorker::History {
            number: 4,
            answer: Answer::Events(History {
                events: vec![StoredEvent { id: 9, json: r#"{"type":"cry.started"}"#.into() }],
                newest: 12,
                next: Some(9),
            }),
        },
        FromWorker::History { number: 5, answer: Answer::failed("store: locked") },
        FromWorker::History { number: 6, answer: lookback() },
        FromWorker::History {
            number: 7,
            answer: Answer::Event(Some(Box::new(EventFile {
                subject: Subject::Cry(cry()),
                curve: curve(),
                threshold: 0.5,
                picture: true,
            }))),
        },
        FromWorker::History {
            number: 7,
            answer: Answer::Event(Some(Box::new(EventFile {
                subject: Subject::Motion(motion()),
                curve: curve(),
                threshold: 0.5,
                picture: false,
            }))),
        },
        FromWorker::History { number: 8, answer: Answer::Event(None) },
        FromWorker::Question { ticket: 9, question: Question::Picture { event_id: "0198c2a1-7000".into() } },
        FromWorker::History { number: 9, answer: Answer::Picture(picture().ok().map(Box::new)) },
        FromWorker::WantMedia { ticket: 5, camera: "crib".into() },
        FromWorker::OpenClip { clip: 7, camera: "crib".into(), from_us: 1, max_bytes: 2 },
        FromWorker::CloseClip { clip: 7, camera: "crib".into(), until_us: 3 },
        FromWorker::ClipClosed {
            clip: 7,
            report: ClipReport {
                from_us: 1,
                until_us: 2,
                bytes: 3,
                video: true,
                error: Some("no space".into()),
            },
        },
        FromWorker::WantClip { ticket: 1, event_id: "0198c2a1-7000-7abc-8def-0123456789ab".into() },
        FromWorker::ClipOf { number: 2, found: clip() },
        FromWorker::ClipOf { number: 3, found: Found::Failed("store: locked".into()) },
        FromWorker::Looking { camera: "crib".into() },
        FromWorker::Looked { camera: "crib".into(), motion: Some(0.25) },
        FromWorker::WantPicture { ticket: 4, wanted: wanted_picture() },
        FromWorker::PictureOf { number: 5, found: picture() },
        FromWorker::PictureOf { number: 6, found: Err("none yet".into()) },
    ]
}

fn clip() -> Found {
    let note = Some("the disk was too slow".into());
    Found::Clip(About { format: Format::Mp4, camera: "crib".into(), from_us: 1, until_us: 2, bytes: 3, note })
}

fn wanted_picture() -> Wanted {
    Wanted { camera: "crib".into(), near_us: Some(7), score: Some(0.5) }
}

fn picture() -> Result<Picture, String> {
    Ok(Picture { time_us: 7, motion: Some(0.25), jpeg: vec![0xff, 0xd8, 0xff].into() })
}

fn question() -> Question {
    let camera = Some("crib".into());
    Question::Events(Listing { from: From::After(7), since_us: Some(5), camera, limit: 50 })
}

fn timeline() -> Question {
    Question::Timeline { camera: "crib".into(), from_us: 5_000_000, until_us: 9_000_000, points: 4 }
}

fn feedback() -> Question {
    Question::Feedback { event_id: "0198c2a1-7000".into(), verdict: Opinion::NotCry, by: "page".into() }
}

fn curve() -> Curve {
    let bytes = || vec![0, 125, 250, 255];
    Curve { from_us: 5_000_000, step_us: 1_000_000, scores: bytes(), levels: bytes(), peaks: bytes() }
}

fn cry() -> Cry {
    Cry {
        event_id: "0198c2a1-7000".into(),
        camera: "crib".into(),
        onset_us: 6_000_000,
        offset_us: Some(7_000_000),
        score: 0.9,
        peak_score: Some(0.97),
        feedback: Some(Feedback { verdict: Opinion::Cry, at_us: 8_000_000, by: "api".into() }),
    }
}

fn motion() -> Motion {
    Motion {
        event_id: "0198c2a1-7002".into(),
        camera: "crib".into(),
        onset_us: 6_000_000,
        offset_us: Some(7_000_000),
        motion: 0.2,
        peak_motion: Some(0.4),
    }
}

fn lookback() -> Answer {
    let outage = Outage {
        event_id: "0198c2a1-7001".into(),
        camera: "crib".into(),
        since_us: 8_000_000,
        until_us: None,
        reason: "no audio".into(),
    };
    Answer::Timeline(Box::new(Timeline {
        curve: curve(),
        cries: vec![cry()],
        motions: vec![motion()],
        outages: vec![outage],
        truncated: true,
        threshold: 0.5,
    }))
}

fn model() -> ModelShape {
    ModelShape {
        id: "nursery-1-00000000".into(),
        window: 4_000,
        hop: 4_000,
        lookahead: 3_200,
        frame_step: 800,
        state_bytes: 24,
    }
}

fn to_worker() -> Vec<ToWorker> {
    let text = r#"{"cameras": [{"name": "crib", "source": "rtsps://u:p@192.0.2.10/s", "tls_fingerprint":
        "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", "threshold": 0.4}],
        "alerts": [{"type": "webhook", "url": "http://127.0.0.1:9/x", "secret": "whsec_AAAA", "timeout_s": 5},
        {"type": "exec", "command": "say cry"}, {"type": "log"}], "web": {"password": "open sesame"}}"#;
    let config = config::from_json(text, std::path::Path::new("")).expect("a valid configuration");
    let model = model();
    let job = |id| WindowJob { id, state: vec![9; 24].into(), pcm: Pcm::from_f32(&[0.25; 16]) };
    let record = |what| Record { camera: "crib".into(), what };
    let at_us = 1_769_824_984_500_000;
    let scores = RecordKind::Scores {
        start_us: at_us,
        step_us: 50_000,
        values: vec![0.2; 5],
        level_dbfs: -30.0,
        arrived_us: 5,
    };
    let sink = SinkConfig {
        run: 0x5eed,
        state_dir: "/var/lib/nursery".into(),
        alerts: config.alerts.clone(),
        detection: config.detection,
        cameras: vec![CameraDetection { camera: "crib".into(), detection: config.detection }],
        heartbeat: Some(nursery_shared::secret::Secret::new("https://example.org/ping")),
        clips: config::ClipsConfig::default(),
        keep_days: 30,
    };
    let configure = config.cameras.into_iter().map(|camera| ToWorker::ConfigureCapture {
        camera,
        model: model.clone(),
        remember_s: 30,
    });
    let mut messages: Vec<ToWorker> = configure.collect();
    messages.extend([
        ToWorker::ConfigureInfer { model: Some("/m.safetensors".into()), threads: 2 },
        ToWorker::ConfigureInfer { model: None, threads: 1 },
        ToWorker::ConfigureWeb(config.web.clone().unwrap_or_default()),
        ToWorker::Stored,
        ToWorker::Question { number: 1, question: question() },
        ToWorker::Question { number: 2, question: feedback() },
        ToWorker::History { ticket: 2, answer: Answer::Events(History::default()) },
        ToWorker::History { ticket: 3, answer: lookback() },
        ToWorker::ConfigureSink(sink),
        ToWorker::Batch { batch: 3, windows: vec![job(1), job(2)] },
        ToWorker::Record { seq: 1, record: record(scores) },
        ToWorker::Record {
            seq: 2,
            record: record(RecordKind::Offline(vec![Lost {
                camera: "crib".into(),
                since_us: at_us,
                reason: "no audio".into(),
            }])),
        },
        ToWorker::Record { seq: 3, record: record(RecordKind::Online { at_us }) },
        ToWorker::Record { seq: 4, record: record(RecordKind::Ended { at_us }) },
        ToWorker::Record { seq: 5, record: record(RecordKind::Motion { at_us, motion: 0.25 }) },
        ToWorker::OpenClip { clip: 7, from_us: 1, max_bytes: 2 },
        ToWorker::CloseClip { clip: 7, until_us: 3 },
        ToWorker::Remember { seconds: 27 },
        ToWorker::WantClip { number: 1, event_id: "e-1".into() },
        ToWorker::ClipOf { ticket: 1, found: clip() },
        ToWorker::ConfigureLight(vec![LightCamera {
            camera: "crib".into(),
            pictures: PicturesConfig::default(),
        }]),
        ToWorker::WantPicture { number: 5, wanted: wanted_picture() },
        ToWorker::PictureOf { ticket: 4, found: picture() },
        ToWorker::Drain,
    ]);
    // What is encoded is decoded to the same message, whatever mutation makes of it afterwards.
    for message in &messages {
        let mut bytes = Vec::new();
        codec::encode_into(message, &mut bytes).expect("a valid message can be encoded");
        assert_eq!(codec::decode::<ToWorker>(&bytes).expect("and decoded"), *message);
    }
    messages
}
