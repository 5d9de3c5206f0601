//! `status --watch`: the status anew every second; a service that restarts meanwhile is shown, not fatal.

use std::{path::Path, time::Duration};

use super::{Failure, client, print, screen, table};

/// Runs until it is interrupted. Fails at once where no service runs at the start.
pub fn run(path: &Path) -> Result<(), Failure> {
    let mut status = client::status(path)?;
    loop {
        let text = table::status(&status);
        // Asked for each time: the window may have been resized.
        print(&match screen::size() {
            Some(size) => format!("\x1b[H\x1b[2J{}", screen::fit(&text, size)),
            None => format!("{text}\n"),
        })?;
        status = loop {
            std::thread::sleep(Duration::from_secs(1));
            match client::status(path) {
                Ok(status) => break status,
                Err(failure) => {
                    let line = &failure.message;
                    print(&match screen::size() {
                        Some((columns, _)) => format!("\x1b[H\x1b[2K{}\r", table::cut(line, columns)),
                        None => table::cut(line, table::WIDTH),
                    })?;
                }
            }
        };
    }
}
