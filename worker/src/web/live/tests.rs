#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::{future::poll_fn, sync::mpsc};

use bytes::Bytes;
use nursery_shared::{
    frame::{FrameBuffer, encode_frame},
    media::{
        AudioCodec, AudioTrack, Data, FromCapture, Kind, MAX_MEDIA, MAX_WISH, Packet, ToCapture, Tracks,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    record::{HEAD, What},
    *,
};

const PATIENCE: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(200);

struct Rig {
    live: Arc<Live>,
    asked: mpsc::Receiver<(u64, String)>,
}

fn rig(most_viewers: usize) -> Rig {
    let (ask, asked) = mpsc::channel();
    let mut live = Live::new(move |message| match message {
        FromWorker::WantMedia { ticket, camera } => {
            ask.send((*ticket, camera.clone())).map_err(|e| e.to_string())
        }
        other => panic!("{other:?}"),
    });
    (live.linger, live.most_viewers) = (SHORT, most_viewers);
    Rig { live: Arc::new(live), asked }
}

impl Rig {
    async fn question(&self) -> (u64, String) {
        for _ in 0..1000 {
            match self.asked.try_recv() {
                Ok(question) => return question,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        panic!("nothing was asked");
    }

    /// The capture process that the next question is about.
    async fn capture(&self) -> Capture {
        let (ticket, _) = self.question().await;
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        self.live.answered(ticket, Ok(theirs.into()));
        Capture { socket: UnixStream::from_std(ours).unwrap(), frames: FrameBuffer::new(MAX_WISH) }
    }
}

struct Capture {
    socket: UnixStream,
    frames: FrameBuffer,
}

impl Capture {
    async fn say(&mut self, message: &FromCapture) {
        let mut bytes = Vec::new();
        encode_frame(message, MAX_MEDIA, &mut bytes).unwrap();
        timeout(PATIENCE, self.socket.write_all(&bytes)).await.unwrap().unwrap();
    }

    async fn begin(&mut self) {
        let audio = AudioTrack { codec: AudioCodec::Ulaw, rate: 8000, channels: 1, config: Data::default() };
        self.say(&FromCapture::Tracks(Tracks { audio: Some(audio), ..Tracks::default() })).await;
    }

    async fn sound(&mut self, byte: u8) {
        let data = Data::from(vec![byte]);
        let packet = Packet { kind: Kind::Audio, time_us: 1, duration_us: 125, key: true, data };
        self.say(&FromCapture::Packet(packet)).await;
    }

    /// What is wished next; `None` where the other end has had enough.
    async fn wish(&mut self) -> Option<bool> {
        loop {
            if let Some(ToCapture::Want { video }) = self.frames.next_frame().unwrap() {
                return Some(video);
            }
            let mut bytes = [0; 64];
            match timeout(PATIENCE, self.socket.read(&mut bytes)).await.unwrap() {
                Ok(n @ 1..) => self.frames.feed(&bytes[..n]),
                Ok(0) | Err(_) => return None,
            }
        }
    }
}

/// The next records, until one of this kind.
async fn until(viewer: &mut Viewer, what: What) -> Vec<(u8, Bytes)> {
    let mut found = Vec::new();
    timeout(PATIENCE, async {
        while found.last().is_none_or(|(kind, _)| *kind != what as u8) {
            let mut bytes = poll_fn(|context| viewer.poll_next(context)).await;
            while bytes.len() >= HEAD {
                let length = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize + 4;
                let record = bytes.split_to(length);
                found.push((record[4], record.slice(HEAD..)));
            }
        }
    })
    .await
    .unwrap_or_else(|_| panic!("no {what:?} came, only {found:?}"));
    found
}

#[tokio::test]
async fn one_stream_serves_all_and_nothing_comes_in_for_nobody() {
    let rig = rig(10);
    let mut listener = rig.live.watch("crib", false).unwrap();
    let mut capture = rig.capture().await;
    capture.begin().await;
    capture.sound(1).await;
    assert_eq!(until(&mut listener, What::RawSound).await.last().unwrap().1.as_ref(), [1]);
    let mut second = rig.live.watch("crib", false).unwrap();
    assert_eq!(until(&mut second, What::RawSound).await.len(), 2, "what there is, and the newest");
    // Pictures are wished when somebody wants to see them, and no longer when that is over.
    let looker = rig.live.watch("crib", true).unwrap();
    assert_eq!(capture.wish().await, Some(true));
    assert_eq!(rig.live.figures(), Figures { viewers: 3, cameras: 1 });
    drop(looker);
    assert_eq!(capture.wish().await, Some(false));
    capture.sound(2).await;
    for viewer in [&mut listener, &mut second] {
        assert_eq!(until(viewer, What::RawSound).await.last().unwrap().1.as_ref(), [2]);
    }
    assert!(rig.asked.try_recv().is_err(), "one socket is enough");
    drop((listener, second));
    assert_eq!(capture.wish().await, None, "the socket is closed");
    timeout(PATIENCE, async {
        while rig.live.figures() != Figures::default() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_stream_that_breaks_is_asked_for_again_and_viewers_stay() {
    let rig = rig(10);
    let mut viewer = rig.live.watch("crib", true).unwrap();
    let (ticket, camera) = rig.question().await;
    assert_eq!(camera, "crib");
    rig.live.answered(ticket, Err("its capture process does not run at the moment".into()));
    let said = until(&mut viewer, What::Notice).await;
    assert!(String::from_utf8_lossy(&said[0].1).contains("does not run"), "{said:?}");
    for byte in [1, 2] {
        let mut capture = rig.capture().await;
        capture.begin().await;
        assert_eq!(capture.wish().await, Some(true));
        capture.sound(byte).await;
        assert_eq!(until(&mut viewer, What::RawSound).await.last().unwrap().1.as_ref(), [byte]);
        drop(capture);
        until(&mut viewer, What::Notice).await;
    }
    // One that sends what is no frame is dropped.
    let mut capture = rig.capture().await;
    capture.socket.write_all(&[0xff; 64]).await.unwrap();
    let said = until(&mut viewer, What::Notice).await;
    assert!(String::from_utf8_lossy(&said[0].1).contains("cannot be read"), "{said:?}");
    while capture.wish().await.is_some() {}
}

#[tokio::test]
async fn a_viewer_too_many_is_refused_and_has_a_place_when_another_leaves() {
    let rig = rig(2);
    let first = rig.live.watch("crib", true).unwrap();
    let _second = rig.live.watch("attic", false).unwrap();
    assert!(rig.live.watch("crib", false).is_err());
    drop(first);
    assert!(rig.live.watch("crib", false).is_ok());
    let many = super::tests::rig(1000);
    let viewers: Vec<Viewer> =
        (0..MOST_CAMERAS).map(|n| many.live.watch(&n.to_string(), false).unwrap()).collect();
    assert!(many.live.watch("one more", false).is_err());
    assert!(many.live.watch("0", false).is_ok());
    assert!(many.live.share() * viewers.len() <= KEPT);
}

#[tokio::test]
async fn who_has_nothing_to_hear_hears_that_the_stream_is_alive() {
    let rig = rig(2);
    let mut viewer = rig.live.watch("crib", true).unwrap();
    until(&mut viewer, What::KeepAlive).await;
}
