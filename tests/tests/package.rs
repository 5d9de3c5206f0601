//! What is packaged: complete, valid, and gone again when the package is.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use nursery_shared::control::{Reply, Request};
use nursery_tests::{
    package,
    processes::Process,
    say_skipped,
    service::{ask, binary, nursery},
    skip,
    temp_dir::TempDir,
    wait::{self, PATIENCE},
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
/// What nothing in a package may be worse than, by `systemd-analyze security`; the figure is in README.md.
const EXPOSURE_PERCENT: u32 = 35;

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../supervisor/packaging").join(name)
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// Its options in long, as a shell and a reader see them.
fn options(command: &clap::Command) -> Vec<String> {
    let listed = command.get_arguments().filter(|a| !a.is_hide_set());
    listed.filter_map(|a| a.get_long().map(|long| format!("--{long}"))).collect()
}

#[test]
fn every_command_has_a_manual_page_and_completions_with_all_its_options() {
    let dir = TempDir::new();
    let command = package::command();
    let pages = package::manual_pages(&dir.join("man")).unwrap();
    let completions: Vec<String> = package::completions(&dir.join("completions"))
        .unwrap()
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    assert_eq!(completions.len(), 3);
    let help = wait::output(&mut nursery(["--help"]), SOON);
    let help = String::from_utf8(help.stdout).unwrap();
    let commands: Vec<&clap::Command> = command.get_subcommands().collect();
    assert!(commands.len() >= 15, "{}", commands.len());
    for one in &commands {
        let name = one.get_name();
        assert!(help.contains(&format!("  {name} ")), "{name} is not in --help");
        assert!(pages.contains(&format!("nursery-{name}.1")), "no page for {name}");
        let page = fs::read_to_string(dir.join("man").join(format!("nursery-{name}.1"))).unwrap();
        // roff escapes hyphens.
        let page = page.replace("\\-", "-");
        let shown = wait::output(&mut nursery([name, "--help"]), SOON);
        let shown = String::from_utf8(shown.stdout).unwrap();
        for option in options(one) {
            assert!(page.contains(&option), "{name}: {option} is not in its page");
            assert!(shown.contains(&option), "{name}: {option} is not in its help");
            for text in &completions {
                assert!(text.contains(option.trim_start_matches("--")), "{name}: {option} is not completed");
            }
        }
        assert!(completions.iter().all(|text| text.contains(name)), "{name} is not completed");
    }
    let detect = commands.iter().find(|c| c.get_name() == "detect").unwrap();
    assert!(options(detect).contains(&"--curve".to_owned()), "the worker's options of detect are missing");
    if has("bash") {
        let file = dir.join("completions/nursery.bash");
        let out = wait::output(Command::new("bash").arg("-n").arg(file), SOON);
        assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    if has("man") {
        for page in &pages {
            let mut man = Command::new("man");
            man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8"]).arg(dir.join("man").join(page));
            let out = wait::output(man.env("MANPAGER", "cat").env("LC_ALL", "C.UTF-8"), SOON);
            assert!(out.stderr.is_empty(), "{page}: {}", String::from_utf8_lossy(&out.stderr));
        }
    } else {
        say_skipped("rendering of manual pages", "no man here");
    }
}

#[test]
fn the_example_is_a_valid_configuration() {
    let credentials = TempDir::new();
    for name in ["bedroom", "webhook"] {
        fs::write(credentials.join(name), "sesame").unwrap();
    }
    let mut check = nursery(["check", "--config"]);
    check.arg(packaging("example.json")).env("CREDENTIALS_DIRECTORY", credentials.path());
    let out = wait::output(&mut check, SOON);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn the_unit_is_what_systemd_understands_and_shuts_off_what_can_be() {
    let text = fs::read_to_string(packaging("nursery.service")).unwrap();
    // The name that `credential:NAME` is looked for under, and the directory that tmpfiles makes.
    assert!(text.contains("\nLoadCredential=nursery:/etc/nursery/credentials\n"));
    assert!(
        fs::read_to_string(packaging("tmpfiles.d/nursery.conf"))
            .unwrap()
            .contains("/etc/nursery/credentials 0700")
    );
    assert!(text.contains("\nRestartSteps="), "the delay does not grow");
    assert!(!package::unit_for(252, &text).contains("\nRestartSteps="));
    assert_eq!(package::unit_for(254, &text), text);
    let Some(version) = package::systemd_version() else {
        skip!("no systemd-analyze here, the unit was not verified");
    };
    let dir = TempDir::new();
    // The package is not installed here.
    let text =
        package::unit_for(version, &text).replace("/usr/bin/nursery", binary("nursery").to_str().unwrap());
    fs::write(dir.join("nursery.service"), text).unwrap();
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        wait::output(command.args(arguments).arg(dir.join("nursery.service")), SOON)
    };
    let verified = analyze(&["verify", "--man=no"]);
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success() && said.is_empty(), "{said}");
    let threshold = format!("--threshold={EXPOSURE_PERCENT}");
    let security = analyze(&["security", "--offline=true", "--no-pager", &threshold]);
    let said = String::from_utf8_lossy(&security.stdout).into_owned();
    println!("{}", said.lines().last().unwrap_or_default());
    assert!(security.status.success(), "{said}");
}

/// Files of the system that have to do with the package.
fn traces() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders: Vec<PathBuf> =
        ["/etc", "/usr", "/var/lib", "/var/cache", "/run"].map(Into::into).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                folders.push(path.clone());
            }
            if path.to_string_lossy().contains("nursery") {
                found.insert(path);
            }
        }
    }
    found
}

fn group_exists() -> bool {
    fs::read_to_string("/etc/group").unwrap_or_default().lines().any(|l| l.starts_with("nursery:"))
}

