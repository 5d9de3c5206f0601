//! The lists of system calls in `policy/*.txt`, as they are read: one call per line, with what its arguments must be,
//! and what it is for behind a `#`.
//!
//! ```text
//! include common
//! read                                   # frames from the supervisor
//! mmap     arg3 lacks MAP_SHARED         # memory of its own
//! socket   arg0 is AF_INET, arg1 has SOCK_STREAM
//! clone3   fails ENOSYS                  # its flags are out of sight: libraries take clone then
//! brk                                    # rare: when the heap grows a little
//! poll     only x86_64                   # elsewhere it is ppoll
//! ```
//!
//! Several lines of one call are alternatives. A call whose comment begins with `rare:` is needed, but not in every run;
//! the test that finds what is superfluous passes over it.

use nix::libc;

use crate::examine::system_calls;

/// Every list by its name.
const FILES: &[(&str, &str)] = &[
    ("common", include_str!("policy/common.txt")),
    ("threads", include_str!("policy/threads.txt")),
    ("infer", include_str!("policy/infer.txt")),
    ("capture", include_str!("policy/capture.txt")),
    ("rtsp", include_str!("policy/rtsp.txt")),
    ("file", include_str!("policy/file.txt")),
    ("names", include_str!("policy/names.txt")),
    ("tls", include_str!("policy/tls.txt")),
    ("udp", include_str!("policy/udp.txt")),
    ("sink", include_str!("policy/sink.txt")),
    ("http", include_str!("policy/http.txt")),
    ("web", include_str!("policy/web.txt")),
    ("light", include_str!("policy/light.txt")),
    ("program", include_str!("policy/program.txt")),
];

/// Words for numbers in conditions.
const WORDS: &[(&str, u64)] = &[
    ("AF_INET", libc::AF_INET as u64),
    ("AF_INET6", libc::AF_INET6 as u64),
    ("AF_UNIX", libc::AF_UNIX as u64),
    ("AF_NETLINK", libc::AF_NETLINK as u64),
    ("SOCK_STREAM", libc::SOCK_STREAM as u64),
    ("SOCK_DGRAM", libc::SOCK_DGRAM as u64),
    ("SOL_SOCKET", libc::SOL_SOCKET as u64),
    ("SO_RCVLOWAT", libc::SO_RCVLOWAT as u64),
    ("PROT_EXEC", libc::PROT_EXEC as u64),
    ("MAP_SHARED", libc::MAP_SHARED as u64),
    ("CLONE_THREAD", libc::CLONE_THREAD as u64),
    ("CLONE_NEWUSER", libc::CLONE_NEWUSER as u64),
    ("PR_SET_NAME", libc::PR_SET_NAME as u64),
    ("FIONREAD", libc::FIONREAD),
    ("FIONBIO", libc::FIONBIO),
    ("SIGABRT", libc::SIGABRT as u64),
];

/// Error numbers for `fails`.
const ERRORS: &[(&str, i32)] = &[("ENOSYS", libc::ENOSYS), ("EPERM", libc::EPERM), ("EACCES", libc::EACCES)];

/// What one argument must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// 0 to 5.
    pub argument: u8,
    /// Bits that count.
    pub mask: u64,
    /// What they are.
    pub value: u64,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub call: &'static str,
    pub number: i64,
    /// All of them; none: whatever the arguments are.
    pub conditions: Vec<Condition>,
    /// Instead of being done, it fails with this error.
    pub fails: Option<i32>,
    pub rare: bool,
}

/// A list with all that it includes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    pub rules: Vec<Rule>,
}

impl Policy {
    /// Reads the lists of these names, one after another.
    ///
    /// # Errors
    /// One line with list and line number.
    pub fn read(names: &[&str]) -> Result<Self, String> {
        let mut policy = Self::default();
        for name in names {
            policy.include(name, 0)?;
        }
        Ok(policy)
    }

