//! The programs and libraries that a process has in its memory, and what each file says about unwinding.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use framehop::{ExplicitModuleSectionInfo, Module as UnwindModule};
use object::{
    Endianness, Object, ObjectSection, ReadCache, ReadRef,
    read::elf::{ElfFile64, ProgramHeader},
};

use super::memory::Memory;

/// One executable file, or the kernel's own page of code, in the memory of a process.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// File name for people.
    pub name: String,
    /// Where its code is.
    pub start: u64,
    pub end: u64,
    /// Added to the addresses in the file, these are those in memory.
    pub bias: u64,
    pub source: Source,
}

/// What is read for it.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    File(PathBuf),
    /// From the process's memory.
    Image(Vec<u8>),
}

/// All of a process, each with its tables for unwinding.
pub struct Modules {
    all: Vec<Module>,
}

/// One executable line of /proc/PID/maps.
#[derive(Debug, PartialEq)]
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    device: (u64, u64),
    inode: u64,
    path: String,
}

impl Modules {
    /// What is mapped executable in a process.
    pub fn of(pid: i32) -> io::Result<Self> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let program = fs::metadata(format!("/proc/{pid}/exe")).ok();
        let mut all: Vec<Module> = Vec::new();
        for mapping in maps.lines().filter_map(Mapping::parse) {
            let name = mapping.name();
            let source = if mapping.path == "[vdso]" {
                let length = (mapping.end - mapping.start) as usize;
                match Memory::of(pid).read(mapping.start, length) {
                    Ok(image) => Source::Image(image),
                    Err(_) => continue,
                }
            } else if program.as_ref().is_some_and(|p| mapping.is(p)) {
                // Also where the file was replaced since.
                Source::File(format!("/proc/{pid}/exe").into())
            } else {
                let path = Path::new(&mapping.path);
                if !path.is_absolute() || !fs::metadata(path).is_ok_and(|m| mapping.is(&m)) {
                    continue; // Made at run time, or replaced since: another file would name the wrong functions.
                }
                Source::File(path.into())
            };
            if let Some(bias) = bias(&source, &mapping) {
                all.push(Module { name, start: mapping.start, end: mapping.end, bias, source });
            }
        }
        Ok(Self { all })
    }

    /// The module that an address lies in, and its number.
    pub fn at(&self, address: u64) -> Option<(usize, &Module)> {
        self.all.iter().enumerate().find(|(_, m)| (m.start..m.end).contains(&address))
    }

    /// All of them, with their unwind tables.
    pub fn unwind_modules(&self) -> Vec<UnwindModule<Vec<u8>>> {
        self.all.iter().filter_map(|m| Some(unwind_module(m, sections(&m.source)?))).collect()
    }
}

impl Mapping {
    fn parse(line: &str) -> Option<Self> {
        // 7f0c8a000000-7f0c8a021000 r-xp 00001000 fe:01 1234    /usr/lib/libc.so.6
        let mut rest = line;
        let mut field = || {
            rest = rest.trim_start();
            let (field, after) = rest.split_once(' ').unwrap_or((rest, ""));
            rest = after;
            field
        };
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let (start, end) = field().split_once('-')?;
        let executable = field().contains('x');
        let offset = hex(field())?;
        let (major, minor) = field().split_once(':')?;
        let inode = field().parse().ok()?;
        let path = rest.trim_start().to_owned();
        let device = (hex(major)?, hex(minor)?);
        let (start, end) = (hex(start)?, hex(end)?);
        (executable && end > start).then_some(Self { start, end, offset, device, inode, path })
    }

    fn name(&self) -> String {
        let path = self.path.strip_suffix(" (deleted)").unwrap_or(&self.path);
        path.rsplit('/').next().unwrap_or(path).to_owned()
    }

    /// The file that was mapped, and not another one that has its name now. File systems in layers show other
    /// device numbers in maps than elsewhere, so where the inode is the same that is enough.
    fn is(&self, file: &fs::Metadata) -> bool {
        self.inode == file.ino()
    }
}

