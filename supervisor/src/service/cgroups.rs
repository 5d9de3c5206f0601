//! A control group for each worker and what it starts: bounds on memory, processes and processor time, and an end for
//! all of them at once. Of version 2 where a part of the tree is ours (systemd's `Delegate=yes`), of version 1 for the
//! controllers that are still there; without any, the limits of processes have to do.

use std::{
    ffi::CStr,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    libc,
    sys::signal::{Signal, kill},
    unistd::{AccessFlags, Pid, access, geteuid},
};
use nursery_shared::message::Role;

/// Where version 2 is, alone or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Where controllers of version 1 are.
const OLD_MOUNT: &str = "/sys/fs/cgroup";
/// Group of this process, since one with groups below it may hold none itself.
const OWN: &str = "supervisor";
/// What the group of all capture processes, with theirs below it, ends with.
const CAPTURES: &str = "captures";
/// What groups that are ours begin with, where others have theirs beside them.
const PREFIX: &str = "nursery-";
/// Processes and threads of a worker and its programs.
const PROCESSES: u32 = 512;
/// Groups that could not be removed yet.
const MAX_LEFT: usize = 1024;

/// What bounds a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controller {
    Memory,
    Pids,
    Cpu,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Memory, Self::Pids, Self::Cpu];

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }

    /// Files and what is written to them; the first one must be there. Weights count 100 as usual.
    fn settings(self, version: Version, memory: u64, weight: u64) -> Vec<(&'static str, String)> {
        match (self, version) {
            (Self::Cpu, _) => vec![weigh(version, weight)],
            // With one process of a worker all go: what is left of it would be of no use.
            (Self::Memory, Version::Two) => {
                vec![("memory.max", memory.to_string()), ("memory.oom.group", "1".into())]
            }
            (Self::Memory, Version::One) => vec![("memory.limit_in_bytes", memory.to_string())],
            (Self::Pids, _) => vec![("pids.max", PROCESSES.to_string())],
        }
    }
}

