//! What is to be known of a fragmented MPEG-4 file that may be torn anywhere, or be anything at all: up to where its
//! fragments are whole, when it begins and how long it lasts. So much is read and no more, and no length that stands in the
//! file is trusted.

use std::{fs::File, io, os::unix::fs::FileExt};

/// Largest box that is read: the description of the tracks, and of a fragment.
const MAX_READ: u64 = 1 << 20;
/// Most fragments: four hours of seconds, of which clips last a quarter of one.
const MAX_FRAGMENTS: usize = 14_400;
/// Most boxes of any kind that are looked at: a fragment is two of them.
const MAX_BOXES: usize = 4 * MAX_FRAGMENTS;
/// Bytes of all descriptions of fragments together that are looked at.
const MAX_DESCRIBED: u64 = 64 << 20;
/// Read at once, since boxes may be small.
const PIECE: usize = 16 << 10;
/// Most tracks.
const MAX_TRACKS: usize = 8;
/// Seconds from 1900 (as in NTP) to 1970.
const NTP_TO_UNIX: i64 = 2_208_988_800;
/// NTP's seconds have 32 bits. They begin anew in 2036; before 1968 there were no clips.
const NTP_ERA: i64 = 1 << 32;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Movie {
    /// Time of the beginning, microseconds since 1970; `None` where the file does not say.
    pub from_us: Option<i64>,
    pub duration_us: i64,
    /// Up to the end of the last whole fragment.
    pub bytes: u64,
    pub video: bool,
}

/// A producer reference time box (ISO/IEC 14496-12, 8.16.5): the beginning of the movie is at this time.
pub fn reference_time(track: u32, from_us: i64) -> [u8; 32] {
    let seconds = from_us.div_euclid(1_000_000).saturating_add(NTP_TO_UNIX);
    let fraction = ((from_us.rem_euclid(1_000_000) as u64) << 32).div_ceil(1_000_000);
    let ntp = (seconds as u64) << 32 | fraction;
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&32u32.to_be_bytes());
    bytes[4..8].copy_from_slice(b"prft");
    bytes[8] = 1;
    bytes[12..16].copy_from_slice(&track.to_be_bytes());
    bytes[16..24].copy_from_slice(&ntp.to_be_bytes());
    bytes
}

fn time_of(body: &[u8]) -> Option<i64> {
    let ntp = u64_at(body, 8)?;
    let seconds = i64::try_from(ntp >> 32).ok()?;
    let era = if seconds < NTP_ERA / 2 { NTP_ERA } else { 0 };
    let seconds = seconds + era - NTP_TO_UNIX;
    let us = ((ntp & 0xffff_ffff) * 1_000_000) >> 32;
    seconds.checked_mul(1_000_000)?.checked_add(us as i64)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// The boxes within others: their kinds and contents. Ends at the first that does not fit.
struct Boxes<'a>(&'a [u8]);

impl<'a> Iterator for Boxes<'a> {
    type Item = ([u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let size = u32_at(self.0, 0)? as usize;
        let kind = self.0.get(4..8)?.try_into().ok()?;
        let body = self.0.get(8..size)?;
        self.0 = &self.0[size..];
        Some((kind, body))
    }
}

fn within<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    Boxes(bytes).find(|(found, _)| found == kind).map(|(_, body)| body)
}

#[derive(Debug, Clone, Copy)]
struct Track {
    id: u32,
    scale: u32,
    video: bool,
    /// Ticks of a sample for which a fragment says nothing.
    usual: u32,
    /// Ticks at which the last one ends.
    end: u64,
}

