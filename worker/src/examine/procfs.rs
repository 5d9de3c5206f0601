//! What /proc tells of a process and its threads, without stopping any.

use std::{fs, io};

use nursery_shared::postmortem::{MAX_NAME, MAX_THREADS, Resources, Thread, clean};

use super::system_calls;

/// Memory, processor time, descriptors, threads; nothing where the process is gone.
pub fn resources(pid: i32) -> Resources {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok().map(|entries| entries.count() as u32);
    Resources {
        rss_bytes: field("VmRSS").map(|kb| kb * 1024),
        peak_rss_bytes: field("VmHWM").map(|kb| kb * 1024),
        // Exact at its end, by whoever reaps it.
        cpu_s: None,
        descriptors,
        threads: field("Threads").and_then(|n| u32::try_from(n).ok()),
    }
}

/// The threads, at most [`MAX_THREADS`], the first one first.
pub fn threads(pid: i32) -> io::Result<Vec<Thread>> {
    let mut tids: Vec<i32> = fs::read_dir(format!("/proc/{pid}/task"))?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    tids.sort_unstable();
    tids.truncate(MAX_THREADS);
    Ok(tids.into_iter().map(|tid| thread(pid, tid)).collect())
}

fn thread(pid: i32, tid: i32) -> Thread {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/task/{tid}/{name}")).unwrap_or_default();
    let wait_channel = read("wchan");
    let stat = read("stat");
    // The name stands in parentheses and may hold anything; the state is the first field after it.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    Thread {
        tid,
        name: clean(read("comm").trim_end(), MAX_NAME),
        state: state.unwrap_or("?").to_owned(),
        wait_channel: match wait_channel.trim() {
            // Running, or the kernel does not tell us.
            "" | "0" => None,
            name => Some(clean(name, MAX_NAME)),
        },
        system_call: system_call(&read("syscall")),
        stack: Vec::new(),
        stack_ends: None,
    }
}

/// `running`, `-1 SP PC` where it is blocked outside of any, else `NUMBER ARGUMENTS… SP PC`. Arguments are left
/// alone: they are addresses of no use to anybody.
fn system_call(line: &str) -> Option<String> {
    let number: i64 = line.split_whitespace().next()?.parse().ok()?;
    (number >= 0)
        .then(|| system_calls::name(number).map_or_else(|| format!("syscall {number}"), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_blocked_thread_names_its_system_call() {
        let read = nix::libc::SYS_read;
        assert_eq!(
            system_call(&format!("{read} 0x0 0x7f 0x400 0x0 0x0 0x0 0x7ffd 0x7f3c\n")).unwrap(),
            "read"
        );
        assert_eq!(system_call("99999 0x0"), Some("syscall 99999".to_owned()));
        assert_eq!(system_call("-1 0x7ffd 0x7f3c"), None);
        assert_eq!(system_call("running\n"), None);
        assert_eq!(system_call(""), None);
    }

    #[test]
    fn this_process_is_described() {
        let pid = std::process::id() as i32;
        let r = resources(pid);
        assert!(r.rss_bytes.unwrap() > 100_000 && r.peak_rss_bytes >= r.rss_bytes);
        assert!(r.descriptors.unwrap() >= 3 && r.threads.unwrap() >= 1);
        let threads = threads(pid).unwrap();
        assert!(threads.iter().any(|t| t.tid == pid));
        assert!(super::threads(-1).is_err());
        assert_eq!(resources(-1), Resources::default());
    }
}