/// File and what is written to it for a weight that counts 100 as usual.
fn weigh(version: Version, weight: u64) -> (&'static str, String) {
    match version {
        Version::Two => ("cpu.weight", weight.to_string()),
        Version::One => ("cpu.shares", (weight * 1024 / 100).to_string()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A directory under which groups are made.
#[derive(Debug, Clone)]
struct Place {
    directory: PathBuf,
    version: Version,
    controllers: Vec<Controller>,
}

/// The parts of the trees that are ours.
#[derive(Debug)]
pub struct Groups {
    places: Vec<Place>,
    next: u64,
    /// Groups of this service that hold others, or itself, and where who is in them goes when it ends.
    standing: Vec<(PathBuf, PathBuf)>,
    /// Directories that still held somebody who was about to die.
    left: Vec<PathBuf>,
}

/// The group of one worker.
#[derive(Debug)]
pub struct Group {
    /// With what its directory belongs to.
    parts: Vec<(PathBuf, Version)>,
    /// Open for the process that is about to be started.
    entrances: Vec<File>,
    memory: Option<(PathBuf, u64)>,
    /// How often somebody was killed for want of it, as was noticed already.
    seen: u64,
}

/// What is known of a group when its worker has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Bytes that it could have, where the kernel killed somebody in it because that was not enough.
    pub out_of_memory: Option<u64>,
}

/// Weight against other groups when processors are scarce: who hears, stores and tells goes before who judges. What is
/// heard late nobody knows of, and what is not judged is counted and told. Who is only looked at comes last. Capture
/// processes share the weight of their group, or many of them would outweigh everybody, and a few nobody.
fn weight(role: Role) -> u64 {
    match role {
        Role::Capture => 100,
        Role::Infer => 50,
        Role::Sink => 200,
        Role::Web | Role::Light => 25,
    }
}

/// The weight of all capture processes together, and of the supervisor, through whose hands everything goes.
const CAPTURES_WEIGHT: u64 = 400;
const OWN_WEIGHT: u64 = 400;

/// The directory of this process's group in version 2, where groups below it may be made.
///
/// # Errors
/// Why not, in a few words.
pub fn delegated() -> Result<PathBuf, &'static str> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // Version 2 has number 0 and no controllers named.
    let path = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or("this kernel has no version 2 of them")?;
    let place = MOUNTS
        .iter()
        .map(|mount| below(mount, path))
        .find(|place| place.join("cgroup.procs").exists())
        .ok_or("version 2 of them is not mounted")?;
    if path == "/" {
        return Err("this process is in the root group: run it under systemd, or in a group of its own");
    }
    let writable = [place.clone(), place.join("cgroup.procs"), place.join("cgroup.subtree_control")]
        .iter()
        .all(|file| access(file, AccessFlags::W_OK).is_ok());
    if writable && (is_given(&place) || !systemd_runs()) {
        Ok(place)
    } else {
        Err("not delegated to this user (Delegate=yes of a systemd unit does it)")
    }
}

/// What workers would get here, in a few words; changes nothing.
pub fn offer() -> String {
    let why = match delegated() {
        Ok(place) => return format!("control groups below {}", place.display()),
        Err(why) => why,
    };
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let old = Controller::ALL.into_iter().filter(|c| old_place(&own, *c).is_some()).map(Controller::name);
    match old.collect::<Vec<_>>() {
        old if old.contains(&Controller::Memory.name()) => {
            format!("control groups of version 1 ({})", old.join(", "))
        }
        _ => format!("no control groups ({why}; limits per process instead)"),
    }
}

/// Paths of groups begin with a slash of their own.
fn below(mount: &str, path: &str) -> PathBuf {
    Path::new(mount).join(path.trim_start_matches('/'))
}

fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Whether systemd has marked a group as somebody else's to divide. Without the mark root may write there too, and would
/// get into systemd's way.
fn is_given(place: &Path) -> bool {
    if !geteuid().is_root() {
        // What an ordinary user may write to was given to it.
        return true;
    }
    // The unit says so itself, since not every root may read the mark.
    if std::env::var_os("NURSERY_CGROUP").is_some_and(|value| value == "delegated") {
        return true;
    }
    let Ok(path) = std::ffi::CString::new(place.as_os_str().as_bytes()) else { return false };
    [c"trusted.delegate", c"user.delegate"].iter().any(|name: &&CStr| {
        let mut value = [0_u8; 8];
        // SAFETY: two strings that end with a zero, and room for as many bytes as is said.
        let length =
            unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        length == 1 && value[0] == b'1'
    })
}

/// The place of a controller of version 1, where this process's group may be divided.
fn old_place(own: &str, controller: Controller) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let names = fields.next()?;
        names.split(',').any(|name| name == controller.name()).then(|| fields.next()).flatten()
    })?;
    let place = below(OLD_MOUNT, "").join(controller.name()).join(path.trim_start_matches('/'));
    let ours = geteuid().is_root() && !systemd_runs() && place.join("cgroup.procs").exists();
    (ours && access(&place, AccessFlags::W_OK).is_ok()).then_some(place)
}

impl Groups {
    /// Finds what is ours, and makes room for groups in it.
    ///
    /// # Errors
    /// Why there is nothing, in a few words.
    pub fn find() -> Result<Self, String> {
        let mut places = Vec::new();
        let unified = delegated();
        if let Ok(place) = &unified {
            places.extend(divide(place));
        }
        let bounded = |places: &[Place], c| places.iter().any(|p| p.controllers.contains(&c));
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        for controller in Controller::ALL {
            if !bounded(&places, controller)
                && let Some(directory) = old_place(&own, controller)
            {
                places.push(Place { directory, version: Version::One, controllers: vec![controller] });
            }
        }
        if !bounded(&places, Controller::Memory) {
            return Err(match unified {
                Err(why) => why.to_owned(),
                Ok(place) => format!("{}: nobody gave it the controller of memory", place.display()),
            });
        }
        let mut groups = Self { places, next: 0, standing: Vec::new(), left: Vec::new() };
        groups.remove_former();
        groups.weigh_itself();
        Ok(groups)
    }

