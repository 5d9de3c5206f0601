//! The shelf of windows that cost inference processes: what was heard, what the model remembered before it, and
//! which processes died of it, as files that people can look into. Bounded: the oldest give way.

use std::{
    fs,
    io::{self, Cursor, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use nursery_shared::{
    line::one_line,
    message::SetAside,
    pcm::{Pcm, SAMPLE_RATE},
    timestamp::rfc3339,
};
use serde::{Deserialize, Serialize};

use super::place;

/// Directory inside the store's directory.
pub const DIR: &str = "quarantine";
/// Windows that are kept; of tens of kilobytes each.
const KEPT: usize = 100;
/// A description is a few hundred bytes; what is longer was not written by us.
const LONGEST: u64 = 64 << 10;

/// What is written beside a window's audio.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    id: String,
    camera: String,
    /// Of the end of the window.
    time: String,
    window: u64,
    /// How the processes died, first to last.
    deaths: Vec<String>,
    /// File names in the directory.
    audio: String,
    /// What the model remembered of the stream before this window; not there where the stream began with it.
    state: Option<String>,
}

/// Stores a window; returns the path of its audio.
///
/// # Errors
/// One line with the path.
pub fn keep(state_dir: &Path, camera: &str, set_aside: &SetAside) -> Result<PathBuf, String> {
    let dir = state_dir.join(DIR);
    let at = |path: &Path| {
        let place = path.display().to_string();
        move |e: io::Error| format!("{place}: {e}")
    };
    fs::create_dir_all(&dir).map_err(at(&dir))?;
    // Times sort, and tell people something; the number keeps two of one moment apart.
    let time = rfc3339(set_aside.end_us);
    let id = format!("{}-{camera}-{}", time.replace(':', ""), set_aside.window);
    let write = |name: &str, bytes: &[u8]| -> Result<(), String> {
        let path = dir.join(name);
        fs::write(&path, bytes).map_err(at(&path))
    };
    let (audio, state) = (format!("{id}.wav"), format!("{id}.state"));
    let has_state = !set_aside.state.is_fresh();
    write(&audio, &wav(&set_aside.pcm).map_err(|e| format!("{audio}: {e}"))?)?;
    if has_state {
        write(&state, set_aside.state.as_bytes())?;
    }
    let entry = Entry {
        id: id.clone(),
        camera: camera.to_owned(),
        time,
        window: set_aside.window,
        deaths: set_aside.deaths.clone(),
        audio: audio.clone(),
        state: has_state.then_some(state),
    };
    // Last: a window that is described is there as a whole.
    write(&format!("{id}.json"), &serde_json::to_vec_pretty(&entry).unwrap_or_default())?;
    prune(&dir).map_err(at(&dir))?;
    Ok(dir.join(audio))
}

/// Removes the oldest windows beyond [`KEPT`], and what belongs to none.
fn prune(dir: &Path) -> io::Result<()> {
    let mut ids: Vec<String> =
        names(dir)?.iter().filter_map(|n| Some(n.strip_suffix(".json")?.to_owned())).collect();
    ids.sort_unstable();
    let kept = ids.split_off(ids.len().saturating_sub(KEPT));
    for name in names(dir)? {
        let ours = [".json", ".wav", ".state"].iter().find_map(|end| name.strip_suffix(end));
        if ours.is_some_and(|id| !kept.iter().any(|k| k == id)) {
            fs::remove_file(dir.join(name))?;
        }
    }
    Ok(())
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(dir)?;
    Ok(entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
}

/// 16 kHz mono 16-bit WAV.
fn wav(pcm: &Pcm) -> Result<Vec<u8>, hound::Error> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: SAMPLE_RATE,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut bytes, spec)?;
    for sample in pcm.as_bytes().chunks_exact(2) {
        writer.write_sample(i16::from_le_bytes([sample[0], sample[1]]))?;
    }
    writer.finalize()?;
    Ok(bytes.into_inner())
}

/// Arguments of `quarantine`.
#[derive(clap::Args)]
pub struct Args {
    /// State directory of the service
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// One window per line as JSON
    #[arg(long)]
    json: bool,
}

