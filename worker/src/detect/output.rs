//! What `nursery detect` prints: JSON lines or a table on standard output, errors and a progress bar on standard
//! error.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// A cry in a recording.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cry {
    pub onset_us: i64,
    pub offset_us: i64,
    /// Highest probability in it.
    pub score: f32,
}

/// What the pipeline reports, file by file in order.
pub trait Output {
    /// A recording begins; its length in seconds, where it says so.
    fn opened(&mut self, path: &Path, duration_s: Option<f64>);
    /// The recording was scored up to this time.
    fn progress(&mut self, at_us: i64);
    /// The recording was read to its end.
    fn done(&mut self, path: &Path, length_us: i64, corrupt: u64, cries: &[Cry]);
    /// The recording could not be read.
    fn failed(&mut self, path: &Path, reason: &str);
}

/// One JSON line.
#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    onset: f64,
    offset: f64,
    label: &'static str,
    score: f64,
}

/// Prints to `out` and standard error.
pub struct Printer<W> {
    out: W,
    json: bool,
    files: usize,
    bar: ProgressBar,
    bar_counts_files: bool,
    table_begun: bool,
    cries: usize,
    files_with_cries: usize,
    files_read: usize,
    heard_us: i64,
    /// The first failure to write; nothing is written after it.
    broken: io::Result<()>,
}

impl<W: Write> Printer<W> {
    /// `progress`: standard error is a terminal.
    pub fn new(out: W, json: bool, progress: bool, files: usize) -> Self {
        let bar_counts_files = files > 1;
        let target = if progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(bar_counts_files.then_some(files as u64), target);
        bar.set_style(style(bar_counts_files));
        Self {
            out,
            json,
            files,
            bar,
            bar_counts_files,
            table_begun: false,
            cries: 0,
            files_with_cries: 0,
            files_read: 0,
            heard_us: 0,
            broken: Ok(()),
        }
    }

    /// Ends the output; the first failure to write, if any.
    pub fn finish(mut self) -> io::Result<()> {
        self.bar.finish_and_clear();
        if !self.json && self.files > 1 {
            let line = format!(
                "{} in {} of {} recordings, {:.1} s of audio",
                if self.cries == 1 { "1 cry".to_owned() } else { format!("{} cries", self.cries) },
                self.files_with_cries,
                self.files_read,
                seconds(self.heard_us)
            );
            self.print(&line);
        }
        self.broken.and_then(|()| self.out.flush())
    }

    fn print(&mut self, line: &str) {
        if self.broken.is_ok() {
            let out = &mut self.out;
            self.broken = self.bar.suspend(|| writeln!(out, "{line}"));
        }
    }

    fn warn(&self, line: &str) {
        self.bar.suspend(|| eprintln!("nursery detect: {line}"));
    }
}

impl<W: Write> Output for Printer<W> {
    fn opened(&mut self, path: &Path, duration_s: Option<f64>) {
        self.bar.set_message(path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned());
        if !self.bar_counts_files
            && let Some(duration_s) = duration_s
        {
            self.bar.set_length((duration_s * 1000.0) as u64);
            self.bar.set_style(style(true));
        }
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    fn progress(&mut self, at_us: i64) {
        if !self.bar_counts_files {
            self.bar.set_position((at_us / 1000) as u64);
        }
    }

    fn done(&mut self, path: &Path, length_us: i64, corrupt: u64, cries: &[Cry]) {
        if corrupt > 0 {
            self.warn(&format!("{}: {corrupt} corrupt packet(s) were left out", path.display()));
        }
        self.files_read += 1;
        self.heard_us += length_us;
        self.cries += cries.len();
        self.files_with_cries += usize::from(!cries.is_empty());
        let file = path.to_string_lossy();
        if self.json {
            for cry in cries {
                let line = Line {
                    file: &file,
                    onset: round(seconds(cry.onset_us), 1e3),
                    offset: round(seconds(cry.offset_us), 1e3),
                    label: "baby_cry",
                    score: round(f64::from(cry.score), 1e4),
                };
                // Strings and finite numbers always have a JSON form.
                let text = serde_json::to_string(&line).unwrap_or_default();
                self.print(&text);
            }
        } else {
            if !std::mem::replace(&mut self.table_begun, true) {
                self.print("   onset    offset  duration  score  file");
            }
            for cry in cries {
                self.print(&format!(
                    "{:>8.2}  {:>8.2}  {:>8.2}  {:>5.2}  {file}",
                    seconds(cry.onset_us),
                    seconds(cry.offset_us),
                    seconds(cry.offset_us - cry.onset_us),
                    cry.score
                ));
            }
            if cries.is_empty() {
                self.print(&format!("       -         -         -      -  {file}"));
            }
        }
        if self.bar_counts_files {
            self.bar.inc(1);
        }
    }

    fn failed(&mut self, path: &Path, reason: &str) {
        let name = if path.as_os_str() == "-" { "standard input".into() } else { path.to_string_lossy() };
        self.warn(&format!("{name}: {reason}"));
        if self.bar_counts_files {
            self.bar.inc(1);
        }
    }
}

fn style(has_length: bool) -> ProgressStyle {
    let template = if has_length {
        "{bar:30} {percent:>3} % {eta:>4} left  {msg}"
    } else {
        "{spinner} {elapsed}  {msg}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}

fn round(x: f64, steps: f64) -> f64 {
    (x * steps).round() / steps
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn printed(json: bool) -> String {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, json, false, 3);
        let cry = Cry { onset_us: 1_250_400, offset_us: 3_000_000, score: 0.987_654 };
        printer.opened(Path::new("a.wav"), Some(5.0));
        printer.done(Path::new("a.wav"), 5_000_000, 0, &[cry]);
        printer.done(Path::new("b \"x\".wav"), 5_000_000, 2, &[]);
        printer.failed(Path::new("c.wav"), "no such file");
        printer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_lines_are_the_contract_and_nothing_else() {
        assert_eq!(
            printed(true),
            "{\"file\":\"a.wav\",\"onset\":1.25,\"offset\":3.0,\"label\":\"baby_cry\",\"score\":0.9877}\n"
        );
    }

    #[test]
    fn the_table_names_every_recording_that_was_read() {
        let text = printed(false);
        assert!(text.contains("    1.25      3.00      1.75   0.99  a.wav"), "{text}");
        assert!(text.contains("-  b \"x\".wav"), "{text}");
        assert!(text.ends_with("1 cry in 1 of 2 recordings, 10.0 s of audio\n"), "{text}");
    }
}