fn tracks(moov: &[u8]) -> Vec<Track> {
    let usual = |id: u32| {
        let mut extended = within(moov, b"mvex").map(Boxes).into_iter().flatten();
        extended.find_map(|(kind, body)| {
            (&kind == b"trex" && u32_at(body, 4) == Some(id)).then(|| u32_at(body, 12))?
        })
    };
    let track = |trak: &[u8]| {
        let header = within(trak, b"tkhd")?;
        let id = u32_at(header, if *header.first()? == 1 { 20 } else { 12 })?;
        let mdia = within(trak, b"mdia")?;
        let header = within(mdia, b"mdhd")?;
        let scale = u32_at(header, if *header.first()? == 1 { 20 } else { 12 })?;
        let video = within(mdia, b"hdlr")?.get(8..12)? == b"vide";
        (scale > 0).then(|| Track { id, scale, video, usual: usual(id).unwrap_or(0), end: 0 })
    };
    let traks = Boxes(moov).filter(|(kind, _)| kind == b"trak");
    traks.filter_map(|(_, trak)| track(trak)).take(MAX_TRACKS).collect()
}

/// Takes in the times of a fragment; `None` where it is none.
fn follow(moof: &[u8], tracks: &mut [Track]) -> Option<()> {
    for (_, traf) in Boxes(moof).filter(|(kind, _)| kind == b"traf") {
        let header = within(traf, b"tfhd")?;
        let (flags, id) = (u32_at(header, 0)?, u32_at(header, 4)?);
        let track = tracks.iter_mut().find(|t| t.id == id)?;
        let skipped =
            [(1, 8), (2, 4)].iter().filter(|(bit, _)| flags & bit != 0).map(|(_, n)| n).sum::<usize>();
        let usual = if flags & 8 != 0 { u32_at(header, 8 + skipped)? } else { track.usual };
        let begin = within(traf, b"tfdt")?;
        let mut end = if *begin.first()? == 1 { u64_at(begin, 4)? } else { u32_at(begin, 4)?.into() };
        for (_, run) in Boxes(traf).filter(|(kind, _)| kind == b"trun") {
            let (flags, count) = (u32_at(run, 0)?, u32_at(run, 4)? as usize);
            let fields = [0x100, 0x200, 0x400, 0x800].iter().filter(|bit| flags & **bit != 0).count();
            let first = 8 + 4 * [1, 4].iter().filter(|bit| flags & **bit != 0).count();
            if flags & 0x100 == 0 {
                end = end.saturating_add(u64::from(usual).saturating_mul(count as u64));
                continue;
            }
            let samples = run.get(first..)?.chunks_exact(4 * fields);
            if samples.len() < count {
                return None;
            }
            for sample in samples.take(count) {
                end = end.saturating_add(u32_at(sample, 0)?.into());
            }
        }
        track.end = track.end.max(end);
    }
    Some(())
}

/// A file that is read from its beginning to its end, in pieces.
struct Pieces<'a> {
    file: &'a File,
    piece: Vec<u8>,
    /// Where the piece begins.
    begin: u64,
}

impl Pieces<'_> {
    /// The eight bytes at a place.
    fn head(&mut self, at: u64) -> io::Result<[u8; 8]> {
        let known = |piece: &[u8], begin: u64| -> Option<[u8; 8]> {
            let from = usize::try_from(at.checked_sub(begin)?).ok()?;
            piece.get(from..from.checked_add(8)?)?.try_into().ok()
        };
        if let Some(head) = known(&self.piece, self.begin) {
            return Ok(head);
        }
        self.piece.resize(PIECE, 0);
        let mut read = 0;
        while read < PIECE {
            match self.file.read_at(&mut self.piece[read..], at.saturating_add(read as u64)) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.piece.truncate(read);
        self.begin = at;
        Ok(known(&self.piece, at).ok_or(io::ErrorKind::UnexpectedEof)?)
    }
}

