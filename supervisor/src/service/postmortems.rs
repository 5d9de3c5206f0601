//! Keeps post-mortems: the newest in memory, and as files through a bounded queue and a thread of its own. A disk
//! that is full, read-only or stands still costs files, never the service's time.

use std::{
    collections::VecDeque,
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    time::{Duration, Instant},
};

use nursery_shared::postmortem::{DIRECTORY, KEPT, MAX_FILES, PostMortem, Summary, is_id};

/// Post-mortems that may wait for the disk.
const QUEUED: usize = 32;

/// What the disk is given at the end of the service.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

/// All that are kept in memory, and the way to the disk.
pub struct PostMortems {
    directory: PathBuf,
    /// Newest last: line of the list and JSON.
    kept: VecDeque<(Summary, String)>,
    writer: SyncSender<Item>,
}

enum Item {
    /// Name and JSON.
    Write(String, String),
    /// Everything before this is written.
    Flush(SyncSender<()>),
}

impl PostMortems {
    /// Starts the writing thread for files below this state directory.
    pub fn start(state_dir: &Path) -> io::Result<Self> {
        let directory = state_dir.join(DIRECTORY);
        let (writer, receiver) = sync_channel(QUEUED);
        let place = directory.clone();
        std::thread::Builder::new()
            .name("post-mortems".into())
            .spawn(move || write_all(&receiver, &place))?;
        Ok(Self { directory, kept: VecDeque::new(), writer })
    }

    /// Keeps one.
    pub fn keep(&mut self, post_mortem: &PostMortem) {
        let json = post_mortem.to_bounded_json();
        let item = Item::Write(post_mortem.id.clone(), json.clone());
        if let Err(TrySendError::Full(_)) = self.writer.try_send(item) {
            tracing::warn!("post-mortem {}: not written, since the disk stands still", post_mortem.id);
        }
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((post_mortem.summary(), json));
    }

    /// Where the files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Those in memory, newest last.
    pub fn list(&self) -> Vec<Summary> {
        self.kept.iter().map(|(summary, _)| summary.clone()).collect()
    }

    /// One of those in memory.
    pub fn get(&self, id: &str) -> Option<PostMortem> {
        let (_, json) = self.kept.iter().find(|(summary, _)| summary.id == id)?;
        serde_json::from_str(json).ok()
    }

    /// Waits, for a moment, until everything is written. A disk that stands still is not waited for any longer.
    pub fn flush(&self) {
        let end = Instant::now() + FLUSH_LIMIT;
        let (sender, done) = sync_channel(1);
        let mut item = Item::Flush(sender);
        while let Err(TrySendError::Full(back)) = self.writer.try_send(item) {
            if Instant::now() >= end {
                return;
            }
            item = back;
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = done.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

fn write_all(receiver: &Receiver<Item>, directory: &Path) {
    let mut failing = false;
    for item in receiver {
        match item {
            Item::Write(id, json) => match write(directory, &id, &json) {
                Ok(()) => failing = false,
                // Said once: the next ones fail for the same reason.
                Err(_) if failing => {}
                Err(e) => {
                    failing = true;
                    tracing::warn!(
                        "post-mortem {id}: {}: {e}: the newest {KEPT} are kept in memory only, until this is mended",
                        directory.display()
                    );
                }
            },
            Item::Flush(done) => {
                // Whoever asked may have stopped waiting.
                let _ = done.try_send(());
            }
        }
    }
}

fn write(directory: &Path, id: &str, json: &str) -> io::Result<()> {
    super::private_dir(directory, 0o700)?;
    let partial = directory.join("partial");
    // Nobody else writes here: one that was left by a full disk or a killed supervisor is of no use.
    let mut options = fs::OpenOptions::new();
    let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(&partial)?;
    let name = format!("{id}.json");
    let written = io::Write::write_all(&mut file, json.as_bytes())
        .and_then(|()| fs::rename(&partial, directory.join(&name)));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written?;
    prune(directory, &name)
}

/// Removes the oldest until few enough are there. `newest` stays, whatever the clock says about its age.
fn prune(directory: &Path, newest: &str) -> io::Result<()> {
    let mut names: Vec<String> = fs::read_dir(directory)?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name != newest && name.strip_suffix(".json").is_some_and(is_id))
        .collect();
    // They begin with their time.
    names.sort_unstable();
    let surplus = (names.len() + 1).saturating_sub(MAX_FILES);
    names.iter().take(surplus).try_for_each(|name| fs::remove_file(directory.join(name)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use nursery_shared::{
        message::Role,
        postmortem::{Resources, id},
    };

    fn example(n: u16, wall_us: i64) -> PostMortem {
        PostMortem {
            id: id(wall_us, Role::Sink, n),
            time: String::new(),
            version: String::new(),
            worker: "sink".into(),
            role: Role::Sink,
            camera: None,
            pid: None,
            reason: format!("reason {n}"),
            exit_status: None,
            signal: None,
            signal_name: None,
            uptime_s: 0.0,
            restarts: 0,
            progress: 0,
            silent_s: 0.0,
            owed: Vec::new(),
            resources: Resources::default(),
            log: Vec::new(),
            threads: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn directory(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("nursery-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn of_two_hundred_and_fifty_the_newest_two_hundred_stay_as_files_and_twenty_in_memory() {
        let dir = directory("postmortems");
        let mut all = PostMortems::start(&dir).unwrap();
        fs::create_dir_all(dir.join(DIRECTORY)).unwrap();
        fs::write(dir.join(DIRECTORY).join("somebody else's.json"), "x").unwrap();
        let made: Vec<PostMortem> = (0..250).map(|n| example(n, i64::from(n) * 1_000_000)).collect();
        for one in &made {
            all.keep(one);
            all.flush();
        }
        let mut expected: Vec<String> = made[50..].iter().map(|p| format!("{}.json", p.id)).collect();
        expected.push("somebody else's.json".into());
        expected.sort();
        assert_eq!(names(all.directory()), expected);
        let kept: Vec<String> = all.list().into_iter().map(|s| s.id).collect();
        assert_eq!(kept, made[230..].iter().map(|p| p.id.clone()).collect::<Vec<_>>());
        assert_eq!(all.get(&made[249].id).as_ref(), Some(&made[249]));
        assert_eq!(all.get(&made[0].id), None);
        // The clock was set back by a day: the new one is the oldest by name, and stays.
        let odd = example(999, -1);
        all.keep(&odd);
        all.flush();
        let after = names(all.directory());
        assert_eq!(after.len(), MAX_FILES + 1);
        assert!(after.contains(&format!("{}.json", odd.id)));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_disk_that_takes_nothing_costs_the_files_and_nothing_else() {
        let dir = directory("no-postmortems");
        fs::create_dir_all(&dir).unwrap();
        // No directory can be made where a file is, not even by root.
        fs::write(dir.join(DIRECTORY), "in the way").unwrap();
        let mut all = PostMortems::start(&dir).unwrap();
        for n in 0..50 {
            // More than may wait.
            all.keep(&example(n, 0));
        }
        assert_eq!(all.list().len(), KEPT);
        assert!(all.get(&example(49, 0).id).is_some());
        all.flush();
        fs::remove_file(dir.join(DIRECTORY)).unwrap();
        all.keep(&example(50, 0));
        all.flush();
        assert_eq!(names(&dir.join(DIRECTORY)), [format!("{}.json", example(50, 0).id)]);
        fs::remove_dir_all(&dir).unwrap();
    }
}
