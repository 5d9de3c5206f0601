//! What the store's disk has room for. Clips may fill it up to a floor, which is the store's: an event is stored before
//! anybody thinks of keeping what was heard.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::statvfs::fstatvfs;

/// Bytes that are left to the store, on a small disk a tenth of it.
const FLOOR: u64 = 64 << 20;
/// How long what was removed may stay taken: some file systems give it back later, and somebody may still read it.
const GIVEN_BACK: Duration = Duration::from_secs(5);

/// The disk of a directory.
pub struct Disk {
    directory: File,
    /// What was removed and did not become free, and when.
    awaited: Option<(Instant, u64)>,
}

impl Disk {
    /// That of the store's directory.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub fn of(directory: &Path) -> io::Result<Self> {
        Ok(Self { directory: File::open(directory)?, awaited: None })
    }

    /// Bytes that are free, and all there are; `None` where the disk does not say.
    fn space(&self) -> Option<(u64, u64)> {
        let found = fstatvfs(&self.directory).ok()?;
        let unit = found.fragment_size();
        // Types differ between platforms.
        #[allow(clippy::useless_conversion)]
        let bytes = |blocks| u64::from(blocks).saturating_mul(u64::from(unit));
        Some((bytes(found.blocks_available()), bytes(found.blocks()))).filter(|(_, all)| *all > 0)
    }

    /// Bytes that are left to the store.
    pub fn floor(&self) -> u64 {
        self.space().map_or(FLOOR, |(_, all)| FLOOR.min(all / 10))
    }

    /// Bytes that are free; 0 where the disk does not say.
    pub fn free(&self) -> u64 {
        self.space().map_or(0, |(free, _)| free)
    }

    /// Bytes that are free beyond the floor, negative where there are fewer; `None` where the disk does not say, or what is
    /// in `shelf` lies on another one.
    pub fn spare(&self, shelf: &Path, now: Instant) -> Option<i64> {
        if !self.holds(shelf) {
            return None;
        }
        let (free, all) = self.space()?;
        let awaited = self.awaited.filter(|(since, _)| now.saturating_duration_since(*since) < GIVEN_BACK);
        let free = free.saturating_add(awaited.map_or(0, |(_, bytes)| bytes));
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Some(signed(free) - signed(FLOOR.min(all / 10)))
    }

    /// Whatever is in `shelf` takes room here. One that is not there yet will.
    pub fn holds(&self, shelf: &Path) -> bool {
        let device = self.directory.metadata().map(|m| m.dev());
        std::fs::metadata(shelf).map_or(true, |m| device.is_ok_and(|own| own == m.dev()))
    }

    /// So many bytes were removed when `before` were free.
    pub fn removed(&mut self, bytes: u64, before: u64, now: Instant) {
        let missing = bytes.saturating_sub(self.free().saturating_sub(before));
        if missing > bytes / 2 {
            let (_, known) = self
                .awaited
                .filter(|(since, _)| now.saturating_duration_since(*since) < GIVEN_BACK)
                .unwrap_or((now, 0));
            self.awaited = Some((now, known.saturating_add(missing)));
        }
    }
}
