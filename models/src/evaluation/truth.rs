//! What there is to hear in a mixture, in memory and as the files `ground_truth.csv` and `quiet_events.csv`.

use crate::bounded;
use crate::train::corpus::parse_csv;
use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;
use std::rc::Rc;
use std::str::FromStr;

/// Condition of files after DCASE 2017 task 2.
pub const DCASE: &str = "dcase";
/// Condition of files with a noise machine in a room.
pub const NURSERY: &str = "nursery";
/// Condition of long files without any crying.
pub const QUIET: &str = "quiet";

const TRUTH_FILE: &str = "ground_truth.csv";
const SOUNDS_FILE: &str = "quiet_events.csv";
const COLUMNS: &str = "file,condition,duration,present,onset,offset,label,ebr,background_class,background_source,\
                       target_path,target_source,distractor_class,distractor_onset,rt60,telephone";
const SOUND_COLUMNS: &str = "file,onset,offset,class,source,path,level_dbfs";

/// A cry.
#[derive(Debug, Clone, PartialEq)]
pub struct Cry {
    /// Seconds.
    pub onset_s: f64,
    /// Seconds.
    pub offset_s: f64,
    /// Level of the dry cry over that of the background in the same span, dB.
    pub ebr_db: f64,
    /// Clip it comes from.
    pub path: String,
    /// Collection of that clip.
    pub source: String,
}

/// A sound that is no cry.
#[derive(Debug, Clone, PartialEq)]
pub struct Sound {
    /// Seconds.
    pub onset_s: f64,
    /// Seconds.
    pub offset_s: f64,
    /// Class in the corpus.
    pub class: String,
    /// Collection.
    pub source: String,
    /// Clip.
    pub path: String,
    /// Level of its loudest half second.
    pub level_dbfs: f64,
}

/// What there is to hear in one file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Truth {
    /// Name of the file without folders.
    pub file: String,
    /// [`DCASE`], [`NURSERY`], [`QUIET`] or another.
    pub condition: String,
    /// Seconds.
    pub duration_s: f64,
    /// The cry, where there is one.
    pub cry: Option<Cry>,
    /// Classes of the background, joined by `+`.
    pub background_class: String,
    /// Collections of the background, joined by `+`.
    pub background_source: String,
    /// Class and onset (seconds) of a short sound over the background.
    pub distractor: Option<(String, f64)>,
    /// Seconds of reverberation.
    pub rt60_s: Option<f64>,
    /// Whether it went through a telephone.
    pub telephone: bool,
    /// The sounds of a quiet night.
    pub sounds: Vec<Sound>,
}

impl Truth {
    /// What crying may be confused with here: background or distractor, with the condition.
    pub fn scene(&self) -> String {
        match (&self.distractor, self.condition.as_str()) {
            (Some((class, _)), DCASE) => format!("dcase bg: {}+distractor:{class}", self.background_class),
            (None, DCASE) => format!("dcase bg: {}", self.background_class),
            (Some((class, _)), _) => format!("nursery: distractor {class}"),
            (None, _) => format!("nursery: {}", self.background_class),
        }
    }

    /// The sounds of a quiet night that a detection could come from, with half a second of tolerance.
    pub fn sounds_near(&self, onset_s: f64, offset_s: f64) -> impl Iterator<Item = &Sound> {
        self.sounds.iter().filter(move |s| onset_s < s.offset_s + 0.5 && offset_s > s.onset_s - 0.5)
    }

    /// Their classes, each once, sorted.
    pub fn classes_near(&self, onset_s: f64, offset_s: f64) -> Vec<&str> {
        let mut classes: Vec<&str> = self.sounds_near(onset_s, offset_s).map(|s| s.class.as_str()).collect();
        classes.sort_unstable();
        classes.dedup();
        classes
    }
}

/// Reads both files of a folder; the second may be missing.
///
/// # Errors
/// One line naming the file, the row and what is wrong.
pub fn read(folder: &Path) -> Result<Vec<Truth>, String> {
    let path = folder.join(TRUTH_FILE);
    let text = bounded::read_text(&path).map_err(|e| {
        format!("{}: {e}; --truth must name a folder with mixtures and their {TRUTH_FILE}", path.display())
    })?;
    let mut truths = Vec::new();
    for row in rows(&path, &text)? {
        truths.push(truth(&row)?);
    }
    let sounds = folder.join(SOUNDS_FILE);
    if sounds.exists() {
        let text = bounded::read_text(&sounds).map_err(|e| format!("{}: {e}", sounds.display()))?;
        let places: HashMap<String, usize> =
            truths.iter().enumerate().map(|(i, t): (usize, &Truth)| (t.file.clone(), i)).collect();
        for row in rows(&sounds, &text)? {
            let Some(truth) = places.get(row.text("file")?).and_then(|&i| truths.get_mut(i)) else {
                continue;
            };
            truth.sounds.push(Sound {
                onset_s: row.number("onset")?,
                offset_s: row.number("offset")?,
                class: row.text("class")?.into(),
                source: row.text("source")?.into(),
                path: row.text("path")?.into(),
                level_dbfs: row.number("level_dbfs")?,
            });
        }
    }
    Ok(truths)
}

