//! Reads the memory of another process.

use std::{cell::RefCell, collections::BTreeMap, fs::File, io, os::unix::fs::FileExt};

/// Bytes read at once.
const BLOCK: usize = 4096;

/// The memory of a process. What was read once is remembered, for the short time in which it stands still.
pub struct Memory {
    file: Option<File>,
    blocks: RefCell<BTreeMap<u64, Option<Box<[u8; BLOCK]>>>>,
}

impl Memory {
    /// Of this process; where it cannot be opened, every read fails.
    pub fn of(pid: i32) -> Self {
        Self { file: File::open(format!("/proc/{pid}/mem")).ok(), blocks: RefCell::default() }
    }

    /// Eight bytes; `None` where nothing is mapped.
    pub fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        for (i, byte) in bytes.iter_mut().enumerate() {
            let at = address.checked_add(i as u64)?;
            *byte = self.byte(at)?;
        }
        Some(u64::from_ne_bytes(bytes))
    }

    fn byte(&self, address: u64) -> Option<u8> {
        let start = address - address % BLOCK as u64;
        let mut blocks = self.blocks.borrow_mut();
        let block = blocks.entry(start).or_insert_with(|| {
            let mut bytes = Box::new([0; BLOCK]);
            self.file.as_ref()?.read_exact_at(bytes.as_mut_slice(), start).ok()?;
            Some(bytes)
        });
        block.as_ref().map(|b| b[(address - start) as usize])
    }

    /// `length` bytes from `address` on.
    pub fn read(&self, address: u64, length: usize) -> io::Result<Vec<u8>> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::PermissionDenied)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, address)?;
        Ok(bytes)
    }
}