/// Prints what is on the shelf, oldest first.
pub fn run(args: Args) -> ExitCode {
    let failed = |message: String| {
        eprintln!("nursery: {message}");
        ExitCode::FAILURE
    };
    let shown = match place::visit(&args.state_dir) {
        Ok(directory) => directory.join(DIR),
        Err(message) => return failed(message),
    };
    match print(&Path::new(place::HERE).join(DIR), &shown, args.json) {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that went away has seen enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => failed(format!("{}: {e}", shown.display())),
    }
}

/// Prints what is in `dir`, which people know as `shown`.
fn print(dir: &Path, shown: &Path, json: bool) -> io::Result<()> {
    let mut found = match names(dir) {
        Ok(names) => names,
        // Nothing was ever set aside.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(e),
    };
    found.retain(|name| name.ends_with(".json"));
    found.sort_unstable();
    let mut out = io::BufWriter::new(io::stdout().lock());
    if found.is_empty() && !json {
        writeln!(out, "no windows were set aside")?;
    }
    for name in found {
        let path = dir.join(&name);
        let readable = fs::metadata(&path).is_ok_and(|m| m.is_file() && m.len() <= LONGEST);
        let entry = readable.then(|| fs::read(&path).ok()).flatten();
        let entry = entry.and_then(|bytes| serde_json::from_slice::<Entry>(&bytes).ok());
        let Some(entry) = entry else {
            eprintln!("nursery: {}: is no description of a window", shown.join(&name).display());
            continue;
        };
        // The sink wrote it, which somebody may have taken over.
        let own = |name: &str| shown.join(Path::new(name).file_name().unwrap_or_default());
        let audio = own(&entry.audio);
        if json {
            let mut value = serde_json::to_value(&entry).unwrap_or_default();
            value["audio"] = audio.display().to_string().into();
            value["state"] = entry.state.map(|s| own(&s).display().to_string()).into();
            writeln!(out, "{value}")?;
        } else {
            writeln!(out, "{}  {}  window {}", one_line(&entry.time), one_line(&entry.camera), entry.window)?;
            entry.deaths.iter().try_for_each(|death| writeln!(out, "    {}", one_line(death)))?;
            writeln!(out, "    nursery detect {}", one_line(&audio.display().to_string()))?;
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn window(n: u64) -> SetAside {
        SetAside {
            window: n,
            end_us: 1_800_000_000_000_000 + n as i64 * 250_000,
            pcm: Pcm::from_f32(&[0.5; 4_000]),
            state: vec![1, 2, 3].into(),
            deaths: vec!["infer:0: signal 11".into(), "infer:1: signal 11".into()],
        }
    }

    #[test]
    fn the_newest_hundred_windows_are_kept_whole() {
        let state_dir = std::env::temp_dir().join(format!("nursery-quarantine-{}", std::process::id()));
        let mut last = PathBuf::new();
        for n in 0..130 {
            last = keep(&state_dir, "hall", &window(n)).unwrap();
        }
        let names = names(&state_dir.join(DIR)).unwrap();
        assert_eq!(names.len(), 3 * KEPT, "audio, state and description of each");
        let wav = fs::read(&last).unwrap();
        assert_eq!((&wav[..4], &wav[8..16], wav.len()), (&b"RIFF"[..], &b"WAVEfmt "[..], 44 + 8_000));
        let entry: Entry = serde_json::from_slice(&fs::read(last.with_extension("json")).unwrap()).unwrap();
        assert_eq!((entry.camera.as_str(), entry.window, entry.deaths.len()), ("hall", 129, 2));
        assert_eq!(fs::read(state_dir.join(DIR).join(entry.state.unwrap())).unwrap(), [1, 2, 3]);
        fs::remove_dir_all(&state_dir).unwrap();
    }

    #[test]
    fn a_shelf_that_cannot_be_written_is_an_error_that_names_it() {
        let file = std::env::temp_dir().join(format!("nursery-no-shelf-{}", std::process::id()));
        fs::write(&file, "x").unwrap();
        let error = keep(&file, "hall", &window(1)).unwrap_err();
        assert!(error.contains("nursery-no-shelf") && error.contains("quarantine"), "{error}");
        fs::remove_file(&file).unwrap();
    }
}
