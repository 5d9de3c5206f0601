//! `--curve`: the score of every frame, as JSON lines or CSV, written while recordings are being scored.

use std::{
    io::{self, Write},
    path::Path,
};

/// One frame of a recording.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// Probability of crying.
    pub score: f32,
    /// The probability by which it was judged, before the recording's usual sounds.
    pub judged: f32,
    /// RMS level of the frame's samples.
    pub level_dbfs: f32,
}

/// How a curve is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    JsonLines,
    Csv,
}

impl Format {
    /// CSV where the name says so.
    pub fn of(path: &Path) -> Self {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("csv") => Self::Csv,
            _ => Self::JsonLines,
        }
    }
}

/// Writes curves, one recording after another.
pub struct CurveWriter<W> {
    out: W,
    format: Format,
    /// The recording's name as the format wants it.
    file: String,
    begun: bool,
}

impl<W: Write> CurveWriter<W> {
    pub fn new(out: W, format: Format) -> Self {
        Self { out, format, file: String::new(), begun: false }
    }

    /// The following frames are of this recording.
    pub fn file(&mut self, path: &Path) {
        let name = path.to_string_lossy();
        self.file = match self.format {
            // A string always has a JSON form.
            Format::JsonLines => serde_json::to_string(&name).unwrap_or_default(),
            Format::Csv if name.contains(['"', ',', '\n', '\r']) => {
                format!("\"{}\"", name.replace('"', "\"\""))
            }
            Format::Csv => name.into_owned(),
        };
    }

    /// Writes frames, the first of which starts at `first_us`, and hands them on to whoever reads.
    pub fn write(&mut self, first_us: i64, step_us: i64, frames: &[Frame]) -> io::Result<()> {
        self.begin()?;
        let mut time_us = first_us;
        for Frame { score, judged, level_dbfs } in frames {
            let (file, time) = (&self.file, time_us as f64 / 1e6);
            match self.format {
                Format::JsonLines => writeln!(
                    self.out,
                    "{{\"file\":{file},\"time\":{time:.3},\"score\":{score:.6},\"judged\":{judged:.6},\"level_dbfs\":{level_dbfs:.2}}}"
                )?,
                Format::Csv => writeln!(self.out, "{file},{time:.3},{score:.6},{judged:.6},{level_dbfs:.2}")?,
            }
            time_us += step_us;
        }
        self.out.flush()
    }

    /// Ends the file; it has its header even where there was no frame.
    pub fn finish(&mut self) -> io::Result<()> {
        self.begin()?;
        self.out.flush()
    }

    fn begin(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.begun, true) && self.format == Format::Csv {
            writeln!(self.out, "file,time,score,judged,level_dbfs")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn written(format: Format, name: &str) -> String {
        let mut bytes = Vec::new();
        let mut writer = CurveWriter::new(&mut bytes, format);
        writer.file(Path::new(name));
        let frames = [
            Frame { score: 0.25, judged: 0.5, level_dbfs: -31.456 },
            Frame { score: 1e-9, judged: 1e-9, level_dbfs: -120.0 },
        ];
        writer.write(1_950_000, 50_000, &frames).unwrap();
        writer.finish().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_have_file_time_score_and_level() {
        assert_eq!(
            written(Format::JsonLines, "a \"b\".wav"),
            "{\"file\":\"a \\\"b\\\".wav\",\"time\":1.950,\"score\":0.250000,\"judged\":0.500000,\"level_dbfs\":-31.46}\n\
             {\"file\":\"a \\\"b\\\".wav\",\"time\":2.000,\"score\":0.000000,\"judged\":0.000000,\"level_dbfs\":-120.00}\n"
        );
    }

    #[test]
    fn csv_has_a_header_and_quotes_names_that_need_it() {
        assert_eq!(
            written(Format::Csv, "a,\"b\".wav"),
            "file,time,score,judged,level_dbfs\n\"a,\"\"b\"\".wav\",1.950,0.250000,0.500000,-31.46\n\
             \"a,\"\"b\"\".wav\",2.000,0.000000,0.000000,-120.00\n"
        );
        let mut bytes = Vec::new();
        CurveWriter::new(&mut bytes, Format::Csv).finish().unwrap();
        assert_eq!(bytes, b"file,time,score,judged,level_dbfs\n");
    }

    #[test]
    fn the_name_decides_on_the_format() {
        for (name, format) in [
            ("a.csv", Format::Csv),
            ("a.CSV", Format::Csv),
            ("a.jsonl", Format::JsonLines),
            ("-", Format::JsonLines),
        ] {
            assert_eq!(Format::of(Path::new(name)), format, "{name}");
        }
    }
}
