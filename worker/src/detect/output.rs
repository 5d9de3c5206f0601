//! What `nursery detect` prints: JSON lines or a table of the cries, the curves where they are wanted, errors and a
//! progress bar on standard error.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::{
    curve::CurveWriter,
    listen::{Heard, Stretch},
    pipeline::Output,
};

/// A cry in a recording.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cry {
    pub onset_us: i64,
    pub offset_us: i64,
    /// Highest probability in it.
    pub score: f32,
    /// Crying in the minute before its offset, of other cries too.
    pub sustained_us: i64,
}

/// One JSON line.
#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    onset: f64,
    offset: f64,
    label: &'static str,
    score: f64,
    sustained_s: f64,
}

/// Somewhere that could not be written to.
#[derive(Debug)]
pub struct WriteError {
    /// Its name.
    pub place: String,
    pub error: io::Error,
}

/// Prints the cries to `out`, the curves to `curve`, the rest to standard error.
pub struct Printer<W, C: Write> {
    out: W,
    json: bool,
    curve: Option<(String, CurveWriter<C>)>,
    files: usize,
    bar: ProgressBar,
    bar_counts_files: bool,
    table_begun: bool,
    cries: usize,
    files_with_cries: usize,
    files_read: usize,
    heard_us: i64,
    /// The first failure to write; nothing is written after it.
    broken: Result<(), WriteError>,
}

impl<W: Write, C: Write> Printer<W, C> {
    /// `curve`: where it goes, by name; `progress`: standard error is a terminal.
    pub fn new(
        out: W,
        json: bool,
        curve: Option<(String, CurveWriter<C>)>,
        progress: bool,
        files: usize,
    ) -> Self {
        let bar_counts_files = files > 1;
        let target = if progress { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(bar_counts_files.then_some(files as u64), target);
        bar.set_style(style(bar_counts_files));
        Self {
            out,
            json,
            curve,
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
    pub fn finish(mut self) -> Result<(), WriteError> {
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
        self.write(|out, _| out.flush());
        self.write_curve(CurveWriter::finish);
        self.broken
    }

    fn write(&mut self, write: impl FnOnce(&mut W, &ProgressBar) -> io::Result<()>) {
        if self.broken.is_ok() {
            self.broken = write(&mut self.out, &self.bar)
                .map_err(|error| WriteError { place: "standard output".into(), error });
        }
    }

    fn print(&mut self, line: &str) {
        self.write(|out, bar| bar.suspend(|| writeln!(out, "{line}")));
    }

    fn write_curve(&mut self, write: impl FnOnce(&mut CurveWriter<C>) -> io::Result<()>) {
        if let (Ok(()), Some((place, curve))) = (&self.broken, &mut self.curve) {
            self.broken =
                self.bar.suspend(|| write(curve)).map_err(|error| WriteError { place: place.clone(), error });
        }
    }

    fn warn(&self, line: &str) {
        self.bar.suspend(|| eprintln!("nursery detect: {line}"));
    }
}

impl<W: Write, C: Write> Output for Printer<W, C> {
    fn opened(&mut self, path: &Path, duration_s: Option<f64>) {
        self.write_curve(|curve| {
            curve.file(path);
            Ok(())
        });
        self.bar.set_message(path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned());
        if !self.bar_counts_files
            && let Some(duration_s) = duration_s
        {
            self.bar.set_length((duration_s * 1000.0) as u64);
            self.bar.set_style(style(true));
        }
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    fn scored(&mut self, stretch: &Stretch) {
        if !stretch.frames.is_empty() {
            self.write_curve(|curve| curve.write(stretch.first_us, stretch.step_us, &stretch.frames));
        }
        if !self.bar_counts_files {
            self.bar.set_position((stretch.heard_us / 1000) as u64);
        }
    }

    fn done(&mut self, path: &Path, heard: &Heard) {
        let Heard { length_us, corrupt, cries, undrawn } = heard;
        if *corrupt > 0 {
            self.warn(&format!("{}: {corrupt} corrupt packet(s) were left out", path.display()));
        }
        if let Some(reason) = undrawn {
            self.warn(&format!("{}: {reason}", path.display()));
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
                    sustained_s: round(seconds(cry.sustained_us), 1e1),
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

    fn goes_on(&self) -> bool {
        self.broken.is_ok()
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
    use crate::detect::curve::{Format, Frame};

    fn printed(json: bool) -> String {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, json, None::<(String, CurveWriter<Vec<u8>>)>, false, 3);
        let cry =
            Cry { onset_us: 1_250_400, offset_us: 3_000_000, score: 0.987_654, sustained_us: 1_600_000 };
        printer.opened(Path::new("a.wav"), Some(5.0));
        let heard = |corrupt, cries| Heard { length_us: 5_000_000, corrupt, cries, undrawn: None };
        printer.done(Path::new("a.wav"), &heard(0, vec![cry]));
        printer.done(Path::new("b \"x\".wav"), &heard(2, vec![]));
        printer.failed(Path::new("c.wav"), "no such file");
        printer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_lines_are_the_contract_and_nothing_else() {
        assert_eq!(
            printed(true),
            "{\"file\":\"a.wav\",\"onset\":1.25,\"offset\":3.0,\"label\":\"baby_cry\",\"score\":0.9877,\"sustained_s\":1.6}\n"
        );
    }

    #[test]
    fn nothing_is_wanted_any_more_after_a_failure_to_write_and_it_is_named() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let curve = CurveWriter::new(Full, Format::JsonLines);
        let mut printer = Printer::new(Vec::new(), true, Some(("curve.jsonl".to_owned(), curve)), false, 1);
        printer.opened(Path::new("a.wav"), None);
        assert!(printer.goes_on());
        let frames = vec![Frame { score: 0.5, judged: 0.4, level_dbfs: -20.0 }];
        printer.scored(&Stretch { heard_us: 50_000, first_us: 0, step_us: 50_000, frames });
        assert!(!printer.goes_on());
        assert_eq!(printer.finish().unwrap_err().place, "curve.jsonl");
    }

    #[test]
    fn the_table_names_every_recording_that_was_read() {
        let text = printed(false);
        assert!(text.contains("    1.25      3.00      1.75   0.99  a.wav"), "{text}");
        assert!(text.contains("-  b \"x\".wav"), "{text}");
        assert!(text.ends_with("1 cry in 1 of 2 recordings, 10.0 s of audio\n"), "{text}");
    }
}
