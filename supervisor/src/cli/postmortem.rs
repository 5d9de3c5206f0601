//! `nursery postmortem`: what was known of workers that died, from the running service and from the files that it
//! or an earlier one left.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nursery_shared::{
    control::{Reply, Request, default_state_dir},
    message::Role,
    postmortem::{DIRECTORY, Frame, MAX_BYTES, MAX_FILES, PostMortem, Summary, Thread, clean, is_id},
};

use super::{
    Failure, SocketArg,
    client::{self, Client},
    pretty, print,
    table::{WIDTH, age, cut},
};

/// Arguments of `postmortem`.
#[derive(clap::Args)]
pub struct Args {
    /// The one to show; without, they are listed, the newest last
    id: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Read the files there, instead of asking the running service
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    socket: SocketArg,
}

/// Lists them, or shows one.
pub fn run(args: Args) -> Result<(), Failure> {
    let place = Place::find(args.state_dir, args.socket)?;
    match args.id {
        None => {
            let list = place.list()?;
            print(&if args.json { pretty(&list) } else { table(&list) })
        }
        Some(id) => {
            let post_mortem = place.get(&id)?;
            print(&if args.json { pretty(&post_mortem) } else { document(&post_mortem) })
        }
    }
}

/// Where they are: in a running service, as files, or both.
struct Place {
    /// Control socket of a service that runs, and what it has in memory.
    service: Option<(PathBuf, Vec<Summary>)>,
    directory: PathBuf,
    /// Why the service was not asked, where it should have been.
    failure: Option<Failure>,
}

impl Place {
    fn find(state_dir: Option<PathBuf>, socket: SocketArg) -> Result<Self, Failure> {
        if let Some(dir) = state_dir {
            if !dir.is_dir() {
                let dir = dir.display();
                return Err(Failure::failed(format!(
                    "{dir}: no such directory (has the service run with this --state-dir?)"
                )));
            }
            return Ok(Self { service: None, directory: dir.join(DIRECTORY), failure: None });
        }
        let socket = socket.path();
        match Client::connect(&socket) {
            Ok(mut client) => match client.ask(&Request::Postmortems {})? {
                Reply::Postmortems { kept, directory } => {
                    Ok(Self { service: Some((socket, kept)), directory, failure: None })
                }
                other => Err(client::unexpected(&other)),
            },
            // It may have stopped; its files are where they were.
            Err(failure) => {
                let directory = default_state_dir().join(DIRECTORY);
                Ok(Self { service: None, directory, failure: Some(failure) })
            }
        }
    }

    fn list(self) -> Result<Vec<Summary>, Failure> {
        let mut all: BTreeMap<String, Summary> = BTreeMap::new();
        match files(&self.directory) {
            Ok(paths) => {
                // What cannot be read was removed meanwhile, or was never one of ours.
                let read = paths.iter().filter_map(|path| read(path).ok());
                all.extend(read.map(|p| (p.id.clone(), p.summary())));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(failure) = self.failure {
                    return Err(Failure::failed(format!(
                        "{}, and {} is not there: give --control-socket or --state-dir",
                        failure.message,
                        self.directory.display()
                    )));
                }
            }
            Err(e) if self.service.is_none() => {
                return Err(Failure::failed(format!("{}: {e}", self.directory.display())));
            }
            Err(_) => {} // What the service has in memory is what this user may see.
        }
        let kept = self.service.map(|(_, kept)| kept).unwrap_or_default();
        all.extend(kept.into_iter().map(|summary| (summary.id.clone(), summary)));
        let mut list: Vec<Summary> = all.into_values().collect();
        list.sort();
        Ok(list)
    }

    fn get(self, id: &str) -> Result<PostMortem, Failure> {
        if !is_id(id) {
            return Err(Failure::usage(format!(
                "{:?} is no name of a post-mortem: `nursery postmortem` lists them",
                cut(id, 80)
            )));
        }
        if let Some((socket, kept)) = &self.service
            && kept.iter().any(|summary| summary.id == id)
            && let Reply::Postmortem { postmortem } =
                Client::connect(socket)?.ask(&Request::Postmortem { id: id.to_owned() })?
        {
            return Ok(*postmortem);
        }
        let path = self.directory.join(format!("{id}.json"));
        read(&path).map_err(|e| match (e.kind(), self.failure) {
            (io::ErrorKind::NotFound, None) => Failure::failed(format!(
                "no post-mortem {id}: `nursery postmortem` lists them; the newest {MAX_FILES} are kept"
            )),
            (io::ErrorKind::NotFound, Some(failure)) => Failure::failed(format!(
                "{}, and {} is not there: give --control-socket or --state-dir",
                failure.message,
                path.display()
            )),
            _ => Failure::failed(format!("{}: {e}", path.display())),
        })
    }
}

fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let ours = |path: &PathBuf| {
        path.extension().is_some_and(|e| e == "json")
            && path.file_stem().and_then(|s| s.to_str()).is_some_and(is_id)
    };
    Ok(fs::read_dir(directory)?.flatten().map(|entry| entry.path()).filter(ours).collect())
}

fn read(path: &Path) -> io::Result<PostMortem> {
    // Of a pipe nobody waits for the other end.
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("not a file"));
    }
    if found.len() > MAX_BYTES as u64 {
        return Err(io::Error::other("too long for a post-mortem"));
    }
    serde_json::from_reader(io::BufReader::new(file.take(MAX_BYTES as u64)))
        .map_err(|e| io::Error::other(format!("damaged: {e}")))
}

