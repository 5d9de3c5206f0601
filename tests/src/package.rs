//! What a package holds beside the two programs: manual pages and completions, from the definitions of the command
//! line itself, the notices of what is linked in, and the unit as the host's systemd understands it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Args as _;
use clap_complete::{Shell, generate_to};
use serde_json::Value;

/// The first version of systemd that lets the delay between restarts grow.
const GROWING_DELAY: u32 = 254;
/// What older ones complain about.
const NEWER_KEYS: [&str; 2] = ["RestartSteps=", "RestartMaxDelaySec="];
/// What a crate calls its licence and its notices.
const NOTICES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE"];

/// What the definitions of the command line do not know.
const MORE: &str = r#".SH "EXIT STATUS"
0: done; 1: failed; 2: wrong usage or configuration. One line on standard error then says what, where and the remedy.
.SH FILES
.TP
\fI/etc/nursery/cameras.json\fR
the configuration of the service; \fBnursery schema\fR says what may be in it
.TP
\fI/etc/nursery/credentials/NAME\fR
secrets, which are "credential:NAME" in the configuration
.TP
\fI/var/lib/nursery\fR
events, alerts that are not delivered yet, post\-mortems
.TP
\fI/run/nursery/control.sock\fR
what the other commands talk to; for root and the group nursery
.TP
\fI/usr/share/doc/nursery\fR
README.md explains all of the configuration, TROUBLESHOOTING.md each message
"#;

/// The whole command line, with the options of `detect` that only the worker knows.
pub fn command() -> clap::Command {
    nursery_supervisor::cli::command().mut_subcommand("detect", |listed| {
        let about = listed.get_about().cloned().unwrap_or_default();
        nursery_worker::detect::Args::augment_args(clap::Command::new("detect").about(about))
    })
}

/// Writes a manual page for the program and each of its commands; returns their names.
///
/// # Errors
/// The directory cannot be written.
pub fn manual_pages(dir: &Path) -> io::Result<Vec<String>> {
    fs::create_dir_all(dir)?;
    let mut command = command();
    // Links them to each other, and knows what is inherited.
    command.build();
    let mut pages = vec![("nursery".to_owned(), command.clone())];
    for listed in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        pages.push((format!("nursery-{}", listed.get_name()), listed.clone()));
    }
    let mut names = Vec::new();
    for (name, page) in pages {
        let file = format!("{name}.1");
        let mut text = Vec::new();
        clap_mangen::Man::new(page).title(name.to_uppercase()).render(&mut text)?;
        if name == "nursery" {
            text.extend_from_slice(MORE.as_bytes());
        }
        fs::write(dir.join(&file), text)?;
        names.push(file);
    }
    Ok(names)
}

/// Writes the completions of bash, zsh and fish, each under the name that its shell looks for.
///
/// # Errors
/// The directory cannot be written.
pub fn completions(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::create_dir_all(dir)?;
    let mut command = command();
    [Shell::Bash, Shell::Zsh, Shell::Fish]
        .into_iter()
        .map(|shell| generate_to(shell, &mut command, "nursery", dir))
        .collect()
}

/// The unit without what this version of systemd does not know.
pub fn unit_for(systemd: u32, text: &str) -> String {
    let newer = |line: &str| NEWER_KEYS.iter().any(|key| line.starts_with(key));
    let kept = text.lines().filter(|line| systemd >= GROWING_DELAY || !newer(line));
    kept.flat_map(|line| [line, "\n"]).collect()
}

/// The version of this host's systemd; `None` where there is none.
pub fn systemd_version() -> Option<u32> {
    let out = Command::new("systemd-analyze").arg("--version").output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    // systemd 252 (252.38-1~deb12u1)
    text.split_whitespace().nth(1)?.split('.').next()?.parse().ok()
}

/// Every crate that is linked into the two programs, with its licence and the notices that come with it.
///
/// # Errors
/// What went wrong, in one line.
pub fn third_party(root: &Path) -> Result<String, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let run = |arguments: &[&str]| {
        let out =
            Command::new(&cargo).current_dir(root).args(arguments).output().map_err(|e| e.to_string())?;
        if !out.status.success() {
            return Err(format!("cargo {arguments:?}: {}", String::from_utf8_lossy(&out.stderr)));
        }
        String::from_utf8(out.stdout).map_err(|e| e.to_string())
    };
    let tree = run(&[
        "tree",
        "--locked",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{p}",
        "--package",
        "nursery-supervisor",
        "--package",
        "nursery-worker",
    ])?;
    // NAME vVERSION, and more behind it.
    let linked: BTreeSet<(&str, &str)> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?.strip_prefix('v')?))
        })
        .collect();
    let metadata: Value = serde_json::from_str(&run(&["metadata", "--locked", "--format-version", "1"])?)
        .map_err(|e| e.to_string())?;
    let mut crates = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let text = |key: &str| package[key].as_str().unwrap_or_default();
        // What has no source is ours.
        if package["source"].is_string() && linked.contains(&(text("name"), text("version"))) {
            let dir = Path::new(text("manifest_path")).parent().unwrap_or(Path::new(""));
            crates
                .insert((text("name"), text("version")), (text("license"), text("repository"), notices(dir)));
        }
    }
    // Most have the same text: each is printed once, below the crates that it belongs to.
    let mut list =
        String::from("The crates that are linked into nursery and nursery-worker, and their notices.\n\n");
    let mut texts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for ((name, version), (licence, repository, found)) in &crates {
        list += &format!("{name} {version}: {licence}  {repository}\n");
        for text in found {
            texts.entry(text).or_default().push(format!("{name} {version}"));
        }
    }
    for (text, owners) in texts {
        list += &format!("\n{}\n{}\n\n{}\n", "-".repeat(78), owners.join(", "), text.trim_end());
    }
    Ok(list)
}

fn notices(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().to_uppercase();
            NOTICES.iter().any(|notice| name.starts_with(notice))
        })
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}