    /// Where only version 1 has weights, this process gets its own too. Without it is merely as heavy as anybody.
    fn weigh_itself(&mut self) {
        let weighs = |p: &&Place| p.version == Version::One && p.controllers.contains(&Controller::Cpu);
        let Some(place) = self.places.iter().find(weighs) else { return };
        let directory = place.directory.join(format!("{PREFIX}{}-{OWN}", std::process::id()));
        if fs::create_dir(&directory).is_err() {
            return;
        }
        let (file, value) = weigh(place.version, OWN_WEIGHT);
        let _ = fs::write(directory.join(file), value);
        let _ = fs::write(directory.join("cgroup.procs"), std::process::id().to_string());
        self.standing.push((directory, place.directory.clone()));
    }

    /// Where the groups of a role are, below a place; made where they have one of their own and it is not there yet.
    fn parent(&mut self, place: usize, role: Role) -> io::Result<PathBuf> {
        let place = &self.places[place];
        if role != Role::Capture {
            return Ok(place.directory.clone());
        }
        let directory = place.directory.join(format!("{PREFIX}{}-{CAPTURES}", std::process::id()));
        if self.standing.iter().any(|(standing, _)| *standing == directory) {
            return Ok(directory);
        }
        fs::create_dir(&directory).map_err(|e| at(&directory, e))?;
        self.standing.push((directory.clone(), place.directory.clone()));
        if place.controllers.contains(&Controller::Cpu) {
            let (file, value) = weigh(place.version, CAPTURES_WEIGHT);
            let _ = fs::write(directory.join(file), value);
        }
        if place.version == Version::Two {
            hand_down(&directory, &place.controllers)?;
        }
        Ok(directory)
    }

    /// A group for a process that is about to be started, which may have `memory` bytes.
    ///
    /// # Errors
    /// With the file that did not take what was written to it.
    pub fn make(&mut self, role: Role, memory: u64) -> io::Result<Group> {
        self.sweep();
        self.next += 1;
        let name = format!("{PREFIX}{}-{}-{}", std::process::id(), role.as_str(), self.next);
        let mut group = Group { parts: Vec::new(), entrances: Vec::new(), memory: None, seen: 0 };
        for n in 0..self.places.len() {
            let added = self
                .parent(n, role)
                .and_then(|parent| group.add(&self.places[n], parent.join(&name), memory, weight(role)));
            if let Err(e) = added {
                self.end(group);
                return Err(e);
            }
        }
        Ok(group)
    }

    /// Kills whoever is left in a group and has it removed.
    pub fn end(&mut self, group: Group) -> Ended {
        let killed = group.memory.as_ref().is_some_and(|(directory, _)| oom_kills(directory) > 0);
        for (directory, version) in &group.parts {
            let at_once = directory.join("cgroup.kill");
            let told = *version == Version::Two && fs::write(&at_once, "1").is_ok();
            if !told {
                // Who forks while this runs is found when the group is removed.
                kill_members(directory);
            }
        }
        let surplus = (self.left.len() + group.parts.len()).saturating_sub(MAX_LEFT);
        self.left.drain(..surplus.min(self.left.len()));
        self.left.extend(group.parts.into_iter().map(|(directory, _)| directory));
        self.sweep();
        Ended { out_of_memory: group.memory.filter(|_| killed).map(|(_, bytes)| bytes) }
    }

    /// Removes what nobody is in any more.
    pub fn sweep(&mut self) {
        self.left.retain(|directory| {
            let gone = match fs::remove_dir(directory) {
                Ok(()) => true,
                Err(e) => e.kind() == io::ErrorKind::NotFound,
            };
            if !gone {
                kill_members(directory);
            }
            !gone
        });
    }