/// Removes what the test has installed, however it ends.
struct Installed;

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = Command::new("dpkg").args(["--purge", "nursery"]).stdout(Stdio::null()).status();
        // None of it was there before.
        for dir in ["/var/lib/nursery", "/run/nursery", "/etc/nursery"] {
            let _ = fs::remove_dir_all(dir);
        }
        if group_exists() {
            let _ = Command::new("groupdel").arg("nursery").status();
        }
    }
}

fn must(command: &mut Command) -> String {
    let out = wait::output(command, Duration::from_secs(300));
    let (said, wrong) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {}\n{said}\n{wrong}", out.status);
    said.into_owned()
}

/// Builds the package, and installs it on this machine for some seconds.
#[test]
#[ignore = "as root with dpkg and cargo-deb: builds the package and installs it here (.ci/run does)"]
fn the_package_installs_serves_and_leaves_nothing_but_its_state() {
    if !nix::unistd::geteuid().is_root() {
        skip!("only root can install a package");
    }
    if !has("dpkg") || !has("cargo-deb") {
        skip!("dpkg or cargo-deb is not installed");
    }
    let before = traces();
    if group_exists() || before.iter().any(|p| p.file_name().is_some_and(|name| name == "nursery")) {
        skip!("a nursery is installed here already: {before:#?}");
    }
    print!("{}", must(Command::new(binary("xtask")).arg("deb")));
    let debian = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debian");
    let package = fs::read_dir(debian).unwrap().flatten().map(|e| e.path());
    let package = package
        .filter(|p| p.extension().is_some_and(|e| e == "deb"))
        .max_by_key(|p| p.metadata().unwrap().modified().unwrap())
        .expect("a package");
    let size = package.metadata().unwrap().len();
    assert!(size < 20 << 20, "{} has {size} bytes", package.display());

    let installed = Installed;
    must(Command::new("dpkg").arg("--install").arg(&package));
    println!(
        "{}: {size} bytes\n{}",
        package.display(),
        must(Command::new("dpkg").args(["--listfiles", "nursery"]))
    );
    if has("systemd-analyze") {
        let unit = "/usr/lib/systemd/system/nursery.service";
        // Without pages: `man` would keep them in its cache.
        let out = wait::output(Command::new("systemd-analyze").args(["verify", "--man=no", unit]), SOON);
        assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    assert!(group_exists(), "the group of the control socket is missing");
    let run = |arguments: &[&str]| must(Command::new("/usr/bin/nursery").args(arguments));
    fs::create_dir_all("/etc/nursery/credentials").unwrap();
    for name in ["bedroom", "webhook"] {
        let path = Path::new("/etc/nursery/credentials").join(name);
        fs::write(&path, "sesame").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let example = "/usr/share/doc/nursery/examples/cameras.json";
    must(
        Command::new("/usr/bin/nursery")
            .args(["check", "--config", example])
            .env("CREDENTIALS_DIRECTORY", "/etc/nursery/credentials"),
    );
    fs::write("/etc/nursery/cameras.json", r#"[{"name": "room", "source": "synthetic:cry"}]"#).unwrap();
    fs::set_permissions("/etc/nursery/cameras.json", fs::Permissions::from_mode(0o600)).unwrap();
    serve(&run);

    must(Command::new("dpkg").args(["--remove", "nursery"]));
    assert!(!Path::new("/usr/bin/nursery").exists() && !Path::new("/usr/libexec/nursery").exists());
    must(Command::new("dpkg").args(["--purge", "nursery"]));
    let left: Vec<PathBuf> = traces().difference(&before).cloned().collect();
    println!("left: {left:#?}");
    for path in &left {
        // What the administrator wrote, the state, and what is gone at the next start of the host.
        let may = ["/etc/nursery", "/var/lib/nursery", "/run/nursery"].iter().any(|p| path.starts_with(p));
        assert!(may, "{} was left behind", path.display());
    }
    assert!(left.contains(&"/var/lib/nursery/store/nursery.sqlite".into()), "the state is gone");
    assert!(left.contains(&"/etc/nursery/cameras.json".into()), "the configuration is gone");
    drop(installed);
    assert_eq!(traces(), before);
    assert!(!group_exists());
}

/// Runs the installed service as the unit does, has it explain a hung worker, and stops it.
fn serve(run: &dyn Fn(&[&str]) -> String) {
    let mut service = Command::new("/usr/bin/nursery")
        .args(["run", "--config", "/etc/nursery/cameras.json"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let socket = Path::new("/run/nursery/control.sock");
    let looked = wait::poll(PATIENCE, || {
        let Ok(Reply::Status { status }) = ask(socket, &Request::Status {}) else { return None };
        (status.cameras[0].windows > 4).then(|| {
            let capture = status.workers.iter().find(|w| w.name == "capture:room").unwrap();
            Process::of(capture.pid.unwrap()).unwrap()
        })
    });
    if let Some(capture) = looked {
        assert!(run(&["status"]).contains("room"));
        capture.signal(Signal::SIGSTOP);
        let named = wait::poll(PATIENCE, || {
            let list: Value = serde_json::from_str(&run(&["postmortem", "--json"])).unwrap();
            let id = list.as_array()?.first()?["id"].as_str()?.to_owned();
            Some(run(&["postmortem", "--json", &id]))
        });
        run(&["stop"]);
        let found = named.expect("a post-mortem of the stopped worker");
        assert!(found.contains("nursery_worker::"), "no function is named: {found}");
    } else {
        let _ = service.kill();
    }
    let status = wait::for_exit(&mut service, PATIENCE);
    assert!(looked.is_some() && status.is_some_and(|s| s.success()), "{status:?}");
}
