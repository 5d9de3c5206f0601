//! The newest pictures of each camera, small and not encoded, since hardly any of them is ever looked at. One that is
//! wanted gets its words and becomes a file.

use std::collections::{BTreeMap, VecDeque};

use nursery_shared::{
    light::{Found, Picture, Wanted},
    timestamp,
};

use super::{annotate, frame::Frame, jpeg};

/// Pictures that are kept of a camera: an event is told of some seconds after its onset, when a newer one may be there.
const KEPT: usize = 3;
/// Bytes of all of them. Where there are more, each camera's newest is all that is kept of it, and where that is still too
/// much those that were looked at longest ago go.
const MOST_BYTES: usize = 256 << 20;

/// One picture.
#[derive(Debug)]
pub struct Taken {
    /// Wall-clock time, microseconds since 1970.
    pub time_us: i64,
    pub motion: Option<f32>,
    pub frame: Frame,
}

/// What there is of a camera.
#[derive(Debug, Default)]
struct Shown {
    newest: VecDeque<Taken>,
    /// Why there is none (any more).
    why_not: Option<String>,
}

/// Pictures of all cameras.
#[derive(Debug, Default)]
pub struct Gallery(BTreeMap<String, Shown>);

impl Gallery {
    /// Only these cameras have pictures from now on.
    pub fn keep(&mut self, cameras: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| cameras(name));
    }

    /// A camera was looked at.
    pub fn hang(&mut self, camera: &str, taken: Taken) {
        let shown = self.0.entry(camera.to_owned()).or_default();
        shown.why_not = None;
        shown.newest.truncate(KEPT - 1);
        shown.newest.push_front(taken);
        self.make_room(MOST_BYTES);
    }

    fn make_room(&mut self, most: usize) {
        let size = |taken: &Taken| taken.frame.bytes();
        let mut bytes: usize = self.0.values().flat_map(|shown| &shown.newest).map(size).sum();
        let mut oldest = |deepest: usize| {
            while bytes > most {
                let found = self.0.values_mut().filter(|shown| shown.newest.len() > deepest);
                let Some(shown) = found.min_by_key(|shown| shown.newest.back().map(|taken| taken.time_us))
                else {
                    return;
                };
                let Some(gone) = shown.newest.pop_back() else { return };
                bytes -= size(&gone);
                if shown.newest.is_empty() {
                    shown.why_not =
                        Some("there are too many pictures of other cameras: make them smaller".into());
                }
            }
        };
        oldest(1);
        oldest(0);
    }

    /// A camera has no pictures at the moment; what was there is gone, since it says nothing of now.
    pub fn take_down(&mut self, camera: &str, why: &str) {
        let shown = self.0.entry(camera.to_owned()).or_default();
        shown.newest.clear();
        shown.why_not = Some(why.to_owned());
    }

    /// The picture that is wanted, as a file.
    pub fn find(&self, wanted: &Wanted) -> Found {
        let shown =
            self.0.get(&wanted.camera).ok_or("no pictures are made of this camera, or not at the moment")?;
        let nearest = match wanted.near_us {
            Some(time) => shown.newest.iter().min_by_key(|taken| taken.time_us.abs_diff(time)),
            None => shown.newest.front(),
        };
        let taken =
            nearest.ok_or_else(|| shown.why_not.clone().unwrap_or_else(|| "there is none yet".into()))?;
        let mut frame = taken.frame.clone();
        annotate::write(&mut frame, &words(wanted, taken));
        Ok(Picture { time_us: taken.time_us, motion: taken.motion, jpeg: jpeg::encode(&frame)?.into() })
    }
}

/// Camera, time and scores. The time is that of Greenwich: what another one is here stands in a file that is out of reach.
fn words(wanted: &Wanted, taken: &Taken) -> Vec<String> {
    let time = timestamp::rfc3339(taken.time_us);
    let time = time.get(..19).unwrap_or(&time).replace('T', " ");
    let mut words = vec![wanted.camera.clone(), format!("{time} UTC")];
    if let Some(score) = wanted.score {
        words.push(format!("cry {:.0} %", score.clamp(0.0, 1.0) * 100.0));
    }
    words
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn taken(time_us: i64) -> Taken {
        let frame = Frame { width: 640, height: 360, y: vec![80; 640 * 360], colours: None };
        Taken { time_us, motion: Some(0.25), frame }
    }

    fn wanted(near_us: Option<i64>) -> Wanted {
        Wanted { camera: "crib".into(), near_us, score: Some(0.974) }
    }

    #[test]
    fn the_newest_is_shown_or_the_one_nearest_to_a_time() {
        let mut gallery = Gallery::default();
        assert!(gallery.find(&wanted(None)).unwrap_err().contains("no pictures"));
        (1..=9).for_each(|n| gallery.hang("crib", taken(n * 5_000_000)));
        let time = |near_us| gallery.find(&wanted(near_us)).unwrap().time_us / 1_000_000;
        assert_eq!(
            (time(None), time(Some(41_000_000)), time(Some(0)), time(Some(i64::MAX))),
            (45, 40, 35, 45)
        );
        gallery.take_down("crib", "its video is H.265");
        assert_eq!(gallery.find(&wanted(None)).unwrap_err(), "its video is H.265");
        gallery.keep(|name| name != "crib");
        assert!(gallery.find(&wanted(None)).unwrap_err().contains("no pictures"));
    }

    #[test]
    fn many_cameras_have_fewer_pictures_each_and_memory_has_an_end() {
        let mut gallery = Gallery::default();
        let size = taken(0).frame.bytes();
        (0..30).for_each(|n| gallery.hang(&format!("c{}", n % 10), taken(n)));
        gallery.make_room(size * 12);
        let counts = |gallery: &Gallery| gallery.0.values().map(|s| s.newest.len()).collect::<Vec<_>>();
        assert_eq!(counts(&gallery), [1, 1, 1, 1, 1, 1, 1, 1, 2, 2]);
        gallery.make_room(size * 8);
        assert_eq!(counts(&gallery), [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
        let gone = gallery.find(&Wanted { camera: "c0".into(), ..wanted(None) }).unwrap_err();
        assert!(gone.contains("too many pictures"), "{gone}");
    }

    #[test]
    fn a_picture_says_what_it_is() {
        let words = words(&wanted(None), &taken(1_769_824_983_250_000));
        assert_eq!(words, ["crib", "2026-01-31 02:03:03 UTC", "cry 97 %"]);
        let mut gallery = Gallery::default();
        gallery.hang("crib", taken(1));
        let file = |wanted: &Wanted| gallery.find(wanted).unwrap().jpeg;
        assert_ne!(file(&wanted(None)), file(&Wanted { score: None, ..wanted(None) }));
    }
}