    fn include(&mut self, name: &str, depth: u8) -> Result<(), String> {
        let Some((_, text)) = FILES.iter().find(|(known, _)| *known == name) else {
            return Err(format!("no list of system calls is called {name:?}"));
        };
        for (number, line) in text.lines().enumerate() {
            let fail = |what: String| format!("{name}.txt, line {}: {what}", number + 1);
            let (words, comment) = line.split_once('#').unwrap_or((line, ""));
            match words.trim().split_once(char::is_whitespace) {
                None if words.trim().is_empty() => {}
                Some(("include", _)) if depth > 3 => return Err(fail("includes itself".into())),
                Some(("include", other)) => self.include(other.trim(), depth + 1)?,
                _ => {
                    if let Some(mut rule) = rule(words.trim()).map_err(fail)? {
                        rule.rare = comment.trim_start().starts_with("rare:");
                        if !self.rules.iter().any(|known| Rule { rare: rule.rare, ..known.clone() } == rule) {
                            self.rules.push(rule);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Names of the calls that may be made, each once, in order.
    pub fn calls(&self) -> Vec<&'static str> {
        let mut calls: Vec<_> = self.rules.iter().filter(|r| r.fails.is_none()).map(|r| r.call).collect();
        calls.sort_unstable();
        calls.dedup();
        calls
    }
}

/// One line without its comment; `None` where it is for another processor.
fn rule(line: &str) -> Result<Option<Rule>, String> {
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let elsewhere = rest.strip_prefix("only ").is_some_and(|processor| processor != std::env::consts::ARCH);
    if elsewhere {
        return Ok(None);
    }
    let (call, number) =
        system_calls::number(name).ok_or_else(|| format!("no system call is called {name:?}"))?;
    let mut rule = Rule { call, number, conditions: Vec::new(), fails: None, rare: false };
    if rest.is_empty() || rest.starts_with("only ") {
        return Ok(Some(rule));
    }
    let (rest, error) = match rest.split_once("fails ") {
        Some((conditions, error)) => (conditions.trim(), Some(error.trim())),
        None => (rest, None),
    };
    if let Some(error) = error {
        let found = ERRORS.iter().find(|(known, _)| *known == error);
        rule.fails = Some(found.ok_or_else(|| format!("no error is called {error:?}"))?.1);
        if rest.is_empty() {
            return Ok(Some(rule));
        }
    }
    rule.conditions = rest.split(',').map(|text| condition(text.trim())).collect::<Result<_, _>>()?;
    Ok(Some(rule))
}

/// `argN is X`, `argN has X`, `argN lacks X`.
fn condition(text: &str) -> Result<Condition, String> {
    let fail = || format!("{text:?} is no condition, expected `argN is|has|lacks WORD`");
    let [argument, verb, word] = text.split_whitespace().collect::<Vec<_>>()[..] else { return Err(fail()) };
    let argument: u8 = argument.strip_prefix("arg").and_then(|n| n.parse().ok()).ok_or_else(fail)?;
    let number = WORDS.iter().find(|(known, _)| *known == word).map(|(_, n)| *n);
    let number = number.or_else(|| (word == "OWN_PID").then(|| u64::from(std::process::id())));
    let value = number.or_else(|| word.parse().ok()).ok_or_else(|| format!("{word:?} is no known word"))?;
    match verb {
        _ if argument > 5 => Err(fail()),
        // A system call's arguments of these kinds are 32 bits wide; the kernel passes over the rest.
        "is" => Ok(Condition { argument, mask: u64::from(u32::MAX), value }),
        "has" => Ok(Condition { argument, mask: value, value }),
        "lacks" => Ok(Condition { argument, mask: value, value: 0 }),
        _ => Err(fail()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_line_is_a_call_with_conditions_or_an_error() {
        let found = rule("socket arg0 is AF_INET, arg1 has SOCK_STREAM").unwrap().unwrap();
        assert_eq!((found.call, found.number), ("socket", libc::SYS_socket));
        assert_eq!(found.conditions[1], Condition { argument: 1, mask: 1, value: 1 });
        let found = rule("mmap   arg2 lacks PROT_EXEC").unwrap().unwrap();
        assert_eq!(found.conditions, [Condition { argument: 2, mask: 4, value: 0 }]);
        assert_eq!(rule("clone3 fails ENOSYS").unwrap().unwrap().fails, Some(libc::ENOSYS));
        assert!(rule("poll only vax").unwrap().is_none());
        for bad in
            ["raed", "read arg0", "read arg9 is 1", "read arg0 is NOTHING", "read fails E", "read x is 1"]
        {
            assert!(rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_list_can_be_read_and_every_line_says_what_for() {
        for (name, text) in FILES {
            let policy = Policy::read(&[name]).unwrap();
            assert!(!policy.rules.is_empty(), "{name}");
            for line in text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with("include")) {
                let comment = line.split_once('#').map_or("", |(_, c)| c.trim());
                assert!(comment.len() > 5, "{name}.txt does not say what this is for: {line}");
            }
        }
    }
}
