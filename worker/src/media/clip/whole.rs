//! Looks at a file of a clip, whatever it is and however it was left, and makes it whole: what is torn at its end goes, and
//! the lengths are put in. Whoever wrote it is not trusted.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::{Format, boxes, wav};

/// Longest that a clip may claim to last; what says more is broken.
const LONGEST_US: i64 = 86_400_000_000;

/// A clip that can be played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    pub format: Format,
    /// Time of its first and after its last sample, microseconds since 1970; `None` where it does not say.
    pub from_us: Option<i64>,
    pub duration_us: i64,
    /// Of the file, when what is torn is gone.
    pub bytes: u64,
    pub video: bool,
}

/// What a file holds; `None` where there is nothing in it that could be played.
///
/// # Errors
/// Those of the file.
pub fn look(file: &File) -> io::Result<Option<Whole>> {
    let bytes = file.metadata()?.len();
    let mut begin = [0; wav::HEADER];
    let mut read = 0;
    while read < begin.len() {
        match file.read_at(&mut begin[read..], read as u64) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let found = match begin.get(..4) {
        Some(b"RIFF") => wav::look(&begin[..read], bytes).map(|sound| Whole {
            format: Format::Wav,
            from_us: Some(sound.from_us),
            duration_us: sound.duration_us,
            bytes: sound.bytes,
            video: false,
        }),
        _ => boxes::look(file, bytes)?.map(|movie| Whole {
            format: if movie.video { Format::Mp4 } else { Format::M4a },
            from_us: movie.from_us,
            duration_us: movie.duration_us,
            bytes: movie.bytes,
            video: movie.video,
        }),
    };
    Ok(found.filter(|w| (1..=LONGEST_US).contains(&w.duration_us)))
}

/// Makes a file whole that is open for writing; `None`, and nothing is changed, where there is nothing in it. It is not
/// waited for until that has reached the disk: what a power cut leaves is mended again.
///
/// # Errors
/// Those of the file.
pub fn mend(file: &File) -> io::Result<Option<Whole>> {
    let Some(found) = look(file)? else { return Ok(None) };
    if file.metadata()?.len() != found.bytes {
        file.set_len(found.bytes)?;
    }
    if found.format == Format::Wav {
        wav::finish(file, found.bytes)?;
    }
    Ok(Some(found))
}
