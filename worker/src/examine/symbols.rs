//! From addresses to names, files and lines, by the debug information of the module that an address lies in, else
//! by its table of symbols, else as an offset.

use std::collections::BTreeMap;

use addr2line::Loader;
use nursery_shared::postmortem::{Frame, MAX_NAME, clean};
use object::{Object, ObjectSymbol};

use super::modules::{Module, Modules, Source};

/// Looks names up; what a file says is read when its first address comes.
pub struct Symbols<'a> {
    modules: &'a Modules,
    loaded: BTreeMap<usize, Option<Loader>>,
}

impl<'a> Symbols<'a> {
    pub fn new(modules: &'a Modules) -> Self {
        Self { modules, loaded: BTreeMap::new() }
    }

    /// The place of an address, without any names.
    pub fn bare(&self, address: u64) -> Frame {
        self.place(address).frame(None, None, None)
    }

    fn place(&self, address: u64) -> Place {
        match self.modules.at(address) {
            Some((_, module)) => Place {
                module: clean(&module.name, MAX_NAME),
                offset: format!("{:#x}", address.wrapping_sub(module.bias)),
            },
            None => Place { module: "?".into(), offset: format!("{address:#x}") },
        }
    }

    /// The functions at an address: several where some were inlined, innermost first; at least one.
    pub fn frames(&mut self, address: u64) -> Vec<Frame> {
        let place = self.place(address);
        let Some((number, module)) = self.modules.at(address) else {
            return vec![place.frame(None, None, None)];
        };
        let probe = address.wrapping_sub(module.bias);
        let loader = self.loaded.entry(number).or_insert_with(|| load(module));
        let frames = match (loader, &module.source) {
            (Some(loader), _) => from_loader(loader, probe, &place),
            (None, Source::Image(image)) => vec![place.frame(from_image(image, probe), None, None)],
            (None, Source::File(_)) => Vec::new(),
        };
        if frames.is_empty() { vec![place.frame(None, None, None)] } else { frames }
    }
}

struct Place {
    module: String,
    offset: String,
}

impl Place {
    fn frame(&self, function: Option<String>, file: Option<&str>, line: Option<u32>) -> Frame {
        Frame {
            function: function.map(|name| clean(&name, MAX_NAME)),
            file: file.map(|file| clean(shortened(file), MAX_NAME)),
            line,
            module: self.module.clone(),
            offset: self.offset.clone(),
        }
    }
}

fn load(module: &Module) -> Option<Loader> {
    match &module.source {
        Source::File(path) => Loader::new(path).ok(),
        Source::Image(_) => None,
    }
}

fn from_loader(loader: &Loader, probe: u64, place: &Place) -> Vec<Frame> {
    let symbol = || {
        let name = loader.find_symbol(probe)?;
        Some(addr2line::demangle_auto(name.into(), None).into_owned())
    };
    let mut found = Vec::new();
    if let Ok(mut frames) = loader.find_frames(probe) {
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.function.as_ref().and_then(|f| f.demangle().ok().map(|n| n.into_owned()));
            let (file, line) = frame.location.map_or((None, None), |l| (l.file, l.line));
            found.push(place.frame(name, file, line));
        }
    }
    // The outermost is the one that has a symbol, and symbols have the whole path where debug information reduced to
    // lines has only the last part of it.
    if let Some(last) = found.last_mut()
        && let Some(name) = symbol().filter(|name| {
            let known = last.function.as_deref().unwrap_or_default();
            known.is_empty() || (name.len() > known.len() && !known.contains("::"))
        })
    {
        last.function = Some(clean(&name, MAX_NAME));
    }
    if found.is_empty() {
        found.extend(symbol().map(|name| place.frame(Some(name), None, None)));
    }
    found
}

/// The function in a small library that is only in memory.
fn from_image(image: &[u8], probe: u64) -> Option<String> {
    let elf = object::File::parse(image).ok()?;
    let symbol = elf
        .dynamic_symbols()
        .find(|s| (s.address()..s.address().saturating_add(s.size())).contains(&probe))?;
    symbol.name().ok().map(str::to_owned)
}

/// Without what depends on the machine that it was built on: `tokio-1.54.0/src/runtime/park.rs`,
/// `library/std/src/sys/…`.
fn shortened(file: &str) -> &str {
    let workspace = env!("CARGO_MANIFEST_DIR").trim_end_matches(|c| c != '/');
    if let Some(rest) = file.strip_prefix(workspace) {
        return rest;
    }
    if let Some((_, rest)) = file.split_once("/registry/src/") {
        return rest.split_once('/').map_or(rest, |(_, rest)| rest);
    }
    if let Some(rest) = file.strip_prefix("/rustc/") {
        return rest.split_once('/').map_or(rest, |(_, rest)| rest);
    }
    file
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn paths_lose_what_depends_on_the_building_machine() {
        let registry =
            "/home/u/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/tokio-1.54.0/src/park.rs";
        assert_eq!(shortened(registry), "tokio-1.54.0/src/park.rs");
        assert_eq!(shortened("/rustc/0123abc/library/std/src/thread.rs"), "library/std/src/thread.rs");
        assert_eq!(shortened("worker/src/infer.rs"), "worker/src/infer.rs");
        let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/src/infer.rs");
        assert_eq!(shortened(ours), "worker/src/infer.rs");
    }

    #[test]
    fn a_function_of_this_program_is_found_by_its_address() {
        let modules = Modules::of(std::process::id() as i32).unwrap();
        let mut symbols = Symbols::new(&modules);
        let here = paths_lose_what_depends_on_the_building_machine as fn() as usize as u64;
        let frames = symbols.frames(here + 1);
        let names: Vec<_> = frames.iter().filter_map(|f| f.function.as_deref()).collect();
        assert!(names.iter().any(|n| n.contains("paths_lose_what")), "{frames:?}");
        assert!(
            frames.iter().any(|f| f.file.as_deref().is_some_and(|f| f.ends_with("symbols.rs"))),
            "{frames:?}"
        );
        let nowhere = &symbols.frames(1)[0];
        assert_eq!((nowhere.module.as_str(), nowhere.function.as_ref()), ("?", None));
    }
}
