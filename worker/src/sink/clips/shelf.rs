//! The directory of clips: files named by the number of the alert that announced their event, those that are still being
//! written `NUMBER.part`.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::libc::{O_APPEND, O_NOFOLLOW};
use nursery_shared::clip::Format;

/// Directory inside the store's directory.
pub const DIR: &str = "clips";
const PART: &str = "part";
/// What files take of a disk comes in pieces of this size.
const BLOCK: u64 = 4096;

/// The directory, which is made when the first clip is.
pub struct Shelf(PathBuf);

/// A file in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    pub number: i64,
    /// `None`: it is still being written, or whoever wrote it is gone.
    pub format: Option<Format>,
    pub bytes: u64,
}

/// What a file of so many bytes takes.
pub fn on_disk(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK)
}

/// The name of a clip's file.
pub fn name(number: i64, format: Format) -> String {
    format!("{number}.{}", format.extension())
}

fn part(number: i64) -> String {
    format!("{number}.{PART}")
}

impl Shelf {
    /// Inside the store's directory.
    pub fn new(store: &Path) -> Self {
        Self(store.join(DIR))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// All files, in no order; what has a name that no clip has is none of them.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn items(&self) -> io::Result<Vec<Item>> {
        let entries = match fs::read_dir(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut items = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some((number, extension)) = name.to_str().and_then(|n| n.split_once('.')) else { continue };
            let format = Format::of_extension(extension);
            if format.is_none() && extension != PART {
                continue;
            }
            // Names are made here: no zeros or signs before the digits.
            let Some(number) = number.parse::<i64>().ok().filter(|n| n.to_string() == number) else {
                continue;
            };
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => {
                    items.push(Item { number, format, bytes: metadata.len() })
                }
                // It is no file, or it has gone this moment.
                _ => {}
            }
        }
        Ok(items)
    }

    /// A new, empty file that is only added to, whoever writes.
    ///
    /// # Errors
    /// There is one already, or it cannot be made.
    pub fn begin(&self, number: i64) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600).custom_flags(O_APPEND | O_NOFOLLOW);
        let open = || options.open(self.at(&part(number)));
        match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new().mode(0o700).create(&self.0)?;
                open()
            }
            outcome => outcome,
        }
    }

    /// One that is still being written, to be mended.
    ///
    /// # Errors
    /// Those of the file.
    pub fn open_part(&self, number: i64) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).custom_flags(O_NOFOLLOW).open(self.at(&part(number)))
    }

    /// A complete one, to be mended.
    ///
    /// # Errors
    /// Those of the file.
    pub fn open_whole(&self, number: i64, format: Format) -> io::Result<File> {
        let name = name(number, format);
        OpenOptions::new().read(true).write(true).custom_flags(O_NOFOLLOW).open(self.at(&name))
    }

    /// A complete one, to be read.
    ///
    /// # Errors
    /// Those of the file.
    pub fn read(&self, number: i64, format: Format) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(O_NOFOLLOW).open(self.at(&name(number, format)))
    }

    /// Bytes of one that is still being written; 0 where it is gone.
    pub fn part_bytes(&self, number: i64) -> u64 {
        fs::symlink_metadata(self.at(&part(number))).map_or(0, |metadata| metadata.len())
    }

    /// What was being written is complete.
    ///
    /// # Errors
    /// Those of the file.
    pub fn complete(&self, number: i64, format: Format) -> io::Result<()> {
        fs::rename(self.at(&part(number)), self.at(&name(number, format)))
    }

    /// Removes a file; `None`: one that was being written. One that is gone already is fine.
    ///
    /// # Errors
    /// Those of the file.
    pub fn remove(&self, number: i64, format: Option<Format>) -> io::Result<()> {
        let name = format.map_or_else(|| part(number), |format| name(number, format));
        match fs::remove_file(self.at(&name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}