    /// What a supervisor that was killed left behind: programs of its workers outlive it. Groups of another service
    /// beside this one have the number of a process that runs.
    fn remove_former(&mut self) {
        let places = self.places.clone();
        for place in &places {
            let entries = fs::read_dir(&place.directory).into_iter().flatten().flatten();
            for entry in entries.filter(|e| e.file_name().as_bytes().starts_with(PREFIX.as_bytes())) {
                let name = entry.file_name();
                let of = name
                    .to_str()
                    .and_then(|n| n.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
                let orphaned =
                    |pid| pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists();
                if of.is_some_and(orphaned) {
                    // Those below it first.
                    let below = fs::read_dir(entry.path()).into_iter().flatten().flatten();
                    let below = below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path());
                    self.left.extend(below.chain([entry.path()]));
                }
            }
        }
        self.sweep();
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.sweep();
        for (directory, outside) in &self.standing {
            for pid in members(directory) {
                let _ = fs::write(outside.join("cgroup.procs"), pid.to_string());
            }
            // One that still holds somebody is removed by the next service.
            let _ = fs::remove_dir(directory);
        }
    }
}

fn at(path: &Path, e: io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

impl Group {
    fn add(&mut self, place: &Place, directory: PathBuf, memory: u64, weight: u64) -> io::Result<()> {
        fs::create_dir(&directory).map_err(|e| at(&directory, e))?;
        self.parts.push((directory.clone(), place.version));
        for controller in &place.controllers {
            for (n, (name, value)) in
                controller.settings(place.version, memory, weight).into_iter().enumerate()
            {
                let file = directory.join(name);
                match fs::write(&file, value) {
                    Err(e) if n == 0 => return Err(at(&file, e)),
                    _ => {}
                }
            }
            if *controller == Controller::Memory {
                self.memory = Some((directory.clone(), memory));
            }
        }
        let entrance = directory.join("cgroup.procs");
        let opened = OpenOptions::new().write(true).custom_flags(libc::O_CLOEXEC).open(&entrance);
        self.entrances.push(opened.map_err(|e| at(&entrance, e))?);
        Ok(())
    }

    /// Where a process between fork and exec writes "0" to be in it.
    pub fn entrances(&self) -> Vec<RawFd> {
        self.entrances.iter().map(AsRawFd::as_raw_fd).collect()
    }

    /// Bytes that it may have, where somebody in it was killed for want of more since this was asked last.
    pub fn starved(&mut self) -> Option<u64> {
        let (directory, bytes) = self.memory.as_ref()?;
        let kills = oom_kills(directory);
        (std::mem::replace(&mut self.seen, kills) < kills).then_some(*bytes)
    }

    /// The process was started; whether it is inside.
    pub fn close(&mut self, pid: u32) -> bool {
        self.entrances.clear();
        self.parts.iter().all(|(directory, _)| members(directory).contains(&pid.cast_signed()))
    }
}

fn members(directory: &Path) -> Vec<i32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
}

