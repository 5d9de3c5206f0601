//! Builds the Debian package: the programs without their line tables, the unit, manual pages, completions, notices.

use std::{fs, path::Path, process::Command};

use nursery_tests::{package, service::binary};

use crate::{ROOT, cargo};

/// Where everything is laid out that is not a file of the repository; what `supervisor/Cargo.toml` names.
const STAGE: &str = "target/package";

/// Lays everything out and calls cargo-deb; the package lies in `target/debian` then.
pub fn run() -> bool {
    match stage() {
        // Quiet: it warns of everything that cargo itself did not build.
        Ok(()) => cargo(&[
            "deb",
            "--quiet",
            "--package",
            "nursery-supervisor",
            "--no-build",
            "--no-strip",
            "--locked",
        ]),
        Err(why) => {
            eprintln!("{why}");
            false
        }
    }
}

fn stage() -> Result<(), String> {
    let stage = Path::new(ROOT).join(STAGE);
    let at = |path: &Path| {
        let place = path.display().to_string();
        move |e: std::io::Error| format!("{place}: {e}")
    };
    // A package has no leftovers of an earlier one.
    if stage.exists() {
        fs::remove_dir_all(&stage).map_err(at(&stage))?;
    }
    fs::create_dir_all(&stage).map_err(at(&stage))?;
    for name in ["nursery", "nursery-worker", "nursery-capture"] {
        // The table of symbols stays: post-mortems name functions by it. Files and lines, nine tenths of the file,
        // are in the programs that were built, and offsets in post-mortems belong to both.
        let status = Command::new("objcopy")
            .arg("--strip-debug")
            .arg(binary(name))
            .arg(stage.join(name))
            .status()
            .map_err(|e| format!("objcopy: {e} (apt-get install binutils)"))?;
        if !status.success() {
            return Err(format!("objcopy of {name}: {status}"));
        }
    }
    let pages = package::manual_pages(&stage.join("man")).map_err(at(&stage))?;
    package::completions(&stage.join("completions")).map_err(at(&stage))?;
    let unit = Path::new(ROOT).join("supervisor/packaging/nursery.service");
    let text = fs::read_to_string(&unit).map_err(at(&unit))?;
    let version = package::systemd_version();
    // Without systemd here, for the newest.
    let text = package::unit_for(version.unwrap_or(u32::MAX), &text);
    fs::write(stage.join("nursery.service"), text).map_err(at(&stage))?;
    fs::write(stage.join("third-party.txt"), package::third_party(Path::new(ROOT))?).map_err(at(&stage))?;
    let shown = version.map_or_else(|| "any systemd".into(), |v| format!("systemd {v}"));
    println!("{} manual pages; the unit is for {shown}", pages.len());
    Ok(())
}