/// What a file of so many bytes holds; `None` where there is not one whole fragment, or it is of another kind.
///
/// # Errors
/// Those of the file.
pub fn look(file: &File, bytes: u64) -> io::Result<Option<Movie>> {
    let (mut at, mut described, mut from_us) = (0u64, Vec::new(), None);
    let mut whole = None;
    // A fragment counts when its data is there.
    let mut pending: Option<Vec<Track>> = None;
    let (mut fragments, mut boxes, mut read) = (0, 0, 0);
    let mut pieces = Pieces { file, piece: Vec::new(), begin: 0 };
    while at + 8 <= bytes && fragments < MAX_FRAGMENTS && boxes < MAX_BOXES && read < MAX_DESCRIBED {
        let head = pieces.head(at)?;
        boxes += 1;
        let size = u64::from(u32::from_be_bytes([head[0], head[1], head[2], head[3]]));
        let kind = [head[4], head[5], head[6], head[7]];
        if size < 8 || size > bytes - at {
            break;
        }
        let body = || -> io::Result<Vec<u8>> {
            let mut body = vec![0; if size <= MAX_READ { size as usize - 8 } else { 0 }];
            file.read_exact_at(&mut body, at + 8)?;
            Ok(body)
        };
        match (&kind, at) {
            (b"ftyp", 0) => {}
            (_, 0) => return Ok(None),
            (b"moov", _) if described.is_empty() => {
                described = tracks(&body()?);
                if described.is_empty() {
                    return Ok(None);
                }
            }
            (b"prft", _) if from_us.is_none() => {
                read += size.min(MAX_READ);
                from_us = time_of(&body()?);
            }
            (b"moof", _) if !described.is_empty() => {
                read += size.min(MAX_READ);
                let mut after = described.clone();
                if follow(&body()?, &mut after).is_none() {
                    break;
                }
                pending = Some(after);
            }
            (b"mdat", _) => {
                let Some(after) = pending.take() else { break };
                described = after;
                fragments += 1;
                whole = Some(at + size);
            }
            (b"prft" | b"free" | b"styp" | b"sidx", _) => {}
            _ => break,
        }
        at += size;
    }
    let Some(bytes) = whole else { return Ok(None) };
    let lasted = |t: &Track| u128::from(t.end) * 1_000_000 / u128::from(t.scale);
    let duration = described.iter().map(lasted).max().unwrap_or(0);
    let Ok(duration_us) = i64::try_from(duration) else { return Ok(None) };
    let video = described.iter().any(|t| t.video && t.end > 0);
    Ok(Some(Movie { from_us, duration_us, bytes, video }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::{path::PathBuf, time::Duration};

    use nix::sys::resource::{UsageWho, getrusage};

    use super::*;

    struct TempFile(PathBuf, File);

    impl TempFile {
        fn new(name: &str, content: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("nursery-boxes-{name}-{}", std::process::id()));
            let file =
                File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
            file.write_all_at(content, 0).unwrap();
            Self(path, file)
        }
    }

    impl Drop for TempFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32 + 8).to_be_bytes()[..], kind, body].concat()
    }

    fn cpu() -> Duration {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
        let of =
            |t: nix::sys::time::TimeVal| Duration::from_micros((t.tv_sec() * 1_000_000 + t.tv_usec()) as u64);
        of(usage.user_time()) + of(usage.system_time())
    }

    fn cost(name: &str, content: &[u8]) -> Duration {
        let file = TempFile::new(name, content);
        let before = cpu();
        assert_eq!(look(&file.1, content.len() as u64).unwrap(), None);
        cpu() - before
    }

    #[test]
    fn a_file_of_nothing_but_small_boxes_is_given_up_soon() {
        let mut content = boxed(b"ftyp", b"isom");
        content.extend(boxed(b"free", b"").repeat(8 << 20));
        let taken = cost("small", &content);
        assert!(taken < Duration::from_millis(300), "{taken:?}");
    }

    #[test]
    fn times_after_2036_are_known() {
        for from_us in
            [0, 1_800_000_000_123_456, 2_085_978_495_000_000, 2_085_978_497_000_000, 4_000_000_000_000_000]
        {
            assert_eq!(time_of(&reference_time(1, from_us)[8..]), Some(from_us));
        }
    }
}
