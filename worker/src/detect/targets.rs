//! Where curves and pictures go: decided, and checked as far as possible, before any recording is opened.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

use super::{curve, inputs::Input, plot};
use crate::media::decode::reason;

/// Stands for the name of the recording in `--plot`.
const NAME: &str = "{}";

/// Why nothing was begun.
#[derive(Debug, PartialEq)]
pub enum Refusal {
    /// What was typed makes no sense: exit status 2.
    Usage(String),
    /// What was typed cannot be done here: exit status 1.
    Failed(String),
}

/// A picture to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    pub path: PathBuf,
    pub format: plot::Format,
}

/// One picture for each input. `--plot` is a file, or a directory, or a file name with `{}` in it, which stands
/// for the name of the recording without its ending; where two would have the same name, the later ones are
/// numbered.
pub fn pictures(target: &Path, inputs: &[Input], several: bool) -> Result<Vec<Picture>, Refusal> {
    let pattern = if target.is_dir() { target.join("{}.png") } else { target.to_owned() };
    let shown = target.display();
    let format = plot::Format::of(&pattern).ok_or_else(|| {
        Refusal::Usage(format!(
            "--plot {shown}: expected a name that ends in .png or .svg, or a directory that exists"
        ))
    })?;
    let file_name = pattern.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if several && !file_name.contains(NAME) {
        return Err(Refusal::Usage(format!(
            "--plot {shown}: several recordings need a directory, or a file name with {NAME} in it that stands \
             for each recording's name"
        )));
    }
    let directory = pattern.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    check_directory(directory).map_err(|why| Refusal::Failed(format!("--plot {shown}: {why}")))?;
    let mut used = HashSet::new();
    let mut pictures = Vec::with_capacity(inputs.len());
    for input in inputs {
        let stem = if input.is_standard_input() {
            "standard-input".into()
        } else {
            input.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
        };
        let mut path = pattern.with_file_name(file_name.replace(NAME, &stem));
        let mut number = 1;
        while file_name.contains(NAME) && !used.insert(path.clone()) {
            number += 1;
            path = pattern.with_file_name(file_name.replace(NAME, &format!("{stem}-{number}")));
        }
        check_file(&path, inputs)
            .map_err(|why| Refusal::Failed(format!("--plot {}: {why}", path.display())))?;
        pictures.push(Picture { path, format });
    }
    Ok(pictures)
}

/// Opens the file (or standard output, for `-`) that the curves go to.
pub fn curve(target: &Path, inputs: &[Input]) -> Result<curve::CurveWriter<Box<dyn Write>>, Refusal> {
    let out: Box<dyn Write> = if target.as_os_str() == "-" {
        Box::new(io::stdout().lock())
    } else {
        let refused = |why| Refusal::Failed(format!("--curve {}: {why}", target.display()));
        check_file(target, inputs).map_err(refused)?;
        Box::new(File::create(target).map_err(|e| refused(explain(&e)))?)
    };
    Ok(curve::CurveWriter::new(Box::new(BufWriter::with_capacity(1 << 16, out)), curve::Format::of(target)))
}

fn check_directory(directory: &Path) -> Result<(), String> {
    let shown = directory.display();
    match fs::metadata(directory) {
        Ok(found) if !found.is_dir() => Err(format!("{shown} is no directory")),
        Ok(_) => access(directory, AccessFlags::W_OK | AccessFlags::X_OK)
            .map_err(|e| format!("files cannot be written to {shown}: {}", e.desc())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(format!("there is no directory {shown}: make it first"))
        }
        Err(e) => Err(format!("{shown}: {}", reason(&e))),
    }
}

/// A file that is there may be written over, unless it is one of the recordings.
fn check_file(path: &Path, inputs: &[Input]) -> Result<(), String> {
    let Ok(found) = fs::metadata(path) else { return Ok(()) };
    if found.is_dir() {
        return Err("is a directory, expected a file".into());
    }
    let same = |input: &Input| {
        fs::metadata(&input.path).is_ok_and(|m| (m.dev(), m.ino()) == (found.dev(), found.ino()))
    };
    if found.is_file() && inputs.iter().any(|input| !input.is_standard_input() && same(input)) {
        return Err("is one of the recordings and would be written over".into());
    }
    access(path, AccessFlags::W_OK).map_err(|e| format!("cannot be written: {}", e.desc()))
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such directory: make it first".into(),
        io::ErrorKind::PermissionDenied => "permission denied: this process may not write it".into(),
        _ => error.to_string(),
    }
}

/// Writes a finished picture, whole or not at all.
pub fn write_picture(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let failed = |e: io::Error| format!("its picture {} cannot be written: {}", path.display(), explain(&e));
    // A device or a pipe cannot be replaced.
    if fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        return fs::write(path, bytes).map_err(failed);
    }
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    fs::write(&part, bytes).and_then(|()| fs::rename(&part, path)).map_err(|e| {
        // Whatever was written of it is of no use; that it cannot be removed either is not worth a second error.
        let _ = fs::remove_file(&part);
        failed(e)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn input(path: &str) -> Input {
        Input { path: path.into(), problem: None }
    }

    #[test]
    fn names_are_filled_in_and_numbered_where_they_are_the_same() {
        let directory = std::env::temp_dir();
        let inputs = [input("a/x.wav"), input("b/x.mp3"), input("b/x-2.wav"), input("-")];
        let paths = |target: &Path| -> Vec<String> {
            let found = pictures(target, &inputs, true).unwrap();
            found.iter().map(|p| p.path.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(
            paths(&directory.join("night-{}.svg")),
            ["night-x.svg", "night-x-2.svg", "night-x-2-2.svg", "night-standard-input.svg"]
        );
        assert_eq!(paths(&directory), ["x.png", "x-2.png", "x-2-2.png", "standard-input.png"]);
    }

    #[test]
    fn what_makes_no_sense_is_usage_and_what_cannot_be_is_failure() {
        let inputs = [input("x.wav"), input("y.wav")];
        let refused = |target: &str, inputs: &[Input], several| {
            pictures(Path::new(target), inputs, several).unwrap_err()
        };
        for (target, several) in [("out.jpg", false), ("out", false), ("{}.bmp", true), ("out.png", true)] {
            assert!(matches!(refused(target, &inputs, several), Refusal::Usage(_)), "{target}");
        }
        let missing = refused("/nowhere/at/all/{}.png", &inputs, true);
        assert!(matches!(&missing, Refusal::Failed(why) if why.contains("no directory")), "{missing:?}");
        assert!(matches!(curve(Path::new("/nowhere/a.csv"), &inputs), Err(Refusal::Failed(_))));
    }

    #[test]
    fn a_recording_is_never_written_over() {
        let path = std::env::temp_dir().join(format!("nursery-targets-{:x}.csv", fastrand::u64(..)));
        fs::write(&path, "audio").unwrap();
        let inputs = [input(path.to_str().unwrap())];
        let outcome = curve(&path, &inputs).err();
        let left = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(matches!(outcome, Some(Refusal::Failed(why)) if why.contains("written over")));
        assert_eq!(left, "audio");
    }
}