/// What is added to the addresses in the file.
fn bias(source: &Source, mapping: &Mapping) -> Option<u64> {
    fn of<'data, R: ReadRef<'data>>(data: R, mapping: &Mapping) -> Option<u64> {
        let elf = ElfFile64::<Endianness, R>::parse(data).ok()?;
        let endian = elf.endian();
        let length = mapping.end - mapping.start;
        elf.elf_program_headers()
            .iter()
            .filter(|header| header.p_type(endian) == object::elf::PT_LOAD)
            .filter(|header| header.p_flags(endian) & object::elf::PF_X != 0)
            .find_map(|header| {
                let (offset, size) = (header.p_offset(endian), header.p_filesz(endian));
                let overlaps = offset < mapping.offset.saturating_add(length)
                    && mapping.offset < offset.saturating_add(size);
                // Address in the file of the mapping's first byte; segments begin anywhere in a page.
                let first = header.p_vaddr(endian).wrapping_sub(offset.wrapping_sub(mapping.offset));
                overlaps.then(|| mapping.start.wrapping_sub(first))
            })
    }
    match source {
        Source::File(path) => of(&ReadCache::new(File::open(path).ok()?), mapping),
        // Mapped as it is; its segments begin at its beginning.
        Source::Image(image) => of(image.as_slice(), mapping),
    }
}

/// A section: its addresses and its bytes.
type Section = Option<(std::ops::Range<u64>, Vec<u8>)>;

fn sections(source: &Source) -> Option<[Section; 2]> {
    fn of<'data, R: ReadRef<'data>>(data: R) -> Option<[Section; 2]> {
        let elf = ElfFile64::<Endianness, R>::parse(data).ok()?;
        Some([".eh_frame", ".eh_frame_hdr"].map(|name| {
            let section = elf.section_by_name(name)?;
            let start = section.address();
            Some((start..start.checked_add(section.size())?, section.data().ok()?.to_vec()))
        }))
    }
    match source {
        Source::File(path) => of(&ReadCache::new(File::open(path).ok()?)),
        Source::Image(image) => of(image.as_slice()),
    }
}

fn unwind_module(module: &Module, [eh_frame, eh_frame_hdr]: [Section; 2]) -> UnwindModule<Vec<u8>> {
    let (eh_frame_svma, eh_frame) = eh_frame.unzip();
    let (eh_frame_hdr_svma, eh_frame_hdr) = eh_frame_hdr.unzip();
    let sections = ExplicitModuleSectionInfo {
        base_svma: 0,
        eh_frame_svma,
        eh_frame,
        eh_frame_hdr_svma,
        eh_frame_hdr,
        ..Default::default()
    };
    UnwindModule::new(module.name.clone(), module.start..module.end, module.bias, sections)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn executable_lines_of_maps_are_understood_and_others_left_out() {
        let line = "7f0c8a026000-7f0c8a17b000 r-xp 00026000 fe:01 1234                       /usr/lib/a b.so (deleted)";
        let mapping = Mapping::parse(line).unwrap();
        assert_eq!((mapping.start, mapping.end), (0x7f0c_8a02_6000, 0x7f0c_8a17_b000));
        assert_eq!((mapping.offset, mapping.device, mapping.inode), (0x26000, (0xfe, 1), 1234));
        assert_eq!(mapping.name(), "a b.so");
        assert_eq!(Mapping::parse(&line.replace("r-xp", "r--p")), None);
        let vdso = Mapping::parse("7ffd0-7ffd2 r-xp 00000000 00:00 0      [vdso]").unwrap();
        assert_eq!((vdso.name().as_str(), vdso.path.as_str()), ("[vdso]", "[vdso]"));
        for bad in ["", "x", "1-2", "2-1 r-xp 0 0:0 0 x", "1-2 r-xp zz 0:0 0"] {
            assert_eq!(Mapping::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_function_of_this_program_lies_in_its_module() {
        let modules = Modules::of(std::process::id() as i32).unwrap();
        let here = a_function_of_this_program_lies_in_its_module as fn() as usize as u64;
        let (_, module) = modules.at(here).unwrap();
        assert!(module.name.contains("nursery_worker"), "{}", module.name);
        assert!(modules.all.iter().any(|m| m.name.starts_with("libc")), "the C library");
        assert_eq!(modules.at(1), None);
    }
}
