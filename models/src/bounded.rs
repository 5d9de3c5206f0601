//! Reading whole files no further than a bound, so that one which never ends (a device, a pipe, a file that grows)
//! is an error and not all memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Most that a text or a checkpoint of training and evaluation may hold, bytes.
pub const MOST: u64 = 256 << 20;

/// All of an open file, if it is no longer than `most` bytes.
///
/// # Errors
/// [`io::ErrorKind::FileTooLarge`] if it is; otherwise what reading says.
pub fn read(file: File, most: u64) -> io::Result<Vec<u8>> {
    let too_large = || {
        io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("is larger than {} MiB, the most taken", most >> 20),
        )
    };
    if file.metadata()?.len() > most {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // What a device or a growing file holds is in no metadata.
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_large()) } else { Ok(bytes) }
}

/// A file's bytes, at most [`MOST`].
///
/// # Errors
/// As [`read`].
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    read(File::open(path)?, MOST)
}

/// A file's text, at most [`MOST`] bytes.
///
/// # Errors
/// As [`read`], or it is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_file(path)?)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("is no text: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_ends_is_an_error_and_what_ends_is_read() {
        let endless = read(File::open("/dev/zero").unwrap(), 4 << 20).unwrap_err();
        assert_eq!(endless.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(endless.to_string(), "is larger than 4 MiB, the most taken");
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let text = read_text(&own).unwrap();
        assert!(text.contains("nursery-models"));
        let exact = text.len() as u64;
        assert_eq!(read(File::open(&own).unwrap(), exact).unwrap(), text.as_bytes());
        assert!(read(File::open(&own).unwrap(), exact - 1).is_err());
    }
}
