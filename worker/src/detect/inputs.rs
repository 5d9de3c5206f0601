//! From arguments to recordings: a directory stands for all recordings in it and in its directories.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::media::decode::reason;

/// Endings of recordings that a directory is searched for.
const ENDINGS: [&str; 8] = ["wav", "flac", "ogg", "oga", "mp3", "m4a", "mp4", "aac"];

/// Directories within directories that are followed.
const DEEPEST: usize = 64;

/// Something to listen to.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pub path: PathBuf,
    /// Why there is nothing to listen to.
    pub problem: Option<String>,
}

impl Input {
    /// How it is called where there is room for a name only.
    pub fn name(&self) -> String {
        if self.is_standard_input() {
            return "standard input".into();
        }
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }

    pub fn is_standard_input(&self) -> bool {
        self.path.as_os_str() == "-"
    }
}

/// The recordings that the arguments name, in their order; those of a directory by name.
pub fn expand(arguments: &[PathBuf]) -> Vec<Input> {
    let mut inputs = Vec::new();
    for path in arguments {
        if path.as_os_str() == "-" || !path.is_dir() {
            inputs.push(Input { path: path.clone(), problem: None });
            continue;
        }
        let before = inputs.len();
        search(path, 0, &mut inputs);
        if inputs.len() == before {
            let problem = format!("holds no recording ({})", ENDINGS.join(", "));
            inputs.push(Input { path: path.clone(), problem: Some(problem) });
        }
    }
    inputs
}

/// Hidden files and directories are left out, and links to directories, which might lead in circles.
fn search(directory: &Path, depth: usize, inputs: &mut Vec<Input>) {
    let entries = fs::read_dir(directory).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let mut entries = match entries {
        Ok(entries) => entries,
        Err(e) => {
            let problem = format!("cannot be searched: {}", reason(&e));
            inputs.push(Input { path: directory.to_owned(), problem: Some(problem) });
            return;
        }
    };
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            if depth < DEEPEST {
                search(&path, depth + 1, inputs);
            }
        } else if is_recording(&path) && path.is_file() {
            inputs.push(Input { path, problem: None });
        }
    }
}

fn is_recording(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn scratch() -> Scratch {
        let path = std::env::temp_dir().join(format!("nursery-inputs-{:x}", fastrand::u64(..)));
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    #[test]
    fn a_directory_stands_for_its_recordings_by_name() {
        let scratch = scratch();
        let at = |name: &str| scratch.0.join(name);
        fs::create_dir_all(at("night/deep")).unwrap();
        for name in ["b.wav", "a.FLAC", "notes.txt", ".hidden.wav", "night/deep/c.ogg", "wav"] {
            fs::write(at(name), "").unwrap();
        }
        fs::create_dir(at("z.wav")).unwrap();
        std::os::unix::fs::symlink(&scratch.0, at("circle")).unwrap();
        let arguments = [PathBuf::from("-"), scratch.0.clone(), at("missing.wav")];
        let found: Vec<PathBuf> = expand(&arguments).into_iter().map(|i| i.path).collect();
        assert_eq!(
            found,
            [PathBuf::from("-"), at("a.FLAC"), at("b.wav"), at("night/deep/c.ogg"), at("missing.wav")]
        );
    }

    #[test]
    fn a_directory_without_recordings_says_so() {
        let scratch = scratch();
        let found = expand(std::slice::from_ref(&scratch.0));
        assert_eq!(found.len(), 1);
        assert!(found[0].problem.as_ref().unwrap().starts_with("holds no recording"));
    }
}