fn truth(row: &Row<'_>) -> Result<Truth, String> {
    let cry = match row.text("present")? {
        "0" => None,
        "1" => Some(Cry {
            onset_s: row.number("onset")?,
            offset_s: row.number("offset")?,
            ebr_db: row.number("ebr")?,
            path: row.text("target_path")?.into(),
            source: row.text("target_source")?.into(),
        }),
        other => return Err(row.wrong("present", other, "0 or 1")),
    };
    let distractor = match row.text("distractor_class")? {
        "" => None,
        class => Some((class.to_owned(), row.number("distractor_onset")?)),
    };
    Ok(Truth {
        file: row.text("file")?.into(),
        condition: row.text("condition")?.into(),
        duration_s: row.number("duration")?,
        cry,
        background_class: row.text("background_class")?.into(),
        background_source: row.text("background_source")?.into(),
        distractor,
        rt60_s: if row.text("rt60")?.is_empty() { None } else { Some(row.number("rt60")?) },
        telephone: row.text("telephone")? == "1",
        sounds: Vec::new(),
    })
}

struct Row<'a> {
    path: &'a Path,
    number: usize,
    columns: Rc<HashMap<String, usize>>,
    fields: Vec<String>,
}

impl Row<'_> {
    fn text(&self, column: &str) -> Result<&str, String> {
        let place = self.columns.get(column);
        place
            .and_then(|&i| self.fields.get(i))
            .map(String::as_str)
            .ok_or_else(|| format!("{}: column {column} is missing", self.path.display()))
    }

    fn number(&self, column: &str) -> Result<f64, String> {
        let text = self.text(column)?;
        let number = f64::from_str(text.trim()).ok().filter(|x| x.is_finite());
        number.ok_or_else(|| self.wrong(column, text, "a number"))
    }

    fn wrong(&self, column: &str, got: &str, want: &str) -> String {
        format!("{}: row {}: {column} is {got:?}, must be {want}", self.path.display(), self.number)
    }
}

fn rows<'a>(path: &'a Path, text: &str) -> Result<Vec<Row<'a>>, String> {
    let mut all = parse_csv(text).into_iter();
    let header = all.next().unwrap_or_default();
    let count = header.len();
    let columns = Rc::new(header.into_iter().enumerate().map(|(i, name)| (name, i)).collect());
    let mut rows = Vec::new();
    for (i, fields) in all.enumerate() {
        if fields.len() != count {
            let (row, got) = (i + 2, fields.len());
            return Err(format!("{}: row {row} has {got} fields, the header {count}", path.display()));
        }
        rows.push(Row { path, number: i + 2, columns: Rc::clone(&columns), fields });
    }
    Ok(rows)
}

/// Writes both files into a folder.
///
/// # Errors
/// One line naming the file.
pub fn write(folder: &Path, truths: &[Truth]) -> Result<(), String> {
    let mut files = format!("{COLUMNS}\n");
    let mut sounds = format!("{SOUND_COLUMNS}\n");
    for truth in truths {
        let number = |x: Option<f64>, digits: usize| x.map_or(String::new(), |x| format!("{x:.digits$}"));
        let text = |x: Option<&String>| x.map_or(String::new(), |x| quoted(x));
        let cry = truth.cry.as_ref();
        let distractor = truth.distractor.as_ref();
        let fields = [
            quoted(&truth.file),
            quoted(&truth.condition),
            number(Some(truth.duration_s), 3),
            u8::from(cry.is_some()).to_string(),
            number(cry.map(|c| c.onset_s), 3),
            number(cry.map(|c| c.offset_s), 3),
            cry.map_or("", |_| "baby_cry").to_owned(),
            cry.map_or(String::new(), |c| c.ebr_db.to_string()),
            quoted(&truth.background_class),
            quoted(&truth.background_source),
            text(cry.map(|c| &c.path)),
            text(cry.map(|c| &c.source)),
            text(distractor.map(|d| &d.0)),
            number(distractor.map(|d| d.1), 3),
            number(truth.rt60_s, 2),
            u8::from(truth.telephone).to_string(),
        ];
        // Writing to a string cannot fail.
        let _ = writeln!(files, "{}", fields.join(","));
        for s in &truth.sounds {
            let (file, class, source, path) =
                (quoted(&truth.file), quoted(&s.class), quoted(&s.source), quoted(&s.path));
            let (onset, offset, level) = (s.onset_s, s.offset_s, s.level_dbfs);
            let _ = writeln!(sounds, "{file},{onset:.3},{offset:.3},{class},{source},{path},{level:.1}");
        }
    }
    for (name, text) in [(TRUTH_FILE, files), (SOUNDS_FILE, sounds)] {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

/// A field of comma-separated values, in quotes where it needs them (RFC 4180).
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}
