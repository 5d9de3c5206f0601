//! What a role may open and where it may connect to, as Landlock enforces it. Concerns threads that are started later,
//! so it is put up while there is one. Kernels that know less of it enforce what they know.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};
use nix::{errno::Errno, libc};
use nursery_shared::cage::{Cage, Guard, LANDLOCK_PORTS, LANDLOCK_SIGNALS};

/// The newest rules that are asked for; kernels enforce those that they know.
const NEWEST: ABI = ABI::V6;

/// What the resolver of names reads.
const RESOLVER: [&str; 8] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/ld.so.cache",
];
/// Where modules of the resolver may be.
const LIBRARIES: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];
/// Where certificate authorities may be.
const ROOTS: [&str; 6] = [
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/usr/lib/ssl",
];
/// Names that are asked for over TCP where the answer is long.
const DNS: u16 = 53;

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Device and number of a file.
    File(u64, u64),
    Nowhere,
    /// Through a directory that this user may not enter.
    OutOfSight,
}

/// The single files that may be read, as they were when the cage was put up.
static SEEN: OnceLock<Vec<(PathBuf, Place)>> = OnceLock::new();

fn place(path: &Path) -> Place {
    // Not through the standard library, which takes another call that resolvers have no use for.
    match nix::sys::stat::stat(path) {
        Ok(found) => Place::File(found.st_dev, found.st_ino),
        Err(Errno::EACCES) => Place::OutOfSight,
        Err(_) => Place::Nowhere,
    }
}

/// A file within reach in whose place there is, or may be, another now, which is not: whoever needs it must begin anew.
pub fn replaced() -> Option<&'static Path> {
    let other = |(path, then): &&(PathBuf, Place)| match (*then, place(path)) {
        // It was seen to be missing by the right to see everything, which is gone.
        (Place::Nowhere, Place::OutOfSight) => true,
        (_, Place::Nowhere | Place::OutOfSight) => false,
        (then, now) => then != now,
    };
    SEEN.get()?.iter().find(other).map(|(path, _)| path.as_path())
}

/// What a role may reach. Nothing, to begin with.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reach {
    read: Vec<PathBuf>,
    /// The same, needed only before the list of system calls is closed.
    read_early: Vec<PathBuf>,
    write: Vec<PathBuf>,
    ports: Vec<u16>,
    /// Starts what needs nobody knows what: only signals are held back.
    unlimited: Option<&'static str>,
}

impl Reach {
    /// Files, or everything below directories, to read.
    pub fn read(mut self, paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        self.read.extend(paths.into_iter().map(Into::into));
        self
    }

    /// A directory with everything in it, to read, write and make files in.
    pub fn write(mut self, directory: impl Into<PathBuf>) -> Self {
        self.write.push(directory.into());
        self
    }

    /// TCP ports to connect to.
    pub fn ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.ports.extend(ports);
        self
    }

    /// What it takes to resolve names.
    pub fn names(self) -> Self {
        // Written by whoever manages the network, mostly by replacing it in a directory of its own.
        let managed = fs::canonicalize(RESOLVER[0])
            .ok()
            .and_then(|file| file.parent().map(Path::to_owned))
            .filter(|directory| !["/", "/etc", "/run"].iter().any(|d| directory == Path::new(d)));
        self.read(RESOLVER).read(LIBRARIES).read(managed).ports([DNS])
    }

    /// The authorities that this host trusts.
    pub fn roots(mut self) -> Self {
        let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter_map(std::env::var_os);
        self.read_early.extend(ROOTS.into_iter().map(PathBuf::from).chain(named.map(PathBuf::from)));
        self
    }

    /// Files and ports are free, for this reason.
    pub fn unlimited(mut self, why: &'static str) -> Self {
        self.unlimited = Some(why);
        self
    }
}

/// Confines this thread, and all that it starts, and notes how far the kernel follows.
pub fn confine(reach: &Reach, cage: &mut Cage) {
    if reach.unlimited.is_none() {
        // What is replaced within a directory is found by it, and libraries are not read twice.
        let below =
            |path: &Path| reach.read.iter().any(|d| path != d && resolved(path).starts_with(resolved(d)));
        let single = reach.read.iter().filter(|path| !path.is_dir() && !below(path));
        SEEN.get_or_init(|| single.map(|path| (path.clone(), place(path))).collect());
    }
    match restrict(reach) {
        Ok(status) => note(reach, version(&status.landlock), cage),
        Err(e) => {
            for guard in [Guard::Files, Guard::Ports, Guard::Signals] {
                cage.note(guard, Err(format!("Landlock: {e}")));
            }
        }
    }
}

fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn restrict(reach: &Reach) -> Result<RestrictionStatus, RulesetError> {
    let rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    let signals = Scope::Signal;
    if reach.unlimited.is_some() {
        return rules.scope(signals)?.create()?.restrict_self();
    }
    let everything = AccessFs::from_all(NEWEST);
    let mut rules = rules
        .handle_access(everything)?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(signals | Scope::AbstractUnixSocket)?
        .create()?;
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let places = [(&reach.read, reading), (&reach.read_early, reading), (&reach.write, keeping())];
    for (paths, access) in places {
        for path in paths {
            // What is not there cannot be opened either.
            let Ok(opened) = PathFd::new(path) else { continue };
            let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
            rules = rules.add_rule(PathBeneath::new(opened, access))?;
        }
    }
    for port in &reach.ports {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    rules.restrict_self()
}

/// What it takes to keep files in a directory: no programs, devices, sockets or links among them.
fn keeping() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::WriteFile
        | AccessFs::ReadDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::Refer
        | AccessFs::Truncate
}

/// The version of this kernel's Landlock.
pub fn kernel_version() -> Option<i32> {
    /// `LANDLOCK_CREATE_RULESET_VERSION`: asks only.
    const VERSION: libc::c_ulong = 1;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: with this flag the call reads nothing and makes nothing.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, VERSION) };
    i32::try_from(version).ok().filter(|v| *v > 0)
}

fn version(status: &LandlockStatus) -> Result<i32, &'static str> {
    match status {
        LandlockStatus::NotEnabled => Err("Landlock is not switched on (add it to the kernel's `lsm=`)"),
        LandlockStatus::NotImplemented => Err("this kernel has no Landlock (Linux 5.13 brought it)"),
        LandlockStatus::Available { effective_abi, kernel_abi } => {
            Ok(kernel_abi.unwrap_or(*effective_abi as i32))
        }
    }
}

fn note(reach: &Reach, version: Result<i32, &'static str>, cage: &mut Cage) {
    let since = |first: i32, linux: &str| match version {
        Err(why) => Err(why.to_owned()),
        Ok(version) if version < first => {
            Err(format!("this kernel's Landlock has version {version}, it takes {first} (Linux {linux})"))
        }
        Ok(_) => Ok(()),
    };
    let limited = |outcome: Result<(), String>| match reach.unlimited {
        Some(why) => Err(why.to_owned()),
        None => outcome,
    };
    cage.note(Guard::Files, limited(since(1, "5.13")));
    cage.note(Guard::Ports, limited(since(LANDLOCK_PORTS, "6.7")));
    cage.note(Guard::Signals, since(LANDLOCK_SIGNALS, "6.12"));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn an_older_kernel_is_named_with_what_it_takes() {
        let mut cage = Cage::default();
        note(&Reach::default(), Ok(3), &mut cage);
        assert_eq!(cage.in_force, [Guard::Files]);
        assert!(cage.missing[0].why.contains("version 3") && cage.missing[0].why.contains("Linux 6.7"));
        note(&Reach::default(), Err("none"), &mut cage);
        assert_eq!((cage.in_force.len(), cage.missing.len()), (0, 3));
        note(&Reach::default().unlimited("a program"), Ok(7), &mut cage);
        assert_eq!(cage.in_force, [Guard::Signals]);
    }

    #[test]
    fn a_thread_that_is_confined_opens_and_connects_to_what_it_may() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = |l: &std::net::TcpListener| l.local_addr().unwrap().port();
        let dir = std::env::temp_dir().join(format!("nursery-reach-{}", std::process::id()));
        fs::create_dir_all(dir.join("own")).unwrap();
        fs::write(dir.join("open"), "x").unwrap();
        fs::write(dir.join("closed"), "x").unwrap();
        let reach = Reach::default().read([dir.join("open")]).write(dir.join("own")).ports([port(&listener)]);
        let (ports, at) = ([port(&listener), port(&other)], dir.clone());
        // In a thread of its own: the others of this test go on as they were.
        let found = std::thread::spawn(move || {
            let mut cage = Cage::default();
            confine(&reach, &mut cage);
            let connects = ports.map(|port| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
            let reads = ["open", "closed"].map(|name| fs::read(at.join(name)).is_ok());
            let writes = ["own/new", "open", "new"].map(|name| fs::write(at.join(name), "y").is_ok());
            (cage, connects, reads, writes)
        });
        let (cage, connects, reads, writes) = found.join().unwrap();
        fs::remove_dir_all(&dir).unwrap();
        if !cage.in_force.contains(&Guard::Files) {
            eprintln!("SKIPPED: {:?}", cage.missing);
            return;
        }
        assert_eq!((reads, writes), ([true, false], [true, false, false]));
        if cage.in_force.contains(&Guard::Ports) {
            assert_eq!(connects, [true, false]);
        }
    }
}
