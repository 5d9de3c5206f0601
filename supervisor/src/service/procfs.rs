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

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_uses_memory() {
        assert!(super::usage(std::process::id()).0 > 100_000);
        assert_eq!(super::usage(u32::MAX / 2), (0, 0.0));
    }
}
