//! The directory of clips: files named by the number of the alert that announced their event, those that are still being
//! written `NUMBER.part`, those whose making whole was begun before `NUMBER.part1` and so on. What belongs to no event that is
//! stored is called `lost-TIME-…`.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::libc::{O_APPEND, O_NOFOLLOW};
use nursery_shared::{clip::Format, timestamp};

/// Directory inside the store's directory.
pub const DIR: &str = "clips";
const PART: &str = "part";
const LOST: &str = "lost-";
/// How often it is tried to make a file whole: who died of it twice will again.
pub const TRIES: u8 = 2;
/// What files take of a disk comes in pieces of this size.
const BLOCK: u64 = 4096;

/// The directory, which is made when the first clip is.
pub struct Shelf(PathBuf);

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Whole(Format),
    /// Still being written, or whoever wrote it is gone; how often it was tried to make it whole.
    Part(u8),
}

/// A file in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    pub number: i64,
    pub kind: Kind,
    pub bytes: u64,
}

/// A file of an event that is not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    name: String,
    pub bytes: u64,
    /// When it was last written to, microseconds since 1970.
    pub written_us: i64,
}

/// What a file of so many bytes takes.
pub fn on_disk(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK)
}

/// The name of a clip's file.
pub fn name(number: i64, format: Format) -> String {
    format!("{number}.{}", format.extension())
}

fn part(number: i64, tries: u8) -> String {
    if tries == 0 { format!("{number}.{PART}") } else { format!("{number}.{PART}{tries}") }
}

impl Kind {
    fn parse(extension: &str) -> Option<Self> {
        if let Some(format) = Format::of_extension(extension) {
            return Some(Self::Whole(format));
        }
        (0..=TRIES).find(|tries| part(0, *tries).strip_prefix("0.") == Some(extension)).map(Self::Part)
    }
}

impl Item {
    /// Its name.
    pub fn name(&self) -> String {
        match self.kind {
            Kind::Whole(format) => name(self.number, format),
            Kind::Part(tries) => part(self.number, tries),
        }
    }
}

impl Shelf {
    /// Inside the store's directory.
    pub fn new(store: &Path) -> Self {
        Self(store.join(DIR))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The directory, which may not be there yet.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// All files, in no order, and those that belong to no event, the oldest first; what has a name that no clip has is none
    /// of them.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn items(&self) -> io::Result<(Vec<Item>, Vec<Lost>)> {
        let entries = match fs::read_dir(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
            entries => entries?,
        };
        let (mut items, mut lost) = (Vec::new(), Vec::new());
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let Some((number, extension)) = name.split_once('.') else { continue };
            // Names are made here: no zeros or signs before the digits.
            let known = number.parse::<i64>().ok().filter(|n| n.to_string() == number);
            let known = known.zip(Kind::parse(extension));
            if known.is_none() && !name.starts_with(LOST) {
                continue;
            }
            // It is no file, or it has gone this moment.
            let Some(metadata) = entry.metadata().ok().filter(fs::Metadata::is_file) else { continue };
            let bytes = metadata.len();
            match known {
                Some((number, kind)) => items.push(Item { number, kind, bytes }),
                None => {
                    let written_us = metadata.mtime().saturating_mul(1_000_000);
                    lost.push(Lost { name: name.to_owned(), bytes, written_us });
                }
            }
        }
        lost.sort_by(|a, b| (a.written_us, &a.name).cmp(&(b.written_us, &b.name)));
        Ok((items, lost))
    }

    /// A file is of no event that is stored: its name says so from now on, and never that of another event's.
    ///
    /// # Errors
    /// Those of the file.
    pub fn lose(&self, item: &Item) -> io::Result<()> {
        let stamp = timestamp::rfc3339(timestamp::now_us()).replace(':', "");
        let name = item.name();
        fs::rename(self.at(&name), self.at(&format!("{LOST}{stamp}-{name}")))
    }

    /// Removes a file that belongs to no event.
    ///
    /// # Errors
    /// Those of the file.
    pub fn remove_lost(&self, lost: &Lost) -> io::Result<()> {
        match fs::remove_file(self.at(&lost.name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Removes the oldest files that are complete or belong to no event, so many bytes of them or a little more, without a look
    /// at the store. Returns how many that were.
    pub fn remove_oldest(&self, bytes: u64) -> u64 {
        let Ok((items, lost)) = self.items() else { return 0 };
        let mut whole: Vec<Item> = items.into_iter().filter(|i| matches!(i.kind, Kind::Whole(_))).collect();
        whole.sort_by_key(|item| item.number);
        let lost = lost.into_iter().map(|lost| (lost.name, lost.bytes));
        let mut gone = 0;
        for (name, size) in lost.chain(whole.into_iter().map(|item| (item.name(), item.bytes))) {
            if gone >= bytes {
                break;
            }
            if fs::remove_file(self.at(&name)).is_ok() {
                gone += on_disk(size);
            }
        }
        gone
    }

    /// A new, empty file that is only added to, whoever writes.
    ///
    /// # Errors
    /// There is one already, or it cannot be made.
    pub fn begin(&self, number: i64) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600).custom_flags(O_APPEND | O_NOFOLLOW);
        let open = || options.open(self.at(&part(number, 0)));
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
    pub fn open_part(&self, number: i64, tries: u8) -> io::Result<File> {
        let name = part(number, tries);
        OpenOptions::new().read(true).write(true).custom_flags(O_NOFOLLOW).open(self.at(&name))
    }

    /// It was tried so often and not oftener to make it whole.
    ///
    /// # Errors
    /// Those of the file.
    pub fn note_tries(&self, number: i64, before: u8, tries: u8) -> io::Result<()> {
        fs::rename(self.at(&part(number, before)), self.at(&part(number, tries)))
    }

    /// What was complete is to be made whole again.
    ///
    /// # Errors
    /// Those of the file.
    pub fn take_back(&self, number: i64, format: Format) -> io::Result<()> {
        fs::rename(self.at(&name(number, format)), self.at(&part(number, 0)))
    }

    /// A complete one, to be read.
    ///
    /// # Errors
    /// Those of the file.
    pub fn read(&self, number: i64, format: Format) -> io::Result<File> {
        OpenOptions::new().read(true).custom_flags(O_NOFOLLOW).open(self.at(&name(number, format)))
    }

    /// Bytes of one that is still being written; 0 where it is gone.
    pub fn part_bytes(&self, number: i64, tries: u8) -> u64 {
        fs::symlink_metadata(self.at(&part(number, tries))).map_or(0, |metadata| metadata.len())
    }

    /// What was being written is complete.
    ///
    /// # Errors
    /// Those of the file.
    pub fn complete(&self, number: i64, tries: u8, format: Format) -> io::Result<()> {
        fs::rename(self.at(&part(number, tries)), self.at(&name(number, format)))
    }

    /// Removes a file. One that is gone already is fine; false says so.
    ///
    /// # Errors
    /// Those of the file.
    pub fn remove(&self, number: i64, kind: Kind) -> io::Result<bool> {
        let name = Item { number, kind, bytes: 0 }.name();
        match fs::remove_file(self.at(&name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            outcome => outcome.map(|()| true),
        }
    }
}