fn kill_members(directory: &Path) {
    let own = std::process::id().cast_signed();
    for pid in members(directory).into_iter().filter(|pid| *pid != own) {
        // Gone already: just as well.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// How often the kernel killed somebody in the group because its memory was used up.
fn oom_kills(directory: &Path) -> u64 {
    ["memory.events", "memory.oom_control"]
        .iter()
        .filter_map(|name| fs::read_to_string(directory.join(name)).ok())
        .find_map(|text| text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()))
        .unwrap_or(0)
}

/// Makes room below a group of version 2: whoever is in it moves to a group of its own, and the controllers are handed
/// down. One without controllers is of use all the same: it ends everybody in it at once.
fn divide(place: &Path) -> Option<Place> {
    let offered = fs::read_to_string(place.join("cgroup.controllers")).unwrap_or_default();
    let mut controllers: Vec<Controller> =
        Controller::ALL.into_iter().filter(|c| offered.split_whitespace().any(|o| o == c.name())).collect();
    if !controllers.is_empty() {
        let own = place.join(OWN);
        if let Err(e) = fs::create_dir(&own)
            && e.kind() != io::ErrorKind::AlreadyExists
        {
            return None;
        }
        for pid in members(place) {
            // One that ended meanwhile needs no place.
            let _ = fs::write(own.join("cgroup.procs"), pid.to_string());
        }
        controllers.retain(|controller| hand_down(place, &[*controller]).is_ok());
        let _ = fs::write(own.join("cpu.weight"), OWN_WEIGHT.to_string());
    }
    Some(Place { directory: place.to_owned(), version: Version::Two, controllers })
}

/// Groups below this one of version 2 get these controllers.
fn hand_down(place: &Path, controllers: &[Controller]) -> io::Result<()> {
    let path = place.join("cgroup.subtree_control");
    for controller in controllers {
        let mut file = OpenOptions::new().write(true).open(&path).map_err(|e| at(&path, e))?;
        file.write_all(format!("+{}", controller.name()).as_bytes()).map_err(|e| at(&path, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// A process has one part of the groups.
    static ALONE: Mutex<()> = Mutex::new(());

    #[test]
    fn settings_of_both_versions_say_the_same() {
        let of = |c: Controller, v| c.settings(v, 1 << 30, 200);
        assert_eq!(of(Controller::Memory, Version::Two)[0], ("memory.max", "1073741824".to_owned()));
        assert_eq!(
            of(Controller::Memory, Version::One)[0],
            ("memory.limit_in_bytes", "1073741824".to_owned())
        );
        assert_eq!(of(Controller::Cpu, Version::Two)[0], ("cpu.weight", "200".to_owned()));
        assert_eq!(of(Controller::Cpu, Version::One)[0], ("cpu.shares", "2048".to_owned()));
    }

    #[test]
    fn a_group_holds_a_process_kills_what_it_started_and_is_removed() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(mut groups) = Groups::find() else {
            eprintln!("SKIPPED: no part of the control groups is ours here");
            return;
        };
        let mut group = groups.make(Role::Capture, 64 << 20).unwrap();
        let entrances: Vec<PathBuf> = group.parts.iter().map(|(d, _)| d.join("cgroup.procs")).collect();
        // One that leaves its session, and so would not be found by it.
        let mut shell = std::process::Command::new("setsid");
        let mut child = shell.args(["sh", "-c", "sleep 300 & sleep 300"]).spawn().unwrap();
        for entrance in &entrances {
            fs::write(entrance, child.id().to_string()).unwrap();
        }
        assert!(group.close(child.id()));
        let directories: Vec<PathBuf> = group.parts.iter().map(|(d, _)| d.clone()).collect();
        assert_eq!(groups.end(group), Ended { out_of_memory: None });
        child.wait().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while directories.iter().any(|d| d.exists()) {
            assert!(std::time::Instant::now() < deadline, "{directories:?} are left");
            groups.sweep();
            std::thread::yield_now();
        }
    }

    #[test]
    fn however_many_cameras_there_are_their_processes_have_one_weight_together() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(mut groups) = Groups::find() else {
            eprintln!("SKIPPED: no part of the control groups is ours here");
            return;
        };
        let made: Vec<Group> =
            [Role::Capture, Role::Capture, Role::Infer].map(|r| groups.make(r, 64 << 20).unwrap()).into();
        for (n, place) in groups.places.iter().enumerate() {
            let parents: Vec<&Path> = made.iter().map(|g| g.parts[n].0.parent().unwrap()).collect();
            assert_eq!(parents[0], parents[1]);
            assert_eq!(parents[0].parent(), Some(&*place.directory), "beside the others");
            assert_eq!(parents[2], place.directory);
            if place.controllers.contains(&Controller::Cpu) {
                let (file, value) = weigh(place.version, CAPTURES_WEIGHT);
                assert_eq!(fs::read_to_string(parents[0].join(file)).unwrap().trim(), value);
                let (file, value) = weigh(place.version, OWN_WEIGHT);
                let own = groups.standing.iter().map(|(directory, _)| directory);
                let own = own.filter(|d| d.to_string_lossy().ends_with(OWN)).collect::<Vec<_>>();
                if place.version == Version::One {
                    assert_eq!(fs::read_to_string(own[0].join(file)).unwrap().trim(), value);
                    assert!(members(own[0]).contains(&std::process::id().cast_signed()));
                }
            }
        }
        let standing = groups.standing.clone();
        made.into_iter().for_each(|group| _ = groups.end(group));
        drop(groups);
        assert!(standing.iter().all(|(directory, _)| !directory.exists()), "{standing:?}");
    }
}
