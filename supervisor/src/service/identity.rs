//! Who runs as whom: started as root, every worker gets a user and a group that nobody else has, or those that the
//! configuration names. Names are looked up in /etc/passwd and /etc/group themselves: a directory service that does
//! not answer must not keep this process.

use std::{fs, os::unix::process::CommandExt, path::Path, process::Command};

use nursery_shared::{config::SupervisionConfig, message::Role};

use super::sys;

/// Users that are given away in turn, one for each place of a worker. More than there can be places, unless cameras
/// come and go thousands of times; then a number is used again.
pub const RANGE: u32 = 8192;
/// Where they begin where nothing is configured: in systemd's `unused` range, far from those that `useradd` and
/// `subuid` give out; the second for containers that know no more than 65536 users.
const BASES: [u32; 2] = [440_000, 45_000];

/// Capabilities without which root can give nobody another user, or not end him afterwards.
const NEEDED: [(u32, &str); 4] = [(0, "CAP_CHOWN"), (5, "CAP_KILL"), (6, "CAP_SETGID"), (7, "CAP_SETUID")];

/// A user with its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// The lowest number of the range that no process has that runs; 0 is the sink's, the last one is for looking at models.
pub fn free_number(used: impl Fn(u32) -> bool) -> u32 {
    (1..RANGE - 1).find(|n| !used(*n)).unwrap_or(RANGE - 2)
}

impl Identity {
    /// Has a program run as this user; it is to give away the right to open files itself, see [`sys::become_user`].
    pub fn put_on(self, command: &mut Command) {
        // SAFETY: the closure makes only async-signal-safe system calls, see there.
        unsafe { command.pre_exec(move || sys::become_user(&self)) };
    }
}

/// Who runs as whom, in this service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identities {
    base: u32,
    /// By role; `None`: one of the range.
    named: [Option<Identity>; 5],
}

impl Identities {
    /// What the configuration asks for; `None` where this process may not change anybody's user.
    ///
    /// # Errors
    /// One line that names key and remedy.
    pub fn new(config: &SupervisionConfig) -> Result<Option<Self>, String> {
        let asked = config.uid_base.is_some() || config.users.any();
        let able = if nix::unistd::geteuid().is_root() {
            lacking(&read("/proc/self/status")).map_or(Ok(()), |name| {
                Err(format!("root without {name} cannot give workers users of their own"))
            })
        } else {
            Err("only root can give workers users of their own".to_owned())
        };
        match able {
            Err(why) if asked => return Err(format!("supervision.users, supervision.uid_base: {why}")),
            Err(_) => return Ok(None),
            Ok(()) => {}
        }
        let (passwd, group) = (read("/etc/passwd"), read("/etc/group"));
        let find = |key: &str, name: &Option<String>| match name {
            Some(name) => {
                look_up(name, &passwd, &group).map(Some).map_err(|e| format!("supervision.users.{key}: {e}"))
            }
            None => Ok(None),
        };
        let users = &config.users;
        let named = [
            find("capture", &users.capture)?,
            find("infer", &users.infer)?,
            find("sink", &users.sink)?,
            find("web", &users.web)?,
            find("light", &users.light)?,
        ];
        let map = read("/proc/self/uid_map");
        let base = match config.uid_base {
            Some(base) if is_mapped(&map, base) => base,
            Some(base) => {
                return Err(format!(
                    "supervision.uid_base: {base}, expected the first of {RANGE} users that exist in this container"
                ));
            }
            None => match BASES.into_iter().find(|base| is_mapped(&map, *base)) {
                Some(base) => base,
                None if asked => {
                    return Err(format!(
                        "supervision.uid_base: this container has no {RANGE} users from {} on: name the first of as many that it has",
                        BASES[1]
                    ));
                }
                // A container of a single user: root there is nobody else's root.
                None => return Ok(None),
            },
        };
        Ok(Some(Self { base, named }))
    }

    /// Every worker of this role has a user of its own: none is named for it.
    pub fn are_apart(&self, role: Role) -> bool {
        match role {
            Role::Capture => self.named[0].is_none(),
            Role::Infer => self.named[1].is_none(),
            Role::Sink => self.named[2].is_none(),
            Role::Web => self.named[3].is_none(),
            Role::Light => self.named[4].is_none(),
        }
    }

    /// The user of a worker, who has this number of the range where no user is named for the role.
    pub fn of(&self, role: Role, number: u32) -> Identity {
        let (named, number) = match role {
            Role::Capture => (&self.named[0], number),
            Role::Infer => (&self.named[1], number),
            // What it stores belongs to it, whatever its place is.
            Role::Sink => (&self.named[2], 0),
            Role::Web => (&self.named[3], number),
            Role::Light => (&self.named[4], number),
        };
        named.clone().unwrap_or_else(|| {
            // Bounded by RANGE, and the whole range was found to be there.
            let uid = self.base + number % RANGE;
            Identity { uid, gid: uid, groups: Vec::new() }
        })
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(path)).unwrap_or_default()
}

