//! What the kernel knows of a worker: memory and processor time.

/// Resident bytes and seconds of processor time of a process; zeros where it is gone.
pub fn usage(pid: u32) -> (u64, f64) {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return (0, 0.0) };
    // The command's name stands in parentheses and may hold anything; the fields count from its end.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let number = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096) as u64;
    (number(21) * page, ((number(11) + number(12)) as f64 / ticks * 100.0).round() / 100.0)
}

/// Processes of a session, other than its leader and those that are only waiting to be reaped.
pub fn in_session(leader: u32) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| u32::try_from(*pid) != Ok(leader))
        .filter(|pid| {
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
            let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
            let alive = fields.next().is_some_and(|state| state != "Z");
            // Parent and group stand between state and session.
            alive && fields.nth(2).and_then(|s| s.parse::<u32>().ok()) == Some(leader)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_child_is_found_by_its_session() {
        let session = nix::unistd::getsid(None).unwrap().as_raw() as u32;
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(super::in_session(session).contains(&(child.id() as i32)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!super::in_session(session).contains(&(child.id() as i32)));
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(super::usage(std::process::id()).0 > 100_000);
        assert_eq!(super::usage(u32::MAX / 2), (0, 0.0));
    }
}