fn table(list: &[Summary]) -> String {
    if list.is_empty() {
        return "no post-mortems".into();
    }
    let width = list.iter().map(|s| s.id.chars().count()).max().unwrap_or(0);
    let worker = list.iter().map(|s| s.worker.chars().count()).max().unwrap_or(0).clamp(6, 20);
    let line = |id: &str, name: &str, reason: &str| {
        let name = cut(name, worker);
        cut(&format!("{id:<width$}  {name:<worker$}  {reason}"), WIDTH)
    };
    let rows = list.iter().map(|s| line(&s.id, &s.worker, &s.reason));
    std::iter::once(line("ID", "WORKER", "REASON")).chain(rows).collect::<Vec<_>>().join("\n")
}

/// All of one, for people. Nothing in it moves a terminal's cursor, whatever a file of that name holds.
fn document(p: &PostMortem) -> String {
    let mut lines = vec![
        field("post-mortem", &p.id),
        field("time", &p.time),
        field("worker", &[&p.worker, pid(p).as_str(), ", nursery ", &p.version].concat()),
    ];
    if let Some(camera) = &p.camera {
        lines.push(field("camera", camera));
    }
    lines.push(field("reason", &p.reason));
    lines.push(field("exit", &exit(p)));
    lines.push(field(
        "ran",
        &format!("{}, {} before it; {}", age(p.uptime_s), processes(p.restarts), done(p)),
    ));
    lines.push(field("silent", &format!("{:.1} s without a sign of progress", p.silent_s)));
    lines.push(field("used", &used(p)));
    if p.owed.is_empty() {
        lines.push(field("owed", "no windows"));
    }
    for (i, owed) in p.owed.iter().enumerate() {
        let before = if owed.deaths > 0 { ", which another process died with before" } else { "" };
        let text = format!("window {} of camera {}{before}", owed.window, owed.camera);
        lines.push(field(if i == 0 { "owed" } else { "" }, &text));
    }
    lines.extend(p.notes.iter().map(|note| field("note", note)));
    if !p.threads.is_empty() {
        lines.push(String::new());
        lines.push(format!("{} threads", p.threads.len()));
        lines.extend(p.threads.iter().flat_map(thread));
    }
    lines.push(String::new());
    lines.push(if p.log.is_empty() { "it wrote no log lines".into() } else { "its last log lines".into() });
    lines.extend(p.log.iter().map(|line| format!("  {}", clean(line, 4096))));
    lines.join("\n")
}

fn field(name: &str, value: &str) -> String {
    format!("{name:<12} {}", clean(value, 1000))
}

fn pid(p: &PostMortem) -> String {
    p.pid.map_or_else(String::new, |pid| format!(", pid {pid}"))
}

fn processes(n: u64) -> String {
    if n == 1 { "1 process".into() } else { format!("{n} processes") }
}

fn exit(p: &PostMortem) -> String {
    match (p.exit_status, p.signal, &p.signal_name) {
        (Some(status), _, _) => format!("status {status}"),
        (None, Some(signal), Some(name)) => format!("signal {signal} ({name})"),
        (None, Some(signal), None) => format!("signal {signal}"),
        (None, None, _) => "not known".into(),
    }
}

fn done(p: &PostMortem) -> String {
    match p.role {
        Role::Capture => {
            format!("{:.1} s of audio heard", p.progress as f64 / f64::from(nursery_shared::pcm::SAMPLE_RATE))
        }
        Role::Infer => format!("{} windows scored", p.progress),
        Role::Sink => format!("{} records handled", p.progress),
        Role::Light => format!("{} pictures looked at", p.progress),
        Role::Web => format!("{:.1} s served", p.progress as f64 / 2.0),
    }
}

fn used(p: &PostMortem) -> String {
    let r = &p.resources;
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let parts = [
        r.rss_bytes.map(|b| format!("{} resident", megabytes(b))),
        r.peak_rss_bytes.map(|b| format!("{} at its peak", megabytes(b))),
        r.cpu_s.map(|s| format!("{s:.2} s of processor time")),
        r.descriptors.map(|n| format!("{n} descriptors")),
        r.threads.map(|n| format!("{n} threads")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn thread(t: &Thread) -> Vec<String> {
    let state = match t.state.as_str() {
        "R" => "running",
        "S" => "sleeping",
        "D" => "in the kernel",
        "T" => "stopped by a signal",
        "t" => "traced",
        "Z" => "dead",
        other => other,
    };
    let call = t.system_call.as_ref().map_or_else(String::new, |call| format!(", in {call}"));
    let channel = t.wait_channel.as_ref().map_or_else(String::new, |name| format!(", waits in {name}"));
    let head = format!("  {} {}: {} ({state}){call}{channel}", t.tid, t.name, t.state);
    let mut lines = vec![clean(&head, 300)];
    lines.extend(t.stack.iter().map(|frame| format!("    {}", clean(&function(frame), 600))));
    if let Some(why) = &t.stack_ends {
        lines.push(format!("    ({})", clean(why, 300)));
    }
    lines
}

fn function(frame: &Frame) -> String {
    let place = match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (Some(file), None) => file.clone(),
        (None, _) => format!("{}+{}", frame.module, frame.offset),
    };
    match &frame.function {
        Some(name) => format!("{}  {place}", without_generics(name)),
        None => place,
    }
}

/// What a function was made for fills lines and says little beside its place; all of it is in the JSON.
fn without_generics(name: &str) -> String {
    let short = match name.find('<') {
        // `<Type as Trait>::function`, or nothing to leave out.
        Some(0) | None => name,
        Some(at) => name[..at].trim_end_matches("::"),
    };
    cut(short, WIDTH)
}