/// The first capability that is needed and not there.
fn lacking(status: &str) -> Option<&'static str> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:")).unwrap_or_default();
    let effective = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
    NEEDED.iter().find(|(bit, _)| effective & (1 << bit) == 0).map(|(_, name)| *name)
}

/// Whether all users of a range exist in this user namespace.
fn is_mapped(map: &str, base: u32) -> bool {
    map.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let [inside, _, count] = numbers[..] else { return false };
        let (first, end) = (u64::from(base), u64::from(base) + u64::from(RANGE));
        inside <= first && end <= inside + count
    })
}

/// The number of a group by its name or number.
///
/// # Errors
/// One line.
pub fn group(name: &str) -> Result<u32, String> {
    group_in(name, &read("/etc/group"))
}

fn group_in(name: &str, group: &str) -> Result<u32, String> {
    let found = group.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let number = fields.get(2)?;
        (fields.first() == Some(&name) || *number == name).then(|| number.parse().ok())?
    });
    found.ok_or_else(|| format!("{name:?} is no group in /etc/group"))
}

/// A user by name or number, with the groups that name him a member.
fn look_up(name: &str, passwd: &str, group: &str) -> Result<Identity, String> {
    let entry = passwd
        .lines()
        .map(|l| l.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&name) || fields.get(2).is_some_and(|uid| *uid == name));
    let Some(fields) = entry else {
        return Err(format!("{name:?} is no user in /etc/passwd"));
    };
    let number = |i: usize| fields.get(i).and_then(|n| n.parse::<u32>().ok());
    let (Some(uid), Some(gid)) = (number(2), number(3)) else {
        return Err(format!("{name:?}: its line in /etc/passwd cannot be read"));
    };
    if uid == 0 || gid == 0 {
        return Err(format!("{name:?} is root or of root's group, expected a user without rights"));
    }
    let member = fields[0];
    let groups = group
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let is_member = fields.get(3)?.split(',').any(|m| m.trim() == member);
            fields.get(2)?.parse::<u32>().ok().filter(|g| is_member && *g != gid && *g != 0)
        })
        .take(64)
        .collect();
    Ok(Identity { uid, gid, groups })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nears:x:990:980::/:/usr/sbin/nologin\nodd:x:no:1::/:\n";
    const GROUP: &str = "root:x:0:ears\nears:x:980:\naudio:x:29:pulse,ears\nvideo:x:44:earsplit\n";

    #[test]
    fn a_named_user_comes_with_its_groups_and_never_with_roots() {
        let found = look_up("ears", PASSWD, GROUP).unwrap();
        assert_eq!(found, Identity { uid: 990, gid: 980, groups: vec![29] });
        assert_eq!(look_up("990", PASSWD, GROUP).unwrap(), found);
        for bad in ["root", "0", "nobody-here", "odd", ""] {
            assert!(look_up(bad, PASSWD, GROUP).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_group_is_found_by_name_or_number() {
        assert_eq!(group_in("audio", GROUP), Ok(29));
        assert_eq!(group_in("44", GROUP), Ok(44));
        for bad in ["pulse", "", "45"] {
            assert!(group_in(bad, GROUP).unwrap_err().contains("/etc/group"), "{bad}");
        }
    }

    #[test]
    fn every_worker_has_a_user_of_its_own_and_the_sink_always_the_same() {
        let ids = Identities { base: 440_000, named: [const { None }; 5] };
        let uids: Vec<u32> = (1..20).map(|slot| ids.of(Role::Capture, slot).uid).collect();
        let different: std::collections::HashSet<_> = uids.iter().collect();
        assert_eq!(different.len(), uids.len());
        assert_eq!(ids.of(Role::Sink, 7), ids.of(Role::Sink, 0));
        assert!(!uids.contains(&ids.of(Role::Sink, 7).uid));
        assert!(ids.of(Role::Infer, u32::MAX).uid < 440_000 + RANGE);
    }

    #[test]
    fn numbers_are_used_again_when_their_process_is_gone_and_never_the_sinks() {
        assert_eq!(free_number(|_| false), 1);
        assert_eq!(free_number(|n| n == 1 || n == 2), 3);
        assert!((1..RANGE - 1).contains(&free_number(|_| true)));
    }

    #[test]
    fn a_range_must_exist_in_this_container() {
        assert!(is_mapped("         0          0 4294967295\n", 440_000));
        let container = "0 1000 1\n1 100000 65536\n";
        assert!(!is_mapped(container, 440_000) && is_mapped(container, 45_000));
        assert!(!is_mapped("0 1000 1\n", 45_000) && !is_mapped("", 0));
    }

    #[test]
    fn a_missing_capability_is_named() {
        assert_eq!(lacking("CapEff:\t000001ffffffffff\n"), None);
        assert_eq!(lacking("CapEff:\t00000000000000c1\n"), Some("CAP_KILL"));
        assert_eq!(lacking(""), Some("CAP_CHOWN"));
    }
}
